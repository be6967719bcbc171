//! The ends of the tunnel: this node's and those of the peers whose pods are reached, for whoever tests the way between.

use std::collections::BTreeMap;
use std::net::IpAddr;

use routelet_model::Family;

use crate::Settings;
use crate::own::Facts;
use crate::vtep::tunnel_address_of;
use crate::wanted::Going;

/// A change of what there is to test. Told only where [`Settings::overlay_check`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverlayChange {
    /// This node's end for pods of a family; `None` where it has none, or no more.
    Own {
        /// Of which pods.
        family: Family,
        /// The end.
        end: Option<OverlayEnd>,
    },
    /// A peer's end for pods of a family.
    Peer {
        /// The peer's name.
        node: String,
        /// Of which pods.
        family: Family,
        /// Its tunnel address, on a device of the peer's; `None` where its pods are not reached, or no more.
        address: Option<IpAddr>,
    },
}

/// This node's end of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayEnd {
    /// The tunnel address.
    pub address: IpAddr,
    /// The largest packet that the tunnel shall carry, in bytes.
    pub mtu: u32,
}

/// This node's end; `None` where there is no tunnel device for the family, which would have the address.
pub(crate) fn own_end(settings: &Settings, facts: Option<&Facts>, family: Family) -> Option<OverlayEnd> {
    let facts = facts?;
    let underlay = (*facts.underlay.get(family))?;
    settings.tunnel(family, Family::of(underlay.local))?;
    Some(OverlayEnd {
        address: tunnel_address_of(&facts.node, family)?,
        mtu: underlay.mtu(settings, family),
    })
}

/// Adds to `changes` what differs of the peers.
pub(crate) fn peers_changed(
    settings: &Settings,
    before: &[Going],
    after: &[Going],
    changes: &mut Vec<OverlayChange>,
) {
    // Where the encapsulation has a tunnel, each node has a device with its tunnel address, also for the peers that are
    // reached without.
    let ends = |goings: &[Going]| -> BTreeMap<(String, Family), IpAddr> {
        let tunnelled = goings
            .iter()
            .filter(|going| settings.tunnel(going.family, Family::of(going.remote)).is_some());
        let end = |going: &Going| {
            let address = tunnel_address_of(&going.node, going.family)?;
            Some(((going.node.name.clone(), going.family), address))
        };
        tunnelled.filter_map(end).collect()
    };
    let (before, after) = (ends(before), ends(after));
    let gone = before
        .keys()
        .filter(|peer| !after.contains_key(peer))
        .map(|peer| (peer, None));
    let set = after
        .iter()
        .filter(|(peer, address)| before.get(peer) != Some(address));
    let all = gone.chain(set.map(|(peer, address)| (peer, Some(*address))));
    changes.extend(all.map(|((node, family), address)| OverlayChange::Peer {
        node: node.clone(),
        family: *family,
        address,
    }));
}
