//! What a tunnel adds to each packet.

use crate::PerFamily;

/// What VXLAN adds, in bytes, by the family of the underlay: outer IP, UDP, VXLAN and inner Ethernet header.
pub const VXLAN_OVERHEAD: PerFamily<u32> = PerFamily { v4: 50, v6: 70 };

/// What IPIP adds, in bytes: the outer IPv4 header.
pub const IPIP_OVERHEAD: u32 = 20;
