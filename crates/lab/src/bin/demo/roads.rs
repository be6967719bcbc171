//! The four roads of a packet: pod to pod on a node and across nodes, pod to the outside, outside to the pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use anyhow::{Context, Result, ensure};
use routelet_lab::wait;
use routelet_model::Family;

use crate::pings::{self, End, TTL_ACROSS_NODES, TTL_OVER_ONE_NODE};
use crate::screen::Screen;
use crate::world::World;

/// The machine outside of the cluster: the LAN itself.
const OUTSIDE: &str = "a machine outside";

pub(crate) fn show(screen: &mut Screen, world: &mut World) -> Result<()> {
    screen.step("The four roads of a packet")?;
    let mut rows = Vec::new();
    let mut sources = Vec::new();
    for family in &world.families {
        // What a router of the LAN, or its administrator, would do for those outside.
        for node in world.cluster.nodes() {
            world
                .cluster
                .lab()
                .route_to(&node.node, node.subnet_of(*family))?;
        }
        let pod = |node, pod| End::of(world.pod(node, pod)?, *family);
        let outside = End {
            name: OUTSIDE,
            netns: world.cluster.lab().netns(),
            address: world.cluster.lab().address(*family),
        };
        let (web, db_elsewhere) = (pod(0, 0)?, pod(2, 2)?);
        for (road, from, to, ttl) in [
            ("pod to pod on a node", &web, &pod(0, 1)?, TTL_OVER_ONE_NODE),
            ("pod to pod across nodes", &web, &pod(1, 0)?, TTL_ACROSS_NODES),
            ("pod to pod across nodes", &db_elsewhere, &web, TTL_ACROSS_NODES),
            ("pod to the outside", &web, &outside, TTL_OVER_ONE_NODE),
            ("outside to the pod", &outside, &web, TTL_OVER_ONE_NODE),
        ] {
            rows.push(pings::row(road, from, to, ttl)?);
        }

        let node = &world.cluster.nodes()[0].node;
        let other = pod(1, 0)?;
        for (from, to, expected, whose) in [
            (&web, &outside, node.address(*family), "its node's"),
            (&web, &other, web.address, "its own"),
            (&outside, &web, outside.address, "its own"),
        ] {
            let seen = source_seen(from, to)?;
            let (name, address, at) = (from.name, from.address, to.name);
            ensure!(
                seen == expected,
                "{at} should see {name} ({address}) as {expected}, and sees {seen}"
            );
            sources.push([
                name.to_owned(),
                address.to_string(),
                at.to_owned(),
                seen.to_string(),
                whose.to_owned(),
            ]);
        }
    }
    screen.table(pings::HEADINGS, &rows)?;
    screen.say("\nWhom a datagram comes from, as its receiver sees it:")?;
    screen.table(["from", "address", "at", "seen as", "address of"], &sources)
}

/// The source address of a datagram, where it arrives.
fn source_seen(from: &End<'_>, to: &End<'_>) -> Result<IpAddr> {
    let any: IpAddr = match Family::of(to.address) {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let listener = to.netns.run(|| UdpSocket::bind((to.address, 0)))??;
    listener.set_read_timeout(Some(wait::LONG))?;
    let target = listener.local_addr()?;
    let sender = from.netns.run(|| UdpSocket::bind((any, 0)))??;
    sender.send_to(b"hello", target)?;
    let (_, source) = listener
        .recv_from(&mut [0; 8])
        .with_context(|| format!("no datagram of {} at {}", from.name, to.name))?;
    Ok(source.ip())
}
