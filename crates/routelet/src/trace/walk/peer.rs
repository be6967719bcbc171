//! From the routing decision to a pod of another node: by VXLAN, by IPIP, or as it is.

use std::net::IpAddr;

use routelet_model::{
    Family, IPIP_OVERHEAD, IfName, Key, Link, LinkKind, MacAddr, NftSet, Object, RouteTarget, VXLAN_OVERHEAD,
};
use routelet_netlink::fib::{Decision, FibRoute};

use super::super::hop::{Hop, Place};
use super::super::observed::{Observed, Peer, gateway_of, is_vxlan};
use super::pod::{carries, is_silent};
use super::{describe, outside};

/// Adds the hops from the node on.
pub(super) fn walk(observed: &Observed, veth: IfName, peer: &Peer, route: &FibRoute, hops: &mut Vec<Hop>) {
    let Some((_, target)) = peer.route else {
        // Someone else's route: what it leads over is theirs, too.
        hops.extend(route.link.map(|link| outside::link(observed, link)));
        return;
    };
    let Some((link, gateway)) = gateway_of(target) else {
        return;
    };
    hops.extend(nexthop(observed, target, link, gateway));
    if !observed.devices.contains(&link) {
        hops.push(outside::link(observed, link));
        hops.push(direct_neighbour(observed, link, gateway));
        return;
    }
    let Some(Object::Link(device)) = observed.tables.get(&Key::Link(link)) else {
        let finding = "it is missing, or another kind of device has its name";
        let remedy = observed.agents();
        hops.push(Hop::broken(Place::TunnelDevice, link, finding, remedy));
        return;
    };
    hops.push(tunnel_device(observed, veth, link, device));
    if is_vxlan(device) {
        let mac = neighbour(observed, peer, link, gateway, hops);
        let Some(mac) = mac else { return };
        if !fdb(observed, peer, link, mac, hops) {
            return;
        }
    }
    underlay(observed, peer, device, hops);
    if let LinkKind::Vxlan(vxlan) = &device.kind {
        hops.extend(against(observed, vxlan.port));
    }
}

/// Of a peer to which no route of ours leads: whether it is for want of a device. A device takes its routes with it when it
/// goes down.
pub(super) fn lost_device(observed: &Observed, peer: &Peer) -> Option<Hop> {
    let wanted = match &peer.known {
        Some(known) => known.device,
        // The nft table is for VXLAN where the agent uses it.
        None => match observed.tables.get(&Key::NftRules) {
            Some(Object::NftRules(rules)) if !rules.vxlan => None,
            _ => Some(observed.vxlan_device),
        },
    };
    let device = wanted.filter(|device| peer.route.is_none() && observed.devices.contains(device))?;
    let place = Place::TunnelDevice;
    let Some(link) = observed.link(device) else {
        let finding = "it is missing, and the routes over it with it";
        return Some(Hop::broken(place, device, finding, observed.agents()));
    };
    let (finding, by_hand) = carries(link, &format!("ip link set {device} down, then up")).err()?;
    let finding = format!("{finding}, and so the routes over it are gone");
    Some(Hop::broken(place, device, finding, observed.repair(&by_hand)))
}

fn nexthop(observed: &Observed, target: RouteTarget, link: IfName, gateway: IpAddr) -> Option<Hop> {
    let RouteTarget::Nexthop { .. } = target else {
        return None;
    };
    let object = format!("via {gateway} dev {link}");
    Some(match observed.tables.get(&Key::Nexthop { link, gateway }) {
        Some(Object::Nexthop) => Hop::ok(Place::Nexthop, object, "in place"),
        Some(other) => Hop::doubt(
            Place::Nexthop,
            object,
            other.to_string(),
            observed.repair("ip nexthop show"),
        ),
        None => Hop::broken(
            Place::Nexthop,
            object,
            "it is missing",
            observed.repair("ip nexthop show"),
        ),
    })
}

fn direct_neighbour(observed: &Observed, link: IfName, gateway: IpAddr) -> Hop {
    let (place, object) = (Place::Underlay, gateway);
    if is_silent(observed, link, gateway) {
        return Hop::doubt(
            place,
            object,
            format!("it did not answer when it was last asked for on {link}"),
            "see that the node runs and is on the same network (ping its address)",
        );
    }
    Hop::ok(place, object, format!("the peer's node, on {link}"))
}

