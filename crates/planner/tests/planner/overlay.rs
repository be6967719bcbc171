//! The tunnel's ends, as they are told to whoever tests the way between them.

use routelet_model::{Family, Resource, Source};
use routelet_planner::{Encapsulation, OverlayChange, OverlayEnd, Plan, Settings};

use crate::support::*;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

fn with(encapsulation: Encapsulation) -> World {
    World::empty(Settings {
        overlay_check: true,
        encapsulation,
        ..mk_settings()
    })
}

fn own(family: Family, end: Option<(&str, u32)>) -> OverlayChange {
    let end = end.map(|(address, mtu)| OverlayEnd {
        address: address.parse().unwrap(),
        mtu,
    });
    OverlayChange::Own { family, end }
}

fn peer(family: Family, address: Option<&str>) -> OverlayChange {
    OverlayChange::Peer {
        node: "node-b".to_owned(),
        family,
        address: address.map(|address| address.parse().unwrap()),
    }
}

fn node_b(subnets: &[&str]) -> routelet_model::Node {
    mk_node("node-b", 100, &["192.168.0.2", "fd00::2"], subnets)
}

#[test]
fn ends_come_change_and_go_with_what_they_follow_from() {
    let mut world = with(Encapsulation::Vxlan);
    world.host(&own_host());
    assert_eq!(
        world.node(own_node()).overlay,
        [
            own(V4, Some(("10.1.0.0", 1450))),
            own(V6, Some(("fd10:1::", 1430)))
        ]
    );
    assert_eq!(
        world.node(node_b(&["10.2.0.0/24", "fd10:2::/64"])).overlay,
        [peer(V4, Some("10.2.0.0")), peer(V6, Some("fd10:2::"))]
    );
    // Another underlay address is another way to the same end.
    let mut moved = node_b(&["10.2.0.0/24", "fd10:2::/64"]);
    moved.addresses[0] = mk_address(routelet_model::NodeAddressKind::Internal, "192.168.0.22");
    assert_eq!(world.node(moved).overlay, []);
    assert_eq!(
        world.node(node_b(&["10.3.0.0/24"])).overlay,
        [peer(V6, None), peer(V4, Some("10.3.0.0"))]
    );
    let plan = world.host(&mk_host(&[("eth0", 1400, &["192.168.0.1/24", "fd00::1/64"])]));
    assert_eq!(
        plan.overlay,
        [
            own(V4, Some(("10.1.0.0", 1350))),
            own(V6, Some(("fd10:1::", 1330)))
        ]
    );
    assert_eq!(world.node_gone("node-b").overlay, [peer(V4, None)]);
}

#[test]
fn who_is_reached_without_a_tunnel_has_an_end_where_there_is_one_for_others() {
    let told = |encapsulation| -> Vec<OverlayChange> {
        let mut world = with(encapsulation);
        world.host(&own_host());
        let own: Plan = world.node(own_node());
        let peer = world.node(node_b(&["10.2.0.0/24", "fd10:2::/64"]));
        world.cluster(routelet_model::ClusterEvent::Synced(
            Resource::Nodes,
            Source::Store,
        ));
        [own.overlay, peer.overlay].concat()
    };
    assert_eq!(told(Encapsulation::None), []);
    let of_v4 = |mtu| vec![own(V4, Some(("10.1.0.0", mtu))), peer(V4, Some("10.2.0.0"))];
    assert_eq!(told(Encapsulation::Ipip), of_v4(1480));
    assert_eq!(told(Encapsulation::IpipCrossSubnet), of_v4(1480));
    assert_eq!(told(Encapsulation::VxlanCrossSubnet).len(), 4);
}

#[test]
fn nothing_is_told_where_no_one_asks() {
    let mut world = World::empty(mk_settings());
    world.host(&own_host());
    assert_eq!(world.node(own_node()).overlay, []);
    assert_eq!(world.node(node_b(&["10.2.0.0/24"])).overlay, []);
}
