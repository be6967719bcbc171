//! How packets travel to a peer's pods: by a tunnel, straight over the parent, or as others arrange it.

use std::fmt;
use std::net::IpAddr;

use routelet_model::{Family, IfName};

use crate::Settings;
use crate::underlay::Underlay;

/// How packets to the pods of other nodes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// In VXLAN, to all nodes.
    Vxlan,
    /// In VXLAN, but straight to the nodes of this node's own network.
    VxlanCrossSubnet,
    /// In IPIP, to all nodes; IPv4 only.
    Ipip,
    /// In IPIP, but straight to the nodes of this node's own network; by a tunnel IPv4 only.
    IpipCrossSubnet,
    /// As they are: straight to the nodes of this node's own network; the routes to others are not ours to make.
    None,
}

/// A tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tunnel {
    Vxlan,
    Ipip,
}

impl Encapsulation {
    /// The tunnel that is used at all.
    pub(crate) fn tunnel(self) -> Option<Tunnel> {
        match self {
            Self::Vxlan | Self::VxlanCrossSubnet => Some(Tunnel::Vxlan),
            Self::Ipip | Self::IpipCrossSubnet => Some(Tunnel::Ipip),
            Self::None => None,
        }
    }

    /// Whether nodes of this node's own network are reached without it.
    pub(crate) fn is_direct_on_link(self) -> bool {
        matches!(self, Self::VxlanCrossSubnet | Self::IpipCrossSubnet | Self::None)
    }
}

/// The way to a peer's pods of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// In VXLAN.
    Vxlan,
    /// In IPIP.
    Ipip,
    /// Straight over the parent.
    Direct,
    /// None of ours: the peer is on no network of this node's, and there is to be no tunnel.
    Others,
    /// None: the peer is on no network of this node's, and the tunnel does not carry the family (IPIP and IPv6).
    None,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 5] = [Self::Vxlan, Self::Ipip, Self::Direct, Self::Others, Self::None];

    /// The word for it in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Ipip => "ipip",
            Self::Direct => "direct",
            Self::Others => "others",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Settings {
    /// The tunnel for pods of a family over an underlay, and its device: IPIP carries IPv4 in IPv4 only.
    pub(crate) fn tunnel(&self, pods: Family, underlay: Family) -> Option<(Tunnel, IfName)> {
        match self.encapsulation.tunnel()? {
            Tunnel::Vxlan => Some((Tunnel::Vxlan, *self.vxlan.device.get(pods))),
            Tunnel::Ipip => {
                let fits = pods == Family::V4 && underlay == Family::V4;
                fits.then_some((Tunnel::Ipip, self.ipip_device))
            }
        }
    }

    /// The way to pods of a family behind the peer's address `remote`, and the device that it leads over.
    pub(crate) fn way(&self, pods: Family, own: &Underlay, remote: IpAddr) -> (Way, Option<IfName>) {
        // A route of one family with a gateway of the other is not for all kernels.
        let is_on_link = own.network.contains(&remote) && Family::of(remote) == pods;
        if self.encapsulation.is_direct_on_link() && is_on_link {
            return (Way::Direct, Some(own.parent));
        }
        match self.tunnel(pods, Family::of(remote)) {
            Some((Tunnel::Vxlan, device)) => (Way::Vxlan, Some(device)),
            Some((Tunnel::Ipip, device)) => (Way::Ipip, Some(device)),
            None if self.encapsulation.tunnel().is_some() => (Way::None, None),
            None => (Way::Others, None),
        }
    }
}
