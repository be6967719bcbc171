//! The node's own Node object: it may come late, change and go while the node works.

use routelet_lab::Backend;
use routelet_lab::api::objects::{self, NodeBuilder};
use routelet_model::{Family, IfName, Key, Kind, LinkKind, Object};
use routelet_netlink::{Config, Kernel};

use crate::support::{OURS, Stage, peer, peer_object, pod, state};

fn own_node(addresses: &[&str]) -> NodeBuilder {
    let node = objects::node("node-1").pod_cidrs(["10.244.1.0/24"]);
    addresses
        .iter()
        .fold(node, |node, address| node.internal_ip(address.parse().unwrap()))
}

#[test]
fn the_own_node_comes_late() {
    let mut stage = Stage::new(Backend::from_env().unwrap());
    let own = stage.cluster.node_object(0);
    stage.delete(own.clone());
    stage.apply(peer_object(1));
    stage.add_pod("a", 2);
    stage.start_agent(&[]);
    stage.expect_not_ready("there is no Node \"node-1\"");
    assert!(state(stage.netns()).is_empty());

    // The kubelet has made it, and nobody has given it a subnet so far.
    let address = stage.cluster.nodes()[0].node.address(Family::V4);
    stage.apply(objects::node("node-1").internal_ip(address));
    stage.expect_not_ready("has no usable spec.podCIDRs");
    assert!(state(stage.netns()).is_empty());

    stage.apply(own);
    stage.cluster.wait_ready().unwrap();
    stage.expect([peer(1), pod("a", "10.244.1.2")]);
}

#[test]
fn the_own_node_goes_and_nothing_is_withdrawn() {
    let mut stage = Stage::with_agent(Backend::from_env().unwrap(), [1]);
    stage.add_pod("a", 2);
    stage.expect([peer(1), pod("a", "10.244.1.2")]);
    let before = stage.settled_operations();
    stage.delete(own_node(&[]));
    stage.expect_log(&["stays in force", "there is no Node \"node-1\""]);
    // Other news is followed all the same.
    stage.add_pod("b", 3);
    stage.apply(peer_object(2));
    stage.expect([peer(1), peer(2), pod("a", "10.244.1.2"), pod("b", "10.244.1.3")]);
    assert_eq!(stage.agent().get("/readyz").unwrap().status, 200);

    stage.apply(stage.cluster.node_object(0));
    stage.expect_log(&["no longer so", "there is no Node \"node-1\""]);
    stage.expect_operations(
        &before,
        &[
            ("fdb create", 1),
            ("nft_element create", 2),
            ("neighbour create", 1),
            ("nexthop create", 1),
            ("route create", 2),
        ],
    );
}

#[test]
fn the_own_address_changes() {
    let mut stage = Stage::with_agent(Backend::from_env().unwrap(), [1, 2]);
    stage.add_pod("a", 2);
    stage.expect([peer(1), peer(2), pod("a", "10.244.1.2")]);
    assert_eq!(local(&stage), "172.30.0.2");

    // The API tells before the host has it: the former one stays in force.
    stage.apply(own_node(&["172.30.5.5"]));
    stage.expect_log(&["stays in force", "172.30.5.5"]);
    assert_eq!(local(&stage), "172.30.0.2");
    let mut setup = stage.cluster.nodes()[0].node.setup().unwrap();
    setup
        .add_address("eth0", "172.30.5.5/16".parse().unwrap())
        .unwrap();
    // The device cannot change its address while it lives: it is made anew, with all that is on it.
    routelet_lab::wait::until(
        routelet_lab::wait::LONG,
        "the device to send from the new address",
        || local(&stage) == "172.30.5.5",
    )
    .unwrap();
    stage.expect([peer(1), peer(2), pod("a", "10.244.1.2")]);
    stage.expect_log(&["vxlan.calico sends from 172.30.5.5 on eth0"]);
    stage.expect_metric("routelet_objects_out_of_sync{kind=\"route\"}", |count| {
        count == 0.0
    });
}

/// The underlay address of the VXLAN device; empty where there is no device at the moment.
fn local(stage: &Stage) -> String {
    let device = IfName::new("vxlan.calico").unwrap();
    let config = Config {
        protocol: OURS,
        devices: vec![device],
        interface_prefix: "cali".to_owned(),
        nft_table: "routelet".to_owned(),
        receive_buffer: 1 << 16,
    };
    let mut local = String::new();
    let read = || {
        let mut kernel = Kernel::open(config)?;
        kernel.dump(Kind::Link, None, &mut |key, object| {
            if let (Key::Link(name), Object::Link(link)) = (key, object)
                && let LinkKind::Vxlan(vxlan) = link.kind
                && name == device
            {
                local = vxlan.local.to_string();
            }
        })
    };
    stage.netns().run(read).unwrap().unwrap();
    local
}
