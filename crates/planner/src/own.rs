//! This node: the facts that are in force, and the objects that it wants for itself.
//!
//! A fact that changes is followed at once. A fact that vanishes (the Node object deleted, its pod subnets or
//! addresses gone, the underlay address on no link for a moment) is not: the last one known stays in force
//! as long as the process lives, for to withdraw the network of a node's running pods helps nobody.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use routelet_model::{
    Family, Host, IfName, Key, Link, LinkKind, Node, Object, PerFamily, RouteTarget, Sysctl, SysctlName,
    Vxlan, host_prefix,
};

use crate::claims::Claim;
use crate::underlay::{self, Underlay};
use crate::vtep::{pod_subnets, refuse_unusable, tunnel_address_of, vtep_mac_of};
use crate::wanted::{Known, Wanted};
use crate::way::Tunnel;
use crate::{Missing, Notice, Reason, Settings, nft};

/// Reverse path filter that lets a source pass which is reached by any link. What a pod sends to another node goes by
/// the underlay, and the answer comes by the tunnel, from an address that is reached by the underlay. (IPv6 has no such
/// filter.)
const LOOSE: u32 = 2;

/// The smallest MTU of a link with IPv6, in bytes (RFC 8200, section 5). On a smaller one the kernel has none.
const MTU_AT_LEAST_V6: u32 = 1280;

/// What a node's pods are given by the CNI plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    /// The node's pod subnets of the families that the MTU allows for, in the API's order.
    pub subnets: Vec<IpNet>,
    /// MTU in bytes that suits all of these families.
    pub mtu: u32,
}

/// Why a node's pods can be given no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPodNetwork {
    /// This node's pod subnets or its place on the underlay are not known.
    Unknown,
    /// The pods are IPv6 ones only, and do not fit.
    MtuTooSmall {
        /// The link that holds the underlay address.
        parent: IfName,
        /// Its MTU in bytes.
        parent_mtu: u32,
        /// What it leaves for the pods' packets, in bytes.
        mtu: u32,
    },
}

impl fmt::Display for NoPodNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the MTU and the subnets of this node's pods are not known yet"),
            Self::MtuTooSmall {
                parent,
                parent_mtu,
                mtu,
            } => write!(
                f,
                "{parent} leaves {mtu} bytes for this node's pods, which have IPv6 only, and IPv6 needs {MTU_AT_LEAST_V6}: \
                 raise its MTU ({parent_mtu}), or --mtu"
            ),
        }
    }
}

/// What a link of the host leaves for the packets of a family of pods.
#[derive(Debug, Clone, Copy)]
struct Room {
    parent: IfName,
    parent_mtu: u32,
    mtu: u32,
}

/// The facts in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// This node's Node, with the last known pod subnets of a family that it lists none of now.
    pub(crate) node: Arc<Node>,
    /// By family of the pod subnets.
    pub(crate) underlay: PerFamily<Option<Underlay>>,
}

impl Facts {
    /// Whether this node has the thing already.
    pub(crate) fn claims(&self, claim: &Claim) -> bool {
        Family::ALL
            .into_iter()
            .any(|family| Claim::of(&self.node, family).any(|own| own == *claim))
    }

    /// Whether the address is this node's own, so that no pod can have it.
    pub(crate) fn is_own_address(&self, address: IpAddr) -> bool {
        tunnel_address_of(&self.node, Family::of(address)) == Some(address)
            || Family::ALL
                .into_iter()
                .any(|f| self.underlay.get(f).is_some_and(|u| u.local == address))
    }

    /// What pods are given addresses from, and the MTU that suits it.
    pub(crate) fn pod_network(&self, settings: &Settings) -> Result<PodNetwork, NoPodNetwork> {
        let lesser = self
            .least_mtu(settings, &Family::ALL)
            .ok_or(NoPodNetwork::Unknown)?;
        let all = PodNetwork {
            mtu: lesser.mtu,
            subnets: self.node.pod_subnets.clone(),
        };
        if lesser.mtu >= MTU_AT_LEAST_V6 || pod_subnets(&self.node, Family::V6).next().is_none() {
            return Ok(all);
        }
        // The kernel has no IPv6 on a link with less, so a pod that must have it could not be made at all.
        let v4 = self.least_mtu(settings, &[Family::V4]);
        v4.map(|v4| PodNetwork {
            mtu: v4.mtu,
            subnets: pod_subnets(&self.node, Family::V4).collect(),
        })
        .ok_or(NoPodNetwork::MtuTooSmall {
            parent: lesser.parent,
            parent_mtu: lesser.parent_mtu,
            mtu: lesser.mtu,
        })
    }

