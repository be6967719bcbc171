//! Operations, and the messages that carry them out.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage as Message;
use routelet_model::{IfName, Key, Kind, Link, LinkKind, Object, RouteTarget};

use crate::nexthop::NexthopMessage;
use crate::route::Hop;
use crate::{Error, Kernel, address, link, neighbour, nft, onlink, route, sysctl};

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// What is to be done to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What.
    pub verb: Verb,
    /// To which object.
    pub key: Key,
    /// How the object shall be; in a deletion: how it is now, so that nothing else is hit.
    pub object: Object,
}

/// What can be done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Make it, where nothing stands. A route, nexthop or link that is there already is a failure
    /// ([`Error::is_already_exists`]), as is an IPv6 address that is there with another prefix length; an address,
    /// neighbour, FDB entry, sysctl or offload is else as it shall be afterwards.
    Create,
    /// Make what is there into what shall be. Of a link: MAC address, MTU, up state and that it belongs to no other only.
    Replace,
    /// The same where something odd stands, which may be several routes of anyone's under one key: none is left beside
    /// it.
    Supplant,
    /// Take it away. That it is gone already is no failure. Of a sysctl and of checksum offload: nothing.
    Delete,
}

/// An operation that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its place among the operations.
    pub index: usize,
    /// Why.
    pub error: Error,
}

impl Kernel {
    /// Carries out the operations in their order, many messages in one send. What failed is added to `failures`;
    /// all others have been carried out.
    ///
    /// Operations on objects of the nft table that follow each other are one transaction or a few.
    ///
    /// An operation on a nexthop whose id turns out to be another's fails with EEXIST, and gets another id when it
    /// is tried again. Until then the routes through it fail as well ([`Error::NoSuchNexthop`]).
    pub fn apply(&mut self, operations: &[Operation], failures: &mut Vec<Failure>) {
        let first = failures.len();
        self.clear_rivals(operations, failures);
        let blocked: Vec<usize> = failures[first..].iter().map(|failure| failure.index).collect();
        let mut start = 0;
        let is_nft = |operation: &Operation| nft::concerns(&operation.key);
        for run in operations.chunk_by(|one, next| is_nft(one) == is_nft(next)) {
            if is_nft(&run[0]) {
                self.apply_nft(start, run, failures);
            } else {
                let run = (start..start + run.len()).filter(|index| !blocked.contains(index));
                self.apply_run(run, operations, failures);
            }
            start += run.len();
        }
        failures[first..].sort_by_key(|failure| failure.index);
    }

    fn apply_nft(&mut self, start: usize, operations: &[Operation], failures: &mut Vec<Failure>) {
        match &mut self.nft {
            Some((nft, _)) => nft.apply(start, operations, failures),
            None => failures.extend((start..start + operations.len()).map(|index| Failure {
                index,
                error: Error::NoNftables,
            })),
        }
    }

    fn apply_run(
        &mut self,
        run: impl Iterator<Item = usize>,
        operations: &[Operation],
        failures: &mut Vec<Failure>,
    ) {
        for index in run {
            let operation = &operations[index];
            if self.batch.is_full() {
                self.flush(operations, failures);
            }
            if let Err(error) = self.carry_out(index, operation, operations, failures)
                && !is_success(operation, &error)
            {
                failures.push(Failure { index, error });
            }
        }
        self.flush(operations, failures);
    }

