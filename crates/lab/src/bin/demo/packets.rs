//! A packet capture: what a pod's link carries when it talks to its neighbour for the first time.

use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use routelet_lab::{Capture, Packet, Ping, wait};
use routelet_model::{Family, HOST_VETH_MAC, pod_gateway};

use crate::pings::{End, TTL_OVER_ONE_NODE};
use crate::screen::Screen;
use crate::world::World;

/// What a packet starts with.
const TTL: u8 = 64;

pub(crate) fn show(screen: &mut Screen, world: &mut World) -> Result<()> {
    screen.step("A pod's first packet to another pod of its node, captured on its eth0")?;
    for (index, family) in world.families.iter().enumerate() {
        let (from, to) = (
            End::of(world.pod(0, 0)?, *family)?,
            End::of(world.pod(0, 1)?, *family)?,
        );
        let space = if index > 0 { "\n" } else { "" };
        let (name, to_name) = (from.name, to.name);
        screen.say(&format!("{space}{name} pings {to_name} once, in {family}:"))?;
        let capture = Capture::start(from.netns, "eth0")?;
        let report = Ping::to(to.address).run(from.netns)?;
        let awaited = expected(&from, &to);
        let seen = capture.until(wait::LONG, |seen| holds_in_order(seen, &awaited))?;
        for packet in &seen {
            screen.say(&format!("  {packet}"))?;
        }
        ensure!(report.lost.is_empty(), "pinging {to_name} from {name}: {report}");
        if !holds_in_order(&seen, &awaited) {
            let lines: Vec<_> = awaited.iter().map(|(line, _)| *line).collect();
            bail!(
                "captured was not, in this order, what was awaited: {}",
                lines.join("; ")
            );
        }
    }
    screen.say(&format!(
        "\n{} is nobody's address: the node answers for it with the MAC address that each host veth has.",
        pod_gateway(Family::V4)
    ))
}

type Awaited = (&'static str, Box<dyn Fn(&Packet) -> bool>);

/// The gateway is looked for and answers, and the reply has been forwarded by one node.
fn expected(from: &End<'_>, to: &End<'_>) -> Vec<Awaited> {
    let gateway = pod_gateway(Family::of(from.address));
    let (pod, peer) = (from.address, to.address);
    let asks = move |packet: &Packet| match *packet {
        Packet::ArpRequest { target, sender } => {
            IpAddr::from(target) == gateway && IpAddr::from(sender) == pod
        }
        Packet::Solicitation { target, .. } => IpAddr::from(target) == gateway,
        _ => false,
    };
    let answers = move |packet: &Packet| match *packet {
        Packet::ArpReply { address, mac } => IpAddr::from(address) == gateway && mac == HOST_VETH_MAC,
        Packet::Advertisement { address, mac } => {
            IpAddr::from(address) == gateway && mac == Some(HOST_VETH_MAC)
        }
        _ => false,
    };
    let echo = |request: bool, source: IpAddr, ttl: u8| {
        move |packet: &Packet| match packet {
            Packet::Echo(echo) => echo.is_request == request && echo.from == source && echo.ttl == ttl,
            _ => false,
        }
    };
    vec![
        ("the pod looks for its gateway", Box::new(asks)),
        ("the node answers with ee:ee:ee:ee:ee:ee", Box::new(answers)),
        ("the request leaves with ttl 64", Box::new(echo(true, pod, TTL))),
        (
            "the reply comes with ttl 63",
            Box::new(echo(false, peer, TTL_OVER_ONE_NODE)),
        ),
    ]
}

/// Whether each of these is among the packets, one after the other.
fn holds_in_order(seen: &[Packet], awaited: &[Awaited]) -> bool {
    let mut seen = seen.iter();
    awaited.iter().all(|(_, is_it)| seen.by_ref().any(is_it))
}

#[cfg(test)]
mod tests {
    use routelet_lab::capture::Echo;
    use routelet_model::MacAddr;
    use routelet_netlink::Netns;

    use super::*;

    #[test]
    fn only_the_right_packets_in_the_right_order_will_do() {
        let netns = Netns::current().unwrap();
        let end = |last| End {
            name: "pod",
            netns: &netns,
            address: [10, 244, 1, last].into(),
        };
        let (from, to) = (end(2), end(3));
        let gateway = [169, 254, 1, 1].into();
        let echo = |is_request, from: &End<'_>, to: &End<'_>, ttl| {
            Packet::Echo(Echo {
                from: from.address,
                to: to.address,
                is_request,
                id: 0,
                sequence: 0,
                ttl,
            })
        };
        let ask = Packet::ArpRequest {
            target: gateway,
            sender: [10, 244, 1, 2].into(),
        };
        let answer = |mac| Packet::ArpReply {
            address: gateway,
            mac,
        };
        let (request, reply) = (echo(true, &from, &to, 64), echo(false, &to, &from, 63));
        let awaited = expected(&from, &to);
        let right = [ask, answer(HOST_VETH_MAC), request, reply];
        assert!(holds_in_order(&right, &awaited));
        assert!(holds_in_order(
            &[right[0], ask, right[1], request, ask, reply],
            &awaited
        ));

        let other_mac = answer(MacAddr([2; 6]));
        let not_forwarded = echo(false, &to, &from, 64);
        for wrong in [
            &right[..3],
            &right[1..],
            &[right[1], ask, request, reply],
            &[ask, other_mac, request, reply],
            &[ask, right[1], request, not_forwarded],
        ] {
            assert!(!holds_in_order(wrong, &awaited), "{wrong:?}");
        }
    }
}
