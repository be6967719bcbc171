//! What is not known of this node.

use std::fmt;
use std::net::IpAddr;

use routelet_model::Family;

/// A fact without which the wanted objects are incomplete. Its display says what is awaited and where to
/// look when it does not come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// The first list of this node's Pods has not been told to its end.
    PodsNotSynced,
    /// The first list of the Nodes has not been told to its end.
    NodesNotSynced,
    /// There is no Node object of this node's name, which stands here.
    OwnNodeUnknown(String),
    /// The Node object of this node, whose name stands here, has no pod subnet.
    OwnNodeHasNoPodSubnet(String),
    /// The Node object of this node has no address to reach it by: none for the VXLAN device of this
    /// family of pod subnets.
    UnderlayAddressUnknown(Family),
    /// No address of the host is what the setting `--underlay`, which stands here, chooses.
    UnderlayAddressNotChosen(String),
    /// No link of the host holds this node's underlay address.
    UnderlayAddressNotOnHost(IpAddr),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodsNotSynced => f.write_str("the first list of this node's Pods is not complete"),
            Self::NodesNotSynced => f.write_str("the first list of the Nodes is not complete"),
            Self::OwnNodeUnknown(name) => {
                write!(
                    f,
                    "there is no Node {name:?}: the node name must be that of this node's Node object"
                )
            }
            Self::OwnNodeHasNoPodSubnet(name) => {
                write!(
                    f,
                    "Node {name:?} has no usable spec.podCIDRs: the controller manager gives them with \
                     --allocate-node-cidrs and --cluster-cidr"
                )
            }
            Self::UnderlayAddressUnknown(family) => {
                write!(
                    f,
                    "this node's Node has no usable status.addresses for the {family} tunnel: the kubelet or \
                     the cloud provider sets them"
                )
            }
            Self::UnderlayAddressNotChosen(rule) => {
                write!(
                    f,
                    "no address of this host is one that --underlay {rule} chooses: give the host one, or the setting \
                     another value"
                )
            }
            Self::UnderlayAddressNotOnHost(address) => {
                write!(
                    f,
                    "this node's address {address} is on no link of the host: the Node's address and the \
                     host's must agree (docs/underlay.md has other ways to choose one)"
                )
            }
        }
    }
}