fn tunnel_device(observed: &Observed, veth: IfName, name: IfName, device: &Link) -> Hop {
    let place = Place::TunnelDevice;
    let Some(link) = observed.link(name) else {
        return Hop::broken(place, name, "it is missing", observed.agents());
    };
    if let Err((finding, by_hand)) = carries(link, "ip link set down, then up") {
        return Hop::broken(place, name, finding, observed.repair(&by_hand));
    }
    let (parent, overhead) = match &device.kind {
        LinkKind::Vxlan(vxlan) => (vxlan.parent, *VXLAN_OVERHEAD.get(Family::of(vxlan.local))),
        _ => (None, IPIP_OVERHEAD),
    };
    if matches!(device.kind, LinkKind::Vxlan(_)) && parent.is_none() {
        return Hop::broken(place, name, "the link below it is gone", observed.agents());
    }
    let parent = parent.or(match observed.underlay {
        Some(Decision::Route(route)) => route.link,
        _ => None,
    });
    let parent_mtu = parent
        .and_then(|parent| observed.link(parent))
        .map(|link| link.mtu);
    let pod_mtu = observed.link(veth).map_or(0, |link| link.mtu);
    if link.mtu < pod_mtu {
        return Hop::broken(
            place,
            name,
            format!(
                "its MTU is {}, and the pod's {pod_mtu}: packets that are larger do not fit",
                link.mtu
            ),
            observed.repair(&format!(
                "ip link set {name} mtu {pod_mtu}; or make pods anew that have an older, larger MTU"
            )),
        );
    }
    let Some((parent, parent_mtu)) = parent.zip(parent_mtu) else {
        return Hop::ok(place, name, format!("up, MTU {}", link.mtu));
    };
    if parent_mtu < link.mtu + overhead {
        return Hop::broken(
            place,
            name,
            format!(
                "its MTU is {}, to which the tunnel adds {overhead} bytes, and that of {parent} below it is {parent_mtu}: \
                 large packets do not fit",
                link.mtu
            ),
            observed.repair(&format!(
                "set --mtu={} or leave it to auto, and make the pods anew; or raise the MTU of {parent}",
                parent_mtu.saturating_sub(overhead)
            )),
        );
    }
    Hop::ok(
        place,
        name,
        format!("up, MTU {}, over {parent} with MTU {parent_mtu}", link.mtu),
    )
}

/// Adds the hop; returns the MAC address that packets are sent to.
fn neighbour(
    observed: &Observed,
    peer: &Peer,
    link: IfName,
    gateway: IpAddr,
    hops: &mut Vec<Hop>,
) -> Option<MacAddr> {
    let place = Place::Neighbour;
    let wanted = peer.known.as_ref().and_then(|known| known.vtep_mac);
    let by_hand = match wanted {
        Some(mac) => format!("ip neigh replace {gateway} lladdr {mac} nud permanent dev {link}"),
        None => format!(
            "ip neigh replace {gateway} lladdr MAC nud permanent dev {link}, with the MAC of the peer's {link}"
        ),
    };
    let (hop, mac) = match observed.tables.get(&Key::Neighbour {
        link,
        address: gateway,
    }) {
        Some(Object::Neighbour(mac)) if wanted.is_none_or(|wanted| wanted == *mac) => (
            Hop::ok(place, gateway, format!("lladdr {mac} on {link}")),
            Some(*mac),
        ),
        Some(Object::Neighbour(mac)) => {
            let wanted = wanted.map(|mac| mac.to_string()).unwrap_or_default();
            let finding = format!("lladdr {mac} on {link}, and the peer's device has {wanted}");
            (
                Hop::broken(place, gateway, finding, observed.repair(&by_hand)),
                None,
            )
        }
        _ => {
            let finding = format!(
                "there is no permanent entry on {link}: packets wait for an answer that no one gives"
            );
            (
                Hop::broken(place, gateway, finding, observed.repair(&by_hand)),
                None,
            )
        }
    };
    hops.push(hop);
    mac
}

