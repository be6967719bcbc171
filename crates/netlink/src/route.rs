//! Routes of the main table: `struct rtmsg` and RTA_… of linux/rtnetlink.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use routelet_model::{Family, Key, Object, RouteTarget};

use crate::Error;
use crate::attributes::{Attributes, family_number, family_of_number};
use crate::frame::read_u32;
use crate::nexthop::{RTA_NH_ID, RTNH_F_ONLINK};
use crate::socket::Socket;
use crate::view::View;

const HEADER: usize = 12;
const RTN_UNICAST: u8 = libc::RTN_UNICAST;
const RTN_BLACKHOLE: u8 = libc::RTN_BLACKHOLE;
const MAIN: u32 = libc::RT_TABLE_MAIN as u32;
/// Stands in the header for table ids that do not fit it.
const COMPAT: u32 = libc::RT_TABLE_COMPAT as u32;

/// What a route is to be matched with, or made of, once links and nexthops have their numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hop {
    /// A link's index.
    Link(u32),
    /// A nexthop's id.
    Nexthop(u32),
    /// A link's index and a gateway.
    Gateway {
        link: u32,
        gateway: IpAddr,
        onlink: bool,
    },
    /// None: packets are dropped.
    Blackhole,
}

/// Names a route, to make, replace or delete it.
pub(crate) fn message(destination: IpNet, metric: u32, protocol: u8, hop: Hop) -> RouteMessage {
    let family = Family::of_net(destination);
    let mut message = get(family, protocol);
    let header = &mut message.header;
    header.destination_prefix_length = destination.prefix_len();
    header.kind = match hop {
        Hop::Blackhole => RouteType::BlackHole,
        Hop::Link(_) | Hop::Nexthop(_) | Hop::Gateway { .. } => RouteType::Unicast,
    };
    header.scope = match hop {
        Hop::Link(_) => RouteScope::Link,
        Hop::Nexthop(_) | Hop::Gateway { .. } | Hop::Blackhole => RouteScope::Universe,
    };
    let attributes = &mut message.attributes;
    attributes.reserve_exact(4);
    attributes.push(RouteAttribute::Destination(RouteAddress::from(
        destination.addr(),
    )));
    if metric != 0 {
        attributes.push(RouteAttribute::Priority(metric));
    }
    match hop {
        Hop::Link(index) => attributes.push(RouteAttribute::Oif(index)),
        Hop::Nexthop(id) => attributes.push(RouteAttribute::NhId(id)),
        Hop::Gateway {
            link,
            gateway,
            onlink,
        } => {
            if onlink {
                header.flags = RouteFlags::Onlink;
            }
            attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
            attributes.push(RouteAttribute::Oif(link));
        }
        Hop::Blackhole => {}
    }
    message
}

/// Asks for the routes of the main table with this protocol.
pub(crate) fn get(family: Family, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::from(family_number(family));
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(protocol);
    message
}

