//! The pods of this node.

use routelet_model::{Key, Pod, RouteTarget, Unreadable, host_veth_name};
use routelet_planner::{Notice, Reason, Settings};

use crate::support::*;

fn to(name: &str) -> Option<RouteTarget> {
    Some(RouteTarget::Link(
        host_veth_name("cali", "default", name).unwrap(),
    ))
}

#[test]
fn a_pod_of_both_families() {
    let mut world = World::ready();
    let pod = mk_pod("pod-a-68c8f9cccd-sgtvg", 1, &["10.1.0.7", "fd10:1::7"]);
    assert_eq!(world.pod(pod).notices, []);
    assert_eq!(
        world.lines_beyond(&World::ready()),
        [
            "link cali14e7d81007d veth address ee:ee:ee:ee:ee:ee up",
            "sysctl net/ipv4/conf/cali14e7d81007d/forwarding 1",
            "sysctl net/ipv4/conf/cali14e7d81007d/proxy_arp 1",
            "sysctl net/ipv4/conf/cali14e7d81007d/rp_filter 1",
            "sysctl net/ipv4/neigh/cali14e7d81007d/proxy_delay 0",
            "sysctl net/ipv6/conf/cali14e7d81007d/forwarding 1",
            "sysctl net/ipv6/conf/cali14e7d81007d/proxy_ndp 1",
            "sysctl net/ipv6/conf/cali14e7d81007d/accept_ra 0",
            "route 10.1.0.7/32 dev cali14e7d81007d",
            "route fd10:1::7/128 dev cali14e7d81007d",
        ]
    );
    assert_eq!(world.planner.pods(), 1);
    world.pod_gone("pod-a-68c8f9cccd-sgtvg");
    assert_eq!(world.wanted, World::ready().wanted);
    assert_eq!(world.planner.pods(), 0);
}

#[test]
fn pods_without_a_network_of_their_own_want_nothing() {
    let live = mk_pod("web", 1, &["10.1.0.7"]);
    for pod in [
        mk_pod("web", 1, &[]),
        Pod {
            terminal: true,
            ..live.clone()
        },
        Pod {
            host_network: true,
            addresses: vec!["192.168.0.1".parse().unwrap()],
            ..live.clone()
        },
    ] {
        let mut world = World::ready();
        assert_eq!(world.pod(pod.clone()).notices, []);
        world.pod(live.clone());
        assert_eq!(world.route("10.1.0.7/32"), to("web"));
        world.pod(pod);
        assert_eq!(world.wanted, World::ready().wanted);
        assert_eq!(world.planner.pods(), 0);
    }
}

#[test]
fn pods_wait_for_the_nodes_subnets() {
    let mut world = World::empty(mk_settings());
    assert_eq!(
        world.pod(mk_pod("web", 1, &["10.1.0.7", "172.16.0.7"])).notices,
        []
    );
    world.node(mk_node(OWN, 100, &[], &[]));
    assert!(world.wanted.is_empty());
    world.node(mk_node(OWN, 100, &[], &["10.1.0.0/24"]));
    assert_eq!(
        world.route("10.1.0.7/32"),
        to("web"),
        "the underlay is not needed for it"
    );
    assert_eq!(
        world.refusals(),
        [refused("pod default/web", Reason::AddressOutsideSubnets)]
    );
}

#[test]
fn an_address_outside_is_refused_unless_allowed() {
    let mut world = World::ready();
    let plan = world.pod(mk_pod("web", 1, &["10.2.0.7", "fd10:1::7"]));
    let [Notice::Refused(refusal)] = plan.notices.as_slice() else {
        panic!("{:?}", plan.notices)
    };
    assert_eq!(
        refusal.message,
        "pod default/web has the address 10.2.0.7, outside of this node's pod subnets 10.1.0.0/24, fd10:1::/64: \
         it gets no route; make the pod anew, or allow such addresses if another IPAM gives them"
    );
    assert_eq!(world.route("10.2.0.7/32"), None);
    assert_eq!(
        world.route("fd10:1::7/128"),
        to("web"),
        "the other family is in order"
    );

    let mut world = World::ready_with(Settings {
        allow_any_pod_address: true,
        ..mk_settings()
    });
    world.pod(mk_pod("web", 1, &["10.2.0.7"]));
    assert_eq!(world.route("10.2.0.7/32"), to("web"));
}

