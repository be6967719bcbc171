//! What the planner tells people of peers and pods is what the wanted objects come of.

use std::collections::BTreeSet;

use routelet_model::{Family, Key};
use routelet_planner::{Encapsulation, PeerNetwork, PeerView, Settings, Way};

use crate::support::*;

fn world(encapsulation: Encapsulation) -> World {
    let mut world = World::ready_with(Settings {
        encapsulation,
        ..mk_settings()
    });
    let near = ["192.168.0.2", "fd00::2"];
    world.node(mk_node("near", 1, &near, &["10.2.0.0/24", "fd10:2::/64"]));
    world.node(mk_node("far", 1, &["192.168.1.2"], &["10.3.0.0/24"]));
    world
}

fn views(world: &World) -> Vec<PeerView> {
    let names: BTreeSet<_> = world.planner.peer_names().collect();
    let views = names.into_iter().map(|name| world.planner.peer_view(name));
    views.map(Option::unwrap).collect()
}

fn network(views: &[PeerView], name: &str, family: Family) -> PeerNetwork {
    let view = views.iter().find(|view| view.name == name).unwrap();
    let mut networks = view.networks.iter();
    networks.find(|network| network.family == family).unwrap().clone()
}

#[test]
fn the_way_and_device_of_a_peer_are_those_of_its_routes() {
    use Encapsulation::{Ipip, IpipCrossSubnet, Vxlan, VxlanCrossSubnet};
    let (vxlan, direct) = (
        (Some(Way::Vxlan), Some("vxlan.calico")),
        (Some(Way::Direct), Some("eth0")),
    );
    let (ipip, others) = ((Some(Way::Ipip), Some("tunl0")), (Some(Way::Others), None));
    for (encapsulation, near, far) in [
        (Vxlan, vxlan, vxlan),
        (VxlanCrossSubnet, direct, vxlan),
        (Ipip, ipip, ipip),
        (IpipCrossSubnet, direct, ipip),
        (Encapsulation::None, direct, others),
    ] {
        let world = world(encapsulation);
        let views = views(&world);
        for (name, subnet, (way, device)) in [("near", "10.2.0.0/24", near), ("far", "10.3.0.0/24", far)] {
            let network = network(&views, name, Family::V4);
            let device = device.map(ifname);
            assert_eq!((network.way, network.device), (way, device), "{encapsulation:?}");
            assert_eq!(world.route(subnet).and_then(|target| target.link()), device);
        }
    }
}

/// Between them, peers, pods and the node itself account for all that is wanted.
#[test]
fn the_keys_of_peers_are_wanted_and_all_routes_to_others_are_among_them() {
    let world = world(Encapsulation::Vxlan);
    let keys: BTreeSet<Key> = views(&world).into_iter().flat_map(|view| view.keys).collect();
    assert!(keys.iter().all(|key| world.wanted.contains_key(key)), "{keys:?}");
    for subnet in ["10.2.0.0/24", "10.3.0.0/24", "fd10:2::/64"] {
        assert!(keys.contains(&Key::route(subnet.parse().unwrap())), "{subnet}");
    }
    let entries = |wanted: &dyn Fn(&Key) -> bool| world.wanted.keys().filter(|key| wanted(key)).count();
    let is_entry = |key: &Key| matches!(key, Key::Fdb { .. } | Key::Neighbour { .. } | Key::Nexthop { .. });
    assert_eq!(
        keys.iter().filter(|key| is_entry(key)).count(),
        entries(&is_entry)
    );
}

#[test]
fn a_peer_that_is_refused_has_no_way_and_says_why() {
    let mut world = world(Encapsulation::Vxlan);
    world.node(mk_node("lost", 1, &[], &["10.4.0.0/24"]));
    // The older node keeps the subnet.
    world.node(mk_node("late", 9, &["192.168.0.9"], &["10.2.0.0/24"]));
    let views = views(&world);
    let names: Vec<_> = views.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(names, ["far", "late", "lost", "near"]);
    for (name, why) in [
        ("lost", "has no IPv4 address"),
        ("late", "claimed by the older node near"),
    ] {
        let network = network(&views, name, Family::V4);
        assert_eq!((network.way, network.device), (None, None));
        let view = views.iter().find(|view| view.name == name).unwrap();
        assert!(view.refusals[0].message.contains(why), "{:?}", view.refusals);
    }
    assert!(views[0].refusals.is_empty() && views[3].refusals.is_empty());
}

#[test]
fn a_node_that_knows_nothing_yet_shows_no_network_and_its_peers_without_a_way() {
    let mut world = World::empty(mk_settings());
    world.node(mk_node("peer", 1, &["192.168.0.2"], &["10.2.0.0/24"]));
    assert!(world.planner.own_networks().is_empty());
    let network = network(&views(&world), "peer", Family::V4);
    assert_eq!(
        (network.way, network.underlay),
        (None, Some("192.168.0.2".parse().unwrap()))
    );
    world.pod(mk_pod("web", 1, &["10.1.0.7"]));
    let pods = world.planner.pod_views();
    let why = pods[0].addresses[0].granted.as_ref().unwrap_err();
    assert!(why.contains("not known yet"), "{why}");
}

#[test]
fn own_networks_have_the_underlay_and_the_mtu_in_force() {
    let world = world(Encapsulation::VxlanCrossSubnet);
    let networks = world.planner.own_networks();
    let families: Vec<_> = networks.iter().map(|network| network.family).collect();
    assert_eq!(families, Family::ALL);
    for (network, (address, device, mtu)) in networks.iter().zip([
        ("192.168.0.1/24", "vxlan.calico", 1450),
        ("fd00::1/64", "vxlan-v6.calico", 1430),
    ]) {
        let underlay = network.underlay.as_ref().unwrap();
        assert_eq!(underlay.address, address.parse().unwrap());
        assert_eq!((underlay.device, underlay.mtu), (Some(ifname(device)), mtu));
        assert_eq!(underlay.parent, ifname("eth0"));
    }
}

#[test]
fn of_pods_each_address_is_granted_or_says_why_not() {
    let mut world = world(Encapsulation::Vxlan);
    world.pod(mk_pod("old", 1, &["10.1.0.7", "fd10:1::7"]));
    world.pod(mk_pod("new", 2, &["10.1.0.7"]));
    let mut host = mk_pod("host", 1, &["192.168.0.1"]);
    host.host_network = true;
    world.pod(host);
    let pods = world.planner.pod_views();
    let names: Vec<_> = pods.iter().map(|pod| pod.id.name.as_str()).collect();
    assert_eq!(names, ["new", "old"], "the host's network is no pod's own");
    assert_eq!(pods[0].addresses[0].granted, Ok(()));
    let [taken, granted] = &pods[1].addresses[..] else {
        panic!("{pods:?}");
    };
    let why = taken.granted.as_ref().unwrap_err();
    assert!(why.contains("of the newer pod default/new"), "{why}");
    assert_eq!(granted.granted, Ok(()));
    assert!(pods.iter().all(|pod| pod.host_veth.is_some()));
}
