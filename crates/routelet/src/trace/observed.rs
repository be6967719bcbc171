//! What a trace is judged by: the question, what the kernel holds and decides, and what the agent knows. Gathered once, so
//! that judging needs no kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use routelet_model::{Family, IfName, Key, MacAddr, NftSet, Object, PodId, RouteTarget, Sysctl, SysctlName};
use routelet_netlink::fib::Decision;
use routelet_netlink::forward::{Against, DroppingChain, Passage};
use routelet_netlink::inspect::{AddressRow, NeighbourRow};
use routelet_netlink::setup::LinkState;

/// The pod that a packet comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct From {
    /// Who it is, where that is known.
    pub(crate) pod: Option<PodId>,
    /// Its address; `None` where nothing tells it.
    pub(crate) address: Option<IpAddr>,
    /// Its host veth; `None` where nothing tells it.
    pub(crate) veth: Option<IfName>,
}

/// Whom a packet is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct To {
    /// The pod, where it was named.
    pub(crate) pod: Option<PodId>,
    /// Its node, where the API told it.
    pub(crate) node: Option<String>,
    /// The address.
    pub(crate) address: IpAddr,
    /// Its host veth, where it is a pod of this node.
    pub(crate) veth: Option<IfName>,
}

/// What the agent knows of pods and peers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Known {
    /// This node's pods.
    pub(crate) pods: Vec<KnownPod>,
    /// This node's pod subnets.
    pub(crate) own_subnets: Vec<IpNet>,
    /// The other nodes, once for each family of their pods.
    pub(crate) peers: Vec<KnownPeer>,
}

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownPod {
    /// Who it is.
    pub(crate) id: PodId,
    /// Its host veth.
    pub(crate) veth: Option<IfName>,
    /// Its addresses, and for each why there is no route to it, if there is none.
    pub(crate) addresses: Vec<(IpAddr, Option<String>)>,
}

/// The pods of one family behind another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownPeer {
    /// The node's name.
    pub(crate) name: String,
    /// Its pod subnets.
    pub(crate) subnets: Vec<IpNet>,
    /// Its address on the underlay.
    pub(crate) underlay: Option<IpAddr>,
    /// MAC address of its VXLAN device.
    pub(crate) vtep_mac: Option<MacAddr>,
    /// `vxlan`, `ipip`, `direct`, `others` or `none`.
    pub(crate) way: String,
    /// The device that its routes lead over.
    pub(crate) device: Option<IfName>,
    /// Why something of it is refused.
    pub(crate) refusals: Vec<String>,
}

/// See the file's head.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    /// Where the packet comes from.
    pub(crate) from: From,
    /// Where it goes.
    pub(crate) to: To,
    /// What the agent knows; `None` where it does not answer.
    pub(crate) known: Option<Known>,
    /// Protocol number of our routes.
    pub(crate) protocol: u8,
    /// Our tunnel devices.
    pub(crate) devices: Vec<IfName>,
    /// The name of our VXLAN device for the family.
    pub(crate) vxlan_device: IfName,
    /// Whether the settings ask for masquerading.
    pub(crate) masquerade: bool,
    /// Objects that carry our mark, and the settings that were read.
    pub(crate) tables: BTreeMap<Key, Object>,
    /// All links.
    pub(crate) links: Vec<LinkState>,
    /// All addresses.
    pub(crate) addresses: Vec<AddressRow>,
    /// The neighbours of the family.
    pub(crate) neighbours: Vec<NeighbourRow>,
    /// Larger of the reverse path filters of all links and of one, for the links that count.
    pub(crate) filters: BTreeMap<IfName, u32>,
    /// What the host does with what it has for the pod itself.
    pub(crate) to_pod: Option<Decision>,
    /// What the kernel does with the packet; `None` where the host veth is not there.
    pub(crate) there: Option<Decision>,
    /// What it does with the tunnel's packets to the peer's node.
    pub(crate) underlay: Option<Decision>,
    /// What it does with the answer, and the link that this comes in by.
    pub(crate) back: Option<(IfName, Decision)>,
    /// Chains that drop by policy what is forwarded of the family, and how the pod passes.
    pub(crate) dropping: Vec<(DroppingChain, Passage)>,
    /// What stands in the tunnel's way.
    pub(crate) against: Vec<Against>,
}

/// What the address is that a packet goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A pod of this node, behind this veth.
    LocalPod(IfName),
    /// In this node's pod subnet, and no pod's.
    NoPod(IpNet),
    /// This node itself.
    ThisNode,
    /// A pod of another node.
    Peer(Peer),
    /// In the cluster's pod networks, and no node's.
    NoNode,
    /// Another node.
    Node,
    /// Outside of the cluster.
    Outside,
}

