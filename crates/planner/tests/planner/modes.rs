//! Each encapsulation: which way leads to a peer, and what follows from it.

use routelet_model::{Family, Key, NftRules, Object, RouteTarget};
use routelet_planner::{Encapsulation, Notice, Reason, Settings, Way};

use crate::support::*;

fn settings(encapsulation: Encapsulation) -> Settings {
    Settings {
        encapsulation,
        ..mk_settings()
    }
}

/// A peer in this node's network and one elsewhere, with pods of both families.
fn with_peers(encapsulation: Encapsulation) -> World {
    let mut world = World::ready_with(settings(encapsulation));
    world.node(mk_node(
        "near",
        1,
        &["192.168.0.2", "fd00::2"],
        &["10.2.0.0/24", "fd10:2::/64"],
    ));
    world.node(mk_node(
        "far",
        1,
        &["192.168.1.2", "fd01::2"],
        &["10.3.0.0/24", "fd10:3::/64"],
    ));
    world
}

fn via(link: &str, gateway: &str) -> Option<RouteTarget> {
    Some(RouteTarget::Nexthop {
        link: ifname(link),
        gateway: gateway.parse().unwrap(),
    })
}

fn routes(world: &World) -> [Option<RouteTarget>; 4] {
    ["10.2.0.0/24", "10.3.0.0/24", "fd10:2::/64", "fd10:3::/64"].map(|subnet| world.route(subnet))
}

fn devices(world: &World) -> Vec<String> {
    let links = world.wanted.keys().filter_map(|key| match key {
        Key::Link(link) => Some(link.to_string()),
        _ => None,
    });
    links.collect()
}

#[test]
fn each_encapsulation_has_its_ways_devices_and_mtu() {
    use Encapsulation::{Ipip, IpipCrossSubnet, Vxlan, VxlanCrossSubnet};
    let (near, far) = (via("eth0", "192.168.0.2"), via("vxlan.calico", "10.3.0.0"));
    let (near_v6, far_v6) = (via("eth0", "fd00::2"), via("vxlan-v6.calico", "fd10:3::"));
    let both = ["vxlan.calico", "vxlan-v6.calico"];
    let in_vxlan = [
        via("vxlan.calico", "10.2.0.0"),
        far,
        via("vxlan-v6.calico", "fd10:2::"),
        far_v6,
    ];
    let (tunl_near, tunl_far) = (via("tunl0", "192.168.0.2"), via("tunl0", "192.168.1.2"));
    let cases = [
        (Vxlan, in_vxlan, &both[..], 1430),
        (VxlanCrossSubnet, [near, far, near_v6, far_v6], &both[..], 1430),
        (Ipip, [tunl_near, tunl_far, None, None], &["tunl0"][..], 1480),
        (
            IpipCrossSubnet,
            [near, tunl_far, near_v6, None],
            &["tunl0"][..],
            1480,
        ),
        (Encapsulation::None, [near, None, near_v6, None], &[][..], 1500),
    ];
    for (encapsulation, wanted, links, mtu) in cases {
        let world = with_peers(encapsulation);
        assert_eq!(routes(&world), wanted, "{encapsulation:?}");
        let mut found = devices(&world);
        found.sort();
        let mut links: Vec<String> = links.iter().map(|link| (*link).to_owned()).collect();
        links.sort();
        assert_eq!(found, links, "{encapsulation:?}");
        let pods = world.planner.pod_network().unwrap();
        assert_eq!((pods.mtu, pods.subnets.len()), (mtu, 2), "{encapsulation:?}");
        let neighbours = world
            .wanted
            .keys()
            .filter(|key| matches!(key, Key::Neighbour { .. }));
        let in_tunnel = wanted.iter().flatten().filter(|target| {
            let link = target.link().unwrap();
            link.as_str().starts_with("vxlan")
        });
        assert_eq!(neighbours.count(), in_tunnel.count(), "{encapsulation:?}");
    }
}

