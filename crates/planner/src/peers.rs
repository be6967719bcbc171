//! The other nodes: nexthop and routes for each, by family of its pod subnets; in VXLAN an FDB entry and a neighbour
//! as well.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use routelet_model::{Family, Key, Node, Object, RouteTarget};

use crate::claims::Claim;
use crate::own::Facts;
use crate::underlay::Underlay;
use crate::vtep::{pod_subnets, refuse_unusable, tunnel_address_of, underlay_address_of, vtep_mac_of};
use crate::wanted::{Known, Wanted};
use crate::{Reason, UnderlayRule, Way, nft};

/// Whether there is anything to reach behind the Node. One without pod subnets is about to get some.
pub(crate) fn is_peer(node: &Node) -> bool {
    !node.pod_subnets.is_empty()
}

/// Adds what is wanted for another node, and what of it is refused.
pub(crate) fn want(known: &Known<'_>, node: &Arc<Node>, wanted: &mut Wanted) {
    refuse_unusable(known.settings, node, wanted);
    let Some(own) = known.own else { return };
    nft::want_node(known, own, node, wanted);
    for family in Family::ALL {
        // Without an underlay for the family there is nothing to send through.
        if let Some(underlay) = own.underlay.get(family) {
            want_family(known, own, underlay, node, family, wanted);
        }
    }
}

fn want_family(
    known: &Known<'_>,
    own: &Facts,
    underlay: &Underlay,
    node: &Arc<Node>,
    family: Family,
    wanted: &mut Wanted,
) {
    let local = underlay.local;
    let Some(tunnel_address) = tunnel_address_of(node, family) else {
        return;
    };
    let mac = vtep_mac_of(node, family);
    let lost = known
        .claims
        .refuse_lost(node, family, "it is not routed to the younger one", wanted);
    let remote = find_remote(&known.settings.underlay, node, local, wanted);
    let subnets: Vec<IpNet> = pod_subnets(node, family)
        .filter(|subnet| !lost.contains(&Claim::Subnet(*subnet)))
        .filter(|subnet| may_route(*subnet, node, own, [Some(local), remote], wanted))
        .collect();
    let Some(remote) = remote.filter(|remote| *remote != local) else {
        return;
    };
    // What this node has itself it keeps, also where the peer is the older one (the refusal is this node's).
    let reachable = [Claim::TunnelAddress(tunnel_address), Claim::VtepMac(family, mac)]
        .iter()
        .all(|claim| !lost.contains(claim) && !own.claims(claim));
    if subnets.is_empty() || !reachable {
        return;
    }
    let (way, link) = known.settings.way(family, underlay, remote);
    wanted.way(node, family, way, remote);
    let Some(link) = link else { return };
    let gateway = if way == Way::Vxlan {
        wanted.object(Key::Fdb { link, mac }, Object::Fdb(remote));
        wanted.object(
            Key::Neighbour {
                link,
                address: tunnel_address,
            },
            Object::Neighbour(mac),
        );
        tunnel_address
    } else {
        remote
    };
    // A nexthop object is one Node's. Of two with one address, as a Node made anew under another name has for a while,
    // the younger's routes name it themselves.
    let is_holder = || {
        let holder = known.claims.underlay_holder(remote);
        holder.is_some_and(|holder| holder.name == node.name)
    };
    let target = if known.settings.nexthop_objects && (way == Way::Vxlan || is_holder()) {
        wanted.object(Key::Nexthop { link, gateway }, Object::Nexthop);
        RouteTarget::Nexthop { link, gateway }
    } else {
        RouteTarget::Gateway { link, gateway }
    };
    for subnet in subnets {
        wanted.object(Key::route(subnet), Object::Route(target));
    }
}

/// The peer's address in the family that this node's tunnel runs over.
fn find_remote(rule: &UnderlayRule, node: &Arc<Node>, local: IpAddr, wanted: &mut Wanted) -> Option<IpAddr> {
    let family = Family::of(local);
    let remote = underlay_address_of(node, family);
    if remote.is_none() {
        let within = match rule {
            UnderlayRule::Cidr(_) => format!(" of --underlay {rule}"),
            _ => String::new(),
        };
        let message = format!(
            "node {} has no {family} address{within}, which this node's tunnel runs over, so it is not reachable: its \
             status.addresses must have an InternalIP of the family{within}",
            node.name
        );
        wanted.refuse(node.as_ref(), Reason::NoUnderlayAddress, message);
    } else if remote == Some(local) {
        let message = format!(
            "node {} has this node's own address {local}, so it is not reachable: delete the Node if it is a \
             former name of this one, else correct its status.addresses",
            node.name
        );
        wanted.refuse(node.as_ref(), Reason::UnderlayAddressTaken, message);
    }
    remote
}

/// Whether a route to the subnet would do no harm. One to what this node has itself would send its own
/// pods' traffic away. One around an underlay address would send the tunnel's own packets into the tunnel;
/// the other peers' addresses are not looked at, for that would cost a look at all of them for each.
fn may_route(
    subnet: IpNet,
    node: &Arc<Node>,
    own: &Facts,
    underlay: [Option<IpAddr>; 2],
    wanted: &mut Wanted,
) -> bool {
    let mut own_subnets = own.node.pod_subnets.iter();
    if own_subnets.any(|own| *own == subnet) {
        // The peer is the older one, for else it would have lost to this node. The refusal is this node's.
        return false;
    }
    let mut own_subnets = own.node.pod_subnets.iter();
    let (reason, why) = if let Some(around) = own_subnets.find(|own| own.contains(&subnet)) {
        (
            Reason::SubnetTaken,
            format!("lies within this node's own {around}"),
        )
    } else if let Some(address) = underlay
        .into_iter()
        .flatten()
        .find(|address| subnet.contains(address))
    {
        (
            Reason::SubnetHoldsUnderlay,
            format!("holds the underlay address {address}"),
        )
    } else {
        return true;
    };
    let message = format!(
        "pod subnet {subnet} of node {} {why}, so this node does not route it: no pod subnet may overlap \
         another node's or the nodes' own network",
        node.name
    );
    wanted.refuse(node.as_ref(), reason, message);
    false
}
