//! What the node's nft table holds: sets of addresses, and rules that look them up.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{IfName, Key, PerFamily};

/// A set of the table; the table has one for each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NftSet {
    /// Pod subnets of all nodes.
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
        !matches!(self, Self::Nodes)
    }
}

impl fmt::Display for NftSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
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
        )
    }
}

impl Key {
    /// The key of the element that covers `net` in a set. In one without ranges: its first address.
    pub fn nft_element(set: NftSet, net: IpNet) -> Self {
        let first = net.network();
        let last = if set.has_ranges() { net.broadcast() } else { first };
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
