//! What the first node's kernel has, as `ip` and `bridge` would show it.

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use routelet_lab::KernelView;
use routelet_model::{Family, IfName, Key, LinkKind, Object, Vxlan};
use routelet_netlink::inspect::{RouteRow, state_name};

use crate::observer::VXLAN;
use crate::screen::Screen;
use crate::world::World;

pub(crate) fn show(screen: &mut Screen, world: &mut World) -> Result<()> {
    screen.step("What node-1's kernel has now")?;
    for index in 1..world.cluster.nodes().len() {
        let expected = world.objects_of_peer(index)?;
        world.ensure_present(&expected)?;
    }
    let view = KernelView::of(world.cluster.nodes()[0].node.netns())?;
    let state = world.observer.state()?;

    screen.say("Links (ip -d link)")?;
    let rows = view.links.iter().map(|row| {
        let addresses = view.addresses.iter().filter(|address| address.link == row.name);
        let addresses = addresses
            .map(|row| row.address)
            .filter(is_v4)
            .map(|address| address.to_string());
        let mac = row.mac.map(|mac| mac.to_string()).unwrap_or_default();
        let device = match state.get(&Key::Link(row.name)) {
            Some(Object::Link(link)) => match &link.kind {
                LinkKind::Vxlan(device) => Some(device),
                LinkKind::Veth | LinkKind::Other => None,
            },
            _ => None,
        };
        let kind = device.map_or_else(|| row.kind.clone(), vxlan);
        let up = if row.up { "up" } else { "down" };
        let addresses = addresses.collect::<Vec<_>>().join(" ");
        [
            row.name.to_string(),
            up.to_owned(),
            row.mtu.to_string(),
            mac,
            addresses,
            kind,
        ]
    });
    screen.table(
        ["name", "state", ">mtu", "address", "inet", "kind"],
        &rows.collect::<Vec<_>>(),
    )?;

    screen.say("\nRoutes (ip route)")?;
    let rows = view
        .routes
        .iter()
        .filter(|row| is_v4(&row.destination))
        .map(|row| {
            [
                destination(row),
                row.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
                name(row.link),
                row.nexthop.map(|id| id.to_string()).unwrap_or_default(),
                protocol(row.protocol),
            ]
        });
    screen.table(
        ["destination", "via", "dev", "nexthop id", "proto"],
        &rows.collect::<Vec<_>>(),
    )?;

    screen.say("\nNexthop objects (ip nexthop): one for each other node")?;
    let rows = view.nexthops.iter().map(|row| {
        let gateway = row.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        let flags = if row.onlink { "onlink" } else { "" };
        [
            row.id.to_string(),
            gateway,
            name(row.link),
            flags.to_owned(),
            protocol(row.protocol),
        ]
    });
    screen.table(["id", "via", "dev", "flags", "proto"], &sorted(rows))?;

    screen.say(&format!(
        "\nNeighbours (ip neigh show dev {VXLAN}): tunnel address to VTEP MAC"
    ))?;
    let on_vxlan = |link: IfName| link.as_str() == VXLAN;
    let neighbours = view
        .neighbours
        .iter()
        .filter(|row| on_vxlan(row.link) && Family::of(row.address) == Family::V4);
    let rows = neighbours.map(|row| {
        let mac = row.mac.map(|mac| mac.to_string()).unwrap_or_default();
        [
            row.address.to_string(),
            mac,
            state_name(row.state).to_owned(),
            protocol(row.protocol),
        ]
    });
    screen.table(["address", "lladdr", "state", "proto"], &sorted(rows))?;

    screen.say(&format!(
        "\nFDB (bridge fdb show dev {VXLAN}): VTEP MAC to the node's address"
    ))?;
    let rows = view.fdb.iter().filter(|row| on_vxlan(row.link)).map(|row| {
        let remote = row.remote.as_ref().map(IpAddr::to_string).unwrap_or_default();
        [row.mac.to_string(), remote, state_name(row.state).to_owned()]
    });
    screen.table(["lladdr", "dst", "state"], &sorted(rows))
}

/// The kernel lists what is in a hash in the order of the hash.
fn sorted<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> Vec<[String; N]> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    rows
}

fn is_v4(net: &IpNet) -> bool {
    Family::of_net(*net) == Family::V4
}

fn name(link: Option<IfName>) -> String {
    link.map(|link| link.to_string()).unwrap_or_default()
}

fn destination(row: &RouteRow) -> String {
    let net = row.destination;
    let text = match net.prefix_len() {
        0 => "default".to_owned(),
        length if length == net.max_prefix_len() => net.addr().to_string(),
        _ => net.to_string(),
    };
    if row.blackhole {
        format!("blackhole {text}")
    } else {
        text
    }
}

/// RTPROT_… of linux/rtnetlink.h, by the words of iproute2.
fn protocol(number: u8) -> String {
    match number {
        0 => String::new(),
        2 => "kernel".to_owned(),
        3 => "boot".to_owned(),
        other => other.to_string(),
    }
}

/// What `ip -d link` says of a VXLAN device.
fn vxlan(vxlan: &Vxlan) -> String {
    let parent = vxlan
        .parent
        .map(|parent| format!(" dev {parent}"))
        .unwrap_or_default();
    let learning = if vxlan.learning { "learning" } else { "nolearning" };
    format!(
        "vxlan id {} local {}{parent} dstport {} {learning}",
        vxlan.vni, vxlan.local, vxlan.port
    )
}