    /// The least MTU of what carries the packets of families that have pods.
    fn least_mtu(&self, settings: &Settings, families: &[Family]) -> Option<Room> {
        let in_use = families
            .iter()
            .filter(|family| pod_subnets(&self.node, **family).next().is_some());
        let rooms = in_use.filter_map(|family| {
            let underlay = self.underlay.get(*family).as_ref()?;
            Some(Room {
                parent: underlay.parent,
                parent_mtu: underlay.parent_mtu,
                mtu: underlay.mtu(settings, *family),
            })
        });
        rooms.min_by_key(|room| room.mtu)
    }

    /// Whether nothing that peers or pods depend on differs.
    pub(crate) fn same_for_others(&self, other: &Facts, settings: &Settings) -> bool {
        let links_count = settings.encapsulation.is_direct_on_link();
        let of = |underlay: Underlay| {
            (
                underlay.local,
                links_count.then_some((underlay.network, underlay.parent)),
            )
        };
        let underlays = |facts: &Facts| Family::ALL.map(|family| facts.underlay.get(family).map(of));
        self.node == other.node && underlays(self) == underlays(other)
    }
}

/// What was told of this node, and what is in force.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    node: Option<Arc<Node>>,
    host: Host,
    facts: Option<Facts>,
    missing: Vec<Missing>,
    vanished: Vec<Missing>,
}

impl Own {
    pub(crate) fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// What was never known.
    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// This, after the Node was told (`None`: deleted).
    pub(crate) fn with_node(&self, node: Option<Arc<Node>>, settings: &Settings) -> Self {
        Self { node, ..self.clone() }.resolved(settings)
    }

    /// This, after the host was told.
    pub(crate) fn with_host(&self, host: &Host, settings: &Settings) -> Self {
        Self {
            host: host.clone(),
            ..self.clone()
        }
        .resolved(settings)
    }

    /// Brings the facts in force up to what was told.
    fn resolved(mut self, settings: &Settings) -> Self {
        let name = &settings.node_name;
        self.missing.clear();
        self.vanished.clear();
        let before = self.facts.take();
        let Some(node) = self
            .node
            .clone()
            .or_else(|| before.as_ref().map(|facts| facts.node.clone()))
        else {
            self.missing.push(Missing::OwnNodeUnknown(name.clone()));
            return self;
        };
        if self.node.is_none() {
            self.vanished.push(Missing::OwnNodeUnknown(name.clone()));
        }
        let node = self.with_last_subnets(node, before.as_ref());
        let mut underlays = before.map(|facts| facts.underlay).unwrap_or_default();
        for family in Family::ALL {
            if pod_subnets(&node, family).next().is_none() {
                continue;
            }
            let now = underlay::find(&settings.underlay, &node, &self.host, family);
            let known = underlays.get_mut(family);
            match now {
                Ok(found) => *known = Some(found),
                Err(gap) if known.is_some() => push_once(&mut self.vanished, gap),
                Err(gap) => push_once(&mut self.missing, gap),
            }
        }
        self.facts = Some(Facts {
            node,
            underlay: underlays,
        });
        self
    }

    /// `node`, with the last known pod subnets of each family that it lists none of.
    fn with_last_subnets(&mut self, mut node: Arc<Node>, before: Option<&Facts>) -> Arc<Node> {
        let mut vanished = false;
        if let Some(facts) = before {
            for family in Family::ALL {
                if pod_subnets(&node, family).next().is_none() {
                    let last: Vec<_> = pod_subnets(&facts.node, family).collect();
                    if !last.is_empty() {
                        vanished = true;
                        Arc::make_mut(&mut node).pod_subnets.extend(last);
                    }
                }
            }
        }
        if vanished {
            self.vanished
                .push(Missing::OwnNodeHasNoPodSubnet(node.name.clone()));
        } else if node.pod_subnets.is_empty() {
            self.missing
                .push(Missing::OwnNodeHasNoPodSubnet(node.name.clone()));
        }
        node
    }

