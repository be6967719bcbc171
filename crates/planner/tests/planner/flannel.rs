//! Nodes that run flannel, and those that carry the annotations of two networks.

use routelet_model::{Flannel, FlannelLease, Node, PerFamily};
use routelet_planner::{Encapsulation, Reason, Settings, VxlanSettings};

use crate::support::*;

const MAC: &str = "52:1e:7d:03:aa:01";
const MAC_V6: &str = "52:1e:7d:03:aa:06";

/// The settings with which flannel's nodes are peers.
fn mk_flannel_settings(encapsulation: Encapsulation) -> Settings {
    let settings = mk_settings();
    Settings {
        encapsulation,
        vxlan: VxlanSettings {
            vni: 1,
            port: 8472,
            ..settings.vxlan
        },
        ..settings
    }
}

/// A Node as flannel annotates it; what Kubernetes says of its addresses is of no use.
fn mk_flannel_node(backend: &str) -> Node {
    let lease = |underlay: &str, mac: &str| FlannelLease {
        underlay: Some(underlay.parse().unwrap()),
        vni: (backend == "vxlan").then_some(1),
        vtep_mac: (backend == "vxlan").then(|| mac.parse().unwrap()),
    };
    let mut node = mk_node(
        "node-1",
        1,
        &["192.168.9.9", "fd09::9"],
        &["10.2.0.0/24", "fd10:2::/64"],
    );
    node.flannel = Some(Box::new(Flannel {
        backend: backend.to_owned(),
        lease: PerFamily {
            v4: lease("192.168.0.2", MAC),
            v6: lease("fd00::2", MAC_V6),
        },
    }));
    node
}

/// What is wanted for the peer alone.
fn lines(settings: &Settings, node: Node) -> (Vec<String>, Vec<(String, Reason)>) {
    let mut world = World::ready_with(settings.clone());
    world.node(node);
    let lines = world.lines_beyond(&World::ready_with(settings.clone()));
    (lines, world.refusals())
}

#[test]
fn flannels_annotations_tell_underlay_and_mac_of_both_families() {
    let (lines, refusals) = lines(
        &mk_flannel_settings(Encapsulation::Vxlan),
        mk_flannel_node("vxlan"),
    );
    assert_eq!(refusals, []);
    assert_eq!(
        lines,
        [
            "fdb 52:1e:7d:03:aa:06 dev vxlan-v6.calico dst fd00::2",
            "fdb 52:1e:7d:03:aa:01 dev vxlan.calico dst 192.168.0.2",
            "neighbour fd10:2:: dev vxlan-v6.calico lladdr 52:1e:7d:03:aa:06 permanent",
            "neighbour 10.2.0.0 dev vxlan.calico lladdr 52:1e:7d:03:aa:01 permanent",
            "nexthop via fd10:2:: dev vxlan-v6.calico present",
            "nexthop via 10.2.0.0 dev vxlan.calico present",
            "route 10.2.0.0/24 via 10.2.0.0 dev vxlan.calico",
            "route fd10:2::/64 via fd10:2:: dev vxlan-v6.calico",
        ]
    );
}

#[test]
fn host_gw_goes_with_direct_ways() {
    for encapsulation in [Encapsulation::None, Encapsulation::VxlanCrossSubnet] {
        let (lines, refusals) = lines(&mk_flannel_settings(encapsulation), mk_flannel_node("host-gw"));
        assert_eq!(refusals, []);
        assert!(
            lines.contains(&"route 10.2.0.0/24 via 192.168.0.2 dev eth0".to_owned()),
            "{lines:?}"
        );
    }
}

/// Where flannel's tunnel is another one, its values are not mixed with ours: the Node is as one without them.
#[test]
fn another_backend_or_vni_is_told_and_not_followed() {
    let other_vni = Settings {
        vxlan: mk_settings().vxlan,
        ..mk_flannel_settings(Encapsulation::Vxlan)
    };
    for (settings, backend) in [
        (other_vni, "vxlan"),
        (mk_flannel_settings(Encapsulation::Vxlan), "udp"),
        (mk_flannel_settings(Encapsulation::Vxlan), "host-gw"),
        (mk_flannel_settings(Encapsulation::None), "vxlan"),
        (mk_flannel_settings(Encapsulation::Ipip), "vxlan"),
    ] {
        let node = mk_flannel_node(backend);
        let plain = Node {
            flannel: None,
            ..node.clone()
        };
        let (found, refusals) = lines(&settings, node);
        let expected = lines(&settings, plain);
        assert_eq!(found, expected.0, "{backend}");
        assert!(
            refusals.contains(&refused("node node-1", Reason::OtherTunnel)),
            "{backend}: {refusals:?}"
        );
        assert_eq!(refusals.len(), expected.1.len() + 1, "told once: {refusals:?}");
    }
}

