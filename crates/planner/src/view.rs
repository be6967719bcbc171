//! The planner's facts put in a row for people: this node, its peers and its pods. Composed when asked for, from the
//! same judgements that the wanted objects come of.

use std::net::IpAddr;

use ipnet::IpNet;
use routelet_model::{Family, IfName, Key, MacAddr, Node, PodId};

use crate::own::Facts;
use crate::pods::Verdict;
use crate::underlay::Underlay;
use crate::vtep::{pod_subnets, tunnel_address_of, underlay_address_of, vtep_mac_of};
use crate::wanted::{Known, Wanted};
use crate::{Planner, Refusal, Way, peers};

/// This node's pods of one family, and what carries their packets to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNetwork {
    /// The family of the pods.
    pub family: Family,
    /// This node's pod subnets.
    pub pod_subnets: Vec<IpNet>,
    /// Address of this node's tunnel device.
    pub tunnel_address: Option<IpAddr>,
    /// MAC address of its VXLAN device.
    pub vtep_mac: MacAddr,
    /// What packets to other nodes leave through; `None` as long as it is unknown.
    pub underlay: Option<OwnUnderlay>,
}

/// What packets to other nodes leave through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnUnderlay {
    /// This node's underlay address with the prefix length that the host has it with.
    pub address: IpNet,
    /// The link that holds it.
    pub parent: IfName,
    /// The tunnel device, if the settings ask for a tunnel.
    pub device: Option<IfName>,
    /// MTU of the tunnel device, or of pods, in bytes.
    pub mtu: u32,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Its Node's name.
    pub name: String,
    /// By family of its pod subnets.
    pub networks: Vec<PeerNetwork>,
    /// What of its Node is not followed, and why.
    pub refusals: Vec<Refusal>,
    /// The objects that are wanted for it.
    pub keys: Vec<Key>,
}

/// The pods of one family behind another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerNetwork {
    /// The family of the pods.
    pub family: Family,
    /// Its pod subnets, routed or refused.
    pub pod_subnets: Vec<IpNet>,
    /// Its address on the family of underlay that this node sends through.
    pub underlay: Option<IpAddr>,
    /// Its tunnel address.
    pub tunnel_address: Option<IpAddr>,
    /// MAC address of its VXLAN device.
    pub vtep_mac: MacAddr,
    /// How packets get there; `None` where they don't, as the refusals say or because this node has no underlay yet.
    pub way: Option<Way>,
    /// The device that its routes lead over; `None` where there are none of ours.
    pub device: Option<IfName>,
}

/// A pod of this node that has a network of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Who it is.
    pub id: PodId,
    /// Its host veth; `None` where no name comes of the pod's and the prefix.
    pub host_veth: Option<IfName>,
    /// The addresses that it claims, in the API's order.
    pub addresses: Vec<PodAddress>,
}

/// An address that a pod claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddress {
    /// The address.
    pub address: IpAddr,
    /// Whether it is granted, and if not, why.
    pub granted: Result<(), String>,
}

impl Planner {
    /// This node's pod networks by family; none as long as its Node is unknown.
    pub fn own_networks(&self) -> Vec<OwnNetwork> {
        let Some(facts) = self.known().own else {
            return Vec::new();
        };
        let families = Family::ALL.into_iter();
        families
            .filter_map(|family| self.own_network(facts, family))
            .collect()
    }

    fn own_network(&self, facts: &Facts, family: Family) -> Option<OwnNetwork> {
        let settings = self.known().settings;
        let underlay = |underlay: &Underlay| OwnUnderlay {
            address: underlay.network,
            parent: underlay.parent,
            device: settings
                .tunnel(family, Family::of(underlay.local))
                .map(|(_, device)| device),
            mtu: underlay.mtu(settings, family),
        };
        Some(OwnNetwork {
            family,
            pod_subnets: subnets_of(&facts.node, family)?,
            tunnel_address: tunnel_address_of(&facts.node, family),
            vtep_mac: vtep_mac_of(&facts.node, family),
            underlay: facts.underlay.get(family).as_ref().map(underlay),
        })
    }

    /// Names of the other nodes that have pod subnets.
    pub fn peer_names(&self) -> impl Iterator<Item = &str> {
        let peers = self.nodes().filter(|node| peers::is_peer(node));
        peers.map(|node| node.name.as_str())
    }

    /// Another node that has pod subnets.
    pub fn peer_view(&self, name: &str) -> Option<PeerView> {
        let (known, mut wanted) = (self.known(), Wanted::default());
        let node = self.node(name).filter(|node| peers::is_peer(node))?;
        peers::want(&known, node, &mut wanted);
        let families = Family::ALL.into_iter();
        Some(PeerView {
            name: node.name.clone(),
            networks: families
                .filter_map(|family| peer_network(&known, node, family, &wanted))
                .collect(),
            keys: wanted.keys().collect(),
            refusals: wanted.refusals,
        })
    }

    /// The live pods of this node that have a network of their own, by namespace and name.
    pub fn pod_views(&self) -> Vec<PodView> {
        let mut views: Vec<_> = self
            .judged_pods()
            .map(|(id, host_veth, judged)| {
                let addresses = judged.into_iter().map(|(address, verdict)| PodAddress {
                    address,
                    granted: match (verdict, &host_veth) {
                        (Verdict::Refused(_, message), _) => Err(message),
                        (Verdict::Waits, _) => Err("this node's pod subnets are not known yet".to_owned()),
                        (Verdict::Granted, Err(message)) => Err(message.clone()),
                        (Verdict::Granted, Ok(_)) => Ok(()),
                    },
                });
                PodView {
                    id: id.clone(),
                    addresses: addresses.collect(),
                    host_veth: host_veth.as_ref().ok().copied(),
                }
            })
            .collect();
        views.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        views
    }
}

fn subnets_of(node: &Node, family: Family) -> Option<Vec<IpNet>> {
    let subnets: Vec<_> = pod_subnets(node, family).collect();
    (!subnets.is_empty()).then_some(subnets)
}

fn peer_network(known: &Known<'_>, node: &Node, family: Family, wanted: &Wanted) -> Option<PeerNetwork> {
    let own = known.own.and_then(|facts| *facts.underlay.get(family));
    let underlay_family = own.map_or(family, |own| Family::of(own.local));
    let going = wanted.ways.iter().find(|going| going.family == family);
    let device = || known.settings.way(family, &own?, going?.remote).1;
    Some(PeerNetwork {
        family,
        pod_subnets: subnets_of(node, family)?,
        underlay: underlay_address_of(node, underlay_family),
        tunnel_address: tunnel_address_of(node, family),
        vtep_mac: vtep_mac_of(node, family),
        way: going.map(|going| going.way),
        device: device(),
    })
}