#[test]
fn the_newer_live_pod_gets_a_duplicate_address() {
    let older = mk_pod("older", 1, &["10.1.0.7"]);
    let newer = mk_pod("newer", 2, &["10.1.0.7"]);
    for order in [[&older, &newer], [&newer, &older]] {
        let mut world = World::ready();
        for pod in order {
            world.pod(pod.clone());
        }
        assert_eq!(world.route("10.1.0.7/32"), to("newer"));
        assert_eq!(
            world.refusals(),
            [refused("pod default/older", Reason::AddressTaken)]
        );
        assert_eq!(world.pod(newer.clone()).notices, [], "told once");
        let plan = world.pod(Pod {
            terminal: true,
            ..newer.clone()
        });
        assert_eq!(world.route("10.1.0.7/32"), to("older"));
        assert!(matches!(plan.notices.as_slice(), [Notice::Resolved(_)]));
        let route = Key::route("10.1.0.7/32".parse().unwrap());
        assert!(
            plan.changes
                .iter()
                .any(|(key, object)| *key == route && object.is_some())
        );
    }
}

#[test]
fn addresses_that_no_pod_can_have() {
    let settings = Settings {
        allow_any_pod_address: true,
        ..mk_settings()
    };
    for address in [
        "10.1.0.0",
        "fd10:1::",
        "192.168.0.1",
        "127.0.0.1",
        "224.0.0.1",
        "fe80::1",
    ] {
        let mut world = World::ready_with(settings.clone());
        world.pod(mk_pod("web", 1, &[address]));
        assert_eq!(
            world.refusals(),
            [refused("pod default/web", Reason::UnusableAddress)],
            "{address}"
        );
    }
}

#[test]
fn a_peers_subnet_of_one_address_is_no_pods() {
    let mut world = World::ready_with(Settings {
        allow_any_pod_address: true,
        ..mk_settings()
    });
    world.pod(mk_pod("web", 1, &["10.2.0.7"]));
    world.node(mk_node("node-b", 1, &["192.168.0.2"], &["10.2.0.7/32"]));
    assert!(matches!(
        world.route("10.2.0.7/32"),
        Some(RouteTarget::Nexthop { .. })
    ));
    assert_eq!(
        world.refusals(),
        [refused("pod default/web", Reason::AddressTaken)]
    );
    world.node_gone("node-b");
    assert_eq!(world.route("10.2.0.7/32"), to("web"));
}

#[test]
fn a_pod_in_our_own_subnet_of_one_address_keeps_it() {
    let mut world = World::ready();
    world.node(mk_node(
        OWN,
        100,
        &["192.168.0.1"],
        &["10.1.0.0/24", "10.2.0.7/32"],
    ));
    world.pod(mk_pod("web", 1, &["10.2.0.7"]));
    world.node(mk_node("node-b", 900, &["192.168.0.2"], &["10.2.0.7/32"]));
    assert_eq!(world.route("10.2.0.7/32"), to("web"));
    assert_eq!(world.refusals(), [refused("node node-b", Reason::SubnetTaken)]);
}

#[test]
fn unreadable_values_leave_the_rest_of_the_pod() {
    let mut world = World::ready();
    let mut pod = mk_pod("web", 1, &["10.1.0.7"]);
    pod.unreadable = vec![Unreadable {
        field: "status.podIPs",
        value: "nonsense".to_owned(),
        wanted: "an IP address",
    }];
    world.pod(pod);
    assert_eq!(
        world.refusals(),
        [refused("pod default/web", Reason::UnreadableValue)]
    );
    assert_eq!(world.route("10.1.0.7/32"), to("web"));
}

#[test]
fn a_prefix_too_long_for_a_veth_is_refused() {
    let mut world = World::ready_with(Settings {
        interface_prefix: "prefix".to_owned(),
        ..mk_settings()
    });
    world.pod(mk_pod("web", 1, &["10.1.0.7"]));
    assert_eq!(
        world.refusals(),
        [refused("pod default/web", Reason::NoHostVethName)]
    );
}
