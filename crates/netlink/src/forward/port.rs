//! Whether a rule drops packets to a UDP port, as nft and iptables-nft write such rules.
//!
//! Layout: linux/netfilter/nf_tables.h; `struct xt_udp` of linux/netfilter/xt_tcpudp.h.

use super::chains::NF_DROP;
use super::expressions::{
    NFT_CMP_EQ, NFT_META_NFPROTO, NFTA_CMP_DATA, NFTA_CMP_OP, NFTA_MATCH_NAME, NFTA_META_KEY,
    NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, data_of, expression_of, find, number, verdict_of,
};
use crate::Error;
use crate::attributes::Attributes;

const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
/// Where a destination port is in the header of UDP.
const DESTINATION_PORT: u32 = 2;
const NFT_META_L4PROTO: u32 = 16;
const NFT_CMP_LTE: u32 = 3;
const NFT_CMP_GTE: u32 = 5;
const NFTA_RANGE_OP: u16 = 2;
const NFTA_RANGE_FROM: u16 = 3;
const NFTA_RANGE_TO: u16 = 4;
const NFT_RANGE_EQ: u32 = 0;
const NFTA_MATCH_INFO: u16 = 3;

/// How many of the port's packets a rule drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drops {
    /// All of them.
    All,
    /// Those that something else in the rule chooses.
    Some,
}

/// What the register holds while a rule is read.
enum Loaded {
    Other,
    /// IPv4 or IPv6, UDP or another protocol.
    Protocol,
    Port,
}

/// What the rule of these expressions drops of the packets to a port; `None` where it does not name the port, or lets it
/// through.
pub(super) fn read(list: Attributes<'_>, port: u16) -> Result<Option<Drops>, Error> {
    let (mut loaded, mut names_it, mut dropped, mut drops) = (Loaded::Other, false, false, Drops::All);
    for expression in list {
        let (name, data) = expression_of(&expression?)?;
        match name {
            "meta" => {
                let key = number(&data, NFTA_META_KEY)?;
                loaded = match key {
                    Some(NFT_META_L4PROTO | NFT_META_NFPROTO) => Loaded::Protocol,
                    _ => Loaded::Other,
                };
            }
            "payload" => {
                let is_port = number(&data, NFTA_PAYLOAD_BASE)? == Some(NFT_PAYLOAD_TRANSPORT_HEADER)
                    && number(&data, NFTA_PAYLOAD_OFFSET)? == Some(DESTINATION_PORT);
                loaded = if is_port { Loaded::Port } else { Loaded::Other };
            }
            "cmp" => {
                let operation = number(&data, NFTA_CMP_OP)?;
                let value = data_of(&data, NFTA_CMP_DATA)?.unwrap_or_default();
                let is_it = match (operation, as_port(value)) {
                    (Some(NFT_CMP_EQ), Some(value)) => Some(port == value),
                    (Some(NFT_CMP_GTE), Some(first)) => Some(port >= first),
                    (Some(NFT_CMP_LTE), Some(last)) => Some(port <= last),
                    _ => None,
                };
                match (&loaded, is_it) {
                    (Loaded::Port, Some(true)) => names_it = true,
                    (Loaded::Port, Some(false)) => return Ok(None),
                    (Loaded::Protocol, _) if operation == Some(NFT_CMP_EQ) => {}
                    _ => drops = Drops::Some,
                }
            }
            "range" if matches!(loaded, Loaded::Port) => {
                let end = |kind| data_of(&data, kind).map(|value| as_port(value.unwrap_or_default()));
                match (
                    number(&data, NFTA_RANGE_OP)?,
                    end(NFTA_RANGE_FROM)?,
                    end(NFTA_RANGE_TO)?,
                ) {
                    (Some(NFT_RANGE_EQ), Some(first), Some(last)) if (first..=last).contains(&port) => {
                        names_it = true;
                    }
                    (Some(NFT_RANGE_EQ), ..) => return Ok(None),
                    _ => drops = Drops::Some,
                }
            }
            "match" => match find(&data, NFTA_MATCH_NAME)?.map_or("", |name| name.text()) {
                "udp" => {
                    let info = find(&data, NFTA_MATCH_INFO)?.map_or(&[][..], |info| info.value);
                    if !holds_port(info, port) {
                        return Ok(None);
                    }
                    names_it = true;
                    if limits_sources(info) {
                        drops = Drops::Some;
                    }
                }
                "comment" => {}
                _ => drops = Drops::Some,
            },
            "counter" | "log" => {}
            "immediate" => dropped = verdict_of(&data)? == Some(NF_DROP),
            "reject" => dropped = true,
            _ => drops = Drops::Some,
        }
    }
    Ok((names_it && dropped).then_some(drops))
}

/// A port as it stands in a packet.
fn as_port(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_be_bytes)
}

/// Flags of a match of ports (linux/netfilter/xt_tcpudp.h): what is not in the range of source or destination ports.
const NOT_FROM: u8 = 1;
const NOT_TO: u8 = 2;

/// Whether what is matched of destination ports is about the port and not about all of them.
fn holds_port(info: &[u8], port: u16) -> bool {
    let is_inverted = has_flag(info, NOT_TO);
    match range(info, 4) {
        Some((0, u16::MAX)) if !is_inverted => false,
        Some((first, last)) => (first..=last).contains(&port) != is_inverted,
        None => false,
    }
}

/// Whether packets from some source ports only are matched.
fn limits_sources(info: &[u8]) -> bool {
    range(info, 0) != Some((0, u16::MAX)) || has_flag(info, NOT_FROM)
}

fn range(info: &[u8], offset: usize) -> Option<(u16, u16)> {
    let at = |offset| crate::frame::read_u16(info, offset);
    Some((at(offset)?, at(offset + 2)?))
}

fn has_flag(info: &[u8], flag: u8) -> bool {
    info.get(8).is_some_and(|flags| flags & flag != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(from: (u16, u16), to: (u16, u16), flags: u8) -> Vec<u8> {
        let mut info: Vec<u8> = [from.0, from.1, to.0, to.1]
            .iter()
            .flat_map(|port| port.to_ne_bytes())
            .collect();
        info.push(flags);
        info
    }

    #[test]
    fn a_match_holds_a_port_by_its_range_or_by_what_is_not_in_it() {
        let all = (0, u16::MAX);
        for (to, flags, holds) in [
            ((4789, 4789), 0, true),
            ((4000, 5000), 0, true),
            ((53, 53), 0, false),
            (all, 0, false),
            ((4789, 4789), NOT_TO, false),
            ((53, 53), NOT_TO, true),
        ] {
            assert_eq!(holds_port(&info(all, to, flags), 4789), holds, "{to:?} {flags}");
        }
        assert!(!holds_port(&[0; 3], 4789));
    }

    #[test]
    fn a_match_limits_source_ports_unless_it_takes_all_of_them() {
        let to = (4789, 4789);
        assert!(!limits_sources(&info((0, u16::MAX), to, 0)));
        assert!(limits_sources(&info((1024, u16::MAX), to, 0)));
        assert!(limits_sources(&info((0, u16::MAX), to, NOT_FROM)));
    }
}