#[test]
fn ipip_says_that_it_carries_no_ipv6_and_goes_on_with_ipv4() {
    for encapsulation in [Encapsulation::Ipip, Encapsulation::IpipCrossSubnet] {
        let mut world = with_peers(encapsulation);
        assert_eq!(
            world.refusals(),
            [refused("node node-a", Reason::NoTunnelForFamily)]
        );
        assert!(world.route("10.3.0.0/24").is_some());
        // They are nobody's to reach: no BGP daemon is spoken of, as for those of mode none.
        let by = |way| world.planner.peers_by(Family::V6, way);
        assert!(by(Way::None) > 0);
        assert_eq!(by(Way::Others), 0);
        let another = mk_node(
            "another",
            1,
            &["192.168.1.3", "fd01::3"],
            &["10.4.0.0/24", "fd10:4::/64"],
        );
        assert_eq!(world.node(another).notices, []);
    }
    assert_eq!(with_peers(Encapsulation::None).refusals(), []);
}

#[test]
fn a_peer_that_is_left_to_others_is_told_of_once_and_counted() {
    let mut world = World::ready_with(settings(Encapsulation::None));
    let left = |plan: &routelet_planner::Plan| {
        let notices = plan.notices.iter();
        notices
            .filter(|notice| matches!(notice, Notice::LeftToOthers { .. }))
            .count()
    };
    let far = |number: u8| {
        mk_node(
            &format!("far-{number}"),
            1,
            &[&format!("192.168.1.{number}")],
            &[&format!("10.3.{number}.0/24")],
        )
    };
    assert_eq!(left(&world.node(far(1))), 1);
    assert_eq!(left(&world.node(far(2))), 0);
    assert_eq!(world.planner.peers_by(Family::V4, Way::Others), 2);
    for number in [1, 2] {
        world.node_gone(&format!("far-{number}"));
    }
    assert_eq!(world.planner.peers_by(Family::V4, Way::Others), 0);
    assert_eq!(left(&world.node(far(3))), 1);
}

#[test]
fn the_way_is_decided_anew_when_an_address_changes() {
    let mut world = with_peers(Encapsulation::VxlanCrossSubnet);
    let near = via("eth0", "192.168.0.2");
    assert_eq!(world.route("10.2.0.0/24"), near);
    // The peer moves to another network, and back.
    let moved = |address: &str| mk_node("near", 1, &[address], &["10.2.0.0/24"]);
    world.node(moved("192.168.7.2"));
    assert_eq!(world.route("10.2.0.0/24"), via("vxlan.calico", "10.2.0.0"));
    world.node(moved("192.168.0.2"));
    assert_eq!(world.route("10.2.0.0/24"), near);
    // This node's prefix grows around the other peer, and shrinks around none.
    world.host(&mk_host(&[("eth0", 1500, &["192.168.0.1/16", "fd00::1/64"])]));
    assert_eq!(world.route("10.3.0.0/24"), via("eth0", "192.168.1.2"));
    world.host(&mk_host(&[("eth0", 1500, &["192.168.0.1/32", "fd00::1/64"])]));
    assert_eq!(world.route("10.2.0.0/24"), via("vxlan.calico", "10.2.0.0"));
    // The address moves to another link.
    world.host(&mk_host(&[("bond0", 1500, &["192.168.0.1/24", "fd00::1/64"])]));
    assert_eq!(world.route("10.2.0.0/24"), via("bond0", "192.168.0.2"));
    assert_eq!(world.planner.peers_by(Family::V4, Way::Direct), 1);
    assert_eq!(world.planner.peers_by(Family::V4, Way::Vxlan), 1);
}

#[test]
fn the_rules_guard_the_tunnel_that_is_used() {
    for (encapsulation, vxlan, ipip) in [
        (Encapsulation::Vxlan, true, false),
        (Encapsulation::VxlanCrossSubnet, true, false),
        (Encapsulation::Ipip, false, true),
        (Encapsulation::IpipCrossSubnet, false, true),
        (Encapsulation::None, false, false),
    ] {
        let world = World::ready_with(Settings {
            encapsulation,
            ..mk_nft_settings(true)
        });
        let Some(Object::NftRules(NftRules {
            vxlan: guards_vxlan,
            ipip: guards_ipip,
            ..
        })) = world.wanted.get(&Key::NftRules)
        else {
            panic!("no rules")
        };
        assert_eq!((*guards_vxlan, *guards_ipip), (vxlan, ipip), "{encapsulation:?}");
    }
}
