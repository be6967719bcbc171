//! The other nodes, alone and in conflict.

use std::net::IpAddr;

use routelet_model::{IfName, Key, MacAddr, Object, RouteTarget, Subject, Unreadable, vtep_mac};
use routelet_planner::{Notice, Reason, Settings};

use crate::support::*;

fn v4_device() -> IfName {
    ifname("vxlan.calico")
}

fn through(gateway: &str) -> Option<RouteTarget> {
    Some(RouteTarget::Nexthop {
        link: v4_device(),
        gateway: gateway.parse().unwrap(),
    })
}

fn fdb_of(world: &World, name: &str) -> Option<IpAddr> {
    let key = Key::Fdb {
        link: v4_device(),
        mac: vtep_mac(name, routelet_model::Family::V4),
    };
    match world.wanted.get(&key) {
        Some(Object::Fdb(remote)) => Some(*remote),
        _ => None,
    }
}

#[test]
fn a_peer_of_both_families() {
    let mut world = World::ready();
    let plan = world.node(mk_node(
        "node-1",
        1,
        &["192.168.0.2", "fd00::2"],
        &["10.2.0.0/24", "fd10:2::/64"],
    ));
    assert_eq!(plan.notices, []);
    assert_eq!(
        world.lines_beyond(&World::ready()),
        [
            "fdb 66:24:ac:63:df:6c dev vxlan-v6.calico dst fd00::2",
            "fdb 66:b3:68:28:39:8e dev vxlan.calico dst 192.168.0.2",
            "neighbour fd10:2:: dev vxlan-v6.calico lladdr 66:24:ac:63:df:6c permanent",
            "neighbour 10.2.0.0 dev vxlan.calico lladdr 66:b3:68:28:39:8e permanent",
            "nexthop via fd10:2:: dev vxlan-v6.calico present",
            "nexthop via 10.2.0.0 dev vxlan.calico present",
            "route 10.2.0.0/24 via 10.2.0.0 dev vxlan.calico",
            "route fd10:2::/64 via fd10:2:: dev vxlan-v6.calico",
        ]
    );
    assert_eq!(world.planner.peers(), 1);
    world.node_gone("node-1");
    assert_eq!(world.wanted, World::ready().wanted);
    assert_eq!(world.planner.peers(), 0);
}

#[test]
fn without_nexthop_objects_routes_name_their_gateway() {
    let mut world = World::ready_with(Settings {
        nexthop_objects: false,
        ..mk_settings()
    });
    world.node(mk_node("node-b", 1, &["192.168.0.2"], &["10.2.0.0/24"]));
    let gateway = "10.2.0.0".parse().unwrap();
    assert_eq!(
        world.route("10.2.0.0/24"),
        Some(RouteTarget::Gateway {
            link: v4_device(),
            gateway
        })
    );
    assert!(!world.wanted.keys().any(|key| matches!(key, Key::Nexthop { .. })));
}

#[test]
fn annotations_win() {
    let mut world = World::ready();
    let mut node = mk_node("node-b", 1, &["192.168.0.2"], &["10.2.0.0/24"]);
    node.overrides.v4.underlay = Some("192.168.7.2/24".parse().unwrap());
    node.overrides.v4.tunnel_address = Some("10.2.0.64".parse().unwrap());
    node.overrides.v4.vtep_mac = Some("66:00:00:00:00:01".parse().unwrap());
    world.node(node);
    assert_eq!(
        world.lines_beyond(&World::ready()),
        [
            "fdb 66:00:00:00:00:01 dev vxlan.calico dst 192.168.7.2",
            "neighbour 10.2.0.64 dev vxlan.calico lladdr 66:00:00:00:00:01 permanent",
            "nexthop via 10.2.0.64 dev vxlan.calico present",
            "route 10.2.0.0/24 via 10.2.0.64 dev vxlan.calico",
        ]
    );
}

#[test]
fn peers_wait_for_this_node() {
    let mut world = World::empty(mk_settings());
    world.node(mk_node(
        "node-b",
        1,
        &["192.168.0.2"],
        &["10.2.0.0/24", "fd10:2::/64"],
    ));
    world.node(mk_node(OWN, 100, &["192.168.0.1"], &["10.1.0.0/24"]));
    assert_eq!(fdb_of(&world, "node-b"), None);
    world.host(&own_host());
    assert_eq!(world.route("10.2.0.0/24"), through("10.2.0.0"));
    assert_eq!(world.route("fd10:2::/64"), None, "this node has no IPv6 device");
}

