//! From the routing decision to another node, or out of the cluster: the link, and the node's address in place of the
//! pod's.

use routelet_model::{IfName, Key, NftSet, Object};
use routelet_netlink::fib::FibRoute;

use super::super::facts::{Destination, Facts};
use super::super::hop::{Hop, Place};
use super::pod::{carries, is_silent};

/// Adds the hops from the node on.
pub(super) fn walk(facts: &Facts, destination: &Destination, route: &FibRoute, hops: &mut Vec<Hop>) {
    if let Some(name) = route.link {
        let next = route.gateway.unwrap_or(facts.to.address);
        let mut hop = link(facts, name);
        if !hop.is_broken() && is_silent(facts, name, next) {
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
        hops.push(masquerade(facts));
    }
}

/// The link that packets leave the node by.
pub(super) fn link(facts: &Facts, name: IfName) -> Hop {
    let Some(link) = facts.link(name) else {
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
fn masquerade(facts: &Facts) -> Hop {
    let (place, to) = (Place::Masquerade, facts.to.address);
    let object = "nft table";
    let own = "packets keep the pod's address, to which no one outside knows the way";
    if facts.in_set(NftSet::Except, to) == Some(true) {
        return Hop::ok(
            place,
            object,
            format!(
                "none towards {to}, as --masquerade-except says: its network must know the way back to the pod"
            ),
        );
    }
    let rules = match facts.tables.get(&Key::NftRules) {
        Some(Object::NftRules(rules)) => Some(rules),
        _ => None,
    };
    if !facts.masquerade || rules.is_some_and(|rules| !rules.masquerade) {
        return Hop::ok(
            place,
            object,
            "none, as --masquerade=false says: the networks outside must know the way back to the pod",
        );
    }
    let list = facts.agents();
    if !facts.tables.contains_key(&Key::NftTable) {
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
    let known = facts
        .from
        .address
        .and_then(|from| facts.in_set(NftSet::OwnPods, from));
    if known == Some(false) {
        let finding = format!("the pod's address is in no pod subnet that the table masquerades: {own}");
        return Hop::broken(place, object, finding, list);
    }
    Hop::ok(place, object, "packets get the node's address")
}