#[test]
fn the_message_names_annotation_value_and_remedy() {
    let mut world = World::ready();
    world.node(mk_flannel_node("vxlan"));
    let message = &world.planner.refusals().next().unwrap().message;
    assert_eq!(
        message,
        "metadata.annotations[flannel.alpha.coreos.com/backend-data] of node node-1 is of VNI 1, while the VNI here is \
         4096: flannel's annotations are not followed, and the node is taken for one with routelet. If flannel runs \
         there, set --vxlan-vni 1 and --vxlan-port to flannel's port (8472 if it was not set) here; if it does not, \
         remove them from the Node"
    );
    world.node(mk_flannel_node("udp"));
    let message = &world.planner.refusals().next().unwrap().message;
    assert!(
        message.starts_with(
            "metadata.annotations[flannel.alpha.coreos.com/backend-type] of node node-1 is \"udp\", which"
        ),
        "{message}"
    );
    let plain = mk_node("node-1", 1, &["192.168.0.2", "fd00::2"], &["10.2.0.0/24"]);
    world.node(plain);
    assert_eq!(world.refusals(), []);
}

/// A cluster that went from flannel to Calico keeps flannel's annotations; one with Canal has Calico's underlay address
/// beside flannel's tunnel.
#[test]
fn calicos_tunnel_silences_flannels_annotations() {
    let settings = mk_flannel_settings(Encapsulation::Vxlan);
    let mut node = mk_flannel_node("vxlan");
    node.overrides.v4.underlay = Some("192.168.0.4/24".parse().unwrap());
    let (found, _) = lines(&settings, node.clone());
    assert_eq!(found[1], format!("fdb {MAC} dev vxlan.calico dst 192.168.0.2"));
    node.overrides.v4.tunnel_address = Some("10.2.0.64".parse().unwrap());
    let (found, refusals) = lines(&settings, node);
    assert_eq!(refusals, []);
    assert_eq!(
        found[..2],
        [
            format!("fdb {MAC_V6} dev vxlan-v6.calico dst fd00::2"),
            "fdb 66:b3:68:28:39:8e dev vxlan.calico dst 192.168.0.4".to_owned(),
        ],
        "IPv4 is Calico's, IPv6 flannel's"
    );
}

/// What is told is what does not fit of the family that flannel's annotations count for.
#[test]
fn the_message_passes_over_the_family_that_is_calicos() {
    let mut world = World::ready();
    let mut node = mk_flannel_node("vxlan");
    let leases = &mut node.flannel.as_mut().unwrap().lease;
    (leases.v4.vni, leases.v6.vni) = (Some(7), Some(5));
    node.overrides.v4.tunnel_address = Some("10.2.0.64".parse().unwrap());
    world.node(node);
    assert_eq!(world.refusals(), [refused("node node-1", Reason::OtherTunnel)]);
    let message = &world.planner.refusals().next().unwrap().message;
    assert!(
        message.starts_with(
            "metadata.annotations[flannel.alpha.coreos.com/backend-v6-data] of node node-1 is of VNI 5, while"
        ) && message.contains("set --vxlan-vni 5 "),
        "{message}"
    );
}

#[test]
fn values_of_flannels_that_cannot_be_right_are_refused() {
    let mut node = mk_flannel_node("vxlan");
    let lease = &mut node.flannel.as_mut().unwrap().lease.v4;
    lease.underlay = Some("127.0.0.1".parse().unwrap());
    lease.vtep_mac = Some("01:00:00:00:00:01".parse().unwrap());
    let (found, refusals) = lines(&mk_flannel_settings(Encapsulation::Vxlan), node);
    assert_eq!(refusals, vec![refused("node node-1", Reason::UnreadableValue); 2]);
    assert!(
        found.contains(&"fdb 66:b3:68:28:39:8e dev vxlan.calico dst 192.168.9.9".to_owned()),
        "{found:?}"
    );
}

/// In IPIP, a node's tunnel address is the one that Calico gave it for that.
#[test]
fn the_tunnel_address_in_ipip_has_an_annotation_of_its_own() {
    let settings = |encapsulation| Settings {
        encapsulation,
        ..mk_settings()
    };
    for (encapsulation, address) in [
        (Encapsulation::Ipip, "address 10.1.0.1/32 dev tunl0 present"),
        (
            Encapsulation::Vxlan,
            "address 10.1.0.64/32 dev vxlan.calico present",
        ),
    ] {
        let mut world = World::ready_with(settings(encapsulation));
        let mut own = own_node();
        own.ipip_address = Some("10.1.0.1".parse().unwrap());
        own.overrides.v4.tunnel_address = Some("10.1.0.64".parse().unwrap());
        world.node(own);
        let lines = world.lines_beyond(&World::empty(mk_settings()));
        assert!(lines.contains(&address.to_owned()), "{lines:?}");
    }
}
