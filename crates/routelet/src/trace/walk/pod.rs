//! The ends of the way on this node: the pod's host veth, what stands between it and the host, and the host veth of a pod
//! that the packet is for.

use routelet_model::{Family, HOST_VETH_MAC, IfName, Sysctl, SysctlName, pod_gateway};
use routelet_netlink::fib::Decision;
use routelet_netlink::setup::LinkState;

use super::super::hop::{Hop, Place};
use super::super::observed::Observed;
use super::describe;

/// `NUD_FAILED` of linux/neighbour.h: no one answered when the address was last asked for.
const FAILED: u16 = 0x20;

/// The hops from the pod to the host. Returns the host veth; `None` where the way ends there.
pub(super) fn source(observed: &Observed, hops: &mut Vec<Hop>) -> Option<IfName> {
    hops.extend(known(observed));
    let veth = host_veth(observed, hops)?;
    hops.push(host_route(observed, veth));
    hops.push(gateway(observed, veth));
    Some(veth)
}

/// Whether the agent knows the pod, where it answers.
fn known(observed: &Observed) -> Option<Hop> {
    let known = observed.known.as_ref()?;
    let (from, place) = (&observed.from, Place::Pod);
    let object = match (&from.pod, from.address) {
        (Some(pod), _) => pod.to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => return None,
    };
    let is_it = |(own, _): &&(std::net::IpAddr, Option<String>)| Some(*own) == from.address;
    let pod = known.pods.iter().find(|pod| match &from.pod {
        Some(id) => pod.id == *id,
        None => pod.addresses.iter().any(|own| is_it(&own)),
    });
    let Some(pod) = pod else {
        return Some(Hop::broken(
            place,
            object,
            "the agent knows no such pod on this node",
            "see that it runs here and has this address (kubectl get pod --output wide), and that the agent's watches work \
             (routelet status)",
        ));
    };
    Some(match pod.addresses.iter().find(is_it) {
        Some((address, None)) => Hop::ok(
            place,
            object,
            format!("the agent knows {} with {address}", pod.id),
        ),
        Some((address, Some(why))) => Hop::broken(
            place,
            object,
            format!("the agent has no route for {address}: {why}"),
            "do what the reason says; routelet status repeats it",
        ),
        None => Hop::broken(
            place,
            object,
            format!("the agent knows {} with other addresses", pod.id),
            "see the pod's status.podIPs (kubectl get pod --output yaml); if it has just been made, try again",
        ),
    })
}

fn host_veth(observed: &Observed, hops: &mut Vec<Hop>) -> Option<IfName> {
    let (from, place) = (&observed.from, Place::HostVeth);
    let made_by = "make the pod anew: its veth pair is made by the CNI plugin, whose errors are in the container runtime's log";
    let Some(veth) = from.veth else {
        let address = from
            .address
            .map(|address| address.to_string())
            .unwrap_or_default();
        hops.push(Hop::broken(
            place,
            &address,
            format!("no host veth of this node is that of a pod with {address}"),
            format!("see that the pod runs on this node; if it does, {made_by}"),
        ));
        return None;
    };
    let Some(link) = observed.link(veth) else {
        let finding = match observed.known {
            Some(_) => "it is missing".to_owned(),
            None => "it is missing, or the pod does not run on this node".to_owned(),
        };
        hops.push(Hop::broken(place, veth, finding, made_by));
        return None;
    };
    let hop = match carries(link, "the pod's end is down or gone: make the pod anew") {
        Err((finding, remedy)) => Hop::broken(place, veth, finding, remedy),
        Ok(()) if link.mac != Some(HOST_VETH_MAC) => {
            let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
            Hop::doubt(
                place,
                veth,
                format!(
                    "its MAC address is {mac}, and not {HOST_VETH_MAC}, which pods expect of their gateway"
                ),
                observed.repair(&format!(
                    "ip link set {veth} address {HOST_VETH_MAC}; and keep udev and network managers off it"
                )),
            )
        }
        Ok(()) => Hop::ok(place, veth, format!("up, MTU {}", link.mtu)),
    };
    hops.push(hop);
    Some(veth)
}

/// Whether a link is up and has a carrier; else what is the matter, and what to do.
pub(super) fn carries(link: &LinkState, without_carrier: &str) -> Result<(), (String, String)> {
    let name = link.name.map(|name| name.to_string()).unwrap_or_default();
    if !link.up {
        return Err((
            "it is down".to_owned(),
            format!("ip link set {name} up; and find out who set it down (a network manager?)"),
        ));
    }
    if !link.running {
        return Err((
            "it is up and has no carrier".to_owned(),
            without_carrier.to_owned(),
        ));
    }
    Ok(())
}

