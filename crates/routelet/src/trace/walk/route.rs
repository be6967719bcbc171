//! The kernel's routing decision about the packet, against what it should be.

use ipnet::IpNet;
use routelet_model::IfName;
use routelet_netlink::fib::{Decision, DropReason, FibRoute};

use super::super::hop::{Hop, Place};
use super::super::observed::{Destination, Observed, Peer};
use super::{MAIN_TABLE, describe, peer, protocol};

/// Adds the hop; returns the route that decides, where it is the one that should.
pub(super) fn decide(
    observed: &Observed,
    veth: IfName,
    destination: &Destination,
    hops: &mut Vec<Hop>,
) -> Option<FibRoute> {
    let (hop, route) = match observed.there? {
        Decision::Route(route) => (judge(observed, destination, &route), Some(route)),
        Decision::Dropped(reason) => (dropped(observed, veth, destination, reason), None),
    };
    let route = route.filter(|_| !hop.is_broken());
    if let Destination::Peer(peer) = destination {
        hops.extend(peer::lost_device(observed, peer));
    }
    hops.push(hop);
    route
}

fn judge(observed: &Observed, destination: &Destination, route: &FibRoute) -> Hop {
    let to = observed.to.address;
    match destination {
        Destination::ThisNode if route.local => ok(to, "this node itself: it is delivered here"),
        _ if route.local => broken(
            to,
            "the kernel takes it for an address of this node's own",
            format!("see who gave it to the host (ip address show to {to}), and take it away"),
        ),
        Destination::LocalPod(other) => local(observed, *other, route),
        Destination::Peer(peer) => to_peer(observed, peer, route),
        Destination::NoPod(subnet) => no_pod(observed, *subnet, &describe(route)),
        Destination::NoNode => no_node(observed, &describe(route)),
        Destination::ThisNode | Destination::Node | Destination::Outside => out(observed, destination, route),
    }
}

/// To a pod of this node.
fn local(observed: &Observed, other: IfName, route: &FibRoute) -> Hop {
    let to = observed.to.address;
    if route.link == Some(other) {
        return ok(to, describe(route));
    }
    let wanted = IpNet::from(to);
    let by_hand = format!("ip route replace {to} dev {other} proto {}", observed.protocol);
    let finding = if route.destination == wanted && route.protocol != observed.protocol {
        format!(
            "another route is in the place of the pod's to {other}: {}",
            describe(route)
        )
    } else if observed
        .our_route(to)
        .is_some_and(|(destination, _)| destination == wanted)
    {
        format!("{} decides, before the pod's route to {other}", describe(route))
    } else {
        format!(
            "there is no route to {other}, so that {} decides",
            describe(route)
        )
    };
    broken(to, finding, observed.repair(&by_hand))
}

/// To a pod of another node.
fn to_peer(observed: &Observed, peer: &Peer, route: &FibRoute) -> Hop {
    let to = observed.to.address;
    let by_others = peer.known.as_ref().is_some_and(|known| known.way == "others");
    let ours = route.protocol == observed.protocol && route.table == MAIN_TABLE;
    match peer.route {
        Some((subnet, target)) => {
            if ours && route.destination == subnet {
                return match &peer.known {
                    Some(known) if known.device.is_some() && known.device != target.link() => {
                        let device = known.device.map(|device| device.to_string()).unwrap_or_default();
                        let finding = format!("{}, and the agent wants it over {device}", describe(route));
                        broken(to, finding, observed.agents())
                    }
                    _ => ok(to, describe(route)),
                };
            }
            let maker = protocol(route.protocol);
            let finding = format!(
                "{} decides, a route of protocol {maker} that is not the agent's, before the agent's {subnet} {target}",
                describe(route)
            );
            let remedy = format!(
                "find out who makes the route (protocol {maker}, device {}) and have it left out, or deleted: ip route del {}",
                route.link.map(|link| link.to_string()).unwrap_or_default(),
                route.destination
            );
            broken(to, finding, remedy)
        }
        None if by_others => ok(
            to,
            format!("{}: such routes are others' to make", describe(route)),
        ),
        None if route.destination.prefix_len() > 0 && observed.known.is_none() => Hop::doubt(
            Place::Route,
            to,
            format!(
                "{}, which is not the agent's, and the agent has none",
                describe(route)
            ),
            "right where a BGP daemon makes the routes (--encapsulation none or cross-subnet); else start the agent",
        ),
        None => {
            let why = peer.known.iter().flat_map(|known| &known.refusals).next();
            let finding = format!(
                "the agent's route is missing, so that {} decides",
                describe(route)
            );
            let remedy = match why {
                Some(why) => why.clone(),
                None => observed.agents(),
            };
            broken(to, finding, remedy)
        }
    }
}

