//! Netlink messages as bytes, written by hand: structs and numbers of linux/netlink.h, rtnetlink.h, neighbour.h,
//! nexthop.h and if_link.h.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nix::libc;
use routelet_model::{IfName, MacAddr};

/// `NLM_F_…`.
const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;

pub(crate) const NEW_NEXTHOP: u16 = 104;
pub(crate) const DELETE_NEXTHOP: u16 = 105;
const GET_NEXTHOP: u16 = 106;
pub(crate) const NHA_ID: u16 = 1;
pub(crate) const NHA_OIF: u16 = 5;
pub(crate) const NHA_GATEWAY: u16 = 6;
pub(crate) const RTA_NH_ID: u16 = 30;
const NDA_PROTOCOL: u16 = 12;
pub(crate) const RTNH_F_ONLINK: u32 = 4;
const IFLA_MTU: u16 = libc::IFLA_MTU;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;

/// Bytes of the headers `ndmsg`, `rtmsg`, `nhmsg`, `ifaddrmsg`, `ifinfomsg`.
pub(crate) const NDMSG: usize = 12;
pub(crate) const RTMSG: usize = 12;
pub(crate) const NHMSG: usize = 8;
pub(crate) const IFADDRMSG: usize = 8;
pub(crate) const IFINFOMSG: usize = 16;

/// Our routes' protocol number, by default.
pub(crate) const PROTOCOL: u8 = 80;

