//! Nexthop objects: their message, which netlink-packet-route lacks, and their ids.
//!
//! Layout: `struct nhmsg` and NHA_… of linux/nexthop.h. Ids are our own affair: other crates name a nexthop by its
//! device and gateway.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use netlink_packet_core::NetlinkSerializable;
use routelet_model::{Family, IfName, Key, Object};
use rustc_hash::{FxHashMap, FxHasher};

use crate::Error;
use crate::attributes::{Attributes, family_number};
use crate::frame::read_u32;
use crate::links::Links;

/// `RTM_NEWNEXTHOP`.
pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
/// `RTM_DELNEXTHOP`.
pub(crate) const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;

/// `struct nhmsg`.
pub(crate) const HEADER: usize = 8;
pub(crate) const NHA_ID: u16 = 1;
pub(crate) const NHA_OIF: u16 = 5;
pub(crate) const NHA_GATEWAY: u16 = 6;
/// `RTA_NH_ID` of linux/rtnetlink.h: the nexthop object of a route.
pub(crate) const RTA_NH_ID: u16 = 30;
/// `RTNH_F_ONLINK` of the same: the gateway is on the link whatever its address is.
pub(crate) const RTNH_F_ONLINK: u32 = 4;

/// Where our ids begin, and how many there are: far from the small numbers that people choose by hand.
const FIRST_ID: u32 = 0x1000_0000;
const IDS: u32 = 0x6000_0000;

/// A request about nexthop objects. What is `None` is left out of it.
#[derive(Debug)]
pub(crate) struct NexthopMessage {
    kind: u16,
    family: u8,
    protocol: u8,
    flags: u32,
    id: Option<u32>,
    index: Option<u32>,
    gateway: Option<IpAddr>,
}

impl NexthopMessage {
    /// Makes or replaces the nexthop `id`.
    pub(crate) fn new(id: u32, protocol: u8, index: u32, gateway: IpAddr, onlink: bool) -> Self {
        Self {
            kind: RTM_NEWNEXTHOP,
            family: family_number(Family::of(gateway)),
            protocol,
            flags: if onlink { RTNH_F_ONLINK } else { 0 },
            id: Some(id),
            index: Some(index),
            gateway: Some(gateway),
        }
    }

    /// Deletes the nexthop `id`.
    pub(crate) fn delete(id: u32) -> Self {
        Self {
            kind: RTM_DELNEXTHOP,
            id: Some(id),
            ..Self::dump(None)
        }
    }

    /// Asks for the nexthop `id`.
    pub(crate) fn get(id: u32) -> Self {
        Self {
            id: Some(id),
            ..Self::dump(None)
        }
    }

    /// Asks for all nexthops, or for those of one link.
    pub(crate) fn dump(index: Option<u32>) -> Self {
        Self {
            kind: RTM_GETNEXTHOP,
            family: 0,
            protocol: 0,
            flags: 0,
            id: None,
            index,
            gateway: None,
        }
    }
}

impl NetlinkSerializable for NexthopMessage {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        let gateway = match self.gateway {
            None => 0,
            Some(IpAddr::V4(_)) => 8,
            Some(IpAddr::V6(_)) => 20,
        };
        HEADER + self.id.map_or(0, |_| 8) + self.index.map_or(0, |_| 8) + gateway
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..4].copy_from_slice(&[self.family, 0, self.protocol, 0]);
        buffer[4..HEADER].copy_from_slice(&self.flags.to_ne_bytes());
        let mut rest = &mut buffer[HEADER..];
        if let Some(id) = self.id {
            rest = put(rest, NHA_ID, &id.to_ne_bytes());
        }
        if let Some(index) = self.index {
            rest = put(rest, NHA_OIF, &index.to_ne_bytes());
        }
        match self.gateway {
            None => {}
            Some(IpAddr::V4(gateway)) => _ = put(rest, NHA_GATEWAY, &gateway.octets()),
            Some(IpAddr::V6(gateway)) => _ = put(rest, NHA_GATEWAY, &gateway.octets()),
        }
    }
}

/// Writes an attribute whose value needs no padding; returns what is left of the buffer.
fn put<'a>(buffer: &'a mut [u8], kind: u16, value: &[u8]) -> &'a mut [u8] {
    let (attribute, rest) = buffer.split_at_mut(4 + value.len());
    attribute[..2].copy_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    attribute[2..4].copy_from_slice(&kind.to_ne_bytes());
    attribute[4..].copy_from_slice(value);
    rest
}

/// A nexthop object as a message shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeenNexthop {
    pub(crate) id: u32,
    pub(crate) protocol: u8,
    /// Device and gateway, where it has the shape that we make.
    via: Option<Via>,
}

