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
    /// Whether the batch makes nexthops.
    pub(crate) has_nexthops_under_way: bool,
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
    /// Opens the sockets in the network namespace of the calling thread, and learns links and nexthops. Where changes
    /// interrupt that, [`Kernel::dump`] learns them.
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
            has_nexthops_under_way: false,
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
        unless_interrupted(kernel.refresh_links())?;
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
    match unless_interrupted(dump) {
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(false),
        dumped => dumped.map(|_| true),
    }
}

/// What a dump has found; `None` where changes interrupted it each time, which is no fault of the kernel's: whoever needs
/// what it would have found asks again.
fn unless_interrupted<T>(dump: Result<T, Error>) -> Result<Option<T>, Error> {
    match dump {
        Err(Error::Interrupted(_)) => Ok(None),
        dump => dump.map(Some),
    }
}

#[cfg(test)]
mod tests;
