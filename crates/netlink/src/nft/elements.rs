//! Elements of the sets. A range is two elements to the kernel: its first address, and the one after its last with
//! a mark; the latter is left out where there is none after it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use routelet_model::Family;

use crate::Error;
use crate::attributes::Attributes;
use crate::nft::message::{HEADER, Kind, Message, Writer};
use crate::nft::set::{Range, Set};

const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
const NFTA_DATA_VALUE: u16 = 1;

/// Most elements of one message: of ranges of IPv6 addresses, 64 bytes each, half of what an attribute can hold.
const AT_ONCE: usize = 512;

/// The messages that add elements to a set, or take them away.
pub(crate) fn messages(kind: Kind, table: &str, set: Set, ranges: &[Range]) -> impl Iterator<Item = Message> {
    let name = set.name();
    ranges.chunks(AT_ONCE).map(move |ranges| {
        Message::new(kind, table, |message| {
            message.text(NFTA_SET_ELEM_LIST_SET, &name);
            message.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                for (first, last) in ranges {
                    write_bound(list, *first, false);
                    let after = set.of.has_ranges().then(|| after(*last)).flatten();
                    if let Some(after) = after {
                        write_bound(list, after, true);
                    }
                }
            });
        })
    })
}

fn write_bound(list: &mut Writer, address: IpAddr, end: bool) {
    list.nested(NFTA_LIST_ELEM, |element| {
        if end {
            element.u32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
        }
        element.nested(NFTA_SET_ELEM_KEY, |key| match address {
            IpAddr::V4(address) => key.bytes(NFTA_DATA_VALUE, &address.octets()),
            IpAddr::V6(address) => key.bytes(NFTA_DATA_VALUE, &address.octets()),
        });
    });
}

/// The request for all elements of a set.
pub(crate) fn get(table: &str, set: Set) -> Message {
    Message::new(Kind::GetElement, table, |message| {
        message.text(NFTA_SET_ELEM_LIST_SET, &set.name());
    })
}

/// One element, as the kernel has it: an address, and whether it is the one after a range.
pub(crate) type Bound = (IpAddr, bool);

/// Reads a message of the answer to [`get`].
pub(crate) fn read(payload: &[u8]) -> Result<Vec<Bound>, Error> {
    let mut bounds = Vec::new();
    for attribute in Attributes::after(payload, HEADER)? {
        let attribute = attribute?;
        if attribute.kind != NFTA_SET_ELEM_LIST_ELEMENTS {
            continue;
        }
        for element in attribute.nested() {
            let (mut address, mut end) = (None, false);
            for attribute in element?.nested() {
                let attribute = attribute?;
                match attribute.kind {
                    NFTA_SET_ELEM_KEY => {
                        for value in attribute.nested() {
                            let value = value?;
                            if value.kind == NFTA_DATA_VALUE {
                                address = Some(value.address()?);
                            }
                        }
                    }
                    NFTA_SET_ELEM_FLAGS => end = attribute.u32_be()? & NFT_SET_ELEM_INTERVAL_END != 0,
                    _ => {}
                }
            }
            bounds.extend(address.map(|address| (address, end)));
        }
    }
    Ok(bounds)
}

/// The ranges that the elements of one set add up to, in the order of their addresses.
pub(crate) fn ranges(set: Set, mut bounds: Vec<Bound>) -> Vec<Range> {
    // An end sorts before a beginning at the same address.
    bounds.sort_unstable_by_key(|(address, end)| (*address, !*end));
    if !set.of.has_ranges() {
        return bounds
            .into_iter()
            .map(|(address, _)| set.range(address))
            .collect();
    }
    let mut ranges = Vec::new();
    let mut open = None;
    for (address, end) in bounds {
        // Without a beginning it is the mark that nft sets at the lowest address.
        if let (Some(first), Some(last)) = (open.take(), before(address)) {
            ranges.push((first, last));
        }
        open = (!end).then_some(address);
    }
    ranges.extend(open.map(|first| (first, last_of(Family::of(first)))));
    ranges
}

fn after(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into(),
    })
}

fn before(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().checked_sub(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().checked_sub(1)?).into(),
    })
}

fn last_of(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::BROADCAST.into(),
        Family::V6 => Ipv6Addr::from_bits(u128::MAX).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use routelet_model::NftSet;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn adjacent_ranges_stay_apart_and_the_last_needs_no_end() {
        let bounds = vec![
            (ip("10.0.1.0"), true),
            (ip("0.0.0.0"), true),
            (ip("224.0.0.0"), false),
            (ip("10.0.1.0"), false),
            (ip("10.0.0.0"), false),
            (ip("10.0.2.0"), true),
        ];
        let expected = [
            (ip("10.0.0.0"), ip("10.0.0.255")),
            (ip("10.0.1.0"), ip("10.0.1.255")),
            (ip("224.0.0.0"), ip("255.255.255.255")),
        ];
        assert_eq!(ranges(Set::plain(NftSet::OwnPods, Family::V4), bounds), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(payload in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = read(&payload);
        }
    }
}
