//! What the host has of its own: the links and addresses that the cluster's traffic leaves through.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::IfName;

/// A link of the host that is neither a host veth nor one of our devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Its name.
    pub name: IfName,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// The host's own links, in the kernel's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// The links.
    pub links: Vec<HostLink>,
    /// Of the addresses that were asked about, those to which there is a way: which of its own the kernel would send
    /// from.
    pub sources: BTreeMap<IpAddr, IpAddr>,
}

impl Host {
    /// The link that holds `address`, and the address with its prefix length.
    pub fn holder(&self, address: IpAddr) -> Option<(&HostLink, IpNet)> {
        self.links.iter().find_map(|link| {
            link.addresses
                .iter()
                .find(|net| net.addr() == address)
                .map(|net| (link, *net))
        })
    }
}