/// What is known of a pod's node: by the agent, else by the kernel's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// As the agent knows it.
    pub(crate) known: Option<KnownPeer>,
    /// Our route to its pod subnet, if the kernel has one.
    pub(crate) route: Option<(IpNet, RouteTarget)>,
}

impl Peer {
    /// The way that its packets go by our tables: the route's target, or what the agent wants.
    pub(crate) fn device(&self) -> Option<IfName> {
        let wanted = self.known.as_ref().and_then(|peer| peer.device);
        wanted.or(self.route.and_then(|(_, target)| target.link()))
    }
}

impl Observed {
    /// The family of the packet.
    pub(crate) fn family(&self) -> Family {
        Family::of(self.to.address)
    }

    /// A link as it is.
    pub(crate) fn link(&self, name: IfName) -> Option<&LinkState> {
        self.links.iter().find(|link| link.name == Some(name))
    }

    /// The value of a setting, where it was read.
    pub(crate) fn sysctl(&self, sysctl: Sysctl) -> Option<u32> {
        match self.tables.get(&Key::Sysctl(sysctl)) {
            Some(Object::Sysctl(value)) => Some(*value),
            _ => None,
        }
    }

    /// Whether the host forwards packets of the family.
    pub(crate) fn forwards(&self) -> Option<u32> {
        self.sysctl(Sysctl::host(forwarding_sysctl(self.family())))
    }

    /// Whether an address is in a set of our nft table; `None` where the table is not there.
    pub(crate) fn in_set(&self, set: NftSet, address: IpAddr) -> Option<bool> {
        self.tables.get(&Key::NftTable)?;
        let holds = |key: &Key| match key {
            Key::NftElement { set: of, first, last } => *of == set && (*first..=*last).contains(&address),
            _ => false,
        };
        Some(self.tables.keys().any(holds))
    }

    /// The most specific route of ours to an address.
    pub(crate) fn our_route(&self, address: IpAddr) -> Option<(IpNet, RouteTarget)> {
        let routes = self
            .tables
            .iter()
            .filter_map(|(key, object)| match (key, object) {
                (Key::Route { destination, .. }, Object::Route(target)) => Some((*destination, *target)),
                _ => None,
            });
        routes
            .filter(|(destination, _)| destination.contains(&address))
            .max_by_key(|(destination, _)| destination.prefix_len())
    }

    /// The other node that has an address, or the subnet that it is in.
    pub(crate) fn known_peer(&self, is_it: impl Fn(&KnownPeer) -> bool) -> Option<&KnownPeer> {
        self.known.as_ref()?.peers.iter().find(|peer| is_it(peer))
    }

    /// What the address is that the packet goes to.
    pub(crate) fn destination(&self) -> Destination {
        let address = self.to.address;
        if let Some(veth) = self.local_veth() {
            return Destination::LocalPod(veth);
        }
        if self.addresses.iter().any(|row| row.address.addr() == address) {
            return Destination::ThisNode;
        }
        let route = self.our_route(address);
        let own = self.known.iter().flat_map(|known| &known.own_subnets);
        if let Some(subnet) = own.copied().find(|subnet| subnet.contains(&address)) {
            return Destination::NoPod(subnet);
        }
        if let Some((subnet, RouteTarget::Blackhole)) = route {
            return Destination::NoPod(subnet);
        }
        let known = self.known_peer(|peer| peer.subnets.iter().any(|subnet| subnet.contains(&address)));
        if known.is_some() || route.is_some() {
            return Destination::Peer(Peer {
                known: known.cloned(),
                route,
            });
        }
        let is_node = self.known_peer(|peer| peer.underlay == Some(address)).is_some();
        if is_node || self.in_set(NftSet::Nodes, address) == Some(true) {
            return Destination::Node;
        }
        if self.in_set(NftSet::Pods, address) == Some(true) {
            return match self.known {
                Some(_) => Destination::NoNode,
                // Without the agent: the set tells no pod network without a node from a lost route.
                None => Destination::Peer(Peer {
                    known: None,
                    route: None,
                }),
            };
        }
        Destination::Outside
    }

    /// The host veth of the pod of this node that has the address.
    fn local_veth(&self) -> Option<IfName> {
        if self.to.veth.is_some() {
            return self.to.veth;
        }
        let address = self.to.address;
        let known = self.known.iter().flat_map(|known| &known.pods);
        let has = |pod: &&KnownPod| pod.addresses.iter().any(|(own, _)| *own == address);
        if let Some(veth) = known.into_iter().find(has).and_then(|pod| pod.veth) {
            return Some(veth);
        }
        match self.our_route(address) {
            Some((destination, RouteTarget::Link(veth))) if destination == IpNet::from(address) => Some(veth),
            _ => self.veth_given(address),
        }
    }

