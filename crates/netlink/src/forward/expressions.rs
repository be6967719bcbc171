//! What our rules say, in nf_tables' expressions: packets from or to a subnet are accepted.
//!
//! They are written as iptables-nft writes `-s SUBNET -j ACCEPT`, so that iptables-save shows them.
//! Layout: linux/netfilter/nf_tables.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use routelet_model::Family;

use super::ChainFamily;
use crate::Error;
use crate::attributes::{Attribute, Attributes};
use crate::nfnl::NfAttributes;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NF_ACCEPT: u32 = 1;

/// Attributes 1 of most expressions are a register.
const REGISTER: u16 = 1;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;

pub(super) const NFTA_META_KEY: u16 = 2;
pub(super) const NFT_META_NFPROTO: u32 = 15;
pub(super) const NFTA_PAYLOAD_BASE: u16 = 2;
pub(super) const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
pub(super) const NFTA_CMP_OP: u16 = 2;
pub(super) const NFTA_CMP_DATA: u16 = 3;
pub(super) const NFT_CMP_EQ: u32 = 0;
pub(super) const NFTA_IMMEDIATE_DATA: u16 = 2;
pub(super) const NFTA_MATCH_NAME: u16 = 1;

/// What one of our rules accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Accept {
    pub(super) direction: Direction,
    pub(super) subnet: IpNet,
}

/// Which end of a packet is in the subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    From,
    To,
}

impl Direction {
    pub(super) const ALL: [Direction; 2] = [Direction::From, Direction::To];

    /// Where the address is in the packet's header.
    fn offset(self, family: Family) -> u32 {
        match (family, self) {
            (Family::V4, Self::From) => 12,
            (Family::V4, Self::To) => 16,
            (Family::V6, Self::From) => 8,
            (Family::V6, Self::To) => 24,
        }
    }
}

/// The expressions of a rule, for a chain of the family.
pub(super) fn write(chain: ChainFamily, accept: Accept) -> NfAttributes {
    let family = Family::of_net(accept.subnet);
    let mut list = NfAttributes::default();
    if chain == ChainFamily::Inet {
        let only = match family {
            Family::V4 => ChainFamily::Ip,
            Family::V6 => ChainFamily::Ip6,
        };
        list = add(list, "meta", register().number(NFTA_META_KEY, NFT_META_NFPROTO));
        list = add(list, "cmp", equals(&[only.number()]));
    }
    let (address, mask) = (bytes(accept.subnet.network()), bytes(accept.subnet.netmask()));
    let prefix = usize::from(accept.subnet.prefix_len());
    let whole_bytes = prefix % 8 == 0 && prefix > 0;
    let length = if whole_bytes { prefix / 8 } else { address.len() };
    let load = register()
        .number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER)
        .number(NFTA_PAYLOAD_OFFSET, accept.direction.offset(family))
        .number(NFTA_PAYLOAD_LEN, length as u32);
    list = add(list, "payload", load);
    if !whole_bytes {
        let masked = register()
            .number(NFTA_BITWISE_DREG, NFT_REG_1)
            .number(NFTA_BITWISE_LEN, length as u32)
            .nest(NFTA_BITWISE_MASK, value(&mask))
            .nest(NFTA_BITWISE_XOR, value(&vec![0; length]));
        list = add(list, "bitwise", masked);
    }
    list = add(list, "cmp", equals(&address[..length]));
    list = add(list, "counter", NfAttributes::default());
    let verdict = NfAttributes::default().number(NFTA_VERDICT_CODE, NF_ACCEPT);
    let verdict = NfAttributes::default().nest(NFTA_DATA_VERDICT, verdict);
    let accept = NfAttributes::default()
        .number(REGISTER, NFT_REG_VERDICT)
        .nest(NFTA_IMMEDIATE_DATA, verdict);
    add(list, "immediate", accept)
}

fn add(list: NfAttributes, name: &str, data: NfAttributes) -> NfAttributes {
    let expression = NfAttributes::default()
        .text(NFTA_EXPR_NAME, name)
        .nest(NFTA_EXPR_DATA, data);
    list.nest(NFTA_LIST_ELEM, expression)
}

