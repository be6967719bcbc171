//! What the kernel would do with a packet: its own routing decision, policy rules, all tables and the reverse path filter
//! included, asked for by RTM_GETROUTE with RTM_F_FIB_MATCH and RTM_F_LOOKUP_TABLE.
//!
//! Layout: `struct rtmsg` and RTA_… of linux/rtnetlink.h.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader};
use routelet_model::{Family, IfName};

use crate::attributes::{Attributes, family_of_number};
use crate::frame::read_u32;
use crate::inspect::{Inspector, LinkRow};
use crate::nexthop::RTA_NH_ID;
use crate::{Error, Netns, Socket, route};

const HEADER: usize = 12;
/// `struct rtnexthop`, before a nexthop's own attributes.
const RTNEXTHOP: usize = 8;

/// A packet that the kernel is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Whom it is from; `None` for one that the host itself sends.
    pub from: Option<IpAddr>,
    /// Whom it is for.
    pub to: IpAddr,
    /// The link that it comes in by; `None` for one that the host itself sends.
    pub incoming: Option<IfName>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A route leads on, or to the host itself.
    Route(FibRoute),
    /// It is dropped.
    Dropped(DropReason),
}

/// The route that decides about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FibRoute {
    /// Its destination.
    pub destination: IpNet,
    /// The routing table that it is in; 254 is the main one.
    pub table: u32,
    /// Who made it: `rtm_protocol`.
    pub protocol: u8,
    /// Whether the packet is for the host itself.
    pub local: bool,
    /// Its link; of a route with several nexthops, the first one's.
    pub link: Option<IfName>,
    /// Its gateway, likewise.
    pub gateway: Option<IpAddr>,
    /// Id of the nexthop object that it refers to.
    pub nexthop: Option<u32>,
}

/// Why a packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// No route leads there.
    NoRoute,
    /// A route says that the destination is unreachable, or the host does not forward.
    Unreachable,
    /// A blackhole route, or an address that no packet may have.
    Blackhole,
    /// A route or a rule prohibits it.
    Prohibited,
    /// Packets from its source may not come in by this link: the reverse path filter, or an address of the host's own.
    Source,
    /// Another error number.
    Other(i32),
}

impl DropReason {
    fn of(errno: i32) -> Self {
        match errno {
            libc::ENETUNREACH | libc::ESRCH => Self::NoRoute,
            libc::EHOSTUNREACH => Self::Unreachable,
            libc::EINVAL => Self::Blackhole,
            libc::EACCES => Self::Prohibited,
            libc::EXDEV => Self::Source,
            errno => Self::Other(errno),
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => f.write_str("no route leads there"),
            Self::Unreachable => f.write_str("it is unreachable"),
            Self::Blackhole => f.write_str("a blackhole route drops it"),
            Self::Prohibited => f.write_str("a route or a rule prohibits it"),
            Self::Source => f.write_str("packets from its source may not come in by this link"),
            Self::Other(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// The word for a routing protocol number (`rtm_protocol`), as iproute2's rt_protos has it; `None` for one that it does not
/// name.
pub fn protocol_name(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        libc::RTPROT_REDIRECT => "redirect",
        libc::RTPROT_KERNEL => "kernel",
        libc::RTPROT_BOOT => "boot",
        libc::RTPROT_STATIC => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        18 => "keepalived",
        42 => "babel",
        84 => "ovn",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => return None,
    })
}

/// Asks the kernel of one network namespace.
#[derive(Debug)]
pub struct Fib {
    socket: Socket,
    inspector: Inspector,
}

impl Fib {
    /// Opens it in the namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open()?,
            inspector: Inspector::open()?,
        })
    }

    /// Opens it in `netns`; the calling thread stays where it is.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    /// What the kernel would do with the packet at this moment. [`Error::NoSuchLink`] where the link that it comes in by
    /// is not there.
    pub fn decide(&mut self, packet: Packet) -> Result<Decision, Error> {
        let decision = self.ask(packet)?;
        if decision != Decision::Dropped(DropReason::Blackhole) || packet.incoming.is_none() {
            return Ok(decision);
        }
        // Newer kernels have one error number for a blackhole and a bad source: what the host itself would send there
        // tells which it is.
        let own = Packet {
            from: None,
            incoming: None,
            ..packet
        };
        Ok(match self.ask(own)? {
            Decision::Route(_) => Decision::Dropped(DropReason::Source),
            Decision::Dropped(_) => decision,
        })
    }

    fn ask(&mut self, packet: Packet) -> Result<Decision, Error> {
        let links = self.inspector.links()?;
        let mut message = route::get(Family::of(packet.to), 0);
        let header = &mut message.header;
        header.table = RouteHeader::RT_TABLE_UNSPEC;
        // Without the second, IPv4 calls every table the main one.
        header.flags = RouteFlags::FibMatch | RouteFlags::LookupTable;
        header.destination_prefix_length = Family::of(packet.to).host_prefix_len();
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(packet.to)));
        if let Some(from) = packet.from {
            message.header.source_prefix_length = Family::of(from).host_prefix_len();
            message
                .attributes
                .push(RouteAttribute::Source(RouteAddress::from(from)));
        }
        if let Some(incoming) = packet.incoming {
            let link = links.iter().find(|link| link.name == incoming);
            let index = link.ok_or(Error::NoSuchLink(incoming))?.index;
            message.attributes.push(RouteAttribute::Iif(index));
        }
        let request = RouteNetlinkMessage::GetRoute(message);
        match self.socket.get(&request, |payload| read(payload, &links)) {
            Ok(decision) => Ok(decision),
            Err(Error::Refused { errno, .. }) => Ok(Decision::Dropped(DropReason::of(errno))),
            Err(error) => Err(error),
        }
    }
}

