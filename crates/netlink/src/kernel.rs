//! The kernel as the reconciler sees it: objects in, objects out, hints of change.

use std::fs;

use netlink_packet_route::RouteNetlinkMessage as Message;
use routelet_model::{Family, Host, IfName, Key, Kind, Object, Sysctl};

use crate::address::SeenAddress;
use crate::attributes::family_number;
use crate::batch::Batch;
use crate::frame::Frames;
use crate::hints::{self, Hint};
use crate::host::HostWatch;
use crate::link::SeenLink;
use crate::monitor::{Monitor, Received};
use crate::nexthop::{NexthopMessage, SeenNexthop};
use crate::socket::Socket;
use crate::view::View;
use crate::{Error, address, link, neighbour, route, sysctl};

/// What is ours, and how much may queue.
#[derive(Debug, Clone)]
pub struct Config {
    /// Routing protocol number of our routes, nexthops and neighbours (`rtm_protocol`).
    pub protocol: u8,
    /// Names of our VXLAN devices.
    pub devices: Vec<IfName>,
    /// What the names of host veths begin with.
    pub interface_prefix: String,
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
    /// Its release, as `uname -r` tells it.
    pub kernel_release: String,
}

/// The kernel of the network namespace in which it was opened. See the crate's description.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) view: View,
    pub(crate) requests: Socket,
    pub(crate) batch: Batch,
    dumps: Socket,
    monitor: Monitor,
    host: HostWatch,
    features: Features,
}

impl Kernel {
    /// Opens the sockets in the network namespace of the calling thread, and learns links and nexthops.
    ///
    /// Sysctls are those of the thread that uses the `Kernel`: keep it on a thread of the same namespace.
    pub fn open(config: Config) -> Result<Self, Error> {
        let requests = Socket::open()?;
        let mut dumps = Socket::open()?;
        let strict_dump = dumps.enable_strict_dumps();
        // The monitor listens before anything is dumped, so that no change falls between.
        let monitor = Monitor::open(config.receive_buffer, requests.port())?;
        let kernel_release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel_release = kernel_release.trim().to_owned();
        let mut kernel = Self {
            view: View::new(config),
            requests,
            batch: Batch::default(),
            dumps,
            monitor,
            host: HostWatch::default(),
            features: Features {
                nexthop_objects: true,
                strict_dump,
                kernel_release,
            },
        };
        kernel.refresh_links()?;
        match kernel.dump_nexthops(None) {
            Ok(_) => {}
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => kernel.features.nexthop_objects = false,
            Err(error) => return Err(error),
        }
        Ok(kernel)
    }

    /// What this kernel can do.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Visits every object of the kind that carries our mark, on one link only if it is given: routes and nexthops
    /// of our protocol; all addresses (but IPv6 link-local ones), FDB entries and permanent neighbours on our
    /// devices; our devices and the host veths. Sysctls cannot be dumped: see [`Kernel::sysctl`].
    ///
    /// A table that does not exist is empty. A dump that changes interrupt is begun again, and fails with
    /// [`Error::Interrupted`] if that does not end; then nothing has been visited.
    pub fn dump(
        &mut self,
        kind: Kind,
        link: Option<IfName>,
        visit: &mut dyn FnMut(Key, Object),
    ) -> Result<(), Error> {
        let mut found = self.dump_once(kind, link)?;
        if self.view.links.take_missed() {
            // A link is there whose notification is still queued.
            self.refresh_links()?;
            found = self.dump_once(kind, link)?;
            self.view.links.take_missed();
        }
        for (key, object) in found {
            visit(key, object);
        }
        Ok(())
    }

