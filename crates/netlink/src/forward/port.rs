//! Whether a rule drops packets to a UDP port, as nft and iptables-nft write such rules.
//!
//! Layout: linux/netfilter/nf_tables.h; `struct xt_udp` of linux/netfilter/xt_tcpudp.h.

use super::expressions::{
    NFT_CMP_EQ, NFTA_CMP_DATA, NFTA_CMP_OP, NFTA_MATCH_NAME, NFTA_META_KEY, NFTA_PAYLOAD_BASE,
    NFTA_PAYLOAD_OFFSET, data_of, expression_of, find, number, verdict_of,
};
use crate::Error;
use crate::attributes::Attributes;

const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
/// Where a destination port is in the header of UDP.
const DESTINATION_PORT: u32 = 2;
const NFT_META_L4PROTO: u32 = 16;
const NFT_META_NFPROTO: u32 = 15;
const NFT_CMP_LTE: u32 = 3;
const NFT_CMP_GTE: u32 = 5;
const NFTA_RANGE_OP: u16 = 2;
const NFTA_RANGE_FROM: u16 = 3;
const NFTA_RANGE_TO: u16 = 4;
const NFT_RANGE_EQ: u32 = 0;
const NFTA_MATCH_INFO: u16 = 3;
const NF_DROP: u32 = 0;

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

/// Whether the range of destination ports is about the port and not about all of them.
fn holds_port(info: &[u8], port: u16) -> bool {
    let at = |offset| crate::frame::read_u16(info, offset);
    match (at(4), at(6)) {
        (Some(first), Some(last)) => (first, last) != (0, u16::MAX) && (first..=last).contains(&port),
        _ => false,
    }
}