    /// What an operator wants to know of the step from `before` to this.
    pub(crate) fn notices_since(&self, before: &Own, settings: &Settings, notices: &mut Vec<Notice>) {
        let lacks = |list: &[Missing], gap: &Missing| !list.contains(gap);
        let back = before.vanished.iter().filter(|gap| lacks(&self.vanished, gap));
        notices.extend(back.cloned().map(Notice::Back));
        let vanished = self.vanished.iter().filter(|gap| lacks(&before.vanished, gap));
        notices.extend(vanished.cloned().map(Notice::Vanished));
        for family in Family::ALL {
            let of = |own: &Own| own.facts.as_ref().and_then(|facts| *facts.underlay.get(family));
            if let Some(underlay) = of(self)
                && of(before) != Some(underlay)
            {
                notices.push(Notice::Underlay {
                    device: settings
                        .tunnel(family, Family::of(underlay.local))
                        .map(|(_, device)| device),
                    family,
                    local: underlay.local,
                    parent: underlay.parent,
                    mtu: underlay.mtu(settings, family),
                });
            }
        }
    }
}

fn push_once(list: &mut Vec<Missing>, gap: Missing) {
    if !list.contains(&gap) {
        list.push(gap);
    }
}

/// Adds what this node wants for itself, and what of it is refused.
pub(crate) fn want(known: &Known<'_>, wanted: &mut Wanted) {
    let Some(facts) = known.own else { return };
    refuse_unusable(known.settings, &facts.node, wanted);
    nft::want_table(known, facts, wanted);
    for family in Family::ALL {
        if pod_subnets(&facts.node, family).next().is_none() {
            continue;
        }
        let forwarding = match family {
            Family::V4 => SysctlName::Ipv4IpForward,
            Family::V6 => SysctlName::Ipv6AllForwarding,
        };
        wanted.object(Key::Sysctl(Sysctl::host(forwarding)), Object::Sysctl(1));
        want_blackholes(facts, family, wanted);
        if let Some(underlay) = facts.underlay.get(family) {
            underlay::refuse_unknown(&known.settings.underlay, &facts.node, underlay, wanted);
            let mtu = underlay.mtu(known.settings, family);
            let tunnel = known.settings.tunnel(family, Family::of(underlay.local));
            if family == Family::V6
                && mtu >= MTU_AT_LEAST_V6
                && let Some(v4) = facts.least_mtu(known.settings, &[Family::V4])
                && v4.mtu < MTU_AT_LEAST_V6
            {
                refuse_v6_for_v4(facts, &v4, wanted);
            }
            match tunnel {
                _ if family == Family::V6 && mtu < MTU_AT_LEAST_V6 => {
                    refuse_mtu(facts, underlay, mtu, wanted)
                }
                Some((tunnel, device)) => {
                    let kind = match tunnel {
                        Tunnel::Vxlan => vxlan(known.settings, family, underlay),
                        Tunnel::Ipip => LinkKind::Ipip { ours: true },
                    };
                    want_device(facts, family, (device, kind, mtu), wanted);
                    want_offload(known.settings, tunnel, device, wanted);
                }
                None if known.settings.encapsulation.tunnel().is_some() => {
                    refuse_family(known.settings, facts, family, underlay, wanted);
                }
                None => {}
            }
        }
        let outcome = "this node goes on using it, but the others send its traffic there";
        known.claims.refuse_lost(&facts.node, family, outcome, wanted);
    }
}

fn refuse_mtu(facts: &Facts, underlay: &Underlay, mtu: u32, wanted: &mut Wanted) {
    let new_ones = match pod_subnets(&facts.node, Family::V4).next() {
        Some(_) => "the CNI configuration leaves IPv6 out",
        None => "new ones get no network",
    };
    let message = format!(
        "{} leaves {mtu} bytes for the IPv6 pods of node {}, and IPv6 needs {MTU_AT_LEAST_V6}: they reach no other \
         node, and {new_ones}, until its MTU ({}) is raised, or --mtu",
        underlay.parent, facts.node.name, underlay.parent_mtu
    );
    wanted.refuse(facts.node.as_ref(), Reason::MtuTooSmall, message);
}

