//! What the node's nft table holds: sets of addresses, and rules that look them up.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Family, IfName, Key, PerFamily};

/// What a set of the table holds; the table has one for each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NftSet {
    /// Pod subnets of all nodes. It is one set for each prefix length, so that one subnet more takes the kernel the
    /// same time however many there are.
    Pods,
    /// Underlay addresses of all other nodes.
    Nodes,
    /// Destinations that pods keep their own address towards.
    Except,
    /// This node's own pod subnets: whose packets are masqueraded. Made after the others, for a pod must not be
    /// masqueraded towards what they do not hold yet.
    OwnPods,
}

impl NftSet {
    /// All of them, in the order in which their elements are made.
    pub const ALL: [NftSet; 4] = [Self::Pods, Self::Nodes, Self::Except, Self::OwnPods];

    /// The word for it in the sets' names, logs and docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::Except => "except",
            Self::OwnPods => "own_pods",
        }
    }

    /// Whether its elements are ranges of addresses; no two of them may overlap.
    pub fn has_ranges(self) -> bool {
        matches!(self, Self::Except | Self::OwnPods)
    }
}

impl fmt::Display for NftSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Prefix lengths of subnets. 0 is none: no node is given everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PrefixLens(u128);

impl PrefixLens {
    /// All of them, the shortest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..=128).filter(move |len| self.0 & Self::bit(*len) != 0)
    }

    fn bit(len: u8) -> u128 {
        u32::from(len)
            .checked_sub(1)
            .and_then(|bit| 1u128.checked_shl(bit))
            .unwrap_or(0)
    }
}

impl FromIterator<u8> for PrefixLens {
    fn from_iter<T: IntoIterator<Item = u8>>(lens: T) -> Self {
        Self(lens.into_iter().fold(0, |bits, len| bits | Self::bit(len)))
    }
}

/// What the rules of the table are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NftRules {
    /// What the names of host veths begin with: what comes from there must come from an address of its own.
    pub interface_prefix: IfName,
    /// VXLAN network identifiers that only nodes may send: that of the device for each family of pods.
    pub vnis: PerFamily<u32>,
    /// UDP port of VXLAN.
    pub port: u16,
    /// Whether nodes send VXLAN, so that no one else may.
    pub vxlan: bool,
    /// Whether packets of own pods that leave the cluster get the node's address.
    pub masquerade: bool,
    /// Whether nodes send IPIP, so that no one else may.
    pub ipip: bool,
    /// How long the prefixes of pod subnets are: where to look whether an address is a pod's.
    pub pod_prefix_lens: PerFamily<PrefixLens>,
}

impl fmt::Display for NftRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PerFamily { v4, v6 } = self.vnis;
        write!(f, "interface-prefix {} vni {v4}", self.interface_prefix)?;
        if v6 != v4 {
            write!(f, ",{v6}")?;
        }
        let Self {
            port,
            masquerade,
            vxlan,
            ipip,
            ..
        } = self;
        write!(
            f,
            " port {port} masquerade {masquerade} vxlan {vxlan} ipip {ipip}"
        )?;
        for family in Family::ALL {
            let mut before = format!(" {family} pods in /");
            for len in self.pod_prefix_lens.get(family).iter() {
                write!(f, "{before}{len}")?;
                ",/".clone_into(&mut before);
            }
        }
        Ok(())
    }
}

impl Key {
    /// The key of the element that covers `net` in a set; of nodes, its first address.
    pub fn nft_element(set: NftSet, net: IpNet) -> Self {
        let first = net.network();
        let last = if set == NftSet::Nodes {
            first
        } else {
            net.broadcast()
        };
        Self::NftElement { set, first, last }
    }
}

/// Writes a range of addresses: as a prefix where it is one.
pub(crate) fn write_range(f: &mut fmt::Formatter<'_>, first: IpAddr, last: IpAddr) -> fmt::Result {
    match prefix_of(first, last) {
        _ if first == last => write!(f, "{first}"),
        Some(net) => write!(f, "{net}"),
        None => write!(f, "{first}-{last}"),
    }
}

/// The prefix that covers just the range, if there is one.
fn prefix_of(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let common = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        _ => return None,
    };
    let net = IpNet::new(first, u8::try_from(common).ok()?).ok()?;
    (net.network() == first && net.broadcast() == last).then_some(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_lengths_are_kept_in_order_and_once() {
        let lens: PrefixLens = [128, 24, 1, 24, 0].into_iter().collect();
        assert_eq!(lens.iter().collect::<Vec<_>>(), [1, 24, 128]);
        assert_eq!(PrefixLens::default().iter().count(), 0);
    }

    #[test]
    fn elements_are_named_by_the_prefix_where_they_are_one() {
        let element = |first: &str, last: &str| {
            let (first, last) = (first.parse().unwrap(), last.parse().unwrap());
            let set = NftSet::Pods;
            Key::NftElement { set, first, last }.to_string()
        };
        assert_eq!(
            element("10.0.1.0", "10.0.1.255"),
            "nft element 10.0.1.0/24 of pods"
        );
        assert_eq!(
            element("10.0.1.0", "10.0.2.255"),
            "nft element 10.0.1.0-10.0.2.255 of pods"
        );
        assert_eq!(element("fd00::1", "fd00::1"), "nft element fd00::1 of pods");
        assert_eq!(
            element("0.0.0.0", "255.255.255.255"),
            "nft element 0.0.0.0/0 of pods"
        );
        let subnet = "10.0.1.0/24".parse().unwrap();
        assert_eq!(
            Key::nft_element(NftSet::OwnPods, subnet).to_string(),
            "nft element 10.0.1.0/24 of own_pods"
        );
    }
}
