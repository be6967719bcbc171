//! The sets of the table: what they are called, what they are, and what of them the kernel has.
//!
//! Pod subnets are in sets of their networks' first addresses, one for each prefix length: a rule cuts a packet's address
//! to that length and looks it up. To add to a set of ranges would take the kernel the longer the more it holds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use routelet_model::{Family, NftSet, PerFamily, PrefixLens};

use crate::Error;
use crate::attributes::Attributes;
use crate::nft::message::{HEADER, Kind, Message};

const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_ID: u16 = 10;
const NFT_SET_ANONYMOUS: u32 = 1;
const NFT_SET_INTERVAL: u32 = 4;

/// The first and the last address of an element; the same in the set of nodes.
pub(crate) type Range = (IpAddr, IpAddr);

/// One of our sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Set {
    pub(crate) of: NftSet,
    pub(crate) family: Family,
    /// How long the prefixes are that it holds; `None` where it does not hold prefixes of one length.
    pub(crate) prefix_len: Option<u8>,
}

impl Set {
    /// The set of pod subnets of a length.
    pub(crate) fn of_pods(family: Family, prefix_len: u8) -> Self {
        Self {
            of: NftSet::Pods,
            family,
            prefix_len: Some(prefix_len),
        }
    }

    /// A set of anything else.
    pub(crate) fn plain(of: NftSet, family: Family) -> Self {
        Self {
            of,
            family,
            prefix_len: None,
        }
    }

    /// The set that an element is in.
    pub(crate) fn that_holds(of: NftSet, (first, last): Range) -> Self {
        let family = Family::of(first);
        match of {
            NftSet::Pods => Self::of_pods(family, prefix_len(first, last)),
            _ => Self::plain(of, family),
        }
    }

    /// Those that the table has always.
    pub(crate) fn always() -> impl Iterator<Item = Self> {
        let plain = NftSet::ALL.into_iter().filter(|of| *of != NftSet::Pods);
        plain.flat_map(|of| Family::ALL.map(|family| Self::plain(of, family)))
    }

    /// Those of pod subnets of these lengths.
    pub(crate) fn all_of_pods(lens: PerFamily<PrefixLens>) -> impl Iterator<Item = Self> {
        Family::ALL
            .into_iter()
            .flat_map(move |family| lens.get(family).iter().map(move |len| Self::of_pods(family, len)))
    }

    pub(crate) fn name(self) -> String {
        let Self {
            of,
            family,
            prefix_len,
        } = self;
        let family = word(family);
        match prefix_len {
            Some(len) => format!("{of}_{family}_{len}"),
            None => format!("{of}_{family}"),
        }
    }

    /// The lowest prefix of the length that it holds, whose masks are those of all.
    pub(crate) fn first_prefix(self) -> Option<IpNet> {
        let lowest = match self.family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        IpNet::new(lowest, self.prefix_len?).ok()
    }

    /// The range of addresses that an element with this address stands for, in a set without ranges.
    pub(crate) fn range(self, address: IpAddr) -> Range {
        // One that someone else added need not be a network's first address.
        let last = match (address, self.first_prefix().map(|prefix| prefix.hostmask())) {
            (IpAddr::V4(first), Some(IpAddr::V4(hosts))) => {
                Ipv4Addr::from_bits(first.to_bits().wrapping_add(hosts.to_bits())).into()
            }
            (IpAddr::V6(first), Some(IpAddr::V6(hosts))) => {
                Ipv6Addr::from_bits(first.to_bits().wrapping_add(hosts.to_bits())).into()
            }
            _ => address,
        };
        (address, last)
    }

    /// The set as it should be. The type is nft's number for addresses of the family, by which it shows them.
    fn wanted(self) -> SeenSet {
        let (key_type, key_len) = match self.family {
            Family::V4 => (7, 4),
            Family::V6 => (8, 16),
        };
        SeenSet {
            name: self.name(),
            flags: if self.of.has_ranges() { NFT_SET_INTERVAL } else { 0 },
            key_type,
            key_len,
        }
    }

    /// The message that makes it, or changes nothing where it is. In a transaction, no two have one `id`.
    pub(crate) fn create(self, table: &str, id: u32) -> Message {
        let wanted = self.wanted();
        Message::new(Kind::NewSet, table, |message| {
            message.text(NFTA_SET_NAME, &wanted.name);
            message.u32(NFTA_SET_FLAGS, wanted.flags);
            message.u32(NFTA_SET_KEY_TYPE, wanted.key_type);
            message.u32(NFTA_SET_KEY_LEN, wanted.key_len);
            message.u32(NFTA_SET_ID, id);
        })
    }
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

/// How many leading bits the addresses of a range have in common, by how many they are.
fn prefix_len(first: IpAddr, last: IpAddr) -> u8 {
    let bits = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => last.to_bits().wrapping_sub(first.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().wrapping_sub(first.to_bits()).leading_zeros(),
        _ => 0,
    };
    bits as u8
}

/// A set as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SeenSet {
    name: String,
    flags: u32,
    key_type: u32,
    key_len: u32,
}