/// Device and gateway of a nexthop.
type Via = (IfName, IpAddr);

impl SeenNexthop {
    /// Reads RTM_NEWNEXTHOP and RTM_DELNEXTHOP. Over `devices`, and nowhere else, we make them onlink.
    pub(crate) fn read(payload: &[u8], links: &Links, devices: &[IfName]) -> Result<Self, Error> {
        let (mut id, mut index, mut gateway, mut odd) = (None, None, None, false);
        for attribute in Attributes::after(payload, HEADER)? {
            let attribute = attribute?;
            match attribute.kind {
                NHA_ID => id = Some(attribute.u32()?),
                NHA_OIF => index = Some(attribute.u32()?),
                NHA_GATEWAY => gateway = Some(attribute.address()?),
                _ => odd = true,
            }
        }
        let id = id.ok_or(Error::Decode("a nexthop without id"))?;
        let onlink = read_u32(payload, 4).unwrap_or_default() & RTNH_F_ONLINK != 0;
        let link = index.and_then(|index| links.name(index));
        let via = link
            .zip(gateway)
            .filter(|(link, _)| onlink == devices.contains(link) && !odd);
        Ok(Self {
            id,
            protocol: payload[2],
            via,
        })
    }
}

/// Who has an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// A nexthop that we made, or would have made just so.
    Ours(Via),
    /// Any other.
    Other,
}

/// The ids that are in use.
#[derive(Debug, Default)]
pub(crate) struct NexthopIds {
    holders: FxHashMap<u32, Holder>,
    ids: FxHashMap<Via, u32>,
}

impl NexthopIds {
    /// The id of the nexthop over `link` to `gateway`.
    pub(crate) fn id(&self, link: IfName, gateway: IpAddr) -> Option<u32> {
        self.ids.get(&(link, gateway)).copied()
    }

    /// Device and gateway of the nexthop `id`, if it is ours.
    pub(crate) fn via(&self, id: u32) -> Option<(IfName, IpAddr)> {
        match self.holders.get(&id) {
            Some(Holder::Ours(via)) => Some(*via),
            _ => None,
        }
    }

    /// The id for the nexthop over `link` to `gateway`: the one that it has, or a free one, which it has from now on.
    pub(crate) fn allocate(&mut self, link: IfName, gateway: IpAddr) -> u32 {
        if let Some(id) = self.id(link, gateway) {
            return id;
        }
        let mut hasher = FxHasher::default();
        (link, gateway).hash(&mut hasher);
        // The lower half, as FxHasher leaves little of the input in the highest bits.
        let mut offset = hasher.finish() as u32 % IDS;
        while self.holders.contains_key(&(FIRST_ID + offset)) {
            offset = (offset + 1) % IDS;
        }
        let id = FIRST_ID + offset;
        self.hold(id, (link, gateway));
        id
    }

    /// Takes note that someone else has the id.
    pub(crate) fn mark_taken(&mut self, id: u32) {
        self.forget(id);
        self.holders.insert(id, Holder::Other);
    }

    /// Takes note that the id is free.
    pub(crate) fn forget(&mut self, id: u32) {
        if let Some(Holder::Ours(via)) = self.holders.remove(&id)
            && self.ids.get(&via) == Some(&id)
        {
            self.ids.remove(&via);
        }
    }

    /// Takes note that the link is gone or down, by which the kernel has removed all nexthops on it, silently.
    pub(crate) fn forget_link(&mut self, link: IfName) {
        let gone: Vec<u32> = self
            .ids
            .iter()
            .filter(|((on, _), _)| *on == link)
            .map(|(_, id)| *id)
            .collect();
        for id in gone {
            self.forget(id);
        }
    }

    /// Forgets every id that is not among `seen`, after a dump of all nexthops.
    pub(crate) fn retain(&mut self, seen: &[SeenNexthop]) {
        let present: FxHashMap<u32, ()> = seen.iter().map(|nexthop| (nexthop.id, ())).collect();
        let gone: Vec<u32> = self
            .holders
            .keys()
            .filter(|id| !present.contains_key(id))
            .copied()
            .collect();
        for id in gone {
            self.forget(id);
        }
    }