#[test]
fn a_new_address_changes_the_fdb_entry_alone() {
    let mut world = World::ready();
    world.node(mk_node("node-b", 1, &["192.168.0.2"], &["10.2.0.0/24"]));
    let mut anew = mk_node("node-b", 900, &["192.168.0.22"], &["10.2.0.0/24"]);
    anew.uid = "another".to_owned();
    let plan = world.node(anew);
    assert!(
        matches!(plan.changes.as_slice(), [(Key::Fdb { .. }, Some(Object::Fdb(_)))]),
        "{:?}",
        plan.changes
    );
    assert_eq!(fdb_of(&world, "node-b"), Some("192.168.0.22".parse().unwrap()));
}

#[test]
fn a_node_without_subnets_is_no_peer_and_no_trouble() {
    let mut world = World::ready();
    let plan = world.node(mk_node("node-b", 1, &[], &[]));
    assert_eq!(
        (plan.changes.len(), plan.notices.len(), world.planner.peers()),
        (0, 0, 0)
    );
}

#[test]
fn a_subnet_that_moves_is_one_change_of_its_route() {
    let mut world = World::ready();
    world.node(mk_node("node-b", 1, &["192.168.0.2"], &["10.2.0.0/24"]));
    world.node(mk_node(
        "node-c",
        2,
        &["192.168.0.3"],
        &["10.3.0.0/24", "10.2.0.0/24"],
    ));
    assert_eq!(world.route("10.2.0.0/24"), through("10.2.0.0"));
    assert_eq!(world.refusals(), [refused("node node-c", Reason::SubnetTaken)]);
    let plan = world.node_gone("node-b");
    assert_eq!(world.route("10.2.0.0/24"), through("10.3.0.0"));
    assert!(matches!(plan.notices.as_slice(), [Notice::Resolved(_)]));
    assert_eq!(
        plan.changes.len(),
        4,
        "three of node-b's objects go, the route changes: {:?}",
        plan.changes
    );
}

#[test]
fn the_older_node_keeps_a_subnet_whoever_comes_first() {
    let older = mk_node("node-c", 1, &["192.168.0.3"], &["10.2.0.0/24"]);
    let younger = mk_node("node-b", 2, &["192.168.0.2"], &["10.2.0.0/24"]);
    for order in [[&older, &younger], [&younger, &older]] {
        let mut world = World::ready();
        for node in order {
            world.node(node.clone());
        }
        assert_eq!(fdb_of(&world, "node-c"), Some("192.168.0.3".parse().unwrap()));
        assert_eq!(fdb_of(&world, "node-b"), None);
        assert_eq!(
            world.refusals(),
            [refused("node node-b", Reason::SubnetTaken)],
            "told as one trouble"
        );
        let refusal = world.planner.refusals().next().unwrap();
        assert_eq!(
            refusal.subject,
            Subject::Node {
                name: "node-b".to_owned(),
                uid: "uid-node-b".to_owned()
            }
        );
        assert_eq!(
            refusal.message,
            "pod subnet 10.2.0.0/24 of node node-b is claimed by the older node node-c, which keeps it: it is \
             not routed to the younger one; change the spec.podCIDRs of one of them"
        );
    }
}

#[test]
fn a_subnet_within_an_older_nodes_is_refused_and_one_around_it_is_not() {
    let mut world = World::ready();
    world.node(mk_node("node-b", 2, &["192.168.0.2"], &["10.8.0.0/16"]));
    world.node(mk_node("node-c", 3, &["192.168.0.3"], &["10.8.7.0/24"]));
    assert_eq!(world.refusals(), [refused("node node-c", Reason::SubnetTaken)]);
    world.node(mk_node("node-d", 1, &["192.168.0.4"], &["10.8.5.0/24"]));
    assert_eq!(
        world.route("10.8.5.0/24"),
        through("10.8.5.0"),
        "older than the one around it"
    );
    assert_eq!(
        world.route("10.8.0.0/16"),
        through("10.8.0.0"),
        "the longer prefix wins in the kernel"
    );
    world.node_gone("node-b");
    assert_eq!(world.route("10.8.7.0/24"), through("10.8.7.0"));
    assert_eq!(world.refusals(), []);
}

#[test]
fn no_route_to_a_peer_for_what_is_our_own() {
    for (created, subnet, subject) in [
        (1, "10.1.0.0/24", "node node-a"),
        (900, "10.1.0.0/24", "node node-b"),
        (1, "10.1.0.128/25", "node node-b"),
        (900, "10.1.0.128/25", "node node-b"),
    ] {
        let mut world = World::ready();
        world.node(mk_node("node-b", created, &["192.168.0.2"], &[subnet]));
        assert_eq!(world.wanted, World::ready().wanted, "{subnet} since {created}");
        assert_eq!(
            world.refusals(),
            [refused(subject, Reason::SubnetTaken)],
            "{subnet} since {created}"
        );
    }
}