/// Asks for those of them that leave through one link.
pub(crate) fn get_of_link(family: Family, protocol: u8, index: u32) -> RouteMessage {
    let mut message = get(family, protocol);
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

/// Reads RTM_NEWROUTE and RTM_DELROUTE. `None` where it is no route of the main table that has a key with us.
pub(crate) fn read(payload: &[u8], view: &View) -> Result<Option<(Key, Object)>, Error> {
    let View { links, nexthops, .. } = view;
    let protocol = view.config.protocol;
    let attributes = Attributes::after(payload, HEADER)?;
    let [number, length, source_length, tos, table, owner, scope, kind] =
        [0, 1, 2, 3, 4, 5, 6, 7].map(|at| payload[at]);
    let flags = read_u32(payload, 8).unwrap_or_default();
    let Some(family) = family_of_number(number) else {
        return Ok(None);
    };
    let mut table = u32::from(table);
    // Routes by source or type of service stand beside ours under the same destination and metric; clones
    // are the kernel's cache.
    if (table != MAIN && table != COMPAT) || source_length != 0 || tos != 0 || flags & libc::RTM_F_CLONED != 0
    {
        return Ok(None);
    }
    let (mut address, mut metric, mut index, mut gateway, mut nexthop, mut odd) =
        (None, 0, None, None, None, false);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            libc::RTA_DST => address = Some(attribute.address()?),
            libc::RTA_TABLE => table = attribute.u32()?,
            libc::RTA_PRIORITY => metric = attribute.u32()?,
            libc::RTA_OIF => index = Some(attribute.u32()?),
            libc::RTA_GATEWAY => gateway = Some(attribute.address()?),
            RTA_NH_ID => nexthop = Some(attribute.u32()?),
            libc::RTA_METRICS => odd |= !attribute.value.is_empty(),
            libc::RTA_MULTIPATH | libc::RTA_VIA | libc::RTA_ENCAP | libc::RTA_PREFSRC => odd = true,
            _ => {}
        }
    }
    if table != MAIN {
        return Ok(None);
    }
    let address = address.unwrap_or(match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    });
    let destination =
        IpNet::new(address, length).map_err(|_| Error::Decode("a route with a prefix too long"))?;
    let target = match (kind, nexthop, gateway) {
        _ if owner != protocol || odd => None,
        (RTN_BLACKHOLE, None, None) => Some(RouteTarget::Blackhole),
        // The kernel tells the nexthop's device and gateway as well, unless it is told not to.
        (RTN_UNICAST, Some(id), _) => nexthops
            .via(id)
            .map(|(link, gateway)| RouteTarget::Nexthop { link, gateway }),
        (RTN_UNICAST, None, Some(gateway)) => index
            .and_then(|index| links.name(index))
            .filter(|link| view.is_device(*link) == (flags & RTNH_F_ONLINK != 0))
            .map(|link| RouteTarget::Gateway { link, gateway }),
        // IPv6 keeps no scope and tells 0.
        (RTN_UNICAST, None, None) if family == Family::V6 || scope == libc::RT_SCOPE_LINK => {
            index.and_then(|index| links.name(index)).map(RouteTarget::Link)
        }
        _ => None,
    };
    let object = match target {
        Some(target) => Object::Route(target),
        None if owner == protocol => Object::OddRoutes,
        None => Object::Foreign { protocol: owner },
    };
    Ok(Some((Key::Route { destination, metric }, object)))
}

/// The address that the kernel would send from to `to`; `None` where no route leads there.
pub(crate) fn source_to(socket: &mut Socket, to: IpAddr) -> Result<Option<IpAddr>, Error> {
    let family = Family::of(to);
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::from(family_number(family));
    message.header.destination_prefix_length = family.host_prefix_len();
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(to))];
    let source = |payload: &[u8]| {
        for attribute in Attributes::after(payload, HEADER)? {
            let attribute = attribute?;
            if attribute.kind == libc::RTA_PREFSRC {
                return attribute.address().map(Some);
            }
        }
        Ok(None)
    };
    match socket.get(&RouteNetlinkMessage::GetRoute(message), source) {
        Err(error) if is_no_way(&error) => Ok(None),
        answer => answer,
    }
}

/// Whether a question for a way was answered by that there is none.
pub(crate) fn is_no_way(error: &Error) -> bool {
    // The last two for routes that are there to refuse: prohibit, blackhole.
    matches!(
        error.errno(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
    )
}

/// Where a route of any table leads to.
pub(crate) fn destination(payload: &[u8]) -> Result<Option<IpNet>, Error> {
    let attributes = Attributes::after(payload, HEADER)?;
    let Some(family) = family_of_number(payload[0]) else {
        return Ok(None);
    };
    let mut address = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == libc::RTA_DST {
            address = attribute.address()?;
        }
    }
    Ok(IpNet::new(address, payload[1]).ok())
}
