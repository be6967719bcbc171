//! The kernel settings below /proc/sys/net that pod networking needs.

use std::fmt;

use crate::{Family, IfName};

/// A setting, without the link it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SysctlName {
    /// `net.ipv4.ip_forward`: of the whole host.
    Ipv4IpForward,
    /// `net.ipv6.conf.all.forwarding`: of the whole host.
    Ipv6AllForwarding,
    /// `net.ipv4.conf.LINK.forwarding`.
    Ipv4Forwarding,
    /// `net.ipv4.conf.LINK.proxy_arp`.
    Ipv4ProxyArp,
    /// `net.ipv4.conf.LINK.rp_filter`.
    Ipv4RpFilter,
    /// `net.ipv4.neigh.LINK.proxy_delay`, in hundredths of a second.
    Ipv4ProxyDelay,
    /// `net.ipv6.conf.LINK.forwarding`.
    Ipv6Forwarding,
    /// `net.ipv6.conf.LINK.proxy_ndp`.
    Ipv6ProxyNdp,
    /// `net.ipv6.conf.LINK.accept_ra`.
    Ipv6AcceptRa,
    /// `net.ipv6.conf.LINK.accept_dad`: whether a new address is probed for duplicates before it is used.
    Ipv6AcceptDad,
    /// `net.ipv6.conf.LINK.addr_gen_mode`: how a link-local address comes about; 0 is from the MAC address.
    Ipv6AddrGenMode,
    /// `net.ipv6.conf.LINK.disable_ipv6`.
    Ipv6Disable,
}

/// A setting of the host or of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sysctl {
    /// Which setting.
    pub name: SysctlName,
    /// The link; `None` for a setting of the whole host.
    pub link: Option<IfName>,
}

impl Sysctl {
    /// A setting of the whole host.
    pub fn host(name: SysctlName) -> Self {
        Self { name, link: None }
    }

    /// A setting of one link.
    pub fn link(name: SysctlName, link: IfName) -> Self {
        Self {
            name,
            link: Some(link),
        }
    }

    /// Where the setting lies, below /proc/sys.
    pub fn path(&self) -> String {
        let link = self.link.as_ref().map_or("all", IfName::as_str);
        let (table, field) = match self.name {
            SysctlName::Ipv4IpForward => return "net/ipv4/ip_forward".to_owned(),
            SysctlName::Ipv6AllForwarding => return "net/ipv6/conf/all/forwarding".to_owned(),
            SysctlName::Ipv4Forwarding => ("ipv4/conf", "forwarding"),
            SysctlName::Ipv4ProxyArp => ("ipv4/conf", "proxy_arp"),
            SysctlName::Ipv4RpFilter => ("ipv4/conf", "rp_filter"),
            SysctlName::Ipv4ProxyDelay => ("ipv4/neigh", "proxy_delay"),
            SysctlName::Ipv6Forwarding => ("ipv6/conf", "forwarding"),
            SysctlName::Ipv6ProxyNdp => ("ipv6/conf", "proxy_ndp"),
            SysctlName::Ipv6AcceptRa => ("ipv6/conf", "accept_ra"),
            SysctlName::Ipv6AcceptDad => ("ipv6/conf", "accept_dad"),
            SysctlName::Ipv6AddrGenMode => ("ipv6/conf", "addr_gen_mode"),
            SysctlName::Ipv6Disable => ("ipv6/conf", "disable_ipv6"),
        };
        format!("net/{table}/{link}/{field}")
    }
}

/// What a host veth needs, for pod addresses of the family: that it answers for the pod's gateway, forwards, and takes
/// no address that the pod does not have.
pub fn host_veth_sysctls(family: Family) -> &'static [(SysctlName, u32)] {
    match family {
        Family::V4 => &[
            (SysctlName::Ipv4Forwarding, 1),
            (SysctlName::Ipv4ProxyArp, 1),
            (SysctlName::Ipv4RpFilter, 1),
            (SysctlName::Ipv4ProxyDelay, 0),
        ],
        Family::V6 => &[
            (SysctlName::Ipv6Forwarding, 1),
            (SysctlName::Ipv6ProxyNdp, 1),
            (SysctlName::Ipv6AcceptRa, 0),
        ],
    }
}

/// The path with slashes: a link's name may hold dots.
impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}