    fn dump_once(&mut self, kind: Kind, link: Option<IfName>) -> Result<Vec<(Key, Object)>, Error> {
        self.view.links.take_missed();
        let index = match link
            .filter(|_| kind != Kind::Link)
            .map(|link| self.index_of(link))
        {
            None => None,
            Some(Ok(index)) => Some(index),
            Some(Err(Error::NoSuchLink(_))) => return Ok(Vec::new()),
            Some(Err(error)) => return Err(error),
        };
        let mut found = Vec::new();
        match kind {
            Kind::Link => found = self.dump_links(link)?,
            Kind::Sysctl => {}
            Kind::Nexthop => found = self.dump_nexthops(index).or_else(empty)?,
            Kind::Address | Kind::Fdb | Kind::Neighbour => {
                for device in self.view.config.devices.clone() {
                    if link.is_none_or(|link| link == device)
                        && let Ok(index) = self.index_of(device)
                    {
                        self.dump_device(kind, index, &mut found)?;
                    }
                }
            }
            Kind::Route => {
                let protocol = self.view.config.protocol;
                for family in Family::ALL {
                    let request = match index {
                        None => route::get(family, protocol),
                        Some(index) => route::get_of_link(family, protocol, index),
                    };
                    self.dump_kind(kind, Some(family), Message::GetRoute(request), &mut found)?;
                }
                // A kernel that does not filter tells all routes.
                found.retain(|(_, object)| match object {
                    Object::Foreign { protocol: owner } => *owner == protocol,
                    Object::Route(target) => link.is_none() || target.link() == link,
                    _ => false,
                });
            }
        }
        Ok(found)
    }

    fn dump_device(&mut self, kind: Kind, index: u32, found: &mut Vec<(Key, Object)>) -> Result<(), Error> {
        if kind == Kind::Fdb {
            self.dump_kind(
                kind,
                None,
                Message::GetNeighbour(neighbour::get_fdb(index)),
                found,
            )?;
            // An address with several remotes comes once for each: none that we make.
            found.dedup_by(|next, previous| {
                let again = next.0 == previous.0;
                if again {
                    previous.1 = Object::Foreign { protocol: 0 };
                }
                again
            });
            return Ok(());
        }
        for family in Family::ALL {
            let request = match kind {
                Kind::Address => Message::GetAddress(address::get(family, index)),
                _ => Message::GetNeighbour(neighbour::get(family, index)),
            };
            let before = found.len();
            self.dump_kind(kind, Some(family), request, found)?;
            let name = self.view.links.name(index);
            // A kernel that does not filter tells those of all links.
            let mut position = 0;
            found.retain(|(key, _)| {
                position += 1;
                position <= before || key.link() == name
            });
        }
        Ok(())
    }

    /// Dumps what the view can read by itself. A kernel without the family answers for all families.
    fn dump_kind(
        &mut self,
        kind: Kind,
        family: Option<Family>,
        request: Message,
        found: &mut Vec<(Key, Object)>,
    ) -> Result<(), Error> {
        let view = &self.view;
        let family = family.map(family_number);
        let before = found.len();
        let result = self.dumps.dump(&request, found, |_, payload| match family {
            Some(family) if payload.first() != Some(&family) => Ok(None),
            _ => view.read(kind, payload),
        });
        result.or_else(|error| {
            found.truncate(before);
            empty(error)
        })
    }

    fn dump_links(&mut self, link: Option<IfName>) -> Result<Vec<(Key, Object)>, Error> {
        let seen = match link {
            Some(name) => self.get_link(name)?.into_iter().collect(),
            None => self.refresh_links()?,
        };
        Ok(seen
            .iter()
            .filter_map(|link| self.view.link_object(link))
            .collect())
    }

    /// Learns all links anew.
    fn refresh_links(&mut self) -> Result<Vec<SeenLink>, Error> {
        let mut seen = Vec::new();
        self.dumps
            .dump(&Message::GetLink(link::get_all()), &mut seen, |_, payload| {
                SeenLink::read(payload)
            })?;
        self.view.links.clear();
        for link in &seen {
            self.view.learn_link(link);
        }
        Ok(seen)
    }

    /// Learns one link anew; forgets it if it is not there.
    pub(crate) fn refresh_link(&mut self, name: IfName) -> Result<(), Error> {
        self.get_link(name).map(|_| ())
    }

