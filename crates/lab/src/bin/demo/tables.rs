//! What the first node's kernel has, as `ip` and `bridge` would show it.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;
use ipnet::{IpNet, Ipv6Net};
use routelet_lab::KernelView;
use routelet_model::{Family, IfName, Key, LinkKind, Object, Vxlan};
use routelet_netlink::inspect::{RouteRow, state_name};

use crate::observer::{VXLAN, VXLAN_V6};
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
            .filter(|net| !matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local()))
            .map(|address| address.to_string());
        let mac = row.mac.map(|mac| mac.to_string()).unwrap_or_default();
        let device = match state.get(&Key::Link(row.name)) {
            Some(Object::Link(link)) => match &link.kind {
                LinkKind::Vxlan(device) => Some(device),
                LinkKind::Ipip { .. } | LinkKind::Veth | LinkKind::Other => None,
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
        ["name", "state", ">mtu", "address", "addresses", "kind"],
        &rows.collect::<Vec<_>>(),
    )?;

    for family in &world.families {
        routes(screen, &view, *family)?;
    }

    screen.say("\nNexthop objects (ip nexthop): one for each other node and family")?;
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

    for family in &world.families {
        tunnel(screen, &view, *family)?;
    }
    Ok(())
}

/// The routes of a family.
fn routes(screen: &mut Screen, view: &KernelView, family: Family) -> Result<()> {
    let command = match family {
        Family::V4 => "ip route",
        Family::V6 => "ip -6 route",
    };
    screen.say(&format!("\nRoutes ({command})"))?;
    let rows = view
        .routes
        .iter()
        .filter(|row| Family::of_net(row.destination) == family && !is_kernels_own(row))
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
    )
}

/// What leads to the other nodes in the device for the pods of a family.
fn tunnel(screen: &mut Screen, view: &KernelView, family: Family) -> Result<()> {
    let device = match family {
        Family::V4 => VXLAN,
        Family::V6 => VXLAN_V6,
    };
    screen.say(&format!(
        "\nNeighbours (ip neigh show dev {device}): tunnel address to VTEP MAC"
    ))?;
    let on_vxlan = |link: IfName| link.as_str() == device;
    let neighbours = view
        .neighbours
        .iter()
        .filter(|row| on_vxlan(row.link) && row.protocol != 0);
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
        "\nFDB (bridge fdb show dev {device}): VTEP MAC to the node's address"
    ))?;
    let rows = view.fdb.iter().filter(|row| on_vxlan(row.link)).map(|row| {
        let remote = row.remote.as_ref().map(IpAddr::to_string).unwrap_or_default();
        [row.mac.to_string(), remote, state_name(row.state).to_owned()]
    });
    screen.table(["lladdr", "dst", "state"], &sorted(rows))
}

/// Whether it is one that the kernel makes for each IPv6 link.
fn is_kernels_own(row: &RouteRow) -> bool {
    const LINK_LOCAL_AND_MULTICAST: [Ipv6Net; 2] = [
        Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    ];
    let IpNet::V6(destination) = row.destination else {
        return false;
    };
    LINK_LOCAL_AND_MULTICAST
        .iter()
        .any(|net| net.contains(&destination))
}

/// The kernel lists what is in a hash in the order of the hash.
fn sorted<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> Vec<[String; N]> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    rows
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
