//! Replies take the way back, though every reverse path filter is strict.

use std::net::{IpAddr, SocketAddr};

use routelet_lab::{Backend, Ping};
use routelet_model::{Family, tunnel_address};
use routelet_netlink::Netns;

use crate::support::{World, reach, serve};

const PORT: u16 = 8080;

/// Ten requests, all answered.
fn ping(from: &Netns, to: IpAddr) -> Option<u8> {
    let report = Ping::to(to).count(10).run(from).unwrap();
    assert_eq!(report.received(), 10, "to {to}: {report}");
    report.ttl
}

#[test]
fn a_machine_on_the_lan_with_a_route_reaches_pods_and_is_seen_by_its_own_address() {
    let world = World::new(Backend::Memory);
    let lan = world.cluster.lab().address(Family::V4);
    for index in 0..2 {
        serve(world.pods[index].netns(), PORT);
        let pod = world.pod_address(index);
        assert_eq!(reach(world.lan(), SocketAddr::new(pod, PORT)), lan);
        assert_eq!(ping(world.lan(), pod), Some(63), "one router, and no tunnel");
    }
}

/// The other node carries the packet on through the tunnel, and the pod's own node sends the reply straight to the
/// machine: the filter of its tunnel device is loose for such packets.
#[test]
fn a_route_to_another_node_than_the_pods_serves_as_well() {
    let world = World::new(Backend::Memory);
    let [first, second] = world.cluster.nodes() else {
        panic!("two nodes")
    };
    world.cluster.lab().route_to(&first.node, second.subnet).unwrap();
    serve(world.pods[1].netns(), PORT);
    let pod = SocketAddr::new(world.pod_address(1), PORT);
    let lan = world.cluster.lab().address(Family::V4);
    assert_eq!(reach(world.lan(), pod), lan);
}

#[test]
fn a_pod_reaches_the_addresses_of_its_own_node() {
    let world = World::new(Backend::Memory);
    serve(world.node(0), PORT);
    for to in [
        world.node_address(0),
        tunnel_address(world.cluster.nodes()[0].subnet),
    ] {
        let seen = reach(world.pods[0].netns(), SocketAddr::new(to, PORT));
        assert_eq!(seen, world.pod_address(0), "to {to}");
        assert_eq!(ping(world.pods[0].netns(), to), Some(64));
    }
}

#[test]
fn a_node_reaches_its_own_pods_and_those_of_others_from_an_address_they_answer() {
    let world = World::new(Backend::Memory);
    (0..2).for_each(|index| serve(world.pods[index].netns(), PORT));
    let from = world.node(0);
    reach(from, SocketAddr::new(world.pod_address(0), PORT));
    let seen = reach(from, SocketAddr::new(world.pod_address(1), PORT));
    assert_eq!(
        seen,
        tunnel_address(world.cluster.nodes()[0].subnet),
        "the tunnel device's address, to which the other node's route leads back through the tunnel"
    );
    assert_eq!(ping(from, world.pod_address(1)), Some(63));
}
