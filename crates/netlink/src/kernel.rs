//! The kernel as the reconciler sees it: objects in, objects out, hints of change.

use std::fs;
use std::net::IpAddr;

use routelet_model::{IfName, Sysctl};

use crate::batch::Batch;
use crate::flusher::Flusher;
use crate::frame::Frames;
use crate::hints::{self, Hint};
use crate::host::HostWatch;
use crate::monitor::{Monitor, Received};
use crate::nft::Nft;
use crate::socket::Socket;
use crate::view::View;
use crate::{Error, Ethtool, sysctl};

/// What is ours, and how much may queue.
#[derive(Debug, Clone)]
pub struct Config {
    /// Routing protocol number of our routes, nexthops and neighbours (`rtm_protocol`).
    pub protocol: u8,
    /// Names of our tunnel devices.
    pub devices: Vec<IfName>,
    /// What the names of host veths begin with.
    pub interface_prefix: String,
    /// Name of our nft table, of family inet.
    pub nft_table: String,
    /// Size of the receive buffer for notifications in bytes; 4 to 8 MiB hold a burst of some 10,000.
    pub receive_buffer: usize,
}

/// What this kernel can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// It has nexthop objects (since 5.3).
    pub nexthop_objects: bool,
    /// It filters dumps (NETLINK_GET_STRICT_CHK, since 4.20). Else we do.
    pub strict_dump: bool,
    /// It has nf_tables. Without, operations on objects of the nft table fail.
    pub nftables: bool,
    /// Its release, as `uname -r` tells it.
    pub kernel_release: String,
}

/// The kernel of the network namespace in which it was opened. See the crate's description.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) view: View,
    pub(crate) requests: Socket,
    pub(crate) batch: Batch,
    pub(crate) dumps: Socket,
    pub(crate) host: HostWatch,
    /// Our nft table, and what others do to it.
    pub(crate) nft: Option<(Nft, Monitor)>,
    pub(crate) ethtool: Ethtool,
    monitor: Monitor,
    flusher: Flusher,
    features: Features,
}

impl Kernel {
    /// Opens the sockets in the network namespace of the calling thread, and learns links and nexthops.
    ///
    /// Sysctls and flows are those of the thread that uses the `Kernel`: keep it on a thread of the same namespace.
    pub fn open(config: Config) -> Result<Self, Error> {
        let requests = Socket::open()?;
        let mut dumps = Socket::open()?;
        let strict_dump = dumps.enable_strict_dumps();
        // The monitor listens before anything is dumped, so that no change falls between.
        let monitor = Monitor::open(config.receive_buffer, requests.port())?;
        let nft = match Nft::open(config.nft_table.clone())? {
            Some(nft) => {
                let monitor = Monitor::open_nft(config.receive_buffer, nft.port())?;
                Some((nft, monitor))
            }
            None => None,
        };
        let kernel_release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel_release = kernel_release.trim().to_owned();
        let mut kernel = Self {
            view: View::new(config),
            requests,
            batch: Batch::default(),
            dumps,
            ethtool: Ethtool::open()?,
            monitor,
            flusher: Flusher::new(),
            host: HostWatch::default(),
            features: Features {
                nexthop_objects: true,
                strict_dump,
                nftables: nft.is_some(),
                kernel_release,
            },
            nft,
        };
        kernel.refresh_links()?;
        kernel.features.nexthop_objects = is_known(kernel.dump_nexthops(None))?;
        Ok(kernel)
    }

    /// Has [`Kernel::host`] tell which address the kernel would send from to each of these, and a change of a route to
    /// one of them taken for one of the host.
    pub fn follow_ways_to(&mut self, destinations: Vec<IpAddr>) {
        self.host.destinations = destinations;
    }

    /// Has dumps filtered by us, as on a kernel that does not.
    #[cfg(test)]
    fn filter_itself(&mut self) {
        self.dumps = Socket::open().unwrap();
        self.features.strict_dump = false;
    }

    /// What this kernel can do.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The present value of a setting; `None` where the link, or the family, is not there.
    pub fn sysctl(&mut self, sysctl: Sysctl) -> Result<Option<u32>, Error> {
        sysctl::read(sysctl)
    }

