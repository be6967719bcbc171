//! What the API says: this node, peers and pods, from a small world in which things often collide.

use std::net::IpAddr;

use routelet_model::{
    ClusterEvent, Family, IfName, Node, NodeAddress, NodeAddressKind, PerFamily, PodId, host_veth_name,
};
use routelet_planner::{Encapsulation, NftSettings, Settings, UnderlayRule, VxlanSettings};

use super::{ip, name, net};

/// Underlay addresses of peers from this number on are in none of the node's networks.
const AFAR: u8 = 4;

/// What a peer is like: underlay addresses end in `underlay`, pod subnets are number `subnet`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) underlay: u8,
    pub(crate) subnet: u8,
    pub(crate) v6: bool,
}

/// What a pod is like: its addresses end in `address`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pod {
    pub(crate) address: u8,
    pub(crate) v6: bool,
}

pub(crate) fn settings(nexthop_objects: bool) -> Settings {
    Settings {
        node_name: "node-0".to_owned(),
        encapsulation: Encapsulation::Vxlan,
        underlay: UnderlayRule::InternalIp,
        ipip_device: "tunl0".parse().unwrap(),
        vxlan: VxlanSettings {
            device: PerFamily {
                v4: name("vxlan.calico"),
                v6: name("vxlan-v6.calico"),
            },
            vni: 4096,
            port: 4789,
            checksum_offload: Some(false),
        },
        mtu: None,
        interface_prefix: "cali".to_owned(),
        nexthop_objects,
        allow_any_pod_address: false,
        overlay_check: false,
        nft: Some(NftSettings {
            masquerade: true,
            masquerade_except: Vec::new(),
        }),
    }
}

/// The underlay address that ends so.
pub(crate) fn underlay_address(family: Family, last: u8) -> IpAddr {
    ip(&match (family, last < AFAR) {
        (Family::V4, true) => format!("192.0.2.{last}"),
        (Family::V4, false) => format!("198.51.100.{last}"),
        (Family::V6, true) => format!("2001:db8::{last}"),
        (Family::V6, false) => format!("2001:db8:1::{last}"),
    })
}

/// This node, with the pod subnets of that number.
pub(crate) fn own_node(subnet: u8) -> Node {
    let peer = Peer {
        underlay: 1,
        subnet,
        v6: true,
    };
    peer.node("node-0".to_owned())
}

/// The host veth of the pod of this number.
pub(crate) fn veth(pod: u8) -> IfName {
    host_veth_name("cali", "default", &format!("pod-{pod}")).unwrap()
}

fn pod_id(number: u8) -> PodId {
    PodId {
        namespace: "default".to_owned(),
        name: format!("pod-{number}"),
    }
}

impl Peer {
    fn node(self, name: String) -> Node {
        let Self { underlay, subnet, v6 } = self;
        let address = |address| NodeAddress {
            kind: NodeAddressKind::Internal,
            address,
        };
        let mut node = Node {
            uid: name.clone(),
            name,
            created: 0,
            addresses: vec![
                address(underlay_address(Family::V4, underlay)),
                address(underlay_address(Family::V6, underlay)),
            ],
            pod_subnets: vec![net(&format!("10.0.{subnet}.0/24"))],
            overrides: PerFamily::default(),
            ipip_address: None,
            flannel: None,
            unreadable: Vec::new(),
        };
        if v6 {
            node.pod_subnets.push(net(&format!("fd00:{subnet}::/64")));
        }
        node
    }

    /// The API's word on the peer of this number.
    pub(crate) fn event(number: u8, peer: Option<Self>) -> ClusterEvent {
        let name = format!("node-{number}");
        match peer {
            Some(peer) => ClusterEvent::NodeApplied(peer.node(name)),
            None => ClusterEvent::NodeDeleted(name),
        }
    }
}

impl Pod {
    fn addresses(self) -> Vec<IpAddr> {
        let mut addresses = vec![ip(&format!("10.0.0.{}", self.address))];
        if self.v6 {
            addresses.push(ip(&format!("fd00:0::{}", self.address)));
        }
        addresses
    }

    /// The API's word on the pod of this number.
    pub(crate) fn event(number: u8, pod: Option<Self>) -> ClusterEvent {
        let id = pod_id(number);
        match pod {
            Some(pod) => ClusterEvent::PodApplied(routelet_model::Pod {
                uid: id.name.clone(),
                id,
                created: 0,
                addresses: pod.addresses(),
                host_network: false,
                terminal: false,
                unreadable: Vec::new(),
            }),
            None => ClusterEvent::PodDeleted(id),
        }
    }
}
