//! Reads the frames that tell the way of a ping: ARP (RFC 826), ICMP echo (RFC 792), ICMPv6 echo (RFC 4443) and
//! neighbour discovery (RFC 4861).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use routelet_model::MacAddr;

/// Destination, source, type.
const ETHERNET: usize = 14;
/// Types of what follows.
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Of an IPv6 packet.
const IPV6_HEADER: usize = 40;

/// A packet, with what is of interest in it. It displays as tcpdump shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// Who looks for whom, over ARP.
    ArpRequest {
        /// Who is looked for.
        target: Ipv4Addr,
        /// Who wants to know.
        sender: Ipv4Addr,
    },
    /// The answer to it.
    ArpReply {
        /// Who was looked for.
        address: Ipv4Addr,
        /// And where it is.
        mac: MacAddr,
    },
    /// An echo request or reply of either family.
    Echo(Echo),
    /// Who looks for whom, in IPv6.
    Solicitation {
        /// Who is looked for.
        target: Ipv6Addr,
        /// Who wants to know.
        sender: Ipv6Addr,
    },
    /// The answer to it.
    Advertisement {
        /// Who was looked for.
        address: Ipv6Addr,
        /// And where it is, where the packet says so.
        mac: Option<MacAddr>,
    },
}

/// An echo request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Its source.
    pub from: IpAddr,
    /// Its destination.
    pub to: IpAddr,
    /// Whether it is a request, else it is a reply.
    pub is_request: bool,
    /// Identifier and sequence number.
    pub id: u16,
    /// See `id`.
    pub sequence: u16,
    /// TTL, or hop limit.
    pub ttl: u8,
}

impl Packet {
    /// Reads an Ethernet frame; `None` if it is none of these, or cut off.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let payload = frame.get(ETHERNET..)?;
        match u16_at(frame, 12)? {
            ARP => parse_arp(payload),
            IPV4 => parse_ipv4(payload),
            IPV6 => parse_ipv6(payload),
            _ => None,
        }
    }
}

fn parse_arp(packet: &[u8]) -> Option<Packet> {
    const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    if *bytes_at::<6>(packet, 0)? != ETHERNET_AND_IPV4 {
        return None;
    }
    let sender = Ipv4Addr::from(*bytes_at(packet, 14)?);
    match u16_at(packet, 6)? {
        1 => Some(Packet::ArpRequest {
            target: Ipv4Addr::from(*bytes_at(packet, 24)?),
            sender,
        }),
        2 => Some(Packet::ArpReply {
            address: sender,
            mac: MacAddr(*bytes_at(packet, 8)?),
        }),
        _ => None,
    }
}

fn parse_ipv4(packet: &[u8]) -> Option<Packet> {
    /// All but the flag that the packet may not be cut.
    const IS_FRAGMENT: u16 = 0xbfff;
    if *packet.get(9)? != ICMP || u16_at(packet, 6)? & IS_FRAGMENT != 0 {
        return None;
    }
    let icmp = packet.get(usize::from(packet.first()? & 0xf) * 4..)?;
    let is_request = match icmp.first()? {
        8 => true,
        0 => false,
        _ => return None,
    };
    let address = |at| Some(Ipv4Addr::from(*bytes_at(packet, at)?).into());
    echo(icmp, is_request, address(12)?, address(16)?, *packet.get(8)?)
}

fn parse_ipv6(packet: &[u8]) -> Option<Packet> {
    if *packet.get(6)? != ICMPV6 {
        return None;
    }
    let address = |at| Some(Ipv6Addr::from(*bytes_at(packet, at)?));
    let (from, to, ttl) = (address(8)?, address(24)?, *packet.get(7)?);
    let icmp = packet.get(IPV6_HEADER..)?;
    let target = || Some(Ipv6Addr::from(*bytes_at(icmp, 8)?));
    match icmp.first()? {
        kind @ (128 | 129) => echo(icmp, *kind == 128, from.into(), to.into(), ttl),
        135 => Some(Packet::Solicitation {
            target: target()?,
            sender: from,
        }),
        136 => Some(Packet::Advertisement {
            address: target()?,
            mac: target_mac(icmp),
        }),
        _ => None,
    }
}

/// The option "target link-layer address" of an advertisement, where it is the first.
fn target_mac(icmp: &[u8]) -> Option<MacAddr> {
    const OPTION: [u8; 2] = [2, 1];
    (*bytes_at(icmp, 24)? == OPTION)
        .then(|| bytes_at(icmp, 26).copied().map(MacAddr))
        .flatten()
}