    /// Whether TX checksum offload of a link is on; `None` where the link is not there.
    pub fn checksum_offload(&mut self, link: IfName) -> Result<Option<bool>, Error> {
        match self.ethtool.tx_checksum(link) {
            Ok(on) => Ok(Some(on)),
            Err(Error::NoSuchLink(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to forget what connection tracking remembers of the addresses (see [`flush_flows`](crate::flush_flows)),
    /// on a thread of its own; [`Kernel::drain`] tells what came of it.
    pub fn flush_flows(&mut self, addresses: Vec<IpAddr>) {
        self.flusher.order(addresses);
    }

    /// Reads all notifications that are queued, without waiting, and adds what they mean to `hints`. What
    /// [`Kernel::apply`] has written comes back only for links, FDB entries and sysctls.
    pub fn drain(&mut self, hints: &mut Vec<Hint>) {
        let mut lost = false;
        loop {
            match self.monitor.receive() {
                Received::Nothing => break,
                Received::Lost => lost = true,
                Received::Datagram(datagram) => {
                    for frame in Frames::new(datagram) {
                        let read = frame
                            .and_then(|frame| hints::read(&frame, &mut self.view, &mut self.host, hints));
                        if let Err(error) = read {
                            tracing::warn!(%error, "a kernel notification could not be read");
                            lost = true;
                        }
                    }
                }
            }
        }
        lost |= self.drain_nft(hints);
        if std::mem::take(&mut self.view.nexthops_in_doubt) && self.features.nexthop_objects {
            lost |= self.dump_nexthops(None).is_err();
        }
        if lost {
            hints.push(Hint::Lost);
        }
        hints.extend(self.flusher.take().map(Hint::Flushed));
    }

    /// Reads what others have done to nft tables. True where something of that was lost.
    fn drain_nft(&mut self, hints: &mut Vec<Hint>) -> bool {
        let Some((nft, monitor)) = &mut self.nft else {
            return false;
        };
        let (mut lost, mut touched) = (false, false);
        loop {
            match monitor.receive() {
                Received::Nothing => break,
                Received::Lost => lost = true,
                Received::Datagram(datagram) => {
                    for frame in Frames::new(datagram) {
                        match frame {
                            Ok(frame) => touched |= nft.is_about_us(frame.kind, frame.payload),
                            Err(_) => lost = true,
                        }
                    }
                }
            }
        }
        hints.extend(touched.then_some(Hint::NftTouched));
        lost
    }

    /// Waits until there are notifications. Must be called within a tokio runtime with I/O, always the same one.
    /// May be dropped at any time.
    pub async fn ready(&mut self) {
        let nft = async {
            match &mut self.nft {
                Some((_, monitor)) => monitor.ready().await,
                None => std::future::pending().await,
            }
        };
        let ready = tokio::select! {
            ready = self.monitor.ready() => ready,
            ready = nft => ready,
            () = self.flusher.ready() => Ok(()),
        };
        if let Err(error) = ready {
            tracing::error!(%error, "waiting for kernel notifications is impossible: changes by others are only found by the periodic audit");
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the kernel knows a kind of object, by its answer to a dump.
fn is_known<T>(dump: Result<T, Error>) -> Result<bool, Error> {
    match dump {
        Ok(_) => Ok(true),
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
    use routelet_model::{Key, Kind, Object, RouteTarget};

    use super::*;
    use crate::nexthop::NexthopMessage;
    use crate::setup::VethEnd;
    use crate::{Failure, Netns, Operation, Setup, Verb};

    const OURS: u8 = 80;

    /// A kernel with a nexthop on a link of the host and a route through it.
    fn with_nexthop() -> (Kernel, [Operation; 2]) {
        let mut setup = Setup::open().unwrap();
        let (near, far) = ("near", "far");
        let here = Netns::current().unwrap();
        let end = |name| VethEnd {
            name,
            ..VethEnd::default()
        };
        setup.add_veth(end(near), end(far), &here).unwrap();
        setup.set_up(near).unwrap();
        setup.set_up(far).unwrap();
        let config = Config {
            protocol: OURS,
            devices: vec![near.parse().unwrap()],
            interface_prefix: "cali".to_owned(),
            nft_table: "routelet".to_owned(),
            receive_buffer: 1 << 20,
        };
        let mut kernel = Kernel::open(config).unwrap();
        let (link, gateway) = (near.parse().unwrap(), [10, 0, 1, 0].into());
        let operations = [
            (Key::Nexthop { link, gateway }, Object::Nexthop),
            (
                Key::route("10.0.1.0/24".parse().unwrap()),
                Object::Route(RouteTarget::Nexthop { link, gateway }),
            ),
        ];
        let operations = operations.map(|(key, object)| Operation {
            verb: Verb::Create,
            key,
            object,
        });
        let mut failures = Vec::new();
        kernel.apply(&operations, &mut failures);
        assert!(failures.is_empty(), "{failures:?}");
        (kernel, operations)
    }

    fn dump(kernel: &mut Kernel, kind: Kind) -> Vec<(Key, Object)> {
        let mut found = Vec::new();
        kernel
            .dump(kind, None, &mut |key, object| found.push((key, object)))
            .unwrap();
        found
    }

    #[test]
    fn without_nf_tables_the_table_is_refused_and_all_else_goes_on() {
        Netns::new()
            .unwrap()
            .run(|| {
                let (mut kernel, operations) = with_nexthop();
                kernel.nft = None;
                let table = Operation {
                    verb: Verb::Create,
                    key: Key::NftTable,
                    object: Object::NftTable,
                };
                let mut failures = Vec::new();
                let mut delete = operations[1].clone();
                delete.verb = Verb::Delete;
                kernel.apply(&[table, delete], &mut failures);
                assert!(
                    matches!(
                        failures[..],
                        [Failure {
                            index: 0,
                            error: Error::NoNftables
                        }]
                    ),
                    "{failures:?}"
                );
                assert_eq!(dump(&mut kernel, Kind::Route), []);
                for kind in [Kind::NftTable, Kind::NftElement, Kind::NftRules] {
                    assert_eq!(dump(&mut kernel, kind), []);
                }
                kernel.drain(&mut Vec::new());
            })
            .unwrap();
    }

    #[test]
    fn a_kernel_without_nexthop_objects_is_told_from_one_that_fails() {
        let refused = |errno| Error::Refused { errno, message: None };
        assert!(is_known(Ok(())).unwrap());
        assert!(!is_known::<()>(Err(refused(libc::EOPNOTSUPP))).unwrap());
        assert!(is_known::<()>(Err(refused(libc::ENOBUFS))).is_err());
    }

    /// As before 4.20: each dump shows all that there is, whatever it is asked for.
    #[test]
    fn dumps_that_the_kernel_does_not_filter_show_the_same() {
        Netns::new()
            .unwrap()
            .run(|| {
                let (mut kernel, [nexthop, route]) = with_nexthop();
                let Key::Nexthop { link, .. } = nexthop.key else {
                    unreachable!()
                };
                let mut setup = Setup::open().unwrap();
                let other = crate::setup::RouteSpec::blackhole("10.9.0.0/16".parse().unwrap());
                setup.add_route(other.protocol(4)).unwrap();
                let all = |kernel: &mut Kernel, link| {
                    let mut found = Vec::new();
                    for kind in Kind::ALL {
                        kernel
                            .dump(kind, link, &mut |key, object| found.push((key, object)))
                            .unwrap();
                    }
                    found
                };
                let links = [None, Some(link), Some("far".parse().unwrap())];
                let filtered = links.map(|link| all(&mut kernel, link));
                assert!(filtered[0].contains(&(route.key, route.object)));
                kernel.filter_itself();
                assert_eq!(links.map(|link| all(&mut kernel, link)), filtered);
            })
            .unwrap();
    }

    #[test]
    fn a_nexthop_changed_under_its_id_is_mended_with_its_routes() {
        Netns::new()
            .unwrap()
            .run(|| {
                let (mut kernel, [mut nexthop, route]) = with_nexthop();
                kernel.drain(&mut Vec::new());
                let Key::Nexthop { link, gateway } = nexthop.key else {
                    unreachable!()
                };
                let (id, on) = (
                    kernel.view.nexthops.id(link, gateway).unwrap(),
                    kernel.index_of(link).unwrap(),
                );
                let mut other = Socket::open().unwrap();
                for (protocol, gateway) in [(OURS, [10, 0, 9, 9]), (4, [10, 0, 1, 0])] {
                    let changed = NexthopMessage::new(id, protocol, on, gateway.into(), true);
                    other.request(&changed, NLM_F_CREATE | NLM_F_REPLACE).unwrap();
                    let mut hints = Vec::new();
                    kernel.drain(&mut hints);
                    assert!(
                        hints.contains(&Hint::Seen(nexthop.key, Object::Foreign { protocol })),
                        "{hints:?}"
                    );
                    let found = dump(&mut kernel, Kind::Nexthop);
                    assert_eq!(found, [(nexthop.key, Object::Foreign { protocol })]);
                    nexthop.verb = Verb::Replace;
                    kernel.apply(std::slice::from_ref(&nexthop), &mut Vec::new());
                    assert_eq!(dump(&mut kernel, Kind::Nexthop), [(nexthop.key, Object::Nexthop)]);
                    assert_eq!(
                        dump(&mut kernel, Kind::Route),
                        [(route.key, route.object.clone())]
                    );
                }
            })
            .unwrap();
    }

    #[test]
    fn a_second_nexthop_for_a_gateway_is_a_stray_that_can_be_deleted() {
        Netns::new()
            .unwrap()
            .run(|| {
                let (mut kernel, [nexthop, _]) = with_nexthop();
                let Key::Nexthop { link, gateway } = nexthop.key else {
                    unreachable!()
                };
                let second = NexthopMessage::new(7, OURS, kernel.index_of(link).unwrap(), gateway, true);
                Socket::open().unwrap().request(&second, NLM_F_CREATE).unwrap();
                let stray = (Key::StrayNexthop { id: 7 }, Object::Foreign { protocol: OURS });
                assert_eq!(
                    dump(&mut kernel, Kind::Nexthop),
                    [stray.clone(), (nexthop.key, Object::Nexthop)]
                );
                let delete = Operation {
                    verb: Verb::Delete,
                    key: stray.0,
                    object: stray.1,
                };
                kernel.apply(&[delete], &mut Vec::new());
                assert_eq!(dump(&mut kernel, Kind::Nexthop), [(nexthop.key, Object::Nexthop)]);
            })
            .unwrap();
    }

    #[test]
    fn a_link_that_loses_its_carrier_takes_its_nexthops_along_without_a_word() {
        Netns::new()
            .unwrap()
            .run(|| {
                let (mut kernel, operations) = with_nexthop();
                kernel.drain(&mut Vec::new());
                Setup::open().unwrap().set_down("far").unwrap();
                // The kernel acts on a lost carrier from a worker.
                let deadline = Instant::now() + Duration::from_secs(10);
                while !dump(&mut kernel, Kind::Nexthop).is_empty() {
                    assert!(Instant::now() < deadline, "the nexthop stays");
                    std::thread::yield_now();
                }
                let mut hints = Vec::new();
                kernel.drain(&mut hints);
                assert!(!hints.contains(&Hint::Gone(operations[0].key)), "{hints:?}");
                let Key::Nexthop { link, gateway } = operations[0].key else {
                    unreachable!()
                };
                assert_eq!(kernel.view.nexthops.id(link, gateway), None);
            })
            .unwrap();
    }

    #[test]
    fn a_nexthop_that_is_there_though_forgotten_is_found_again() {
        Netns::new()
            .unwrap()
            .run(|| {
                let (mut kernel, operations) = with_nexthop();
                let Key::Nexthop { link, .. } = operations[0].key else {
                    unreachable!()
                };
                kernel.view.nexthops.forget_link(link);
                let mut failures = Vec::new();
                kernel.apply(&operations[..1], &mut failures);
                assert!(failures.is_empty(), "{failures:?}");
                assert_eq!(
                    dump(&mut kernel, Kind::Nexthop),
                    [(operations[0].key, Object::Nexthop)]
                );
            })
            .unwrap();
    }
}