/// To another node, or out of the cluster.
fn out(observed: &Observed, destination: &Destination, route: &FibRoute) -> Hop {
    let to = observed.to.address;
    match route.link {
        Some(link) if observed.devices.contains(&link) => broken(
            to,
            format!(
                "{}: it would go into the tunnel, where no node takes it",
                describe(route)
            ),
            format!(
                "find out who makes the route (protocol {}) and delete it",
                protocol(route.protocol)
            ),
        ),
        _ if *destination == Destination::Node => ok(to, format!("{}, another node", describe(route))),
        _ => ok(to, format!("{}, out of the cluster", describe(route))),
    }
}

fn no_pod(observed: &Observed, subnet: IpNet, decides: &str) -> Hop {
    broken(
        observed.to.address,
        format!("no pod of this node has it, though it is in its pod subnet {subnet}: {decides}"),
        "see the pod's address (kubectl get pod --output wide); if a pod of this node has it, see routelet status",
    )
}

fn no_node(observed: &Observed, decides: &str) -> Hop {
    broken(
        observed.to.address,
        format!("it is in the cluster's pod networks, but in no node's pod subnet: {decides}"),
        "see the pod's address (kubectl get pod --output wide) and the nodes' spec.podCIDRs",
    )
}

fn dropped(observed: &Observed, veth: IfName, destination: &Destination, reason: DropReason) -> Hop {
    let to = observed.to.address;
    if reason == DropReason::Source {
        let filter = observed.filters.get(&veth).copied().unwrap_or_default();
        return broken(
            to,
            format!(
                "the pod's packets may not come in by {veth}: rp_filter of {veth} (or of all) is {filter}, and the route to \
                 the pod does not lead there"
            ),
            "put the host route right: see above",
        );
    }
    match destination {
        Destination::NoPod(subnet) => no_pod(observed, *subnet, &reason.to_string()),
        Destination::NoNode => no_node(observed, &reason.to_string()),
        Destination::LocalPod(other) => broken(
            to,
            format!("there is no route to {other}: {reason}"),
            observed.repair(&format!(
                "ip route replace {to} dev {other} proto {}",
                observed.protocol
            )),
        ),
        Destination::Peer(Peer {
            route: Some((subnet, target)),
            ..
        }) => broken(
            to,
            format!("{reason}, before the agent's {subnet} {target}"),
            format!("find the route that does: ip route show match {to}, ip rule"),
        ),
        Destination::Peer(_) => broken(
            to,
            format!("the agent's route is missing: {reason}"),
            observed.agents(),
        ),
        _ if reason == DropReason::Unreachable && observed.forwards() == Some(0) => {
            broken(to, "the host does not forward", "switch forwarding on: see above")
        }
        _ => broken(
            to,
            reason.to_string(),
            format!("give the host a route to it (ip route get {to}), such as a default route"),
        ),
    }
}

fn ok(to: std::net::IpAddr, finding: impl Into<String>) -> Hop {
    Hop::ok(Place::Route, to, finding)
}

fn broken(to: std::net::IpAddr, finding: impl Into<String>, remedy: impl Into<String>) -> Hop {
    Hop::broken(Place::Route, to, finding, remedy)
}
