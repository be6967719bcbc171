//! What the operator chose, as far as it bears on the wanted objects.

use ipnet::IpNet;
use routelet_model::{IfName, PerFamily};

use crate::{Encapsulation, UnderlayRule};

/// Settings of the planner. They do not change while it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of this node's Node object.
    pub node_name: String,
    /// How packets reach the pods of other nodes.
    pub encapsulation: Encapsulation,
    /// Which of a node's addresses is that of its tunnels' end.
    pub underlay: UnderlayRule,
    /// Name of the IPIP device.
    pub ipip_device: IfName,
    /// The VXLAN devices.
    pub vxlan: VxlanSettings,
    /// MTU of the tunnel devices and of pods in bytes; `None` takes the parent's, less the encapsulation.
    pub mtu: Option<u32>,
    /// What the names of host veths start with; at most four bytes, or no name comes of it.
    pub interface_prefix: String,
    /// Whether routes to peers go through nexthop objects (Linux 5.3 and later) or name their gateway.
    pub nexthop_objects: bool,
    /// Whether a pod may have an address outside of this node's pod subnets.
    pub allow_any_pod_address: bool,
    /// Whether the plan tells of the tunnel's ends ([`Plan::overlay`](crate::Plan::overlay)).
    pub overlay_check: bool,
    /// The nft table; `None` where the kernel has none.
    pub nft: Option<NftSettings>,
}

/// Settings of the nft table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NftSettings {
    /// Whether packets of this node's pods that leave the cluster get the node's address.
    pub masquerade: bool,
    /// Destinations that pods keep their own address towards, beside pods and nodes; they may overlap.
    pub masquerade_except: Vec<IpNet>,
}

/// Settings of the VXLAN devices, one for each family of pod subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanSettings {
    /// Name of the device for each family of pod addresses.
    pub device: PerFamily<IfName>,
    /// VXLAN network identifier. A device whose pods are of the other family than its underlay has the next one.
    pub vni: u32,
    /// UDP port, of both devices.
    pub port: u16,
    /// Whether TX checksum offload of the devices shall be on; `None` leaves it as it is.
    pub checksum_offload: Option<bool>,
}
