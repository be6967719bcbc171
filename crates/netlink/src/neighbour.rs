//! Neighbours, and the FDB entries of VXLAN devices, which the kernel tells in the same messages: `struct ndmsg`
//! and NDA_… of linux/neighbour.h.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use routelet_model::{Family, IfName, Key, MacAddr, Object};

use crate::Error;
use crate::attributes::{Attributes, family_number};
use crate::frame::{read_u16, read_u32};
use crate::links::Links;

const HEADER: usize = 12;
const NDA_NH_ID: u16 = 13;

/// A neighbour or FDB entry as a message shows it.
#[derive(Debug, Clone)]
pub(crate) struct SeenNeighbour {
    pub(crate) link: IfName,
    pub(crate) key: Key,
    /// Whether it is rtnetlink's word on an FDB entry: kernels up to 6.13 tell twice, the device's driver, and then
    /// rtnetlink, which does not know where the entry leads. Of the two the driver alone says when it was used.
    pub(crate) is_echo: bool,
    /// `None` where there is nothing that counts: a neighbour that is not permanent comes and goes by itself.
    pub(crate) object: Option<Object>,
}

impl SeenNeighbour {
    /// Reads RTM_NEWNEIGH and RTM_DELNEIGH. `None` where it is neither a neighbour nor a device's own FDB entry.
    pub(crate) fn read(payload: &[u8], links: &Links) -> Result<Option<Self>, Error> {
        let (mut destination, mut mac, mut odd, mut has_times) = (None, None, false, false);
        for attribute in Attributes::after(payload, HEADER)? {
            let attribute = attribute?;
            match attribute.kind {
                libc::NDA_DST => destination = Some(attribute.address()?),
                libc::NDA_LLADDR => mac = attribute.mac(),
                libc::NDA_CACHEINFO => has_times = true,
                libc::NDA_PORT | libc::NDA_VNI | libc::NDA_IFINDEX | NDA_NH_ID => odd = true,
                _ => {}
            }
        }
        let state = read_u16(payload, 8).unwrap_or_default();
        let flags = payload[10];
        let permanent = state & libc::NUD_PERMANENT != 0;
        let Some(link) = links.name(read_u32(payload, 4).unwrap_or_default()) else {
            return Ok(None);
        };
        let seen = match i32::from(payload[0]) {
            libc::AF_BRIDGE if flags & libc::NTF_SELF != 0 => mac.map(|mac| {
                let object = match destination {
                    Some(destination) if permanent && !odd => Object::Fdb(destination),
                    _ => Object::Foreign { protocol: 0 },
                };
                Self {
                    link,
                    key: Key::Fdb { link, mac },
                    is_echo: destination.is_none() && !has_times,
                    object: Some(object),
                }
            }),
            libc::AF_INET | libc::AF_INET6 if flags & libc::NTF_PROXY == 0 => destination.map(|address| {
                let object = mac.filter(|_| permanent).map(Object::Neighbour);
                Self {
                    link,
                    key: Key::Neighbour { link, address },
                    is_echo: false,
                    object,
                }
            }),
            _ => None,
        };
        Ok(seen)
    }
}

/// An FDB entry of a VXLAN device. Without `remote`: all that the MAC address has.
pub(crate) fn fdb(index: u32, mac: MacAddr, remote: Option<IpAddr>) -> NeighbourMessage {
    let mut message = permanent(index, libc::AF_BRIDGE as u8);
    message.header.flags = NeighbourFlags::Own;
    message.attributes = Vec::with_capacity(2);
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.extend(remote.map(destination));
    message
}

/// A permanent neighbour. The MAC address may be left out to delete it.
pub(crate) fn neighbour(index: u32, address: IpAddr, mac: Option<MacAddr>, protocol: u8) -> NeighbourMessage {
    let mut message = permanent(index, family_number(Family::of(address)));
    message.attributes = Vec::with_capacity(3);
    message.attributes.push(destination(address));
    if let Some(mac) = mac {
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        message
            .attributes
            .push(NeighbourAttribute::Protocol(RouteProtocol::from(protocol)));
    }
    message
}

/// Asks for the neighbours of a link.
pub(crate) fn get(family: Family, index: u32) -> NeighbourMessage {
    get_of(family_number(family), index)
}

/// Asks for the FDB entries of a link.
pub(crate) fn get_fdb(index: u32) -> NeighbourMessage {
    get_of(libc::AF_BRIDGE as u8, index)
}

fn get_of(family: u8, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::from(family);
    message.attributes.push(NeighbourAttribute::IfIndex(index));
    message
}

fn permanent(index: u32, family: u8) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::from(family);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message
}

fn destination(address: IpAddr) -> NeighbourAttribute {
    NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    })
}
