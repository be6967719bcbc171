//! What the host has of its own, and whether a notification tells anything new of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use routelet_model::{Host, HostLink, IfName};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::address::SeenAddress;
use crate::link::SeenLink;

/// The host's links and addresses as they were last told. Only a difference from them is worth a hint: the
/// kernel notifies of a link also when nothing that counts has changed.
#[derive(Debug, Default)]
pub(crate) struct HostWatch {
    links: FxHashMap<u32, LinkNews>,
    addresses: FxHashSet<(u32, IpNet)>,
    /// Addresses to which the ways are of interest.
    pub(crate) destinations: Vec<IpAddr>,
}

impl HostWatch {
    /// Takes note of a full dump of what is the host's, and makes the answer of it.
    pub(crate) fn replace(&mut self, links: &[SeenLink], addresses: &[SeenAddress]) -> Host {
        self.links = links.iter().map(|link| (link.index, news_of(link))).collect();
        self.addresses = addresses.iter().map(|seen| (seen.index, seen.address)).collect();
        let host_link = |link: &SeenLink| HostLink {
            name: link.name,
            mtu: link.mtu,
            up: link.up,
            addresses: addresses
                .iter()
                .filter(|a| a.index == link.index)
                .map(|a| a.address)
                .collect(),
        };
        Host {
            links: links.iter().map(host_link).collect(),
            sources: BTreeMap::new(),
        }
    }

    /// A link of the host is there: whether that is news.
    pub(crate) fn link(&mut self, link: &SeenLink) -> bool {
        self.links.insert(link.index, news_of(link)) != Some(news_of(link))
    }

    /// A link is gone, or no longer the host's: whether that is news.
    pub(crate) fn link_gone(&mut self, index: u32) -> bool {
        self.addresses.retain(|(on, _)| *on != index);
        self.links.remove(&index).is_some()
    }

    /// A route to `net` has come or gone: whether a way that is of interest may lead elsewhere now.
    pub(crate) fn route(&self, net: IpNet) -> bool {
        self.destinations.iter().any(|to| net.contains(to))
    }

    /// An address of the host is there: whether that is news.
    pub(crate) fn address(&mut self, seen: &SeenAddress) -> bool {
        self.addresses.insert((seen.index, seen.address))
    }

    /// An address of the host is gone: whether that is news.
    pub(crate) fn address_gone(&mut self, seen: &SeenAddress) -> bool {
        self.addresses.remove(&(seen.index, seen.address))
    }
}

/// What is news of a link where it changes: name, MTU, up, running.
type LinkNews = (IfName, u32, bool, bool);

fn news_of(link: &SeenLink) -> LinkNews {
    (link.name, link.mtu, link.up, link.running)
}
