//! What Nodes claim for themselves alone: pod subnets, tunnel addresses, VTEP MACs. The older Node keeps it.
//!
//! Subnets may lie one within the other. A claim loses to an older one of the same subnet *or of one around
//! it*, for its more specific route would take the older Node's traffic. A younger Node's wider subnet is
//! no danger to anyone: the kernel prefers the longer prefix. This rule needs no second look: whoever
//! loses to a claim that loses itself, loses to that one's winner too.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use routelet_model::{Family, MacAddr, Node, PrefixLens, host_prefix};

use crate::Reason;
use crate::contest::Contest;
use crate::vtep::{pod_subnets, tunnel_address_of, underlay_addresses, vtep_mac_of};
use crate::wanted::Wanted;

/// Something that one Node only can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Subnet(IpNet),
    TunnelAddress(IpAddr),
    /// Each family has its VXLAN device, and so its own MACs.
    VtepMac(Family, MacAddr),
}

impl Claim {
    /// What the Node claims in one family; nothing where it has no pod subnet of it.
    pub(crate) fn of(node: &Node, family: Family) -> impl Iterator<Item = Claim> {
        let tunnel = tunnel_address_of(node, family);
        let vtep = tunnel.map(|_| Claim::VtepMac(family, vtep_mac_of(node, family)));
        pod_subnets(node, family)
            .map(Claim::Subnet)
            .chain(tunnel.map(Claim::TunnelAddress))
            .chain(vtep)
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Subnet(_) => Reason::SubnetTaken,
            Self::TunnelAddress(_) => Reason::TunnelAddressTaken,
            Self::VtepMac(..) => Reason::VtepMacTaken,
        }
    }

    fn remedy(&self) -> &'static str {
        match self {
            Self::Subnet(_) => "spec.podCIDRs",
            Self::TunnelAddress(_) => "spec.podCIDRs or tunnel address annotation",
            Self::VtepMac(..) => "VTEP MAC annotation",
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subnet(subnet) => write!(f, "pod subnet {subnet}"),
            Self::TunnelAddress(address) => write!(f, "tunnel address {address}"),
            Self::VtepMac(family, mac) => write!(f, "{family} VTEP MAC {mac}"),
        }
    }
}

/// A Node, ranked by age: the older comes first.
#[derive(Debug, Clone)]
pub(crate) struct ByAge(pub(crate) Arc<Node>);

impl ByAge {
    fn rank(&self) -> (i64, &str, &str) {
        (self.0.created, &self.0.uid, &self.0.name)
    }
}

impl Ord for ByAge {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for ByAge {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByAge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByAge {}

/// The claims of all Nodes, this one's among them.
#[derive(Debug)]
pub(crate) struct Claims {
    subnets: Contest<IpNet, ByAge>,
    /// The claimed subnets once more, in order: those within another follow it.
    order: BTreeSet<IpNet>,
    /// How many of them have each prefix length: where to look for one around another.
    prefix_lens: BTreeMap<(Family, u8), usize>,
    tunnel_addresses: Contest<IpAddr, ByAge>,
    vtep_macs: Contest<(Family, MacAddr), ByAge>,
    /// Not refused to the younger: a Node made anew under another name has the address of the former one.
    underlays: Contest<IpAddr, ByAge>,
}

impl Claims {
    pub(crate) fn new() -> Self {
        Self {
            subnets: Contest::new(),
            order: BTreeSet::new(),
            prefix_lens: BTreeMap::new(),
            tunnel_addresses: Contest::new(),
            vtep_macs: Contest::new(),
            underlays: Contest::new(),
        }
    }

    /// Enters all that a Node claims.
    pub(crate) fn enter(&mut self, node: &Arc<Node>) {
        for claim in Family::ALL.into_iter().flat_map(|family| Claim::of(node, family)) {
            let claimant = ByAge(node.clone());
            match claim {
                Claim::Subnet(subnet) => {
                    if self.order.insert(subnet) {
                        *self.prefix_lens.entry(len_of(subnet)).or_default() += 1;
                    }
                    self.subnets.enter(subnet, claimant);
                }
                Claim::TunnelAddress(address) => self.tunnel_addresses.enter(address, claimant),
                Claim::VtepMac(family, mac) => self.vtep_macs.enter((family, mac), claimant),
            }
        }
        for address in underlay_addresses(node) {
            self.underlays.enter(address, ByAge(node.clone()));
        }
    }

    /// Takes back all that a Node claims.
    pub(crate) fn leave(&mut self, node: &Arc<Node>) {
        let claimant = ByAge(node.clone());
        for claim in Family::ALL.into_iter().flat_map(|family| Claim::of(node, family)) {
            match claim {
                Claim::Subnet(subnet) => {
                    self.subnets.leave(subnet, &claimant);
                    if self.subnets.first(subnet).is_none() && self.order.remove(&subnet) {
                        self.forget_len_of(subnet);
                    }
                }
                Claim::TunnelAddress(address) => self.tunnel_addresses.leave(address, &claimant),
                Claim::VtepMac(family, mac) => self.vtep_macs.leave((family, mac), &claimant),
            }
        }
        for address in underlay_addresses(node) {
            self.underlays.leave(address, &claimant);
        }
    }

    /// The oldest Node that claims this very subnet.
    pub(crate) fn subnet_holder(&self, subnet: IpNet) -> Option<&Node> {
        self.subnets.first(subnet).map(|ByAge(node)| node.as_ref())
    }

