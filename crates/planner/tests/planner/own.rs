//! This node: its device, and facts that come, change and vanish.

use std::net::IpAddr;

use routelet_model::{
    ClusterEvent, Family, Key, Kind, LinkKind, MacAddr, NodeAddressKind, Object, Resource, RouteTarget,
    Source, Unreadable,
};
use routelet_planner::{Encapsulation, Missing, NoPodNetwork, Notice, Planner, Reason};

use crate::support::*;

fn device(world: &World, name: &str) -> (IpAddr, String, u32) {
    match world.wanted.get(&Key::Link(ifname(name))) {
        Some(Object::Link(link)) => match &link.kind {
            LinkKind::Vxlan(vxlan) => (vxlan.local, vxlan.parent.unwrap().to_string(), link.mtu.unwrap()),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn vni(world: &World, name: &str) -> Option<u32> {
    match world.wanted.get(&Key::Link(ifname(name)))? {
        Object::Link(link) => match &link.kind {
            LinkKind::Vxlan(vxlan) => Some(vxlan.vni),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn own_objects() {
    let world = World::ready();
    assert_eq!(
        world.lines_beyond(&World::empty(mk_settings())),
        [
            "link vxlan-v6.calico vxlan id 4096 dstport 4789 local fd00::1 dev eth0 nolearning address \
             66:d4:d5:51:3d:42 mtu 1430 up",
            "link vxlan.calico vxlan id 4096 dstport 4789 local 192.168.0.1 dev eth0 nolearning address \
             66:07:02:c1:cc:60 mtu 1450 up",
            "sysctl net/ipv4/ip_forward 1",
            "sysctl net/ipv6/conf/all/forwarding 1",
            "sysctl net/ipv4/conf/vxlan.calico/rp_filter 2",
            "address fd10:1::/128 dev vxlan-v6.calico present",
            "address 10.1.0.0/32 dev vxlan.calico present",
            "route 10.1.0.0/24 blackhole",
            "route fd10:1::/64 blackhole",
        ]
    );
}

#[test]
fn checksum_offload_is_wanted_of_vxlan_devices_as_it_is_set() {
    for on in [true, false] {
        let mut settings = mk_settings();
        settings.vxlan.checksum_offload = Some(on);
        let world = World::ready_with(settings.clone());
        let state = if on { "on" } else { "off" };
        assert_eq!(
            world.lines_beyond(&World::ready()),
            ["vxlan-v6.calico", "vxlan.calico"]
                .map(|device| format!("checksum offload dev {device} {state}"))
        );
        settings.encapsulation = Encapsulation::Ipip;
        let world = World::ready_with(settings);
        assert!(world.wanted.keys().all(|key| key.kind() != Kind::ChecksumOffload));
    }
}

#[test]
fn a_host_prefix_gets_no_blackhole() {
    let mut world = World::ready();
    world.node(mk_node(
        OWN,
        100,
        &["192.168.0.1"],
        &["10.1.0.0/24", "10.9.0.7/32"],
    ));
    assert_eq!(world.route("10.9.0.7/32"), None);
    assert_eq!(world.route("10.1.0.0/24"), Some(RouteTarget::Blackhole));
}

#[test]
fn mtu_follows_the_parent_unless_set() {
    let mut world = World::ready();
    let plan = world.host(&mk_host(&[("eth0", 9000, &["192.168.0.1/24", "fd00::1/64"])]));
    assert_eq!(device(&world, "vxlan.calico").2, 8950);
    assert_eq!(device(&world, "vxlan-v6.calico").2, 8930);
    assert_eq!(plan.changes.len(), 2, "the devices and nothing else");

    let settings = routelet_planner::Settings {
        mtu: Some(1400),
        ..mk_settings()
    };
    assert_eq!(device(&World::ready_with(settings), "vxlan-v6.calico").2, 1400);
}

#[test]
fn underlay_address_is_internal_before_external_and_annotation_before_both() {
    let host = mk_host(&[
        ("eth0", 1500, &["192.168.0.1/24"]),
        ("eth1", 1500, &["203.0.113.1/24"]),
        ("eth2", 1500, &["172.16.0.1/24"]),
    ]);
    let mut world = World::empty(mk_settings());
    world.host(&host);
    let mut node = mk_node(OWN, 100, &[], &["10.1.0.0/24"]);
    node.addresses = vec![mk_address(NodeAddressKind::External, "203.0.113.1")];
    world.node(node.clone());
    assert_eq!(
        device(&world, "vxlan.calico"),
        (ip("203.0.113.1"), "eth1".to_owned(), 1450)
    );
    node.addresses
        .push(mk_address(NodeAddressKind::Internal, "192.168.0.1"));
    let plan = world.node(node.clone());
    assert_eq!(device(&world, "vxlan.calico").1, "eth0");
    assert!(
        matches!(plan.notices.as_slice(), [Notice::Underlay { mtu: 1450, .. }]),
        "{:?}",
        plan.notices
    );
    node.overrides.v4.underlay = Some("172.16.0.1/24".parse().unwrap());
    world.node(node);
    assert_eq!(device(&world, "vxlan.calico").1, "eth2");
}

#[test]
fn a_family_without_an_address_uses_the_other_familys() {
    let mut world = World::empty(mk_settings());
    world.host(&own_host());
    world.node(mk_node(
        OWN,
        100,
        &["192.168.0.1"],
        &["10.1.0.0/24", "fd10:1::/64"],
    ));
    assert_eq!(
        device(&world, "vxlan-v6.calico"),
        (ip("192.168.0.1"), "eth0".to_owned(), 1450)
    );
    world.node(mk_node("node-b", 100, &["192.168.0.2"], &["fd10:2::/64"]));
    let fdb = world
        .wanted
        .iter()
        .find(|(key, _)| matches!(key, Key::Fdb { .. }));
    assert_eq!(fdb.unwrap().1, &Object::Fdb(ip("192.168.0.2")));
}

#[test]
fn missing_says_what_is_awaited() {
    let mut world = World::empty(mk_settings());
    let own_node_unknown = Missing::OwnNodeUnknown(OWN.to_owned());
    assert_eq!(
        world.planner.missing(),
        [
            Missing::PodsNotSynced,
            Missing::NodesNotSynced,
            own_node_unknown.clone()
        ]
    );
    world.cluster(ClusterEvent::Synced(Resource::Pods, Source::Store));
    world.cluster(ClusterEvent::Synced(Resource::Nodes, Source::Store));
    assert_eq!(world.planner.missing(), [own_node_unknown]);
    world.node(mk_node(OWN, 100, &[], &[]));
    assert_eq!(
        world.planner.missing(),
        [Missing::OwnNodeHasNoPodSubnet(OWN.to_owned())]
    );
    world.node(mk_node(OWN, 100, &[], &["10.1.0.0/24"]));
    assert_eq!(
        world.planner.missing(),
        [Missing::UnderlayAddressUnknown(Family::V4)]
    );
    world.node(mk_node(OWN, 100, &["192.168.0.1"], &["10.1.0.0/24"]));
    assert_eq!(
        world.planner.missing(),
        [Missing::UnderlayAddressNotOnHost(ip("192.168.0.1"))]
    );
    assert!(!world.wanted.keys().any(|key| matches!(key, Key::Link(_))));
    world.host(&own_host());
    assert_eq!(world.planner.missing(), []);
}

#[test]
fn a_missing_family_does_not_hold_up_the_other() {
    let mut world = World::empty(mk_settings());
    world.host(&mk_host(&[("eth0", 1500, &["192.168.0.1/24"])]));
    world.node(own_node());
    assert_eq!(device(&world, "vxlan.calico").1, "eth0");
    assert!(!world.wanted.contains_key(&Key::Link(ifname("vxlan-v6.calico"))));
    assert!(
        world
            .planner
            .missing()
            .contains(&Missing::UnderlayAddressNotOnHost(ip("fd00::1")))
    );
}

#[test]
fn what_vanishes_stays_in_force_and_is_told_once() {
    let mut world = World::ready();
    world.pod(mk_pod("web", 1, &["10.1.0.7", "fd10:1::7"]));
    world.node(mk_node(
        "node-b",
        100,
        &["192.168.0.2", "fd00::2"],
        &["10.2.0.0/24"],
    ));
    let before = world.wanted.clone();
    let own_gone = Missing::OwnNodeUnknown(OWN.to_owned());
    let no_subnet = Missing::OwnNodeHasNoPodSubnet(OWN.to_owned());

    let plan = world.node_gone(OWN);
    assert_eq!(plan.notices, [Notice::Vanished(own_gone.clone())]);
    assert_eq!(world.node_gone(OWN).notices, []);
    let plan = world.node(mk_node(OWN, 100, &[], &[]));
    let no_address = Family::ALL
        .map(Missing::UnderlayAddressUnknown)
        .map(Notice::Vanished);
    let mut told = vec![Notice::Back(own_gone), Notice::Vanished(no_subnet.clone())];
    told.extend(no_address);
    assert_eq!(plan.notices, told);
    let plan = world.node(own_node());
    assert!(plan.notices.contains(&Notice::Back(no_subnet)));

    let plan = world.host(&mk_host(&[]));
    assert_eq!(plan.notices.len(), 2);
    assert_eq!(world.planner.missing(), [], "what was known once is not missing");
    assert_eq!(world.host(&own_host()).notices.len(), 2);
    assert_eq!(world.wanted, before);
}

#[test]
fn the_subnets_of_one_family_vanish_alone() {
    let mut world = World::ready();
    let before = world.wanted.clone();
    let plan = world.node(mk_node(OWN, 100, &["192.168.0.1", "fd00::1"], &["10.1.0.0/24"]));
    assert_eq!(
        plan.notices,
        [Notice::Vanished(Missing::OwnNodeHasNoPodSubnet(OWN.to_owned()))]
    );
    assert_eq!(world.wanted, before);
}

#[test]
fn a_changed_fact_is_followed_at_once() {
    let mut world = World::ready();
    let host = mk_host(&[
        ("eth0", 1500, &[]),
        ("bond0", 1400, &["192.168.0.9/24", "fd00::1/64"]),
    ]);
    world.host(&host);
    assert_eq!(
        device(&world, "vxlan.calico").1,
        "eth0",
        "192.168.0.1 is gone: the last known holds"
    );
    assert_eq!(device(&world, "vxlan-v6.calico").1, "bond0");
    world.node(mk_node(
        OWN,
        500,
        &["192.168.0.9", "fd00::1"],
        &["10.7.0.0/24", "fd10:1::/64"],
    ));
    assert_eq!(
        device(&world, "vxlan.calico"),
        (ip("192.168.0.9"), "bond0".to_owned(), 1350)
    );
    assert_eq!(world.route("10.1.0.0/24"), None);
    assert_eq!(world.route("10.7.0.0/24"), Some(RouteTarget::Blackhole));
}

#[test]
fn an_unusable_annotation_is_refused_and_the_derived_value_counts() {
    let mut world = World::ready();
    let before = world.wanted.clone();
    let mut node = own_node();
    node.overrides.v4.tunnel_address = Some(ip("224.0.0.1"));
    node.overrides.v4.underlay = Some("fd00::1/64".parse().unwrap());
    node.overrides.v6.vtep_mac = Some(MacAddr([0xff; 6]));
    node.unreadable = vec![Unreadable {
        field: "spec.podCIDRs",
        value: "10.0.0/8".to_owned(),
        wanted: "a subnet",
    }];
    world.node(node);
    assert_eq!(world.wanted, before);
    assert_eq!(
        world.refusals(),
        vec![refused("node node-a", Reason::UnreadableValue); 4]
    );
    let messages: Vec<_> = world
        .planner
        .refusals()
        .map(|refusal| refusal.message.as_str())
        .collect();
    assert!(messages.contains(
        &"spec.podCIDRs of node node-a is \"10.0.0/8\", not a subnet; the rest of the Node is used"
    ));
    world.node(own_node());
    assert_eq!(world.refusals(), []);
}

#[test]
fn no_blackhole_around_the_own_address() {
    let mut world = World::ready();
    world.node(mk_node(
        OWN,
        100,
        &["192.168.0.1", "fd00::1"],
        &["192.168.0.0/24", "fd10:1::/64"],
    ));
    assert_eq!(world.route("192.168.0.0/24"), None);
    assert_eq!(
        world.refusals(),
        [refused("node node-a", Reason::SubnetHoldsUnderlay)]
    );
}

/// The kernel holds two devices of one VNI and port only where their underlays are of two families.
#[test]
fn two_devices_on_an_underlay_of_one_family_have_two_vnis() {
    let with = |setting: u32, addresses: &[&str]| {
        let mut settings = mk_settings();
        settings.vxlan.vni = setting;
        let mut world = World::ready_with(settings);
        world.node(mk_node(OWN, 100, addresses, &["10.1.0.0/24", "fd10:1::/64"]));
        ["vxlan.calico", "vxlan-v6.calico"].map(|name| vni(&world, name).unwrap())
    };
    assert_eq!(with(4096, &["192.168.0.1", "fd00::1"]), [4096, 4096]);
    assert_eq!(with(4096, &["192.168.0.1"]), [4096, 4097]);
    assert_eq!(with(4096, &["fd00::1"]), [4097, 4096]);
    assert_eq!(with(0xff_ffff, &["192.168.0.1"]), [0xff_ffff, 0xff_fffe]);
}

#[test]
fn an_underlay_too_small_for_ipv6_is_told_and_leaves_ipv4_alone() {
    let mut world = World::ready();
    world.host(&mk_host(&[("eth0", 1300, &["192.168.0.1/24", "fd00::1/64"])]));
    assert_eq!(vni(&world, "vxlan-v6.calico"), None);
    assert!(vni(&world, "vxlan.calico").is_some());
    assert_eq!(
        world.refusals(),
        [refused(&format!("node {OWN}"), Reason::MtuTooSmall)]
    );
    world.host(&own_host());
    assert_eq!(
        (vni(&world, "vxlan-v6.calico"), world.refusals()),
        (Some(4096), vec![])
    );
}

#[test]
fn the_least_mtu_of_both_families_decides_on_ipv6_and_the_one_to_blame_is_told() {
    let mut world = World::ready();
    let subnets = |world: &World| {
        world
            .planner
            .pod_network()
            .map(|pods| (pods.mtu, pods.subnets.len()))
    };
    // IPv4 nodes are reached by another link than IPv6 ones.
    let apart = |mtus: [u32; 2]| {
        mk_host(&[
            ("eth0", mtus[0], &["192.168.0.1/24"]),
            ("eth1", mtus[1], &["fd00::1/64"]),
        ])
    };
    for (mtus, pods, blamed) in [
        ([1500, 1500], (1430, 2), None),
        ([1330, 1500], (1280, 2), None),
        (
            [1329, 1500],
            (1279, 1),
            Some("eth0 leaves 1279 bytes for the IPv4 pods"),
        ),
        (
            [1500, 1349],
            (1450, 1),
            Some("eth1 leaves 1279 bytes for the IPv6 pods"),
        ),
        (
            [1329, 1349],
            (1279, 1),
            Some("eth1 leaves 1279 bytes for the IPv6 pods"),
        ),
        ([1500, 1500], (1430, 2), None),
    ] {
        world.host(&apart(mtus));
        assert_eq!(subnets(&world), Ok(pods), "{mtus:?}");
        let refused: Vec<_> = world
            .planner
            .refusals()
            .map(|refusal| refusal.message.as_str())
            .collect();
        assert_eq!(
            refused.len(),
            usize::from(blamed.is_some()),
            "{mtus:?}: {refused:?}"
        );
        if let Some(blamed) = blamed {
            assert!(
                refused[0].contains(blamed) && refused[0].contains("leaves IPv6 out"),
                "{refused:?}"
            );
        }
    }
}

#[test]
fn pods_that_have_ipv6_only_and_do_not_fit_get_no_network() {
    assert_eq!(
        Planner::new(mk_settings()).pod_network(),
        Err(NoPodNetwork::Unknown)
    );
    let world_of = |subnets: &[&str], mtu: u32| {
        let mut world = World::empty(mk_settings());
        world.host(&mk_host(&[("eth0", mtu, &["192.168.0.1/24", "fd00::1/64"])]));
        world.node(mk_node(OWN, 100, &["192.168.0.1", "fd00::1"], subnets));
        world
    };
    let small = world_of(&["fd10:1::/64"], 1349);
    let reason = small.planner.pod_network().unwrap_err().to_string();
    assert!(
        reason.contains("eth0 leaves 1279 bytes") && reason.contains("(1349), or --mtu"),
        "{reason}"
    );
    let told = small.planner.refusals().next().unwrap();
    assert!(
        told.message.contains("new ones get no network"),
        "{}",
        told.message
    );
    assert!(world_of(&["fd10:1::/64"], 1350).planner.pod_network().is_ok());
    // IPv4 does with less.
    let v4 = world_of(&["10.1.0.0/24"], 1000).planner.pod_network().unwrap();
    assert_eq!((v4.mtu, v4.subnets.len()), (950, 1));
}