    /// Takes note of a nexthop that is there. Returns what it is to us; `None` where it is another's affair.
    ///
    /// An id that was ours keeps its key when someone changes what stands behind it: so the repair is a replace,
    /// and mends the routes that use the id as well.
    pub(crate) fn learn(&mut self, seen: &SeenNexthop, protocol: u8) -> Option<(Key, Object)> {
        let intact = seen.via.filter(|_| seen.protocol == protocol);
        if let Some((link, gateway)) = self.via(seen.id) {
            let object = match intact == Some((link, gateway)) {
                true => Object::Nexthop,
                false => Object::Foreign {
                    protocol: seen.protocol,
                },
            };
            return Some((Key::Nexthop { link, gateway }, object));
        }
        match intact {
            Some(via) if !self.ids.contains_key(&via) => {
                self.hold(seen.id, via);
                Some((
                    Key::Nexthop {
                        link: via.0,
                        gateway: via.1,
                    },
                    Object::Nexthop,
                ))
            }
            _ => {
                self.holders.insert(seen.id, Holder::Other);
                (seen.protocol == protocol)
                    .then_some((Key::StrayNexthop { id: seen.id }, Object::Foreign { protocol }))
            }
        }
    }

    /// Takes note of a nexthop that is gone. Returns what it was to us.
    pub(crate) fn unlearn(&mut self, seen: &SeenNexthop, protocol: u8) -> Option<Key> {
        let via = self.via(seen.id);
        self.forget(seen.id);
        match via {
            Some((link, gateway)) => Some(Key::Nexthop { link, gateway }),
            None => (seen.protocol == protocol).then_some(Key::StrayNexthop { id: seen.id }),
        }
    }

    fn hold(&mut self, id: u32, via: Via) {
        self.holders.insert(id, Holder::Ours(via));
        self.ids.insert(via, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u8 = 80;

    fn name(text: &str) -> IfName {
        IfName::new(text).unwrap()
    }

    fn seen(id: u32, protocol: u8, via: Option<Via>) -> SeenNexthop {
        SeenNexthop { id, protocol, via }
    }

    fn via(last: u8) -> Via {
        (name("vxlan"), IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn the_same_gateway_gets_the_same_id_and_a_taken_one_the_next() {
        let mut ids = NexthopIds::default();
        let (link, gateway) = via(1);
        let id = ids.allocate(link, gateway);
        assert_eq!(ids.allocate(link, gateway), id);
        ids.mark_taken(id);
        assert_eq!(ids.id(link, gateway), None);
        let next = ids.allocate(link, gateway);
        assert_ne!(next, id);
        assert_eq!(ids.via(next), Some((link, gateway)));
    }

    #[test]
    fn a_second_nexthop_for_a_gateway_is_a_stray() {
        let mut ids = NexthopIds::default();
        let (link, gateway) = via(1);
        assert_eq!(
            ids.learn(&seen(5, OURS, Some(via(1))), OURS),
            Some((Key::Nexthop { link, gateway }, Object::Nexthop))
        );
        let stray = Some((Key::StrayNexthop { id: 6 }, Object::Foreign { protocol: OURS }));
        assert_eq!(ids.learn(&seen(6, OURS, Some(via(1))), OURS), stray);
        let shapeless = Some((Key::StrayNexthop { id: 7 }, Object::Foreign { protocol: OURS }));
        assert_eq!(ids.learn(&seen(7, OURS, None), OURS), shapeless);
        assert_eq!(ids.learn(&seen(8, 4, Some(via(2))), OURS), None);
        assert_eq!(
            ids.unlearn(&seen(6, OURS, Some(via(1))), OURS),
            Some(Key::StrayNexthop { id: 6 })
        );
        assert_eq!(ids.id(link, gateway), Some(5));
    }

    #[test]
    fn an_id_that_was_changed_under_us_keeps_its_key() {
        let mut ids = NexthopIds::default();
        let (link, gateway) = via(1);
        ids.learn(&seen(5, OURS, Some(via(1))), OURS);
        for changed in [
            seen(5, OURS, Some(via(2))),
            seen(5, 4, Some(via(1))),
            seen(5, OURS, None),
        ] {
            let protocol = changed.protocol;
            assert_eq!(
                ids.learn(&changed, OURS),
                Some((Key::Nexthop { link, gateway }, Object::Foreign { protocol }))
            );
        }
        assert_eq!(
            ids.unlearn(&seen(5, 4, None), OURS),
            Some(Key::Nexthop { link, gateway })
        );
        assert_eq!(ids.id(link, gateway), None);
    }

    #[test]
    fn a_link_takes_its_ids_along() {
        let mut ids = NexthopIds::default();
        let id = ids.allocate(via(1).0, via(1).1);
        let other = ids.allocate(name("eth0"), via(1).1);
        ids.forget_link(name("vxlan"));
        assert_eq!((ids.via(id), ids.via(other).is_some()), (None, true));
        ids.retain(&[]);
        assert_eq!(ids.via(other), None);
    }
}