/// A pod's link has one MTU, that of the family with less.
fn refuse_v6_for_v4(facts: &Facts, v4: &Room, wanted: &mut Wanted) {
    let message = format!(
        "{} leaves {} bytes for the IPv4 pods of node {}, and IPv6 needs {MTU_AT_LEAST_V6} on the same link: the CNI \
         configuration leaves IPv6 out, and new pods have none, until its MTU ({}) is raised, or --mtu",
        v4.parent, v4.mtu, facts.node.name, v4.parent_mtu
    );
    wanted.refuse(facts.node.as_ref(), Reason::MtuTooSmall, message);
}

fn refuse_family(
    settings: &Settings,
    facts: &Facts,
    family: Family,
    underlay: &Underlay,
    wanted: &mut Wanted,
) {
    let reached = if settings.encapsulation.is_direct_on_link() {
        "only nodes of its own network"
    } else {
        "no other node"
    };
    let message = format!(
        "IPIP carries IPv4 over IPv4 only: the {family} pods of node {}, whose address for them is {}, reach {reached}; \
         choose --encapsulation vxlan or vxlan-cross-subnet for them",
        facts.node.name, underlay.local
    );
    wanted.refuse(facts.node.as_ref(), Reason::NoTunnelForFamily, message);
}

fn vxlan(settings: &Settings, family: Family, underlay: &Underlay) -> LinkKind {
    LinkKind::Vxlan(Vxlan {
        vni: underlay.vni(settings, family),
        port: settings.vxlan.port,
        local: underlay.local,
        parent: Some(underlay.parent),
        learning: false,
        odd: false,
    })
}

/// Adds a tunnel device, given by its name, kind and MTU, and what stands on it.
fn want_device(
    facts: &Facts,
    family: Family,
    (device, kind, mtu): (IfName, LinkKind, u32),
    wanted: &mut Wanted,
) {
    let has_mac = matches!(kind, LinkKind::Vxlan(_));
    let link = Link {
        kind,
        mac: has_mac.then(|| vtep_mac_of(&facts.node, family)),
        mtu: Some(mtu),
        up: true,
        running: true,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    };
    wanted.object(Key::Link(device), Object::Link(Box::new(link)));
    if family == Family::V4 {
        let filter = Sysctl::link(SysctlName::Ipv4RpFilter, device);
        wanted.object(Key::Sysctl(filter), Object::Sysctl(LOOSE));
    }
    if let Some(address) = tunnel_address_of(&facts.node, family) {
        wanted.object(
            Key::Address {
                link: device,
                address: host_prefix(address),
            },
            Object::Address,
        );
    }
}

/// Adds what the settings say of a VXLAN device's checksums.
fn want_offload(settings: &Settings, tunnel: Tunnel, device: IfName, wanted: &mut Wanted) {
    if let (Tunnel::Vxlan, Some(on)) = (tunnel, settings.vxlan.checksum_offload) {
        wanted.object(Key::ChecksumOffload(device), Object::ChecksumOffload(on));
    }
}

/// Packets to addresses that no pod holds end here, where they would else loop by the default route.
fn want_blackholes(facts: &Facts, family: Family, wanted: &mut Wanted) {
    for subnet in pod_subnets(&facts.node, family) {
        let own = |f: Family| facts.underlay.get(f).map(|underlay| underlay.local);
        let around = Family::ALL
            .into_iter()
            .filter_map(own)
            .find(|local| subnet.contains(local));
        if let Some(local) = around {
            let message = format!(
                "pod subnet {subnet} of node {} holds the node's own address {local}: no blackhole route is made \
                 for it; the pods' and the nodes' networks must not overlap",
                facts.node.name
            );
            wanted.refuse(facts.node.as_ref(), Reason::SubnetHoldsUnderlay, message);
        } else if subnet.prefix_len() < family.host_prefix_len() {
            wanted.object(Key::route(subnet), Object::Route(RouteTarget::Blackhole));
        }
    }
}
