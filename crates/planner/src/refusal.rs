//! What the cluster says and the planner does not follow, and why.

use std::fmt;

use routelet_model::Subject;

/// A value of the cluster that is not followed. It stands until the cluster changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Refusal {
    /// Whose value it is.
    pub subject: Subject,
    /// Why, in a word.
    pub reason: Reason,
    /// Names the thing, the value and the remedy.
    pub message: String,
}

/// Why a value is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It could not be read, or can be read but cannot be right.
    UnreadableValue,
    /// A pod subnet lies around an underlay address.
    SubnetHoldsUnderlay,
    /// An older Node claims the pod subnet, or one around it.
    SubnetTaken,
    /// An older Node claims the tunnel address.
    TunnelAddressTaken,
    /// An older Node claims the VTEP MAC address.
    VtepMacTaken,
    /// A Node has no address of the family that this node's tunnel runs over.
    NoUnderlayAddress,
    /// Another Node has this node's own underlay address.
    UnderlayAddressTaken,
    /// This node's tunnels send from an address that the other nodes do not know to be its own.
    UnderlayAddressUnknownToPeers,
    /// flannel's annotations of a Node tell of another tunnel than this node's.
    OtherTunnel,
    /// The encapsulation carries no packets of the family, or not over the node's addresses.
    NoTunnelForFamily,
    /// What is below a VXLAN device leaves too little for IPv6.
    MtuTooSmall,
    /// A pod's address is outside of this node's pod subnets.
    AddressOutsideSubnets,
    /// A pod's address is one that no pod can have: this node's own, loopback, multicast.
    UnusableAddress,
    /// A newer live pod, or a peer, has the pod's address.
    AddressTaken,
    /// No interface name comes of the pod's name and the prefix.
    NoHostVethName,
}

impl Reason {
    /// The word for it in metrics and Events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnreadableValue => "unreadable_value",
            Self::SubnetHoldsUnderlay => "subnet_holds_underlay",
            Self::SubnetTaken => "subnet_taken",
            Self::TunnelAddressTaken => "tunnel_address_taken",
            Self::VtepMacTaken => "vtep_mac_taken",
            Self::NoUnderlayAddress => "no_underlay_address",
            Self::UnderlayAddressTaken => "underlay_address_taken",
            Self::UnderlayAddressUnknownToPeers => "underlay_address_unknown_to_peers",
            Self::OtherTunnel => "other_tunnel",
            Self::NoTunnelForFamily => "no_tunnel_for_family",
            Self::MtuTooSmall => "mtu_too_small",
            Self::AddressOutsideSubnets => "address_outside_subnets",
            Self::UnusableAddress => "unusable_address",
            Self::AddressTaken => "address_taken",
            Self::NoHostVethName => "no_host_veth_name",
        }
    }
}

impl Reason {
    /// The reason of the Kubernetes Event, CamelCase as the API's conventions want it.
    pub fn event_reason(self) -> &'static str {
        match self {
            Self::UnreadableValue => "UnreadableValue",
            Self::SubnetHoldsUnderlay => "SubnetHoldsUnderlay",
            Self::SubnetTaken => "SubnetTaken",
            Self::TunnelAddressTaken => "TunnelAddressTaken",
            Self::VtepMacTaken => "VtepMacTaken",
            Self::NoUnderlayAddress => "NoUnderlayAddress",
            Self::UnderlayAddressTaken => "UnderlayAddressTaken",
            Self::UnderlayAddressUnknownToPeers => "UnderlayAddressUnknownToPeers",
            Self::OtherTunnel => "OtherTunnel",
            Self::NoTunnelForFamily => "NoTunnelForFamily",
            Self::MtuTooSmall => "MtuTooSmall",
            Self::AddressOutsideSubnets => "AddressOutsideSubnets",
            Self::UnusableAddress => "UnusableAddress",
            Self::AddressTaken => "AddressTaken",
            Self::NoHostVethName => "NoHostVethName",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