impl SeenSet {
    /// Reads a message of the answer to [`get`].
    pub(crate) fn read(payload: &[u8]) -> Result<Self, Error> {
        let mut seen = Self::default();
        for attribute in Attributes::after(payload, HEADER)? {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_SET_NAME => seen.name = attribute.text().to_owned(),
                NFTA_SET_FLAGS => seen.flags = attribute.u32_be()?,
                NFTA_SET_KEY_TYPE => seen.key_type = attribute.u32_be()?,
                NFTA_SET_KEY_LEN => seen.key_len = attribute.u32_be()?,
                _ => {}
            }
        }
        Ok(seen)
    }

    /// Whether it is a part of a rule, and goes with it.
    fn is_anonymous(&self) -> bool {
        self.flags & NFT_SET_ANONYMOUS != 0
    }

    /// Which one of ours it is, by its name.
    pub(crate) fn ours(&self) -> Option<Set> {
        let of_pods = || {
            let (family, len) = self.name.strip_prefix("pods_")?.split_once('_')?;
            let family = Family::ALL.into_iter().find(|one| word(*one) == family)?;
            let len = len
                .parse()
                .ok()
                .filter(|len| (1..=family.host_prefix_len()).contains(len))?;
            Some(Set::of_pods(family, len))
        };
        let mut candidates = Set::always().chain(of_pods());
        candidates.find(|set| set.name() == self.name)
    }

    /// Whether it is what the one of ours that has its name should be.
    fn is_right(&self) -> bool {
        self.ours().is_some_and(|set| set.wanted() == *self)
    }

    /// The message that deletes it.
    pub(crate) fn delete(&self, table: &str) -> Message {
        Message::new(Kind::DelSet, table, |message| {
            message.text(NFTA_SET_NAME, &self.name);
        })
    }
}

/// The request for the table's sets.
pub(crate) fn get(table: &str) -> Message {
    Message::new(Kind::GetSet, table, |_| {})
}

/// Whether those that the table has always are there, and all of ours are what they should be.
pub(crate) fn are_right(seen: &[SeenSet]) -> bool {
    let all_there = Set::always().all(|set| seen.contains(&set.wanted()));
    let mut ours = seen.iter().filter(|seen| seen.ours().is_some());
    all_there && ours.all(SeenSet::is_right)
}

/// The prefix lengths for which there is a set of pod subnets.
pub(crate) fn prefix_lens(seen: &[SeenSet]) -> PerFamily<PrefixLens> {
    let of = |family| {
        let ours = seen.iter().filter_map(SeenSet::ours);
        let ours = ours.filter(|set| set.family == family);
        ours.filter_map(|set| set.prefix_len).collect()
    };
    PerFamily {
        v4: of(Family::V4),
        v6: of(Family::V6),
    }
}

/// The sets that are none of ours, as far as pod subnets have these prefix lengths.
pub(crate) fn surplus(seen: &[SeenSet], lens: PerFamily<PrefixLens>) -> impl Iterator<Item = &SeenSet> {
    let is_ours = move |set: Set| {
        let mut lens = lens.get(set.family).iter();
        set.prefix_len.is_none_or(|len| lens.any(|one| one == len))
    };
    seen.iter()
        .filter(move |seen| !seen.is_anonymous() && !seen.ours().is_some_and(is_ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_known_by_its_name() {
        let all = Set::always().chain([
            Set::of_pods(Family::V4, 24),
            Set::of_pods(Family::V6, 128),
            Set::of_pods(Family::V4, 1),
        ]);
        for set in all {
            assert_eq!(set.wanted().ours(), Some(set));
        }
        for name in [
            "",
            "pods_v4",
            "pods_v4_",
            "pods_v4_0",
            "pods_v4_024",
            "pods_v4_33",
            "pods_v6_129",
            "nodes_v4_24",
        ] {
            let seen = SeenSet {
                name: name.to_owned(),
                ..SeenSet::default()
            };
            assert_eq!(seen.ours(), None, "{name}");
        }
    }

    #[test]
    fn an_element_leads_to_its_set_and_back() {
        for (address, len) in [
            ("10.0.0.0", 24),
            ("10.0.0.7", 24),
            ("255.255.255.255", 1),
            ("10.0.0.0", 32),
            ("fd00::", 64),
            ("ffff::5", 3),
            ("::", 128),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let set = Set::of_pods(Family::of(address), len);
            assert_eq!(Set::that_holds(NftSet::Pods, set.range(address)), set);
        }
    }
}