    /// Puts an operation into the batch, or does at once what cannot wait or has no message.
    pub(crate) fn carry_out(
        &mut self,
        index: usize,
        operation: &Operation,
        operations: &[Operation],
        failures: &mut Vec<Failure>,
    ) -> Result<(), Error> {
        let Operation { verb, key, object } = operation;
        match (*key, object) {
            (Key::Link(name), Object::Link(link)) if matches!(link.kind, LinkKind::Ipip { .. }) => {
                self.flush(operations, failures);
                self.bring_about_ipip(*verb, name, link)
            }
            (Key::Link(name), object) => {
                self.push_link(index, *verb, name, object)?;
                let before = self.view.links.index(name);
                self.flush(operations, failures);
                self.refresh_link(name)?;
                if let Some(before) = before.filter(|_| *verb == Verb::Delete)
                    && self.view.links.index(name) != Some(before)
                {
                    self.view.links.mark_deleted(before);
                }
                Ok(())
            }
            (Key::Sysctl(_), _) if *verb == Verb::Delete => Ok(()),
            (Key::Sysctl(sysctl), Object::Sysctl(value)) => {
                self.flush(operations, failures);
                sysctl::write(sysctl, *value)
            }
            (Key::ChecksumOffload(_), _) if *verb == Verb::Delete => Ok(()),
            (Key::ChecksumOffload(link), Object::ChecksumOffload(on)) => {
                self.flush(operations, failures);
                self.ethtool.set_tx_checksum(link, *on)
            }
            (Key::Address { link, address }, _) => self.push_address(index, *verb, link, address),
            (Key::Fdb { link, mac }, object) => {
                let on = self.index_of(link)?;
                match (verb, object) {
                    (Verb::Delete, object) => {
                        let remote = if let Object::Fdb(remote) = object {
                            Some(*remote)
                        } else {
                            None
                        };
                        let message = Message::DelNeighbour(neighbour::fdb(on, mac, remote));
                        self.batch.push(index, &message, 0);
                    }
                    (_, Object::Fdb(remote)) => {
                        let message = Message::NewNeighbour(neighbour::fdb(on, mac, Some(*remote)));
                        self.batch.push(index, &message, REPLACE);
                    }
                    _ => return Err(Error::Unsupported(*key)),
                }
                Ok(())
            }
            (Key::Neighbour { link, address }, object) => {
                let on = self.index_of(link)?;
                let protocol = self.view.config.protocol;
                match (verb, object) {
                    (Verb::Delete, _) => {
                        let message = neighbour::neighbour(on, address, None, protocol);
                        self.batch.push(index, &Message::DelNeighbour(message), 0);
                    }
                    (_, Object::Neighbour(mac)) => {
                        let message = neighbour::neighbour(on, address, Some(*mac), protocol);
                        self.batch.push(index, &Message::NewNeighbour(message), REPLACE);
                    }
                    _ => return Err(Error::Unsupported(*key)),
                }
                Ok(())
            }
            (Key::Nexthop { link, gateway }, _) => self.push_nexthop(index, *verb, link, gateway),
            (Key::StrayNexthop { id }, _) if *verb == Verb::Delete => {
                self.batch.push(index, &NexthopMessage::delete(id), 0);
                self.view.nexthops.forget(id);
                Ok(())
            }
            // Done before the batch.
            (Key::Route { .. }, Object::OddRoutes) if *verb == Verb::Delete => Ok(()),
            (Key::Route { destination, metric }, object) => {
                if self.has_nexthops_under_way && matches!(object, Object::Route(RouteTarget::Nexthop { .. }))
                {
                    // Their ids may turn out to be others', to whose gateways the routes would lead.
                    self.flush(operations, failures);
                }
                self.push_route(index, *verb, destination, metric, object)
            }
            _ => Err(Error::Unsupported(*key)),
        }
    }

    fn push_link(&mut self, index: usize, verb: Verb, name: IfName, object: &Object) -> Result<(), Error> {
        match (verb, object) {
            (Verb::Create, Object::Link(link)) => {
                let Link {
                    kind: LinkKind::Vxlan(vxlan),
                    ..
                } = &**link
                else {
                    return Err(Error::Unsupported(Key::Link(name)));
                };
                let parent = vxlan.parent.map(|parent| self.index_of(parent)).transpose()?;
                let message = Message::NewLink(link::create_vxlan(name, link, vxlan, parent));
                self.batch.push(index, &message, CREATE);
            }
            (Verb::Replace | Verb::Supplant, Object::Link(link)) => {
                let seen = self.get_link(name)?.ok_or(Error::NoSuchLink(name))?;
                let message = Message::SetLink(link::set(&seen, link));
                self.batch.push(index, &message, 0);
            }
            (Verb::Delete, _) => {
                let message = Message::DelLink(link::by_index(self.index_of(name)?));
                self.batch.push(index, &message, 0);
            }
            _ => return Err(Error::Unsupported(Key::Link(name))),
        }
        Ok(())
    }

    fn push_address(&mut self, index: usize, verb: Verb, link: IfName, address: IpNet) -> Result<(), Error> {
        let message = address::message(self.index_of(link)?, address);
        match verb {
            Verb::Create => self.batch.push(index, &Message::NewAddress(message), CREATE),
            Verb::Replace | Verb::Supplant => {
                self.batch.push(index, &Message::NewAddress(message), REPLACE);
            }
            Verb::Delete => self.batch.push(index, &Message::DelAddress(message), 0),
        }
        Ok(())
    }

    fn push_nexthop(&mut self, index: usize, verb: Verb, link: IfName, gateway: IpAddr) -> Result<(), Error> {
        if verb == Verb::Delete {
            // Without an id it is gone already, or never was.
            if let Some(id) = self.view.nexthops.id(link, gateway) {
                self.batch.push(index, &NexthopMessage::delete(id), 0);
                self.view.nexthops.forget(id);
            }
            return Ok(());
        }
        let on = self.index_of(link)?;
        let id = self.view.nexthops.allocate(link, gateway);
        let onlink = self.view.is_device(link);
        self.has_nexthops_under_way = true;
        let message = NexthopMessage::new(id, self.view.config.protocol, on, gateway, onlink);
        self.batch.push(
            index,
            &message,
            if verb == Verb::Create { CREATE } else { REPLACE },
        );
        Ok(())
    }