/// Adds the hop; returns whether the entry leads where it should.
fn fdb(observed: &Observed, peer: &Peer, link: IfName, mac: MacAddr, hops: &mut Vec<Hop>) -> bool {
    let place = Place::Fdb;
    let wanted = peer.known.as_ref().and_then(|known| known.underlay);
    let by_hand = match wanted {
        Some(remote) => format!("bridge fdb replace {mac} dev {link} dst {remote} self permanent"),
        None => format!(
            "bridge fdb replace {mac} dev {link} dst ADDRESS self permanent, with the address of the peer's node"
        ),
    };
    let hop = match observed.tables.get(&Key::Fdb { link, mac }) {
        Some(Object::Fdb(remote)) if wanted.is_some_and(|wanted| wanted != *remote) => {
            let wanted = wanted.map(|remote| remote.to_string()).unwrap_or_default();
            let finding = format!("it leads to {remote}, and the peer's node has {wanted}");
            Hop::broken(place, mac, finding, observed.repair(&by_hand))
        }
        // The nft table knows the nodes' addresses also where the agent is silent.
        Some(Object::Fdb(remote)) if observed.in_set(NftSet::Nodes, *remote) == Some(false) => {
            let finding =
                format!("it leads to {remote}, which is no node's address by the agent's nft table");
            Hop::broken(place, mac, finding, observed.repair(&by_hand))
        }
        Some(Object::Fdb(remote)) => Hop::ok(place, mac, format!("leads to {remote}")),
        Some(_) => Hop::broken(
            place,
            mac,
            format!("it is not permanent, or leads to several nodes: see bridge fdb show dev {link}"),
            observed.repair(&by_hand),
        ),
        None => Hop::broken(
            place,
            mac,
            format!("there is none on {link}, so that the device drops the packets"),
            observed.repair(&by_hand),
        ),
    };
    let whole = !hop.is_broken();
    hops.push(hop);
    whole
}

/// The way of the tunnel's own packets.
fn underlay(observed: &Observed, peer: &Peer, device: &Link, hops: &mut Vec<Hop>) {
    let place = Place::Underlay;
    let Some(remote) = observed.underlay_of(peer) else {
        return;
    };
    let named = match &peer.known {
        Some(known) => format!("node {}", known.name),
        None => "the peer's node".to_owned(),
    };
    match observed.underlay {
        Some(Decision::Route(route)) => {
            let next = route.gateway.unwrap_or(remote);
            let silent = route.link.is_some_and(|link| is_silent(observed, link, next));
            let into_tunnel = route.link.is_some_and(|link| observed.devices.contains(&link));
            let link = route.link.and_then(|link| observed.link(link));
            let trouble = link.and_then(|link| carries(link, "see the cable, or the switch").err());
            hops.push(match trouble {
                _ if route.local => Hop::broken(
                    place,
                    remote,
                    format!("{named} has an address of this node's own"),
                    "correct the Node's status.addresses",
                ),
                _ if into_tunnel => Hop::broken(
                    place,
                    remote,
                    format!(
                        "{}: the tunnel's packets would go into the tunnel",
                        describe(&route)
                    ),
                    "delete the route; the nodes' and the pods' networks must not overlap",
                ),
                Some((finding, remedy)) => {
                    Hop::broken(place, remote, format!("{}: {finding}", describe(&route)), remedy)
                }
                None if silent => Hop::doubt(
                    place,
                    remote,
                    format!(
                        "{}; {next} did not answer when it was last asked for",
                        describe(&route)
                    ),
                    format!("see that {named} runs and that its address is right (ping {remote})"),
                ),
                None => Hop::ok(place, remote, format!("{named}, by {}", describe(&route))),
            });
        }
        Some(Decision::Dropped(reason)) => hops.push(Hop::broken(
            place,
            remote,
            format!("{reason}: the tunnel's packets do not leave this node"),
            format!("give the host a route to {remote} ({named})"),
        )),
        None => {}
    }
    if observed.in_set(NftSet::Nodes, remote) == Some(false) {
        let kind = if is_vxlan(device) { "VXLAN" } else { "IPIP" };
        hops.push(Hop::broken(
            Place::TunnelFirewall,
            remote,
            format!(
                "the agent's nft table does not know {named}, so that its {kind} packets are dropped here"
            ),
            observed.agents(),
        ));
    }
}

fn against(observed: &Observed, port: u16) -> Vec<Hop> {
    let place = Place::TunnelFirewall;
    let open = format!("accept UDP port {port} from and to the other nodes in this chain");
    let mut hops: Vec<Hop> = observed
        .against
        .iter()
        .map(|against| {
            let finding = match (against.by_rule, against.sure) {
                (true, true) => format!("a rule drops UDP port {port}"),
                (true, false) => format!("a rule drops some packets of UDP port {port}"),
                (false, true) => "drops by policy, and has no rules: VXLAN does not pass".to_owned(),
                (false, false) => "drops by policy, unless one of its rules accepts VXLAN".to_owned(),
            };
            match against.sure {
                true => Hop::broken(place, &against.chain, finding, open.clone()),
                false => Hop::doubt(place, &against.chain, finding, open.clone()),
            }
        })
        .collect();
    if hops.is_empty() {
        let finding = format!("nothing of nftables drops UDP port {port}");
        hops.push(Hop::ok(place, format!("UDP port {port}"), finding));
    }
    hops
}
