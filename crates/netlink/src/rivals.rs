//! Several routes under one key: the kernel lets routes of one destination and metric stand side by side (`ip route
//! append`, `ip route prepend`), where the first of them hides the others and a replacement hits one.

use netlink_packet_core::NetlinkSerializable;
use netlink_packet_route::RouteNetlinkMessage as Message;
use routelet_model::{Family, Key, Kind, Object};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::attributes::Attributes;
use crate::frame::align;
use crate::nexthop::{RTA_NH_ID, RTNH_F_ONLINK};
use crate::{Error, Failure, Kernel, Operation, Verb, route};

/// `struct rtmsg`.
const HEADER: usize = 12;
/// `RTPROT_UNSPEC`: in a dump, routes of any protocol.
const ANY: u8 = 0;

/// A request to delete a route, in the words in which the kernel has shown it.
struct Delete(Vec<u8>);

impl Delete {
    /// The route of a message of a dump, by what tells it from its neighbours.
    fn new(shown: &[u8]) -> Result<Self, Error> {
        let mut bytes = shown.get(..HEADER).unwrap_or_default().to_vec();
        let attributes = Attributes::after(shown, HEADER)?;
        // The flags of a dump are about the route's present state. Only that of an onlink gateway names it.
        let flags = crate::frame::read_u32(shown, 8).unwrap_or_default() & RTNH_F_ONLINK;
        bytes[8..HEADER].copy_from_slice(&flags.to_ne_bytes());
        let by_nexthop = attributes
            .clone()
            .flatten()
            .any(|attribute| attribute.kind == RTA_NH_ID);
        for attribute in attributes {
            let attribute = attribute?;
            let names_it = match attribute.kind {
                libc::RTA_DST | libc::RTA_PRIORITY | libc::RTA_TABLE | libc::RTA_PREFSRC | RTA_NH_ID => true,
                libc::RTA_OIF | libc::RTA_GATEWAY | libc::RTA_VIA | libc::RTA_MULTIPATH => !by_nexthop,
                _ => false,
            };
            if names_it {
                let length = 4 + attribute.value.len();
                bytes.extend((length as u16).to_ne_bytes());
                bytes.extend(attribute.kind.to_ne_bytes());
                bytes.extend(attribute.value);
                bytes.resize(align(bytes.len()), 0);
            }
        }
        Ok(Self(bytes))
    }
}

impl NetlinkSerializable for Delete {
    fn message_type(&self) -> u16 {
        libc::RTM_DELROUTE
    }

    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

/// The routes of any protocol under some keys, in the order in which the kernel prefers them.
type Shown = FxHashMap<Key, Vec<(Object, Vec<u8>)>>;

impl Kernel {
    /// Makes room for the routes that are to supplant others, and takes odd ones away. Of the routes under a key that
    /// is to be supplanted, it leaves the wanted one, or the first where that is not among them: a replacement then
    /// makes the one that is left into what is wanted, and there is no moment without any. Adds to `failures` what
    /// failed, by the operation's place.
    pub(crate) fn clear_rivals(&mut self, operations: &[Operation], failures: &mut Vec<Failure>) {
        let is_one = |operation: &Operation| {
            let odd = operation.verb == Verb::Delete && operation.object == Object::OddRoutes;
            operation.key.kind() == Kind::Route && (operation.verb == Verb::Supplant || odd)
        };
        if !operations.iter().any(is_one) {
            return;
        }
        let keys = operations.iter().filter(|operation| is_one(operation));
        let shown = self.routes_under(&keys.map(|operation| operation.key).collect());
        for (index, operation) in operations.iter().enumerate().filter(|(_, o)| is_one(o)) {
            let cleared = match &shown {
                Ok(shown) => self.clear_one(operation, shown.get(&operation.key).map_or(&[], Vec::as_slice)),
                Err(_) => Err(Error::OutcomeUnknown),
            };
            if let Err(error) = cleared {
                failures.push(Failure { index, error });
            }
        }
    }

    fn clear_one(&mut self, operation: &Operation, shown: &[(Object, Vec<u8>)]) -> Result<(), Error> {
        let kept = match operation.verb {
            Verb::Supplant => {
                let wanted = shown.iter().position(|(object, _)| *object == operation.object);
                Some(wanted.unwrap_or(0))
            }
            _ => None,
        };
        for (index, (object, payload)) in shown.iter().enumerate() {
            let others = kept.is_none() && matches!(object, Object::Foreign { .. });
            if kept != Some(index) && !others {
                self.delete_shown(payload)?;
            }
        }
        Ok(())
    }

    /// Visits the routes of the main table that have another protocol than ours. A kernel that holds those of the whole
    /// Internet takes a second for it.
    pub fn dump_others(&mut self, visit: &mut dyn FnMut(Key, Object)) -> Result<(), Error> {
        let (view, mut found) = (&self.view, Vec::new());
        for family in Family::ALL {
            let request = Message::GetRoute(route::get(family, ANY));
            self.dumps.dump(&request, &mut found, |_, payload| {
                let seen = view.read(Kind::Route, payload)?;
                Ok(seen.filter(|(_, object)| matches!(object, Object::Foreign { .. })))
            })?;
        }
        for (key, object) in found {
            visit(key, object);
        }
        Ok(())
    }

    fn routes_under(&mut self, keys: &FxHashSet<Key>) -> Result<Shown, Error> {
        let (view, mut found) = (&self.view, Vec::new());
        for family in Family::ALL {
            let of_family = |key: &Key| matches!(key, Key::Route { destination, .. } if Family::of_net(*destination) == family);
            if keys.iter().any(of_family) {
                let request = Message::GetRoute(route::get(family, ANY));
                self.dumps.dump(&request, &mut found, |_, payload| {
                    let seen = view.read(Kind::Route, payload)?;
                    let seen = seen.filter(|(key, _)| keys.contains(key));
                    Ok(seen.map(|(key, object)| (key, object, payload.to_vec())))
                })?;
            }
        }
        let mut shown = Shown::default();
        for (key, object, payload) in found {
            shown.entry(key).or_default().push((object, payload));
        }
        Ok(shown)
    }

    fn delete_shown(&mut self, payload: &[u8]) -> Result<(), Error> {
        match self.requests.request(&Delete::new(payload)?, 0) {
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }
}
