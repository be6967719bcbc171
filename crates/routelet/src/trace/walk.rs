//! The walk itself: from what was observed to hops, in the order in which a packet passes them, and on past what is broken
//! as far as there is anything to look at. Pure.

mod outside;
mod peer;
mod pod;
mod route;
#[cfg(test)]
mod tests;

use routelet_model::{IfName, Sysctl, SysctlName};
use routelet_netlink::fib::{Decision, DropReason, FibRoute, protocol_name};
use routelet_netlink::forward::Passage;

use super::hop::{Hop, Place};
use super::observed::{Destination, Observed, forwarding_sysctl};

/// The main routing table's number (`RT_TABLE_MAIN`).
const MAIN_TABLE: u32 = 254;

/// The hops of the packet's way.
pub(crate) fn walk(observed: &Observed) -> Vec<Hop> {
    let mut hops = Vec::new();
    let Some(veth) = pod::source(observed, &mut hops) else {
        return hops;
    };
    hops.push(forwarding(observed, veth));
    let destination = observed.destination();
    let Some(route) = route::decide(observed, veth, &destination, &mut hops) else {
        return hops;
    };
    if destination == Destination::ThisNode {
        return hops;
    }
    hops.extend(firewall(observed));
    match &destination {
        Destination::LocalPod(other) => pod::target(observed, veth, *other, &mut hops),
        Destination::Peer(peer) => peer::walk(observed, veth, peer, &route, &mut hops),
        Destination::Node | Destination::Outside => outside::walk(observed, &destination, &route, &mut hops),
        Destination::NoPod(_) | Destination::NoNode | Destination::ThisNode => {}
    }
    hops.extend(way_back(observed, veth));
    hops
}

fn forwarding(observed: &Observed, veth: IfName) -> Hop {
    let (family, place) = (observed.family(), Place::Forwarding);
    let host = Sysctl::host(forwarding_sysctl(family));
    let of_veth = Sysctl::link(SysctlName::Ipv4Forwarding, veth);
    for setting in [host, of_veth] {
        if observed.sysctl(setting) == Some(0) {
            let finding = format!("{setting} is 0: the host passes on no {family} packets of the pod");
            let remedy = observed.repair(&format!("sysctl -w {setting}=1"));
            return Hop::broken(place, setting, finding, remedy);
        }
    }
    match observed.sysctl(host) {
        Some(_) => Hop::ok(place, host, "on"),
        None => Hop::broken(
            place,
            host,
            format!("the kernel has no {family}"),
            "start the host's kernel with it (ipv6.disable=0), or use pods of the other family",
        ),
    }
}

fn firewall(observed: &Observed) -> Vec<Hop> {
    let place = Place::Firewall;
    let open =
        "start the agent with --open-forward=true, or accept the pod subnets in the chain: docs/firewall.md";
    let mut hops: Vec<Hop> = observed
        .dropping
        .iter()
        .map(|(chain, passage)| match passage {
            Passage::Opened => Hop::ok(
                place,
                chain,
                "drops by policy, and rules of the agent let the pod's packets through",
            ),
            Passage::Closed => Hop::broken(
                place,
                chain,
                "drops by policy all that the host forwards, and has no rules",
                open,
            ),
            Passage::Undecided => Hop::doubt(
                place,
                chain,
                "drops by policy what the host forwards, unless one of its rules accepts the pod's packets",
                open,
            ),
        })
        .collect();
    if hops.is_empty() {
        hops.push(Hop::ok(place, "forward hook", "no chain drops by policy"));
    }
    hops
}

/// The answer's way from where it comes in to the pod.
fn way_back(observed: &Observed, veth: IfName) -> Option<Hop> {
    let (incoming, decision) = observed.back.as_ref()?;
    let (place, object) = (Place::WayBack, format!("in by {incoming}"));
    Some(match decision {
        Decision::Route(route) if route.link == Some(veth) && !route.local => {
            Hop::ok(place, object, format!("{}, out by {veth}", describe(route)))
        }
        Decision::Route(route) => Hop::broken(
            place,
            object,
            format!("answers do not go to {veth}: {} decides", describe(route)),
            observed.repair(&format!(
                "see what makes the route: ip route show {}",
                route.destination
            )),
        ),
        Decision::Dropped(DropReason::Source) => {
            let filter = observed.filters.get(incoming).copied().unwrap_or_default();
            let finding = format!(
                "the reverse path filter drops answers: rp_filter of {incoming} (or of all) is {filter}, strict, and the way \
                 to {} leaves by another link",
                observed.to.address
            );
            let remedy = format!(
                "sysctl -w net/ipv4/conf/{incoming}/rp_filter=2 (loose), and 0 or 2 for net/ipv4/conf/all/rp_filter"
            );
            Hop::broken(place, object, finding, observed.repair(&remedy))
        }
        Decision::Dropped(reason) => Hop::broken(
            place,
            object,
            format!("answers are dropped: {reason}"),
            observed.repair("see the host route and the forwarding above"),
        ),
    })
}

impl Observed {
    /// What to do about something that only the agent puts right.
    fn agents(&self) -> String {
        match self.known {
            Some(_) => "the agent runs and has not put it right: its log and routelet status say why",
            None => "start the agent, which puts it right at once",
        }
        .to_owned()
    }

    /// The same about something that can be done `by_hand` as well.
    fn repair(&self, by_hand: &str) -> String {
        format!("{}; by hand: {by_hand}", self.agents())
    }
}

/// A route in the words of the `ip` program.
fn describe(route: &FibRoute) -> String {
    let mut text = route.destination.to_string();
    if let Some(gateway) = route.gateway {
        text.push_str(&format!(" via {gateway}"));
    }
    if let Some(link) = route.link {
        text.push_str(&format!(" dev {link}"));
    }
    text.push_str(&format!(" proto {}", protocol(route.protocol)));
    if route.table != MAIN_TABLE {
        text.push_str(&format!(" table {}", route.table));
    }
    text
}

/// A routing protocol by its number, and its name where it has one.
fn protocol(number: u8) -> String {
    match protocol_name(number) {
        Some(name) => format!("{number} ({name})"),
        None => number.to_string(),
    }
}