fn register() -> NfAttributes {
    NfAttributes::default().number(REGISTER, NFT_REG_1)
}

fn value(bytes: &[u8]) -> NfAttributes {
    NfAttributes::default().put(NFTA_DATA_VALUE, bytes)
}

fn equals(bytes: &[u8]) -> NfAttributes {
    register()
        .number(NFTA_CMP_OP, NFT_CMP_EQ)
        .nest(NFTA_CMP_DATA, value(bytes))
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// What the register holds while a rule is read.
enum Loaded {
    Nothing,
    Protocol,
    Header { offset: u32, mask: Vec<u8> },
}

/// Reads the expressions of a rule in a chain of the family; `None` where they are not such as we write.
pub(super) fn read(chain: ChainFamily, list: Attributes<'_>) -> Result<Option<Accept>, Error> {
    let mut family = match chain {
        ChainFamily::Ip => Some(Family::V4),
        ChainFamily::Ip6 => Some(Family::V6),
        ChainFamily::Inet => None,
    };
    let (mut loaded, mut accept, mut is_accepted) = (Loaded::Nothing, None, false);
    for expression in list {
        let (name, data) = expression_of(&expression?)?;
        match name {
            "meta" if number(&data, NFTA_META_KEY)? == Some(NFT_META_NFPROTO) => loaded = Loaded::Protocol,
            "payload" if number(&data, NFTA_PAYLOAD_BASE)? == Some(NFT_PAYLOAD_NETWORK_HEADER) => {
                let (offset, length) = (
                    number(&data, NFTA_PAYLOAD_OFFSET)?,
                    number(&data, NFTA_PAYLOAD_LEN)?,
                );
                let (Some(offset), Some(length @ ..=16)) = (offset, length) else {
                    return Ok(None);
                };
                loaded = Loaded::Header {
                    offset,
                    mask: vec![0xff; length as usize],
                };
            }
            "bitwise" => {
                let (Loaded::Header { mask, .. }, Some(bits)) =
                    (&mut loaded, data_of(&data, NFTA_BITWISE_MASK)?)
                else {
                    return Ok(None);
                };
                *mask = bits.to_vec();
            }
            "cmp" if number(&data, NFTA_CMP_OP)? == Some(NFT_CMP_EQ) => {
                let Some(bytes) = data_of(&data, NFTA_CMP_DATA)? else {
                    return Ok(None);
                };
                match std::mem::replace(&mut loaded, Loaded::Nothing) {
                    Loaded::Protocol => {
                        family = match bytes.first().copied().and_then(ChainFamily::of_number) {
                            Some(ChainFamily::Ip) => Some(Family::V4),
                            Some(ChainFamily::Ip6) => Some(Family::V6),
                            _ => return Ok(None),
                        };
                    }
                    Loaded::Header { offset, mask } if accept.is_none() => {
                        let Some(family) = family else { return Ok(None) };
                        accept = subnet(family, bytes, &mask).and_then(|subnet| {
                            let at = |direction: &Direction| direction.offset(family) == offset;
                            let direction = Direction::ALL.into_iter().find(at)?;
                            Some(Accept { direction, subnet })
                        });
                        if accept.is_none() {
                            return Ok(None);
                        }
                    }
                    _ => return Ok(None),
                }
            }
            "counter" => {}
            // So does iptables-restore write our comment.
            "match" if find(&data, NFTA_MATCH_NAME)?.is_some_and(|name| name.text() == "comment") => {}
            "immediate" => is_accepted = is_accept(&data)?,
            _ => return Ok(None),
        }
    }
    Ok(accept.filter(|_| is_accepted))
}

pub(super) fn expression_of<'a>(expression: &Attribute<'a>) -> Result<(&'a str, Attributes<'a>), Error> {
    let (mut name, mut data) = ("", Attributes::new(&[]));
    for attribute in expression.nested() {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_EXPR_NAME => name = attribute.text(),
            NFTA_EXPR_DATA => data = attribute.nested(),
            _ => {}
        }
    }
    Ok((name, data))
}

