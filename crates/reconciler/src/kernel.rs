//! What the reconciler asks of a kernel: so that faults which a real one won't produce on demand can be
//! tested against a fake one.

use std::net::IpAddr;

use routelet_model::{Host, IfName, Key, Kind, Object, Sysctl};
use routelet_netlink::{Error, Failure, Hint, Operation};

/// A kernel whose objects can be read and written. Every call blocks until the kernel has answered, where it does not
/// say otherwise.
pub trait Kernel: Send + 'static {
    /// Carries out the operations in order and tells which failed; all others succeeded.
    fn apply(&mut self, operations: &[Operation], failures: &mut Vec<Failure>);

    /// Visits every object of a kind that is ours or lies on a device of ours; on one link only where
    /// that is given. An error means that what was visited is not all there is.
    fn dump(
        &mut self,
        kind: Kind,
        link: Option<IfName>,
        visit: &mut dyn FnMut(Key, Object),
    ) -> Result<(), Error>;

    /// Visits the routes that are not ours.
    fn dump_others(&mut self, visit: &mut dyn FnMut(Key, Object)) -> Result<(), Error>;

    /// The value of a setting; `None` where its link is not there.
    fn sysctl(&mut self, sysctl: Sysctl) -> Result<Option<u32>, Error>;

    /// Whether TX checksum offload of a link is on; `None` where the link is not there.
    fn checksum_offload(&mut self, link: IfName) -> Result<Option<bool>, Error>;

    /// The host's own links and addresses.
    fn host(&mut self) -> Result<Host, Error>;

    /// Begins to forget what connection tracking remembers of the addresses, and does not wait for it:
    /// [`Hint::Flushed`] tells what came of it.
    fn flush_flows(&mut self, addresses: Vec<IpAddr>);

    /// Takes all notifications that are queued, without waiting.
    fn drain(&mut self, hints: &mut Vec<Hint>);
}

impl Kernel for routelet_netlink::Kernel {
    fn apply(&mut self, operations: &[Operation], failures: &mut Vec<Failure>) {
        self.apply(operations, failures);
    }

    fn dump(
        &mut self,
        kind: Kind,
        link: Option<IfName>,
        visit: &mut dyn FnMut(Key, Object),
    ) -> Result<(), Error> {
        self.dump(kind, link, visit)
    }

    fn dump_others(&mut self, visit: &mut dyn FnMut(Key, Object)) -> Result<(), Error> {
        self.dump_others(visit)
    }

    fn sysctl(&mut self, sysctl: Sysctl) -> Result<Option<u32>, Error> {
        self.sysctl(sysctl)
    }

    fn checksum_offload(&mut self, link: IfName) -> Result<Option<bool>, Error> {
        self.checksum_offload(link)
    }

    fn host(&mut self) -> Result<Host, Error> {
        self.host()
    }

    fn flush_flows(&mut self, addresses: Vec<IpAddr>) {
        self.flush_flows(addresses);
    }

    fn drain(&mut self, hints: &mut Vec<Hint>) {
        self.drain(hints);
    }
}
