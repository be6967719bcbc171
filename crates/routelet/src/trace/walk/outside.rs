//! From the routing decision to another node, or out of the cluster: the link, and the node's address in place of the
//! pod's.

use routelet_model::{IfName, Key, NftSet, Object};
use routelet_netlink::fib::FibRoute;

use super::super::hop::{Hop, Place};
use super::super::observed::{Destination, Observed};
use super::pod::{carries, is_silent};

/// Adds the hops from the node on.
pub(super) fn walk(observed: &Observed, destination: &Destination, route: &FibRoute, hops: &mut Vec<Hop>) {
    if let Some(name) = route.link {
        let next = route.gateway.unwrap_or(observed.to.address);
        let mut hop = link(observed, name);
        if !hop.is_broken() && is_silent(observed, name, next) {
            hop = Hop::doubt(
                Place::Link,
                name,
                format!("{next} did not answer when it was last asked for"),
                format!("see that {next} runs and is on the network of {name}"),
            );
        }
        hops.push(hop);
    }
    if *destination == Destination::Outside {
        hops.push(masquerade(observed));
    }
}

/// The link that packets leave the node by.
pub(super) fn link(observed: &Observed, name: IfName) -> Hop {
    let Some(link) = observed.link(name) else {
        return Hop::broken(
            Place::Link,
            name,
            "it is missing",
            "see the host's network configuration",
        );
    };
    match carries(link, "see the cable, or the switch") {
        Err((finding, remedy)) => Hop::broken(Place::Link, name, finding, remedy),
        Ok(()) => Hop::ok(Place::Link, name, format!("up, MTU {}", link.mtu)),
    }
}

/// Whether packets that leave the cluster get the node's address: no answer finds back to the pod's own.
fn masquerade(observed: &Observed) -> Hop {
    let (place, to) = (Place::Masquerade, observed.to.address);
    let object = "nft table";
    let own = "packets keep the pod's address, to which no one outside knows the way";
    if observed.in_set(NftSet::Except, to) == Some(true) {
        return Hop::ok(
            place,
            object,
            format!(
                "none towards {to}, as --masquerade-except says: its network must know the way back to the pod"
            ),
        );
    }
    let rules = match observed.tables.get(&Key::NftRules) {
        Some(Object::NftRules(rules)) => Some(rules),
        _ => None,
    };
    if !observed.masquerade || rules.is_some_and(|rules| !rules.masquerade) {
        return Hop::ok(
            place,
            object,
            "none, as --masquerade=false says: the networks outside must know the way back to the pod",
        );
    }
    let list = observed.agents();
    if !observed.tables.contains_key(&Key::NftTable) {
        return Hop::broken(
            place,
            object,
            format!("the agent's table is missing: {own}"),
            list,
        );
    }
    if rules.is_none() {
        return Hop::broken(
            place,
            object,
            format!("the table's rules are missing or changed: {own}"),
            list,
        );
    }
    let known = observed
        .from
        .address
        .and_then(|from| observed.in_set(NftSet::OwnPods, from));
    if known == Some(false) {
        let finding = format!("the pod's address is in no pod subnet that the table masquerades: {own}");
        return Hop::broken(place, object, finding, list);
    }
    Hop::ok(place, object, "packets get the node's address")
}
