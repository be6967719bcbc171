//! What the devices on the roads are like: roads are comparable only where these are.

use anyhow::{Context, Result, ensure};
use routelet_netlink::ethtool::Offloads;
use routelet_netlink::{Ethtool, Netns, Setup};

use super::NETWORKS;
use super::roads::Network;
use crate::report::{Cell, Table};

/// Each network's offloads that are on.
const COLUMNS: [&str; 2 + NETWORKS] = ["device", "MTU", "routelet", "no nft table", "hand-made"];

/// A device on a road.
#[derive(Debug)]
pub(crate) struct Device {
    /// What it is; the same in each network.
    pub(crate) role: &'static str,
    pub(crate) netns: Netns,
    pub(crate) name: String,
}

impl Device {
    fn mtu(&self) -> Result<u32> {
        let link = Setup::open_in(&self.netns)?.link(&self.name)?;
        Ok(link.with_context(|| format!("no {}", self.name))?.mtu)
    }

    fn offloads(&self) -> Result<Offloads> {
        Ok(Ethtool::open_in(&self.netns)?.offloads(self.name.parse()?)?)
    }
}

/// Tells of the networks' devices. An error where MTUs differ.
pub(crate) fn compare(networks: [&Network; NETWORKS]) -> Result<Table> {
    let mut table = Table::new("The devices of these networks", &COLUMNS);
    for (index, first) in networks[0].devices.iter().enumerate() {
        let mtu = first.mtu()?;
        let mut row = vec![Cell::Text(first.role.to_owned()), Cell::Count(mtu as usize)];
        for (name, network) in COLUMNS[2..].iter().zip(networks) {
            let device = &network.devices[index];
            let other = device.mtu()?;
            ensure!(
                mtu == other,
                "the MTU of the {} is {mtu} ({}) and {other} ({name}): the networks cannot be compared",
                first.role,
                COLUMNS[2]
            );
            row.push(Cell::Text(names(device.offloads()?)));
        }
        table.row(row);
    }
    Ok(table)
}

/// Those that are on.
fn names(offloads: Offloads) -> String {
    let all = [
        ("TX checksum", offloads.tx_checksum),
        ("TSO", offloads.tso),
        ("GSO", offloads.gso),
        ("GRO", offloads.gro),
    ];
    let on = all.into_iter().filter_map(|(name, on)| on.then_some(name));
    on.collect::<Vec<_>>().join(", ")
}