#[test]
fn tunnel_addresses_and_macs_are_not_shared() {
    let own_mac = vtep_mac(OWN, routelet_model::Family::V4);
    let b_mac = vtep_mac("node-b", routelet_model::Family::V4);
    for (tunnel, mac, reason) in [
        ("10.1.0.0", None, Reason::TunnelAddressTaken),
        ("10.2.0.0", None, Reason::TunnelAddressTaken),
        ("10.3.0.0", Some(own_mac), Reason::VtepMacTaken),
        ("10.3.0.0", Some(b_mac), Reason::VtepMacTaken),
    ] {
        let mut world = World::ready();
        world.node(mk_node("node-b", 200, &["192.168.0.2"], &["10.2.0.0/24"]));
        let before = world.wanted.clone();
        let mut node = mk_node("node-c", 300, &["192.168.0.3"], &["10.3.0.0/24"]);
        node.overrides.v4.tunnel_address = Some(tunnel.parse().unwrap());
        node.overrides.v4.vtep_mac = mac;
        world.node(node);
        assert_eq!(world.wanted, before, "{tunnel} {mac:?}");
        assert_eq!(world.refusals(), [refused("node node-c", reason)]);
    }
}

#[test]
fn an_older_node_takes_no_address_and_mac_of_ours() {
    let own_mac = vtep_mac(OWN, routelet_model::Family::V4);
    for (tunnel, mac, reason) in [
        ("10.1.0.0", None, Reason::TunnelAddressTaken),
        ("10.3.0.0", Some(own_mac), Reason::VtepMacTaken),
    ] {
        let mut world = World::ready();
        let mut node = mk_node("node-c", 1, &["192.168.0.3"], &["10.3.0.0/24"]);
        node.overrides.v4.tunnel_address = Some(tunnel.parse().unwrap());
        node.overrides.v4.vtep_mac = mac;
        world.node(node);
        assert_eq!(world.wanted, World::ready().wanted, "{tunnel} {mac:?}");
        assert_eq!(world.refusals(), [refused("node node-a", reason)]);
    }
}

#[test]
fn underlay_addresses_that_cannot_be_reached() {
    for (addresses, reason) in [
        (&["fd00::2"][..], Reason::NoUnderlayAddress),
        (&["127.0.0.1", "fd00::2"], Reason::NoUnderlayAddress),
        (&["192.168.0.1", "fd00::2"], Reason::UnderlayAddressTaken),
    ] {
        let mut world = World::ready();
        world.node(mk_node("node-b", 1, addresses, &["10.2.0.0/24", "fd10:2::/64"]));
        assert_eq!(world.refusals(), [refused("node node-b", reason)]);
        assert_eq!(world.route("10.2.0.0/24"), None);
        assert!(
            world.route("fd10:2::/64").is_some(),
            "the other family has what it needs"
        );
    }
}

#[test]
fn a_subnet_around_an_underlay_address_is_refused() {
    for subnet in ["192.168.0.0/24", "172.16.0.0/12", "128.0.0.0/1"] {
        let mut world = World::ready();
        world.node(mk_node("node-b", 900, &["172.16.0.2"], &["10.2.0.0/24", subnet]));
        assert_eq!(
            world.refusals(),
            [refused("node node-b", Reason::SubnetHoldsUnderlay)],
            "{subnet}"
        );
        assert_eq!(world.route(subnet), None);
        assert_eq!(world.route("10.2.0.0/24"), through("10.2.0.0"));
    }
}

#[test]
fn values_that_cannot_be_used_leave_the_rest_of_the_node() {
    let mut world = World::ready();
    let subnets = &["224.0.0.0/8", "0.0.0.0/0", "10.2.0.0/24"];
    let mut node = mk_node("node-b", 1, &["192.168.0.2"], subnets);
    node.overrides.v4.vtep_mac = Some(MacAddr([0; 6]));
    node.unreadable = vec![Unreadable {
        field: "status.addresses",
        value: "x".to_owned(),
        wanted: "an IP address",
    }];
    world.node(node);
    assert_eq!(
        world.refusals(),
        vec![refused("node node-b", Reason::UnreadableValue); 4]
    );
    assert_eq!(world.route("10.2.0.0/24"), through("10.2.0.0"));
    assert_eq!(world.route("0.0.0.0/0"), None);
    world.node_gone("node-b");
    assert_eq!(world.refusals(), []);
}