fn echo(icmp: &[u8], is_request: bool, from: IpAddr, to: IpAddr, ttl: u8) -> Option<Packet> {
    Some(Packet::Echo(Echo {
        from,
        to,
        is_request,
        id: u16_at(icmp, 4)?,
        sequence: u16_at(icmp, 6)?,
        ttl,
    }))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(|two| u16::from_be_bytes(*two))
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ArpRequest { target, sender } => write!(f, "ARP, Request who-has {target} tell {sender}"),
            Self::ArpReply { address, mac } => write!(f, "ARP, Reply {address} is-at {mac}"),
            Self::Echo(echo) => echo.fmt(f),
            Self::Solicitation { target, sender } => {
                write!(f, "IP6 {sender}: ICMP6, neighbor solicitation, who has {target}")
            }
            Self::Advertisement { address, mac } => {
                write!(f, "IP6 ICMP6, neighbor advertisement, tgt is {address}")?;
                mac.map_or(Ok(()), |mac| write!(f, ", dst link-address {mac}"))
            }
        }
    }
}

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ip, ttl, icmp) = match self.from {
            IpAddr::V4(_) => ("IP", "ttl", "ICMP"),
            IpAddr::V6(_) => ("IP6", "hlim", "ICMP6,"),
        };
        let kind = if self.is_request { "request" } else { "reply" };
        write!(
            f,
            "{ip} ({ttl} {}) {} > {}: {icmp} echo {kind}, id {}, seq {}",
            self.ttl, self.from, self.to, self.id, self.sequence
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: u16, payload: &[&[u8]]) -> Option<String> {
        let mut frame = vec![0; 12];
        frame.extend(kind.to_be_bytes());
        frame.extend(payload.concat());
        let whole = Packet::parse(&frame).map(|packet| packet.to_string());
        // However little there is of a frame, it is read without harm.
        for length in 0..frame.len() {
            Packet::parse(&frame[..length]);
        }
        whole
    }

    #[test]
    fn arp() {
        let head = |operation| [0, 1, 8, 0, 6, 4, 0, operation];
        let (pod, gateway) = ([10, 244, 1, 2], [169, 254, 1, 1]);
        let request: [&[u8]; 5] = [&head(1), &[2; 6], &pod, &[0; 6], &gateway];
        assert_eq!(
            shown(ARP, &request).unwrap(),
            "ARP, Request who-has 169.254.1.1 tell 10.244.1.2"
        );
        let reply: [&[u8]; 5] = [&head(2), &[0xee; 6], &gateway, &[2; 6], &pod];
        assert_eq!(
            shown(ARP, &reply).unwrap(),
            "ARP, Reply 169.254.1.1 is-at ee:ee:ee:ee:ee:ee"
        );
        assert_eq!(shown(ARP, &[&head(3), &[0; 20]]), None);
    }

    #[test]
    fn echo_of_ipv4() {
        let packet = |flags: u8, ttl, protocol, kind| {
            let ip = [0x45, 0, 0, 28, 0, 0, flags, 0, ttl, protocol, 0, 0];
            let icmp = [kind, 0, 0, 0, 0, 7, 0, 3];
            shown(IPV4, &[&ip, &[10, 244, 1, 3], &[10, 244, 1, 2], &icmp])
        };
        assert_eq!(
            packet(0x40, 63, ICMP, 0).unwrap(),
            "IP (ttl 63) 10.244.1.3 > 10.244.1.2: ICMP echo reply, id 7, seq 3"
        );
        assert_eq!(
            packet(0, 64, ICMP, 8).unwrap(),
            "IP (ttl 64) 10.244.1.3 > 10.244.1.2: ICMP echo request, id 7, seq 3"
        );
        for other in [
            packet(0x20, 63, ICMP, 0),
            packet(0, 63, 17, 0),
            packet(0, 63, ICMP, 3),
        ] {
            assert_eq!(other, None);
        }
    }

    #[test]
    fn ipv6() {
        let (pod, gateway): (Ipv6Addr, Ipv6Addr) = (
            "fd00:244:1::2".parse().unwrap(),
            "fe80::ecee:eeff:feee:eeee".parse().unwrap(),
        );
        let packet = |from: Ipv6Addr, to: Ipv6Addr, icmp: &[&[u8]]| {
            let head = [0x60, 0, 0, 0, 0, 0, ICMPV6, 63];
            shown(IPV6, &[&head, &from.octets(), &to.octets(), &icmp.concat()])
        };
        assert_eq!(
            packet(pod, gateway, &[&[128, 0, 0, 0, 0, 7, 0, 3]]).unwrap(),
            "IP6 (hlim 63) fd00:244:1::2 > fe80::ecee:eeff:feee:eeee: ICMP6, echo request, id 7, seq 3"
        );
        assert_eq!(
            packet(pod, gateway, &[&[135, 0, 0, 0, 0, 0, 0, 0], &gateway.octets()]).unwrap(),
            "IP6 fd00:244:1::2: ICMP6, neighbor solicitation, who has fe80::ecee:eeff:feee:eeee"
        );
        let advertisement: [&[u8]; 4] = [
            &[136, 0, 0, 0, 0, 0, 0, 0],
            &gateway.octets(),
            &[2, 1],
            &[0xee; 6],
        ];
        assert_eq!(
            packet(gateway, pod, &advertisement).unwrap(),
            "IP6 ICMP6, neighbor advertisement, tgt is fe80::ecee:eeff:feee:eeee, dst link-address ee:ee:ee:ee:ee:ee"
        );
        assert!(
            packet(gateway, pod, &advertisement[..2])
                .unwrap()
                .ends_with("feee:eeee")
        );
    }
}