    /// The host veth whose alias says that the pod behind it was given the address.
    fn veth_given(&self, address: IpAddr) -> Option<IfName> {
        let given = |link: &&LinkState| {
            let alias = link.alias.as_deref().unwrap_or_default();
            routelet_model::given_addresses(alias).contains(&address)
        };
        self.links.iter().find(given)?.name
    }

    /// The peer's address on the underlay: as the agent knows it, else where the FDB entry of the route's gateway leads,
    /// else the route's gateway.
    pub(crate) fn underlay_of(&self, peer: &Peer) -> Option<IpAddr> {
        if let Some(underlay) = peer.known.as_ref().and_then(|known| known.underlay) {
            return Some(underlay);
        }
        let (link, gateway) = gateway_of(peer.route?.1)?;
        match self.tables.get(&Key::Link(link)) {
            Some(Object::Link(device)) if is_vxlan(device) => {
                let Some(Object::Neighbour(mac)) = self.tables.get(&Key::Neighbour {
                    link,
                    address: gateway,
                }) else {
                    return None;
                };
                match self.tables.get(&Key::Fdb { link, mac: *mac }) {
                    Some(Object::Fdb(remote)) => Some(*remote),
                    _ => None,
                }
            }
            _ => Some(gateway),
        }
    }

    /// The link that the answer comes in by, where the packet has its own address when it leaves; `None` where that is not
    /// known, or the link carries nothing.
    pub(crate) fn answers_come_by(&self) -> Option<IfName> {
        let decided = match self.there {
            Some(Decision::Route(route)) => route.link,
            _ => None,
        };
        let link = match self.destination() {
            Destination::LocalPod(veth) => Some(veth),
            Destination::Peer(peer) => peer.device().or(decided),
            Destination::Node => self.tunnel_from(self.to.address).or(decided),
            Destination::Outside if !self.is_masqueraded() => decided,
            _ => None,
        };
        link.filter(|link| self.link(*link).is_some_and(|link| link.up && link.running))
    }

    /// Whether packets out of the cluster get the node's address, or should.
    fn is_masqueraded(&self) -> bool {
        let by_rules = match self.tables.get(&Key::NftRules) {
            Some(Object::NftRules(rules)) => rules.masquerade,
            _ => true,
        };
        self.masquerade && by_rules && self.in_set(NftSet::Except, self.to.address) != Some(true)
    }

    /// The tunnel device by which a node's packets come in that has the underlay address; `None` where they come as they
    /// are.
    pub(crate) fn tunnel_from(&self, underlay: IpAddr) -> Option<IfName> {
        let family = self.family();
        if self.known.is_some() {
            let peer = self.known_peer(|peer| {
                let of_family = |subnet: &IpNet| Family::of_net(*subnet) == family;
                peer.underlay == Some(underlay) && peer.subnets.iter().any(of_family)
            })?;
            let by_tunnel = matches!(peer.way.as_str(), "vxlan" | "ipip");
            return peer.device.filter(|_| by_tunnel);
        }
        let mut neighbours = self
            .tables
            .iter()
            .filter_map(|(key, object)| match (key, object) {
                (Key::Neighbour { link, address }, Object::Neighbour(mac))
                    if Family::of(*address) == family =>
                {
                    Some((*link, *mac))
                }
                _ => None,
            });
        let leads_there = |(link, mac): &(IfName, MacAddr)| {
            self.tables.get(&Key::Fdb {
                link: *link,
                mac: *mac,
            }) == Some(&Object::Fdb(underlay))
        };
        neighbours.find(leads_there).map(|(link, _)| link)
    }
}

/// Device and gateway of a route that has them.
pub(crate) fn gateway_of(target: RouteTarget) -> Option<(IfName, IpAddr)> {
    match target {
        RouteTarget::Nexthop { link, gateway } | RouteTarget::Gateway { link, gateway } => {
            Some((link, gateway))
        }
        RouteTarget::Link(_) | RouteTarget::Blackhole => None,
    }
}

/// Whether a device is a VXLAN device.
pub(crate) fn is_vxlan(link: &routelet_model::Link) -> bool {
    matches!(link.kind, routelet_model::LinkKind::Vxlan(_))
}

/// The setting by which the host forwards packets of the family.
pub(crate) fn forwarding_sysctl(family: Family) -> SysctlName {
    match family {
        Family::V4 => SysctlName::Ipv4IpForward,
        Family::V6 => SysctlName::Ipv6AllForwarding,
    }
}
