//! The vocabulary that every other crate speaks: what the cluster says, what the host has, what the kernel
//! shall hold, and what follows from a name.
//!
//! Nothing here does I/O, and nothing here knows Kubernetes' or netlink's own types.

mod cluster;
mod derive;
mod family;
mod host;
mod ifname;
mod mac;
mod nft;
mod object;
mod overhead;
mod sysctl;

pub use cluster::{
    ClusterEvent, Flannel, FlannelLease, Node, NodeAddress, NodeAddressKind, NodeOverrides, Pod, PodId,
    Resource, Source, Subject, Unreadable,
};
pub use derive::{
    ALIAS_MARK, DEVICE_ALIAS, HOST_VETH_MAC, given_addresses, host_veth_name, pod_gateway, pod_of,
    tunnel_address, vtep_mac,
};
pub use family::{Family, PerFamily, host_prefix};
pub use host::{Host, HostLink};
pub use ifname::{IfName, InvalidIfName};
pub use mac::{InvalidMac, MacAddr};
pub use nft::{NftRules, NftSet, PrefixLens};
pub use object::{Key, Kind, Link, LinkKind, Object, RouteTarget, Vxlan};
pub use overhead::{IPIP_OVERHEAD, VXLAN_OVERHEAD};
pub use sysctl::{Sysctl, SysctlName, host_veth_sysctls};