/// Whether what is for the pod goes to its veth. Its packets come from where the host would send to, or the reverse path
/// filter and the agent's nft table drop them.
fn host_route(observed: &Observed, veth: IfName) -> Hop {
    let place = Place::HostRoute;
    let Some((address, decision)) = observed.from.address.zip(observed.to_pod) else {
        return Hop::broken(
            place,
            veth,
            format!("no address is known of the pod behind {veth}, and no route leads to it"),
            observed.repair("name the pod by its address"),
        );
    };
    let route = match decision {
        Decision::Route(route) if route.link == Some(veth) && !route.local => {
            return Hop::ok(place, address, describe(&route));
        }
        other => other,
    };
    let by_hand = format!(
        "ip route replace {address} dev {veth} proto {}",
        observed.protocol
    );
    let lost = "the pod gets no answers, and what it sends is taken for spoofed and dropped";
    match route {
        Decision::Route(route) if route.destination == address.into() => Hop::broken(
            place,
            address,
            format!("another route is in its place: {}; {lost}", describe(&route)),
            observed.repair(&by_hand),
        ),
        Decision::Route(route) => Hop::broken(
            place,
            address,
            format!(
                "there is none to {veth}, so that {} decides; {lost}",
                describe(&route)
            ),
            observed.repair(&by_hand),
        ),
        Decision::Dropped(reason) => Hop::broken(
            place,
            address,
            format!("there is none to {veth}: {reason}; {lost}"),
            observed.repair(&by_hand),
        ),
    }
}

/// Whether the host answers for the gateway that the pod sends everything to.
fn gateway(observed: &Observed, veth: IfName) -> Hop {
    let (place, family) = (Place::Gateway, observed.family());
    let gateway = pod_gateway(family);
    if family == Family::V6 {
        let is_there = observed
            .addresses
            .iter()
            .any(|row| row.link == veth && row.address.addr() == gateway);
        return if is_there {
            Hop::ok(place, gateway, format!("an address of {veth}"))
        } else {
            Hop::broken(
                place,
                gateway,
                format!("{veth} does not have the address, so that no one answers the pod"),
                format!(
                    "ip -6 address add {gateway}/64 dev {veth} scope link; and see that net/ipv6/conf/{veth}/disable_ipv6 is 0"
                ),
            )
        };
    }
    let proxy = Sysctl::link(SysctlName::Ipv4ProxyArp, veth);
    match observed.sysctl(proxy) {
        Some(0) => Hop::broken(
            place,
            gateway,
            format!("{proxy} is 0: no one answers the pod's question who has {gateway}"),
            observed.repair(&format!("sysctl -w {proxy}=1")),
        ),
        _ => Hop::ok(place, gateway, format!("{veth} answers for it (proxy_arp)")),
    }
}

/// The last hop to a pod of this node.
pub(super) fn target(observed: &Observed, from: IfName, veth: IfName, hops: &mut Vec<Hop>) {
    let place = Place::OtherVeth;
    let Some(link) = observed.link(veth) else {
        // The route that leads there says so already, if there was one.
        hops.push(Hop::broken(
            place,
            veth,
            "it is missing",
            "make that pod anew: its veth pair is made by the CNI plugin",
        ));
        return;
    };
    let own_mtu = observed.link(from).map_or(0, |link| link.mtu);
    let failed = is_silent(observed, veth, observed.to.address);
    hops.push(
        match carries(link, "that pod's end is down or gone: make the pod anew") {
            Err((finding, remedy)) => Hop::broken(place, veth, finding, remedy),
            Ok(()) if failed => Hop::doubt(
                place,
                veth,
                format!(
                    "the pod behind it did not answer when it was last asked for {}",
                    observed.to.address
                ),
                "see that the pod runs and has the address on its eth0",
            ),
            Ok(()) if link.mtu < own_mtu => Hop::doubt(
                place,
                veth,
                format!(
                    "its MTU is {}, and the sender's {own_mtu}: larger packets need path MTU discovery",
                    link.mtu
                ),
                "make the older of the two pods anew: it gets the MTU of now",
            ),
            Ok(()) => Hop::ok(place, veth, format!("up, MTU {}", link.mtu)),
        },
    );
}

/// Whether no one answered for an address on a link when it was last asked for.
pub(super) fn is_silent(observed: &Observed, link: IfName, address: std::net::IpAddr) -> bool {
    observed
        .neighbours
        .iter()
        .any(|row| row.link == link && row.address == address && row.state & FAILED != 0)
}