pub(super) fn find<'a>(attributes: &Attributes<'a>, kind: u16) -> Result<Option<Attribute<'a>>, Error> {
    for attribute in attributes.clone() {
        let attribute = attribute?;
        if attribute.kind == kind {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}

pub(super) fn number(attributes: &Attributes<'_>, kind: u16) -> Result<Option<u32>, Error> {
    find(attributes, kind)?
        .map(|attribute| attribute.u32_be())
        .transpose()
}

/// The value that the attribute holds.
pub(super) fn data_of<'a>(attributes: &Attributes<'a>, kind: u16) -> Result<Option<&'a [u8]>, Error> {
    let Some(data) = find(attributes, kind)? else {
        return Ok(None);
    };
    Ok(find(&data.nested(), NFTA_DATA_VALUE)?.map(|value| value.value))
}

fn is_accept(immediate: &Attributes<'_>) -> Result<bool, Error> {
    Ok(verdict_of(immediate)? == Some(NF_ACCEPT))
}

/// The verdict (`NF_…`) that an immediate expression gives, if it gives one.
pub(super) fn verdict_of(immediate: &Attributes<'_>) -> Result<Option<u32>, Error> {
    let Some(data) = find(immediate, NFTA_IMMEDIATE_DATA)? else {
        return Ok(None);
    };
    let Some(verdict) = find(&data.nested(), NFTA_DATA_VERDICT)? else {
        return Ok(None);
    };
    number(&verdict.nested(), NFTA_VERDICT_CODE)
}

/// The subnet that an address' first bytes, under a mask, stand for.
fn subnet(family: Family, address: &[u8], mask: &[u8]) -> Option<IpNet> {
    let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
    let contiguous = mask.iter().map(|byte| byte.count_ones()).sum::<u32>() == ones
        && mask.windows(2).all(|pair| pair[0] == 0xff || pair[1] == 0);
    if !contiguous || address.len() != mask.len() {
        return None;
    }
    let mut whole = [0; 16];
    whole.get_mut(..address.len())?.copy_from_slice(address);
    let address: IpAddr = match family {
        Family::V4 if address.len() <= 4 => Ipv4Addr::new(whole[0], whole[1], whole[2], whole[3]).into(),
        Family::V4 => return None,
        Family::V6 => Ipv6Addr::from(whole).into(),
    };
    IpNet::new(address, u8::try_from(ones).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let subnets = [
            "10.244.1.0/24",
            "10.244.1.128/25",
            "10.0.0.0/8",
            "10.244.1.7/32",
            "0.0.0.0/0",
            "128.0.0.0/1",
            "fd00:1::/64",
            "fd00:1::/60",
            "fd00::7/128",
            "::/0",
        ];
        for subnet in subnets.map(|text| text.parse().unwrap()) {
            for direction in Direction::ALL {
                let accept = Accept { direction, subnet };
                let own = match Family::of_net(subnet) {
                    Family::V4 => ChainFamily::Ip,
                    Family::V6 => ChainFamily::Ip6,
                };
                for chain in [own, ChainFamily::Inet] {
                    let written = write(chain, accept);
                    let read = read(chain, Attributes::new(written.bytes())).unwrap();
                    assert_eq!(read, Some(accept), "in {chain:?}");
                }
            }
        }
    }

    #[test]
    fn what_accepts_nothing_is_not_ours() {
        let accept = Accept {
            direction: Direction::To,
            subnet: "10.244.1.0/24".parse().unwrap(),
        };
        let written = write(ChainFamily::Ip, accept);
        let last = written.bytes().len() - 4;
        let mut dropping = written.bytes().to_vec();
        dropping[last..].copy_from_slice(&0u32.to_be_bytes());
        assert_eq!(read(ChainFamily::Ip, Attributes::new(&dropping)).unwrap(), None);
        assert_eq!(read(ChainFamily::Ip, Attributes::new(&[])).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(noise in proptest::collection::vec(any::<u8>(), 0..8), at in 0usize..200) {
            let accept = Accept { direction: Direction::To, subnet: "10.244.1.0/25".parse().unwrap() };
            let mut bytes = write(ChainFamily::Inet, accept).bytes().to_vec();
            for (offset, byte) in noise.into_iter().enumerate() {
                if let Some(place) = bytes.get_mut(at + offset) {
                    *place = byte;
                }
            }
            let _ = read(ChainFamily::Inet, Attributes::new(&bytes));
        }
    }
}