    fn push_route(
        &mut self,
        index: usize,
        verb: Verb,
        destination: IpNet,
        metric: u32,
        object: &Object,
    ) -> Result<(), Error> {
        let ours = self.view.config.protocol;
        let (protocol, hop) = match (verb, object) {
            (_, Object::Route(target)) => (ours, self.hop(target)?),
            _ => return Err(Error::Unsupported(Key::Route { destination, metric })),
        };
        let message = route::message(destination, metric, protocol, hop);
        match verb {
            Verb::Create => self.batch.push(index, &Message::NewRoute(message), CREATE),
            Verb::Replace | Verb::Supplant => self.batch.push(index, &Message::NewRoute(message), REPLACE),
            Verb::Delete => self.batch.push(index, &Message::DelRoute(message), 0),
        }
        Ok(())
    }

    fn hop(&mut self, target: &RouteTarget) -> Result<Hop, Error> {
        Ok(match *target {
            RouteTarget::Link(link) => Hop::Link(self.index_of(link)?),
            RouteTarget::Nexthop { link, gateway } => match self.view.nexthops.id(link, gateway) {
                Some(id) => Hop::Nexthop(id),
                None => return Err(Error::NoSuchNexthop { link, gateway }),
            },
            RouteTarget::Gateway { link, gateway } => Hop::Gateway {
                link: self.index_of(link)?,
                gateway,
                onlink: self.view.is_device(link),
            },
            RouteTarget::Blackhole => Hop::Blackhole,
        })
    }

    /// Sends the batch and sorts out what became of it.
    fn flush(&mut self, operations: &[Operation], failures: &mut Vec<Failure>) {
        self.has_nexthops_under_way = false;
        let view = &mut self.view;
        let (mut ids_in_use, mut again, mut there) = (Vec::new(), Vec::new(), Vec::new());
        self.requests.send_batch(&mut self.batch, &mut |index, error| {
            let operation = &operations[index];
            if error.errno() == Some(libc::ENODEV)
                && let Some(on) = operation.key.link().and_then(|link| view.links.index(link))
            {
                // Deleted, and perhaps made anew: the next operation asks for its index.
                view.links.remove(on);
            }
            if let Key::Nexthop { link, gateway } = operation.key
                && operation.verb != Verb::Delete
                && let Some(id) = view.nexthops.id(link, gateway)
            {
                view.nexthops.forget(id);
                if error.is_already_exists() {
                    ids_in_use.push((id, index, error));
                    return;
                }
            }
            if onlink::is_worth_it(operation, &error) {
                again.push((index, error));
            } else if operation.verb == Verb::Create
                && operation.key.kind() == Kind::Address
                && error.is_already_exists()
            {
                there.push((index, error));
            } else if !is_success(operation, &error) {
                failures.push(Failure { index, error });
            }
        });
        for (id, index, error) in ids_in_use {
            // Whoever has it; it may be what we want, forgotten by a notification that came late.
            if self.learn_nexthop(id) != Some(operations[index].key) {
                self.view.nexthops.mark_taken(id);
                failures.push(Failure { index, error });
            }
        }
        for (index, error) in there {
            // In IPv6 also one with another prefix length is in the way.
            let key = operations[index].key;
            let mut is_there = false;
            let dumped = self.dump(Kind::Address, key.link(), &mut |seen, _| is_there |= seen == key);
            if dumped.is_err() || !is_there {
                failures.push(Failure { index, error });
            }
        }
        for (index, refused) in again {
            if let Err(error) = self.try_again(index, operations, refused) {
                if let Key::Nexthop { link, gateway } = operations[index].key
                    && let Some(id) = self.view.nexthops.id(link, gateway)
                {
                    self.view.nexthops.forget(id);
                }
                failures.push(Failure { index, error });
            }
        }
    }
}

/// Whether the error says that the kernel is as it shall be.
fn is_success(operation: &Operation, error: &Error) -> bool {
    match operation.verb {
        Verb::Create | Verb::Replace | Verb::Supplant => false,
        Verb::Delete => match (error, error.errno()) {
            (Error::NoSuchLink(_) | Error::NoSuchNexthop { .. }, _) => true,
            (_, Some(libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL | libc::ENODEV)) => true,
            // "Nexthop id does not exist": the routes through a nexthop go with it.
            (_, Some(libc::EINVAL)) => {
                matches!(operation.object, Object::Route(RouteTarget::Nexthop { .. }))
            }
            _ => false,
        },
    }
}