    /// The oldest Node with this underlay address.
    pub(crate) fn underlay_holder(&self, address: IpAddr) -> Option<&Node> {
        self.underlays.first(address).map(|ByAge(node)| node.as_ref())
    }

    fn forget_len_of(&mut self, subnet: IpNet) {
        if let Entry::Occupied(mut count) = self.prefix_lens.entry(len_of(subnet)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// The prefix lengths of all claimed subnets of a family.
    pub(crate) fn prefix_lens(&self, family: Family) -> PrefixLens {
        self.lens_from(family, 0).collect()
    }

    /// Whether a length may come or go with the Node's claims.
    pub(crate) fn may_change_prefix_lens(&self, node: &Node) -> bool {
        let mut subnets = Family::ALL
            .into_iter()
            .flat_map(|family| pod_subnets(node, family));
        subnets.any(|subnet| {
            let count = self.prefix_lens.get(&len_of(subnet)).copied().unwrap_or_default();
            count <= node.pod_subnets.len()
        })
    }

    /// The prefix lengths of claimed subnets, from this one on.
    fn lens_from(&self, family: Family, len: u8) -> impl Iterator<Item = u8> {
        let lens = self.prefix_lens.range((family, len)..=(family, u8::MAX));
        lens.map(|((_, len), _)| *len)
    }

    /// The claimed subnets within this one, but not this one itself.
    fn within(&self, subnet: IpNet) -> impl Iterator<Item = IpNet> {
        let (family, own_len) = len_of(subnet);
        let are_longer = self.lens_from(family, own_len + 1).next().is_some();
        let within = subnet..=host_prefix(subnet.broadcast());
        are_longer
            .then(|| self.order.range(within))
            .into_iter()
            .flatten()
            .copied()
            .filter(move |within| *within != subnet)
    }

    /// The oldest Node that a claim of `node` loses to, if there is one.
    fn older(&self, claim: Claim, node: &Arc<Node>) -> Option<&ByAge> {
        let oldest = match claim {
            Claim::Subnet(subnet) => {
                let (family, own_len) = len_of(subnet);
                let lens = self.lens_from(family, 0).take_while(|len| *len <= own_len);
                let around = lens.filter_map(|len| IpNet::new(subnet.addr(), len).ok());
                around.filter_map(|net| self.subnets.first(net.trunc())).min()
            }
            Claim::TunnelAddress(address) => self.tunnel_addresses.first(address),
            Claim::VtepMac(family, mac) => self.vtep_macs.first((family, mac)),
        };
        oldest.filter(|oldest| **oldest < ByAge(node.clone()))
    }

    /// The claims of `node` in one family that it loses to older Nodes, each refused; `outcome` says what
    /// that means. Losing to one Node a subnet *and* the tunnel address in it is told as one trouble.
    pub(crate) fn refuse_lost(
        &self,
        node: &Arc<Node>,
        family: Family,
        outcome: &str,
        wanted: &mut Wanted,
    ) -> Vec<Claim> {
        let mut lost = Vec::new();
        let mut subnet_lost_to: Option<&ByAge> = None;
        for claim in Claim::of(node, family) {
            let Some(winner) = self.older(claim, node) else {
                continue;
            };
            lost.push(claim);
            match claim {
                Claim::Subnet(_) => subnet_lost_to = Some(winner),
                Claim::TunnelAddress(_) if subnet_lost_to == Some(winner) => continue,
                _ => {}
            }
            let message = format!(
                "{claim} of node {} is claimed by the older node {}, which keeps it: {outcome}; change the {} of \
                 one of them",
                node.name,
                winner.0.name,
                claim.remedy()
            );
            wanted.refuse(node.as_ref(), claim.reason(), message);
        }
        lost
    }

    /// Adds to `names` the Nodes whose standing may change when `node`'s claims come or go.
    pub(crate) fn touched_by(&self, node: &Arc<Node>, names: &mut BTreeSet<String>) {
        let this = ByAge(node.clone());
        fn touch<'a>(names: &mut BTreeSet<String>, rivals: impl Iterator<Item = &'a ByAge>) {
            names.extend(rivals.map(|rival| rival.0.name.clone()));
        }
        let younger = |rival: &&ByAge| **rival > this;
        // Behind an older claimant of the same, a Node makes no difference to anyone.
        let leads = |first: Option<&ByAge>| first.is_none_or(|first| *first >= this);
        for claim in Family::ALL.into_iter().flat_map(|family| Claim::of(node, family)) {
            match claim {
                Claim::Subnet(subnet) if leads(self.subnets.first(subnet)) => {
                    // Older ones, too: the nft set holds no subnet that lies within another.
                    touch(names, self.subnets.claimants(subnet));
                    touch(
                        names,
                        self.within(subnet)
                            .flat_map(|within| self.subnets.claimants(within)),
                    );
                }
                Claim::TunnelAddress(address) if leads(self.tunnel_addresses.first(address)) => {
                    touch(names, self.tunnel_addresses.claimants(address).filter(younger));
                }
                Claim::VtepMac(family, mac) if leads(self.vtep_macs.first((family, mac))) => {
                    touch(names, self.vtep_macs.claimants((family, mac)).filter(younger));
                }
                _ => {}
            }
        }
        for address in underlay_addresses(node) {
            if leads(self.underlays.first(address)) {
                touch(names, self.underlays.claimants(address).filter(younger));
            }
        }
    }
}

fn len_of(subnet: IpNet) -> (Family, u8) {
    (Family::of_net(subnet), subnet.prefix_len())
}
