//! All of a namespace's kernel state at once, whoever made it: for assertions and for tables to look at.

use std::fmt;
use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use routelet_model::{Family, IfName, MacAddr};
use routelet_netlink::Netns;
use routelet_netlink::inspect::{AddressRow, FdbRow, Inspector, LinkRow, NeighbourRow, NexthopRow, RouteRow};

/// The kernel's tables at one time. Its text form lists them as the `ip` and `bridge` programs do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelView {
    /// Links.
    pub links: Vec<LinkRow>,
    /// Addresses.
    pub addresses: Vec<AddressRow>,
    /// Routes of the main table, IPv4 first.
    pub routes: Vec<RouteRow>,
    /// Nexthop objects.
    pub nexthops: Vec<NexthopRow>,
    /// Neighbours, IPv4 first.
    pub neighbours: Vec<NeighbourRow>,
    /// Forwarding entries.
    pub fdb: Vec<FdbRow>,
}

impl KernelView {
    /// Reads them. Each table is read at a moment of its own.
    pub fn of(netns: &Netns) -> Result<Self> {
        let mut inspector = Inspector::open_in(netns)?;
        let mut view = Self {
            links: inspector.links()?,
            addresses: inspector.addresses()?,
            routes: Vec::new(),
            nexthops: inspector.nexthops()?,
            neighbours: Vec::new(),
            fdb: inspector.fdb()?,
        };
        for family in Family::ALL {
            view.routes.extend(inspector.routes(family)?);
            view.neighbours.extend(inspector.neighbours(family)?);
        }
        Ok(view)
    }

    /// The link of this name.
    pub fn link(&self, name: &str) -> Option<&LinkRow> {
        self.links.iter().find(|row| row.name.as_str() == name)
    }

    /// Whether the link has the address.
    pub fn has_address(&self, link: &str, address: IpNet) -> bool {
        self.addresses
            .iter()
            .any(|row| row.link.as_str() == link && row.address == address)
    }

    /// The first route to exactly this destination.
    pub fn route(&self, destination: IpNet) -> Option<&RouteRow> {
        self.routes.iter().find(|row| row.destination == destination)
    }

    /// The neighbour of this address on the link.
    pub fn neighbour(&self, link: &str, address: IpAddr) -> Option<&NeighbourRow> {
        self.neighbours
            .iter()
            .find(|row| row.link.as_str() == link && row.address == address)
    }

    /// The underlay address behind a MAC address in a VXLAN device's FDB.
    pub fn fdb_remote(&self, link: &str, mac: MacAddr) -> Option<IpAddr> {
        self.fdb
            .iter()
            .find(|row| row.link.as_str() == link && row.mac == mac)?
            .remote
    }

    /// What concerns one link.
    pub fn on_link(&self, link: IfName) -> Self {
        let mut view = self.clone();
        view.links.retain(|row| row.name == link);
        view.addresses.retain(|row| row.link == link);
        view.routes.retain(|row| row.link == Some(link));
        view.nexthops.retain(|row| row.link == Some(link));
        view.neighbours.retain(|row| row.link == link);
        view.fdb.retain(|row| row.link == link);
        view
    }
}

impl fmt::Display for KernelView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, "links", &self.links)?;
        table(f, "addresses", &self.addresses)?;
        table(f, "routes", &self.routes)?;
        table(f, "nexthops", &self.nexthops)?;
        table(f, "neighbours", &self.neighbours)?;
        table(f, "fdb", &self.fdb)
    }
}

fn table(f: &mut fmt::Formatter<'_>, title: &str, rows: &[impl fmt::Display]) -> fmt::Result {
    writeln!(f, "{title}:")?;
    rows.iter().try_for_each(|row| writeln!(f, "  {row}"))
}
