//! What the cluster says: Pods and Nodes, reduced to what routing needs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::{MacAddr, PerFamily};

/// Namespace and name of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodId {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A value in an API object that could not be read; the rest of the object counts all the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unreadable {
    /// Path of the field, as `spec.podCIDRs`.
    pub field: &'static str,
    /// The value that was found there.
    pub value: String,
    /// What would be right.
    pub wanted: &'static str,
}

/// A Pod on this node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Who it is.
    pub id: PodId,
    /// `metadata.uid`: tells a Pod from a later one of the same name.
    pub uid: String,
    /// `metadata.creationTimestamp` in seconds since 1970; 0 where there is none.
    pub created: i64,
    /// `status.podIPs` (or `status.podIP`), in the API's order.
    pub addresses: Vec<IpAddr>,
    /// `spec.hostNetwork`: the pod has no network of its own.
    pub host_network: bool,
    /// `status.phase` is Succeeded or Failed: the pod's address is free.
    pub terminal: bool,
    /// Values that could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// Which kind of address a Node gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeAddressKind {
    /// `InternalIP`.
    Internal,
    /// `ExternalIP`.
    External,
}

/// One entry of `status.addresses` that is an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeAddress {
    /// Its kind.
    pub kind: NodeAddressKind,
    /// The address.
    pub address: IpAddr,
}

/// What a Node's annotations (Calico's) say in place of what would be derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NodeOverrides {
    /// Underlay address with its prefix length.
    pub underlay: Option<IpNet>,
    /// Tunnel address in VXLAN.
    pub tunnel_address: Option<IpAddr>,
    /// VTEP MAC address.
    pub vtep_mac: Option<MacAddr>,
}

/// What flannel's annotations say of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Flannel {
    /// `backend-type`, as `vxlan` or `host-gw`.
    pub backend: String,
    /// What they say of each family.
    pub lease: PerFamily<FlannelLease>,
}

/// What flannel's annotations say of one family of a Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlannelLease {
    /// Underlay address: `public-ip`, `public-ipv6`.
    pub underlay: Option<IpAddr>,
    /// VXLAN network identifier: `VNI` of `backend-data`, `backend-v6-data`.
    pub vni: Option<u32>,
    /// VTEP MAC address: `VtepMAC` of the same.
    pub vtep_mac: Option<MacAddr>,
}

/// A Node, this one or another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: tells a Node from a later one of the same name.
    pub uid: String,
    /// `metadata.creationTimestamp` in seconds since 1970; 0 where there is none.
    pub created: i64,
    /// `status.addresses`, in the API's order, without host names.
    pub addresses: Vec<NodeAddress>,
    /// `spec.podCIDRs` (or `spec.podCIDR`), host bits cleared, in the API's order.
    pub pod_subnets: Vec<IpNet>,
    /// What Calico's annotations say instead of the derivations.
    pub overrides: PerFamily<NodeOverrides>,
    /// Tunnel address in IPIP, of Calico's annotations as well.
    pub ipip_address: Option<Ipv4Addr>,
    /// What flannel's annotations say; `None` where flannel's subnet manager does not claim the Node.
    pub flannel: Option<Box<Flannel>>,
    /// Values that could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// An API object that something is told of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A Node.
    Node {
        /// `metadata.name`.
        name: String,
        /// `metadata.uid`.
        uid: String,
    },
    /// A Pod.
    Pod {
        /// Namespace and name.
        id: PodId,
        /// `metadata.uid`.
        uid: String,
    },
}

impl From<&Node> for Subject {
    fn from(node: &Node) -> Self {
        Self::Node {
            name: node.name.clone(),
            uid: node.uid.clone(),
        }
    }
}

impl From<&Pod> for Subject {
    fn from(pod: &Pod) -> Self {
        Self::Pod {
            id: pod.id.clone(),
            uid: pod.uid.clone(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { name, .. } => write!(f, "node {name}"),
            Self::Pod { id, .. } => write!(f, "pod {id}"),
        }
    }
}

/// A kind of API object that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// Pods of this node.
    Pods,
    /// All Nodes.
    Nodes,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pods => "pods",
            Self::Nodes => "nodes",
        })
    }
}

/// A change of the cluster, as the watcher tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterEvent {
    /// A Pod is new or differs from what was told before.
    PodApplied(Pod),
    /// A Pod is gone.
    PodDeleted(PodId),
    /// A Node is new or differs, in a field that counts, from what was told before.
    NodeApplied(Node),
    /// The Node of this name is gone.
    NodeDeleted(String),
    /// A full list of these has been told, deletions included. Comes after every (re)list.
    Synced(Resource, Source),
}

/// Where the API server took a list from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A cache, which may lag behind: another server may have told more.
    Cache,
    /// The store, or a cache that had caught up with it.
    Store,
}
