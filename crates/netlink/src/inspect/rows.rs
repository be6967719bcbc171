//! Entries of the kernel's tables, and how `ip` and `bridge` show them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use routelet_model::{IfName, MacAddr};

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// Its interface index.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// Its kind, as `veth` or `vxlan`; empty where it has none (lo, hardware).
    pub kind: String,
    /// Its MAC address.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
}

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRow {
    /// The link.
    pub link: IfName,
    /// The address with its prefix length.
    pub address: IpNet,
}

/// A route in the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRow {
    /// Its destination.
    pub destination: IpNet,
    /// Its link; a blackhole has none (in IPv6, `lo`).
    pub link: Option<IfName>,
    /// Its gateway.
    pub gateway: Option<IpAddr>,
    /// Whether the gateway counts as reachable on the link.
    pub onlink: bool,
    /// Id of the nexthop object that it refers to.
    pub nexthop: Option<u32>,
    /// Who made it: `rtm_protocol`.
    pub protocol: u8,
    /// Its metric.
    pub metric: u32,
    /// Whether packets are dropped silently.
    pub blackhole: bool,
}

/// A nexthop object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NexthopRow {
    /// Its id, by which routes refer to it.
    pub id: u32,
    /// Its link.
    pub link: Option<IfName>,
    /// Its gateway.
    pub gateway: Option<IpAddr>,
    /// Whether the gateway counts as reachable on the link.
    pub onlink: bool,
    /// Who made it: `nh_protocol`.
    pub protocol: u8,
}

/// A neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourRow {
    /// Its link.
    pub link: IfName,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, where it is known.
    pub mac: Option<MacAddr>,
    /// Its state: bits `NUD_…` of linux/neighbour.h.
    pub state: u16,
    /// Who made it; 0 where no one says so.
    pub protocol: u8,
}

/// An entry of a VXLAN device's or a bridge's forwarding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbRow {
    /// The VXLAN device, or the bridge's port.
    pub link: IfName,
    /// The MAC address.
    pub mac: MacAddr,
    /// Underlay address behind it, on a VXLAN device.
    pub remote: Option<IpAddr>,
    /// Its state: bits `NUD_…` of linux/neighbour.h.
    pub state: u16,
}

impl fmt::Display for LinkRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} mtu {} {}",
            self.index,
            self.name,
            self.mtu,
            if self.up { "up" } else { "down" }
        )?;
        if let Some(mac) = self.mac {
            write!(f, " {mac}")?;
        }
        if self.kind.is_empty() {
            Ok(())
        } else {
            write!(f, " {}", self.kind)
        }
    }
}

impl fmt::Display for AddressRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.address, self.link)
    }
}

impl fmt::Display for RouteRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destination = self.destination;
        f.write_str(if self.blackhole { "blackhole " } else { "" })?;
        match destination.prefix_len() {
            0 => f.write_str("default")?,
            length if length == destination.max_prefix_len() => write!(f, "{}", destination.addr())?,
            _ => write!(f, "{destination}")?,
        }
        if let Some(id) = self.nexthop {
            write!(f, " nhid {id}")?;
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = self.link {
            write!(f, " dev {link}")?;
        }
        match self.protocol {
            libc::RTPROT_KERNEL => f.write_str(" proto kernel")?,
            libc::RTPROT_BOOT => {}
            protocol => write!(f, " proto {protocol}")?,
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        f.write_str(if self.onlink { " onlink" } else { "" })
    }
}

impl fmt::Display for NexthopRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {}", self.id)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = self.link {
            write!(f, " dev {link}")?;
        }
        if self.protocol != 0 {
            write!(f, " proto {}", self.protocol)?;
        }
        f.write_str(if self.onlink { " onlink" } else { "" })
    }
}

impl fmt::Display for NeighbourRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.address, self.link)?;
        if let Some(mac) = self.mac {
            write!(f, " lladdr {mac}")?;
        }
        if self.protocol != 0 {
            write!(f, " proto {}", self.protocol)?;
        }
        write!(f, " {}", state_name(self.state))
    }
}

impl fmt::Display for FdbRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.mac, self.link)?;
        if let Some(remote) = self.remote {
            write!(f, " dst {remote}")?;
        }
        write!(f, " {}", state_name(self.state))
    }
}

/// The words of `ip neigh` for a neighbour's or forwarding entry's state.
pub fn state_name(state: u16) -> &'static str {
    match state {
        libc::NUD_PERMANENT => "permanent",
        libc::NUD_REACHABLE => "reachable",
        libc::NUD_STALE => "stale",
        libc::NUD_DELAY => "delay",
        libc::NUD_PROBE => "probe",
        libc::NUD_FAILED => "failed",
        libc::NUD_INCOMPLETE => "incomplete",
        libc::NUD_NOARP => "noarp",
        _ => "none",
    }
}