    fn get_link(&mut self, name: IfName) -> Result<Option<SeenLink>, Error> {
        match self.dumps.get(&Message::GetLink(link::get(name)), SeenLink::read) {
            Ok(Some(link)) => {
                self.view.learn_link(&link);
                Ok(Some(link))
            }
            Ok(None) => Ok(None),
            Err(error) if error.errno() == Some(libc::ENODEV) => {
                if let Some(index) = self.view.links.index(name) {
                    self.view.unlearn_link(index, name);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The index of a link, which the kernel is asked for if it is not known yet.
    pub(crate) fn index_of(&mut self, name: IfName) -> Result<u32, Error> {
        if let Some(index) = self.view.links.index(name) {
            return Ok(index);
        }
        self.get_link(name)?
            .map(|link| link.index)
            .ok_or(Error::NoSuchLink(name))
    }

    fn dump_nexthops(&mut self, index: Option<u32>) -> Result<Vec<(Key, Object)>, Error> {
        let View {
            config,
            links,
            nexthops,
            ..
        } = &mut self.view;
        let mut seen = Vec::new();
        self.dumps
            .dump(&NexthopMessage::dump(index), &mut seen, |_, payload| {
                SeenNexthop::read(payload, links).map(Some)
            })?;
        if index.is_none() {
            nexthops.retain(&seen);
        }
        Ok(seen
            .iter()
            .filter_map(|nexthop| nexthops.learn(nexthop, config.protocol))
            .collect())
    }

    /// Asks who has a nexthop id; returns its key if it is what we would have made.
    pub(crate) fn learn_nexthop(&mut self, id: u32) -> Option<Key> {
        let View {
            config,
            links,
            nexthops,
            ..
        } = &mut self.view;
        let seen = self
            .dumps
            .get(&NexthopMessage::get(id), |payload| {
                SeenNexthop::read(payload, links)
            })
            .ok()?;
        let (key, object) = nexthops.learn(&seen, config.protocol)?;
        (object == Object::Nexthop).then_some(key)
    }

    /// The present value of a setting; `None` where the link, or the family, is not there.
    pub fn sysctl(&mut self, sysctl: Sysctl) -> Result<Option<u32>, Error> {
        sysctl::read(sysctl)
    }

    /// The links that are neither our devices nor host veths, with their addresses but for IPv6 link-local ones.
    pub fn host(&mut self) -> Result<Host, Error> {
        let mut links = self.refresh_links()?;
        links.retain(|link| !self.view.is_ours(link.name));
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let request = Message::GetAddress(address::get(family, 0));
            let result = self.dumps.dump(&request, &mut addresses, |_, payload| {
                let same = payload.first() == Some(&family_number(family));
                if same {
                    SeenAddress::read(payload)
                } else {
                    Ok(None)
                }
            });
            result.or_else(empty)?;
        }
        addresses.retain(|seen| links.iter().any(|link| link.index == seen.index));
        Ok(self.host.replace(&links, &addresses))
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
        if std::mem::take(&mut self.view.nexthops_in_doubt) && self.features.nexthop_objects {
            lost |= self.dump_nexthops(None).is_err();
        }
        if lost {
            hints.push(Hint::Lost);
        }
    }

    /// Waits until there are notifications. Must be called within a tokio runtime with I/O, always the same one.
    /// May be dropped at any time.
    pub async fn ready(&mut self) {
        if let Err(error) = self.monitor.ready().await {
            tracing::error!(%error, "waiting for kernel notifications is impossible: changes by others are only found by the periodic audit");
            std::future::pending::<()>().await;
        }
    }
}

/// What a dump of something that the kernel does not have comes to: nothing.
fn empty<T: Default>(error: Error) -> Result<T, Error> {
    match error.errno() {
        Some(libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENODEV) => Ok(T::default()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
    use routelet_model::RouteTarget;

    use super::*;
    use crate::setup::VethEnd;
    use crate::{Netns, Operation, Setup, Verb};

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
            devices: Vec::new(),
            interface_prefix: "cali".to_owned(),
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
                    let changed = NexthopMessage::new(id, protocol, on, gateway.into());
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
                let second = NexthopMessage::new(7, OURS, kernel.index_of(link).unwrap(), gateway);
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
