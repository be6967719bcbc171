//! The setting that chooses this node's underlay address, and what it means for the other nodes'.

use std::net::IpAddr;

use routelet_model::{Host, Key, LinkKind, NodeAddressKind, Object};
use routelet_planner::{Missing, Reason, Settings};

use crate::support::*;

fn with(rule: &str) -> World {
    World::empty(Settings {
        underlay: rule.parse().unwrap(),
        ..mk_settings()
    })
}

/// eth0 with the InternalIPs, and further links.
fn host() -> Host {
    mk_host(&[
        ("lo", 65536, &["127.0.0.1/8", "::1/128"]),
        ("eth0", 1500, &["192.168.0.1/24", "fd00::1/64"]),
        ("eth1", 9000, &["10.99.0.1/24", "10.99.0.101/24"]),
        ("bond0", 1400, &["10.77.0.1/16", "fd77::1/64"]),
    ])
}

/// A Node with the pod subnet 10.NUMBER.0.0/24.
fn node(name: &str, number: u8, internal: &[&str]) -> routelet_model::Node {
    mk_node(name, 100, internal, &[&format!("10.{number}.0.0/24")])
}

/// Where the VXLAN device sends from, and by which link.
fn from(world: &World) -> Option<(String, String, u32)> {
    match world.wanted.get(&Key::Link(ifname("vxlan.calico")))? {
        Object::Link(link) => match &link.kind {
            LinkKind::Vxlan(vxlan) => Some((
                vxlan.local.to_string(),
                vxlan.parent.unwrap().to_string(),
                link.mtu.unwrap(),
            )),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn chosen(rule: &str, host: &Host, internal: &[&str]) -> Option<(String, String, u32)> {
    let mut world = with(rule);
    world.host(host);
    world.node(node(OWN, 1, internal));
    from(&world)
}

fn is(address: &str, link: &str, mtu: u32) -> Option<(String, String, u32)> {
    Some((address.to_owned(), link.to_owned(), mtu))
}

/// The addresses that peers are sent to.
fn remotes(world: &World) -> Vec<String> {
    let fdb = world
        .wanted
        .iter()
        .filter_map(|(key, object)| match (key, object) {
            (Key::Fdb { .. }, Object::Fdb(remote)) => Some(remote.to_string()),
            _ => None,
        });
    fdb.collect()
}

#[test]
fn an_interface_is_chosen_by_name_or_pattern_the_first_with_an_address() {
    for (rule, wanted) in [
        ("interface=eth1", is("10.99.0.1", "eth1", 8950)),
        ("interface=bond0", is("10.77.0.1", "bond0", 1350)),
        ("interface=eth*", is("192.168.0.1", "eth0", 1450)),
        ("interface=br*,bond?,eth*", is("10.77.0.1", "bond0", 1350)),
        ("interface=lo,eth1", is("10.99.0.1", "eth1", 8950)),
    ] {
        assert_eq!(chosen(rule, &host(), &["192.168.0.1"]), wanted, "{rule}");
    }
    // Of several on one link, the one that peers know.
    assert_eq!(
        chosen("interface=eth1", &host(), &["10.99.0.101"]),
        is("10.99.0.101", "eth1", 8950)
    );
}

#[test]
fn a_network_is_the_first_that_holds_an_address_of_the_host() {
    for (rule, internal, wanted) in [
        (
            "cidr=10.99.0.0/16",
            &["192.168.0.1"][..],
            is("10.99.0.1", "eth1", 8950),
        ),
        (
            "cidr=10.1.0.0/16,10.77.0.0/16,10.99.0.0/16",
            &["192.168.0.1"],
            is("10.77.0.1", "bond0", 1350),
        ),
        // One that peers know from the Node comes first.
        (
            "cidr=10.0.0.0/8",
            &["192.168.0.1", "10.77.0.1"],
            is("10.77.0.1", "bond0", 1350),
        ),
        // Unless the host does not have it.
        (
            "cidr=10.0.0.0/8",
            &["192.168.0.1", "10.55.0.1"],
            is("10.99.0.1", "eth1", 8950),
        ),
        ("cidr=fd77::/64", &["192.168.0.1"], is("fd77::1", "bond0", 1330)),
    ] {
        assert_eq!(chosen(rule, &host(), internal), wanted, "{rule}");
    }
}

#[test]
fn the_way_to_an_address_is_followed() {
    let to: IpAddr = "203.0.113.9".parse().unwrap();
    let mut host = host();
    let mut world = with("can-reach=203.0.113.9");
    world.host(&host);
    world.node(node(OWN, 1, &["192.168.0.1"]));
    let missing = Missing::UnderlayAddressNotChosen("can-reach=203.0.113.9".to_owned());
    assert!(world.planner.missing().contains(&missing));
    assert!(
        missing.to_string().contains("--underlay can-reach=203.0.113.9"),
        "{missing}"
    );
    for (source, wanted) in [
        ("10.99.0.1", is("10.99.0.1", "eth1", 8950)),
        ("192.168.0.1", is("192.168.0.1", "eth0", 1450)),
    ] {
        host.sources.insert(to, source.parse().unwrap());
        world.host(&host);
        assert_eq!(from(&world), wanted);
    }
    // A way that is gone for a moment changes nothing.
    host.sources.clear();
    world.host(&host);
    assert_eq!(from(&world), is("192.168.0.1", "eth0", 1450));
}

#[test]
fn an_address_that_peers_do_not_know_is_told_with_its_remedy() {
    for rule in ["interface=eth1", "cidr=10.99.0.0/16"] {
        let mut world = with(rule);
        world.host(&host());
        world.node(node(OWN, 1, &["192.168.0.1"]));
        let told: Vec<_> = world.planner.refusals().map(|refusal| &refusal.message).collect();
        let [message] = &told[..] else { panic!("{told:?}") };
        for part in [
            "node node-a sends from 10.99.0.1 on eth1",
            rule,
            "projectcalico.org/IPv4Address=10.99.0.1/24",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(
            world.refusals(),
            [refused("node node-a", Reason::UnderlayAddressUnknownToPeers)]
        );
        // The remedy helps.
        let mut annotated = node(OWN, 1, &["192.168.0.1"]);
        annotated.overrides.v4.underlay = Some("10.99.0.1/24".parse().unwrap());
        world.node(annotated);
        assert_eq!(
            (from(&world), world.refusals()),
            (is("10.99.0.1", "eth1", 8950), vec![])
        );
        // And so does another InternalIP, for the rule that both sides can follow.
        world.node(node(OWN, 1, &["192.168.0.1", "10.99.0.1"]));
        assert_eq!(from(&world), is("10.99.0.1", "eth1", 8950));
        assert_eq!(world.refusals().is_empty(), rule.starts_with("cidr"), "{rule}");
    }
}

/// All nodes follow it, this one as well.
#[test]
fn an_annotation_wins_over_every_rule() {
    for rule in [
        "internal-ip",
        "interface=eth1",
        "cidr=10.99.0.0/16",
        "can-reach=203.0.113.9",
    ] {
        let mut world = with(rule);
        world.host(&host());
        let mut own = node(OWN, 1, &["192.168.0.1"]);
        own.overrides.v4.underlay = Some("10.77.0.1/16".parse().unwrap());
        world.node(own);
        assert_eq!(from(&world), is("10.77.0.1", "bond0", 1350), "{rule}");
        assert_eq!(world.refusals(), []);
    }
}

#[test]
fn peers_are_reached_by_the_rule_that_their_node_objects_can_follow() {
    for (rule, remote) in [
        ("internal-ip", "192.168.0.2"),
        ("interface=eth1", "192.168.0.2"),
        ("cidr=10.99.0.0/16", "10.99.0.2"),
        ("cidr=10.99.0.0/16,192.168.0.0/16", "10.99.0.2"),
        ("cidr=198.51.100.0/24,10.99.0.0/16", "10.99.0.2"),
        ("cidr=203.0.113.0/24,10.99.0.0/16", "10.99.0.2"),
        ("cidr=203.0.113.0/24,10.77.0.0/16", "203.0.113.2"),
    ] {
        let mut world = with(rule);
        world.host(&host());
        world.node(node(OWN, 1, &["192.168.0.1", "10.99.0.1", "10.77.0.1"]));
        let mut peer = node("node-b", 2, &["192.168.0.2", "10.99.0.2"]);
        peer.addresses
            .push(mk_address(NodeAddressKind::External, "203.0.113.2"));
        world.node(peer.clone());
        assert_eq!(remotes(&world), [remote], "{rule}");
        peer.overrides.v4.underlay = Some("10.88.0.2/16".parse().unwrap());
        world.node(peer);
        assert_eq!(remotes(&world), ["10.88.0.2"], "{rule}: an annotation wins");
    }
}

#[test]
fn a_peer_without_an_address_of_the_networks_is_refused() {
    let mut world = with("cidr=10.99.0.0/16");
    world.host(&host());
    world.node(node(OWN, 1, &["10.99.0.1"]));
    world.node(node("node-b", 2, &["192.168.0.2"]));
    assert_eq!(remotes(&world), [] as [String; 0]);
    assert_eq!(
        world.refusals(),
        [refused("node node-b", Reason::NoUnderlayAddress)]
    );
    let message = &world.planner.refusals().next().unwrap().message;
    assert!(message.contains("of --underlay cidr=10.99.0.0/16"), "{message}");
    world.node(node("node-b", 2, &["192.168.0.2", "10.99.0.2"]));
    assert_eq!(
        (remotes(&world), world.refusals()),
        (vec!["10.99.0.2".to_owned()], vec![])
    );
}

#[test]
fn each_family_is_chosen_by_itself_and_lends_to_the_other() {
    let mut world = with("interface=bond0");
    world.host(&host());
    world.node(own_node());
    let local = |world: &World, device: &str| match &world.wanted[&Key::Link(ifname(device))] {
        Object::Link(link) => match &link.kind {
            LinkKind::Vxlan(vxlan) => vxlan.local.to_string(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(local(&world, "vxlan.calico"), "10.77.0.1");
    assert_eq!(local(&world, "vxlan-v6.calico"), "fd77::1");
    let mut world = with("interface=eth1");
    world.host(&host());
    world.node(own_node());
    assert_eq!(local(&world, "vxlan-v6.calico"), "10.99.0.1");
}
