//! The kernel's tables as the `ip` and `bridge` programs show them, whoever made the entries: for assertions, for the
//! demo's tables, for people. What the agent compares and repairs is read by [`Kernel`](crate::Kernel).

mod rows;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use routelet_model::{Family, IfName, MacAddr};

use crate::attributes::{Attributes, family_number, family_of_number};
use crate::frame::{read_u16, read_u32};
use crate::nexthop::{self, NexthopMessage, RTA_NH_ID, RTNH_F_ONLINK};
use crate::{Error, Netns, Socket};

pub use rows::{AddressRow, FdbRow, LinkRow, NeighbourRow, NexthopRow, RouteRow, state_name};

const SHORT: Error = Error::Decode("a message shorter than its header");
/// `RTM_F_CLONED`: a cached route, which no one made.
const CLONED: u32 = 0x200;
/// `NDA_PROTOCOL` of linux/neighbour.h.
const NDA_PROTOCOL: u16 = 12;

/// Reads the tables of one network namespace.
#[derive(Debug)]
pub struct Inspector {
    socket: Socket,
}

impl Inspector {
    /// Opens it in the namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open()?,
        })
    }

    /// Opens it in `netns`; the calling thread stays where it is.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<LinkRow>, Error> {
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), link)
    }

    /// All addresses.
    pub fn addresses(&mut self) -> Result<Vec<AddressRow>, Error> {
        let links = self.links()?;
        self.dump(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |payload| address(payload, &links),
        )
    }

    /// The routes of the main table.
    pub fn routes(&mut self, family: Family) -> Result<Vec<RouteRow>, Error> {
        let links = self.links()?;
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        self.dump(RouteNetlinkMessage::GetRoute(message), |payload| {
            route(payload, family, &links)
        })
    }

    /// All nexthop objects; none where the kernel knows none (before 5.3).
    pub fn nexthops(&mut self) -> Result<Vec<NexthopRow>, Error> {
        let links = self.links()?;
        let mut found = Vec::new();
        let dumped = self
            .socket
            .dump(&NexthopMessage::dump(None), &mut found, |_, payload| {
                nexthop(payload, &links).map(Some)
            });
        match dumped {
            Err(error) if error.errno() != Some(libc::EOPNOTSUPP) => Err(error),
            _ => Ok(found),
        }
    }

    /// The neighbours, but for those of multicast and the like (NUD_NOARP).
    pub fn neighbours(&mut self, family: Family) -> Result<Vec<NeighbourRow>, Error> {
        let links = self.links()?;
        let mut message = NeighbourMessage::default();
        message.header.family = address_family(family);
        self.dump(RouteNetlinkMessage::GetNeighbour(message), |payload| {
            neighbour(payload, family, &links)
        })
    }

    /// All forwarding entries.
    pub fn fdb(&mut self) -> Result<Vec<FdbRow>, Error> {
        let links = self.links()?;
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        self.dump(RouteNetlinkMessage::GetNeighbour(message), |payload| {
            fdb(payload, &links)
        })
    }

    fn dump<T>(
        &mut self,
        message: RouteNetlinkMessage,
        decode: impl Fn(&[u8]) -> Result<Option<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        self.socket
            .dump(&message, &mut found, |_, payload| decode(payload))?;
        Ok(found)
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn name(links: &[LinkRow], index: u32) -> Option<IfName> {
    links
        .iter()
        .find(|link| link.index == index)
        .map(|link| link.name)
}

/// `struct ifinfomsg`.
fn link(payload: &[u8]) -> Result<Option<LinkRow>, Error> {
    let up = read_u32(payload, 8).ok_or(SHORT)? & libc::IFF_UP as u32 != 0;
    let index = read_u32(payload, 4).ok_or(SHORT)?;
    let mut seen = (None, String::new(), None, 0);
    for attribute in Attributes::after(payload, 16)? {
        let attribute = attribute?;
        match attribute.kind {
            libc::IFLA_IFNAME => seen.0 = attribute.name(),
            libc::IFLA_ADDRESS => seen.2 = attribute.mac(),
            libc::IFLA_MTU => seen.3 = attribute.u32()?,
            libc::IFLA_LINKINFO => {
                for nested in attribute.nested() {
                    let nested = nested?;
                    if nested.kind == libc::IFLA_INFO_KIND {
                        seen.1 = nested.text().to_owned();
                    }
                }
            }
            _ => {}
        }
    }
    let (name, kind, mac, mtu) = seen;
    Ok(name.map(|name| LinkRow {
        index,
        name,
        kind,
        mac,
        mtu,
        up,
    }))
}

/// `struct ifaddrmsg`.
fn address(payload: &[u8], links: &[LinkRow]) -> Result<Option<AddressRow>, Error> {
    let prefix_len = *payload.get(1).ok_or(SHORT)?;
    let link = name(links, read_u32(payload, 4).ok_or(SHORT)?);
    let (mut local, mut peer) = (None, None);
    for attribute in Attributes::after(payload, 8)? {
        let attribute = attribute?;
        match attribute.kind {
            libc::IFA_LOCAL => local = Some(attribute.address()?),
            libc::IFA_ADDRESS => peer = Some(attribute.address()?),
            _ => {}
        }
    }
    let address = local
        .or(peer)
        .and_then(|address| IpNet::new(address, prefix_len).ok());
    Ok(link
        .zip(address)
        .map(|(link, address)| AddressRow { link, address }))
}

/// `struct rtmsg`.
fn route(payload: &[u8], family: Family, links: &[LinkRow]) -> Result<Option<RouteRow>, Error> {
    let header = payload.get(..8).ok_or(SHORT)?;
    let flags = read_u32(payload, 8).ok_or(SHORT)?;
    let mut table = u32::from(header[4]);
    let any = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut destination = any;
    let mut row = RouteRow {
        destination: IpNet::from(any),
        link: None,
        gateway: None,
        onlink: flags & RTNH_F_ONLINK != 0,
        nexthop: None,
        protocol: header[5],
        metric: 0,
        blackhole: header[7] == libc::RTN_BLACKHOLE,
    };
    for attribute in Attributes::after(payload, 12)? {
        let attribute = attribute?;
        match attribute.kind {
            libc::RTA_DST => destination = attribute.address()?,
            libc::RTA_OIF => row.link = name(links, attribute.u32()?),
            libc::RTA_GATEWAY => row.gateway = Some(attribute.address()?),
            libc::RTA_PRIORITY => row.metric = attribute.u32()?,
            libc::RTA_TABLE => table = attribute.u32()?,
            RTA_NH_ID => row.nexthop = Some(attribute.u32()?),
            _ => {}
        }
    }
    if header[0] != family_number(family) || table != u32::from(libc::RT_TABLE_MAIN) || flags & CLONED != 0 {
        return Ok(None);
    }
    row.destination =
        IpNet::new(destination, header[1]).map_err(|_| Error::Decode("a prefix longer than its address"))?;
    Ok(Some(row))
}

/// `struct nhmsg`.
fn nexthop(payload: &[u8], links: &[LinkRow]) -> Result<NexthopRow, Error> {
    let header = payload.get(..nexthop::HEADER).ok_or(SHORT)?;
    let flags = read_u32(payload, 4).ok_or(SHORT)?;
    let mut row = NexthopRow {
        id: 0,
        link: None,
        gateway: None,
        onlink: flags & RTNH_F_ONLINK != 0,
        protocol: header[2],
    };
    for attribute in Attributes::after(payload, nexthop::HEADER)? {
        let attribute = attribute?;
        match attribute.kind {
            nexthop::NHA_ID => row.id = attribute.u32()?,
            nexthop::NHA_OIF => row.link = name(links, attribute.u32()?),
            nexthop::NHA_GATEWAY => row.gateway = Some(attribute.address()?),
            _ => {}
        }
    }
    Ok(row)
}

/// What neighbours and forwarding entries share (`struct ndmsg`): link, state, address, MAC address, protocol.
type Ndmsg = (Option<IfName>, u16, Option<IpAddr>, Option<MacAddr>, u8);

fn ndmsg(payload: &[u8], links: &[LinkRow]) -> Result<Ndmsg, Error> {
    let link = name(links, read_u32(payload, 4).ok_or(SHORT)?);
    let state = read_u16(payload, 8).ok_or(SHORT)?;
    let (mut address, mut mac, mut protocol) = (None, None, 0);
    for attribute in Attributes::after(payload, 12)? {
        let attribute = attribute?;
        match attribute.kind {
            libc::NDA_DST => address = Some(attribute.address()?),
            libc::NDA_LLADDR => mac = attribute.mac(),
            NDA_PROTOCOL => protocol = attribute.u8()?,
            _ => {}
        }
    }
    Ok((link, state, address, mac, protocol))
}

fn neighbour(payload: &[u8], family: Family, links: &[LinkRow]) -> Result<Option<NeighbourRow>, Error> {
    if payload.first().copied().and_then(family_of_number) != Some(family) {
        return Ok(None);
    }
    let (link, state, address, mac, protocol) = ndmsg(payload, links)?;
    let (Some(link), Some(address)) = (link, address) else {
        return Ok(None);
    };
    Ok((state & libc::NUD_NOARP == 0).then_some(NeighbourRow {
        link,
        address,
        mac,
        state,
        protocol,
    }))
}

fn fdb(payload: &[u8], links: &[LinkRow]) -> Result<Option<FdbRow>, Error> {
    let (link, state, remote, mac, _) = ndmsg(payload, links)?;
    Ok(link.zip(mac).map(|(link, mac)| FdbRow {
        link,
        mac,
        remote,
        state,
    }))
}
