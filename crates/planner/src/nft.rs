//! What the nft table holds: the table, its rules, and for each Node its pod subnets and underlay addresses.
//!
//! A set of ranges takes no two that overlap, but this node's pod subnets may lie one within the other. Then the outer
//! one alone is wanted there. A subnet that no node may route is no pods' subnet, or a wrong one could keep the whole
//! Internet from being masqueraded.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use routelet_model::{Family, IfName, Key, NftRules, NftSet, Node, Object, PerFamily};

use crate::Settings;
use crate::own::Facts;
use crate::settings::NftSettings;
use crate::vtep::underlay_addresses;
use crate::wanted::{Known, Wanted};
use crate::way::Tunnel;

/// Destinations that no router may give another source address: multicast and limited broadcast, which are for
/// more than one, and IPv6 link-local addresses.
const NEVER_MASQUERADED: [IpNet; 4] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
];

/// Adds the table, its rules, and what they need of this node.
pub(crate) fn want_table(known: &Known<'_>, facts: &Facts, wanted: &mut Wanted) {
    let Settings {
        nft,
        encapsulation,
        vxlan,
        interface_prefix,
        ..
    } = known.settings;
    let (Some(nft), Ok(interface_prefix)) = (nft, IfName::new(interface_prefix)) else {
        return;
    };
    // A family without a device has the setting: it is a node's, if anyone's.
    let vni = |family| {
        let underlay = facts.underlay.get(family).as_ref();
        underlay.map_or(vxlan.vni, |underlay| underlay.vni(known.settings, family))
    };
    let rules = NftRules {
        interface_prefix,
        vnis: PerFamily {
            v4: vni(Family::V4),
            v6: vni(Family::V6),
        },
        port: vxlan.port,
        masquerade: nft.masquerade,
        vxlan: encapsulation.tunnel() == Some(Tunnel::Vxlan),
        ipip: encapsulation.tunnel() == Some(Tunnel::Ipip),
        pod_prefix_lens: if nft.masquerade {
            PerFamily {
                v4: known.claims.prefix_lens(Family::V4),
                v6: known.claims.prefix_lens(Family::V6),
            }
        } else {
            PerFamily::default()
        },
    };
    wanted.object(Key::NftTable, Object::NftTable);
    // The rules judge by what all Nodes have: earlier, they would drop what peers send that are about to be told.
    if known.all_nodes {
        wanted.object(Key::NftRules, Object::NftRules(rules));
    }
    want_node(known, facts, &facts.node, wanted);
    if nft.masquerade {
        for net in except(nft) {
            want_element(NftSet::Except, net, wanted);
        }
        for net in &facts.node.pod_subnets {
            if !is_within_own(*net, facts) {
                want_element(NftSet::OwnPods, *net, wanted);
            }
        }
    }
}

/// Adds what the sets hold of a Node, this one or another.
pub(crate) fn want_node(known: &Known<'_>, own: &Facts, node: &Node, wanted: &mut Wanted) {
    let Some(nft) = &known.settings.nft else { return };
    let is_holder = |holder: Option<&Node>| holder.is_some_and(|holder| holder.name == node.name);
    let is_own = node.name == own.node.name;
    // Nothing comes in from this node itself, and what goes to it is not sent on.
    let underlays = underlay_addresses(node).filter(|_| !is_own);
    for address in underlays {
        if is_holder(known.claims.underlay_holder(address)) {
            want_element(NftSet::Nodes, address.into(), wanted);
        }
    }
    if !nft.masquerade {
        return;
    }
    for subnet in &node.pod_subnets {
        // What this node has it keeps, whoever claims it too.
        let holds = is_own || is_holder(known.claims.subnet_holder(*subnet));
        // One within what is excepted changes nothing.
        let is_excepted = nft.masquerade_except.iter().any(|net| net.contains(subnet));
        if holds && !is_excepted && may_hold_pods(*subnet, node, own) {
            want_element(NftSet::Pods, *subnet, wanted);
        }
    }
}

/// Whether this node has a subnet around this one.
fn is_within_own(subnet: IpNet, own: &Facts) -> bool {
    let mut all = own.node.pod_subnets.iter();
    all.any(|around| *around != subnet && around.contains(&subnet))
}

/// Whether pods may be in the subnet of the Node: it is this node's, or overlaps neither this node's nor the two
/// nodes' own addresses.
fn may_hold_pods(subnet: IpNet, node: &Node, own: &Facts) -> bool {
    if node.name == own.node.name {
        return true;
    }
    let locals = Family::ALL
        .into_iter()
        .filter_map(|family| own.underlay.get(family).map(|underlay| underlay.local));
    let within_own = own.node.pod_subnets.iter().any(|own| own.contains(&subnet));
    !within_own
        && !locals
            .chain(underlay_addresses(node))
            .any(|address| subnet.contains(&address))
}

fn except(nft: &NftSettings) -> Vec<IpNet> {
    let all: Vec<IpNet> = nft
        .masquerade_except
        .iter()
        .copied()
        .chain(NEVER_MASQUERADED)
        .collect();
    IpNet::aggregate(&all)
}

fn want_element(set: NftSet, net: IpNet, wanted: &mut Wanted) {
    wanted.object(Key::nft_element(set, net), Object::NftElement);
}