/// One message, with its header.
#[derive(Debug, Clone)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend(header);
        Self(bytes).sealed()
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(attribute(kind, value));
        self.sealed()
    }

    fn sealed(mut self) -> Self {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An FDB entry of a VXLAN device.
pub(crate) fn fdb(kind: u16, flags: u16, index: u32, mac: MacAddr, remote: Ipv4Addr) -> Message {
    Message::new(kind, flags, &ndmsg(libc::AF_BRIDGE, index, libc::NTF_SELF))
        .with(libc::NDA_LLADDR, &mac.0)
        .with(libc::NDA_DST, &remote.octets())
}

/// A permanent neighbour.
pub(crate) fn neighbour(kind: u16, flags: u16, index: u32, address: Ipv4Addr, mac: MacAddr) -> Message {
    Message::new(kind, flags, &ndmsg(libc::AF_INET, index, 0))
        .with(libc::NDA_DST, &address.octets())
        .with(libc::NDA_LLADDR, &mac.0)
        .with(NDA_PROTOCOL, &[PROTOCOL])
}

/// A nexthop with an onlink gateway.
pub(crate) fn nexthop(flags: u16, id: u32, index: u32, gateway: Ipv4Addr) -> Message {
    nexthop_with(RTNH_F_ONLINK, flags, id, index, gateway)
}

/// A nexthop with a gateway of the link's own network.
pub(crate) fn direct_nexthop(flags: u16, id: u32, index: u32, gateway: Ipv4Addr) -> Message {
    nexthop_with(0, flags, id, index, gateway)
}

/// A nexthop with these `RTNH_F_…`.
fn nexthop_with(hop_flags: u32, flags: u16, id: u32, index: u32, gateway: Ipv4Addr) -> Message {
    let mut header = [libc::AF_INET as u8, 0, PROTOCOL, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&hop_flags.to_ne_bytes());
    Message::new(NEW_NEXTHOP, flags, &header)
        .with(NHA_ID, &id.to_ne_bytes())
        .with(NHA_OIF, &index.to_ne_bytes())
        .with(NHA_GATEWAY, &gateway.octets())
}

/// The end of a nexthop.
pub(crate) fn delete_nexthop(id: u32) -> Message {
    Message::new(DELETE_NEXTHOP, 0, &[0; NHMSG]).with(NHA_ID, &id.to_ne_bytes())
}

/// A route through a nexthop.
pub(crate) fn route_via(flags: u16, destination: Ipv4Net, nexthop: u32) -> Message {
    let header = rtmsg(destination, PROTOCOL, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST);
    Message::new(libc::RTM_NEWROUTE, flags, &header)
        .with(libc::RTA_DST, &destination.addr().octets())
        .with(RTA_NH_ID, &nexthop.to_ne_bytes())
}

/// A route to a link.
pub(crate) fn route_to(destination: Ipv4Net, index: u32) -> Message {
    let header = rtmsg(destination, PROTOCOL, libc::RT_SCOPE_LINK, libc::RTN_UNICAST);
    Message::new(libc::RTM_NEWROUTE, CREATE | EXCL, &header)
        .with(libc::RTA_DST, &destination.addr().octets())
        .with(libc::RTA_OIF, &index.to_ne_bytes())
}

/// A blackhole in the place of a route, with this protocol number.
pub(crate) fn blackhole(destination: Ipv4Net, protocol: u8) -> Message {
    let header = rtmsg(
        destination,
        protocol,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_BLACKHOLE,
    );
    Message::new(libc::RTM_NEWROUTE, CREATE | REPLACE, &header)
        .with(libc::RTA_DST, &destination.addr().octets())
}

/// The end of a route, whoever made it.
pub(crate) fn delete_route(destination: Ipv4Net) -> Message {
    let header = rtmsg(destination, 0, libc::RT_SCOPE_NOWHERE, libc::RTN_UNSPEC);
    Message::new(libc::RTM_DELROUTE, 0, &header).with(libc::RTA_DST, &destination.addr().octets())
}

/// An address of a link.
pub(crate) fn address(kind: u16, flags: u16, index: u32, address: Ipv4Net) -> Message {
    let mut header = [libc::AF_INET as u8, address.prefix_len(), 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    Message::new(kind, flags, &header)
        .with(libc::IFA_LOCAL, &address.addr().octets())
        .with(libc::IFA_ADDRESS, &address.addr().octets())
}

/// A VXLAN device as the agent makes it by default, up, with a number that no link has.
pub(crate) fn new_vxlan(
    index: u32,
    name: IfName,
    mac: MacAddr,
    mtu: u32,
    local: Ipv4Addr,
    parent: u32,
) -> Message {
    let data = [
        attribute(IFLA_VXLAN_ID, &4096_u32.to_ne_bytes()),
        attribute(IFLA_VXLAN_LINK, &parent.to_ne_bytes()),
        attribute(IFLA_VXLAN_LOCAL, &local.octets()),
        attribute(IFLA_VXLAN_LEARNING, &[0]),
        attribute(IFLA_VXLAN_PORT, &4789_u16.to_be_bytes()),
    ];
    let info = [
        attribute(IFLA_INFO_KIND, b"vxlan\0"),
        attribute(IFLA_INFO_DATA, &data.concat()),
    ];
    let up = libc::IFF_UP as u32;
    Message::new(libc::RTM_NEWLINK, CREATE | EXCL, &ifinfomsg(index, up, up))
        .with(libc::IFLA_IFNAME, name.as_str().as_bytes())
        .with(libc::IFLA_ADDRESS, &mac.0)
        .with(IFLA_MTU, &mtu.to_ne_bytes())
        .with(libc::IFLA_LINKINFO, &info.concat())
}

/// The end of a link.
pub(crate) fn delete_link(index: u32) -> Message {
    Message::new(libc::RTM_DELLINK, 0, &ifinfomsg(index, 0, 0))
}

/// A link set up or down.
pub(crate) fn set_up(index: u32, up: bool) -> Message {
    let flag = libc::IFF_UP as u32;
    let flags = if up { flag } else { 0 };
    Message::new(libc::RTM_NEWLINK, 0, &ifinfomsg(index, flags, flag))
}

/// Another MTU for a link.
pub(crate) fn set_mtu(index: u32, mtu: u32) -> Message {
    Message::new(libc::RTM_NEWLINK, 0, &ifinfomsg(index, 0, 0)).with(IFLA_MTU, &mtu.to_ne_bytes())
}

/// Another MAC for a link.
pub(crate) fn set_mac(index: u32, mac: MacAddr) -> Message {
    Message::new(libc::RTM_NEWLINK, 0, &ifinfomsg(index, 0, 0)).with(libc::IFLA_ADDRESS, &mac.0)
}

/// All IPv4 routes.
pub(crate) fn dump_routes() -> Message {
    Message::new(
        libc::RTM_GETROUTE,
        DUMP,
        &[libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    )
}

/// All neighbours of IPv4, or all FDB entries.
pub(crate) fn dump_neighbours(family: i32) -> Message {
    Message::new(
        libc::RTM_GETNEIGH,
        DUMP,
        &[family as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    )
}

/// All nexthops.
pub(crate) fn dump_nexthops() -> Message {
    Message::new(GET_NEXTHOP, DUMP, &[0; NHMSG])
}

fn ndmsg(family: i32, index: u32, flags: u8) -> [u8; NDMSG] {
    let mut header = [0; NDMSG];
    header[0] = family as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
    header[10] = flags;
    header
}

fn rtmsg(destination: Ipv4Net, protocol: u8, scope: u8, kind: u8) -> [u8; RTMSG] {
    let family = libc::AF_INET as u8;
    let table = libc::RT_TABLE_MAIN;
    [
        family,
        destination.prefix_len(),
        0,
        0,
        table,
        protocol,
        scope,
        kind,
        0,
        0,
        0,
        0,
    ]
}

fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// One message that was received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = read_u32(datagram, 0)? as usize;
        let payload = datagram.get(16..length)?;
        let message = Received {
            kind: read_u16(datagram, 4)?,
            payload,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

impl<'a> Received<'a> {
    /// The value of an attribute behind a header of so many bytes.
    pub(crate) fn attribute(&self, header: usize, kind: u16) -> Option<&'a [u8]> {
        let mut rest = self.payload.get(header..)?;
        loop {
            let length = usize::from(read_u16(rest, 0)?);
            let value = rest.get(4..length)?;
            if read_u16(rest, 2)? & 0x3fff == kind {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }

    pub(crate) fn address(&self, header: usize, kind: u16) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.attribute(header, kind)?)
            .ok()
            .map(Ipv4Addr::from)
    }

    pub(crate) fn number(&self, header: usize, kind: u16) -> Option<u32> {
        read_u32(self.attribute(header, kind)?, 0)
    }
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