/// Reads the answer. IPv6 tells of a blackhole by the route, IPv4 by an error.
fn read(payload: &[u8], links: &[LinkRow]) -> Result<Decision, Error> {
    let attributes = Attributes::after(payload, HEADER)?;
    let [number, length, table, protocol, kind] = [0, 1, 4, 5, 7].map(|at| payload[at]);
    let family = family_of_number(number).ok_or(Error::Decode("a route of an unknown family"))?;
    let mut destination: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let name = |index: u32| {
        links
            .iter()
            .find(|link| link.index == index)
            .map(|link| link.name)
    };
    let (mut table, mut link, mut gateway, mut nexthop) = (u32::from(table), None, None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            libc::RTA_DST => destination = attribute.address()?,
            libc::RTA_TABLE => table = attribute.u32()?,
            libc::RTA_OIF => link = name(attribute.u32()?),
            libc::RTA_GATEWAY => gateway = Some(attribute.address()?),
            RTA_NH_ID => nexthop = Some(attribute.u32()?),
            libc::RTA_MULTIPATH if link.is_none() => {
                link = read_u32(attribute.value, 4).and_then(name);
                let length = crate::frame::read_u16(attribute.value, 0).map_or(0, usize::from);
                let first = attribute.value.get(RTNEXTHOP..length).unwrap_or_default();
                for inner in Attributes::new(first) {
                    let inner = inner?;
                    if inner.kind == libc::RTA_GATEWAY {
                        gateway = Some(inner.address()?);
                    }
                }
            }
            _ => {}
        }
    }
    let destination = IpNet::new(destination, length)
        .map_err(|_| Error::Decode("a route with a prefix longer than its address"))?;
    Ok(match kind {
        libc::RTN_BLACKHOLE => Decision::Dropped(DropReason::Blackhole),
        libc::RTN_UNREACHABLE => Decision::Dropped(DropReason::Unreachable),
        libc::RTN_PROHIBIT => Decision::Dropped(DropReason::Prohibited),
        _ => Decision::Route(FibRoute {
            destination,
            table,
            protocol,
            local: kind == libc::RTN_LOCAL || kind == libc::RTN_ANYCAST,
            link,
            gateway,
            nexthop,
        }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read(payload in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = read(&payload, &[]);
        }
    }
}
