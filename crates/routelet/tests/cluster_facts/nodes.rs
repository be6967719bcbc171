//! Other nodes: their subnets and addresses come, change and go.

use routelet_lab::Backend;
use routelet_lab::api::objects;

use crate::support::{NEW_ADDRESS, Stage, own, peer, peer_address, peer_object, remote};

#[test]
fn nodes_come_change_and_go() {
    let mut stage = Stage::with_agent(Backend::from_env().unwrap(), [1]);

    // Without a pod subnet so far, as every node begins.
    stage.apply(objects::node("peer-2").internal_ip(peer_address(2)));
    stage.apply(peer_object(3));
    stage.expect([peer(1), peer(3)]);
    stage.expect_metric("routelet_peers", |peers| peers == 2.0);
    stage.apply(peer_object(2));
    stage.expect([peer(1), peer(2), peer(3)]);

    // Another address; no more than the FDB entry and the set of nodes hang on it.
    let before = stage.settled_operations();
    let moved = |number, to| {
        objects::node(format!("peer-{number}"))
            .pod_cidrs([format!("10.245.{number}.0/24")])
            .internal_ip(peer_address(to))
    };
    stage.apply(moved(2, 22));
    stage.expect([
        peer(1),
        remote("peer-2", "10.245.2.0/24", "172.30.100.22"),
        peer(3),
    ]);
    stage.expect_operations(&before, &NEW_ADDRESS);

    // Gone, and made anew by the same name with another address and another uid.
    let before = stage.settled_operations();
    stage.delete(peer_object(3));
    stage.apply(moved(3, 33));
    stage.expect([
        peer(1),
        remote("peer-2", "10.245.2.0/24", "172.30.100.22"),
        remote("peer-3", "10.245.3.0/24", "172.30.100.33"),
    ]);
    let deleted = stage
        .operations()
        .iter()
        .filter(|(name, _)| name.ends_with("delete"))
        .map(|(_, count)| count)
        .sum::<u64>();
    let before = before
        .iter()
        .filter(|(name, _)| name.ends_with("delete"))
        .map(|(_, count)| count)
        .sum::<u64>();
    assert!(deleted - before <= 6, "no one else's objects are touched");

    // It leaves, and another takes its address over.
    stage.delete(moved(3, 33));
    stage.apply(
        objects::node("peer-4")
            .pod_cidrs(["10.245.4.0/24"])
            .internal_ip(peer_address(33)),
    );
    stage.expect([
        peer(1),
        remote("peer-2", "10.245.2.0/24", "172.30.100.22"),
        remote("peer-4", "10.245.4.0/24", "172.30.100.33"),
    ]);
    assert_eq!(
        stage.metric("routelet_watch_errors_total{resource=\"nodes\"}"),
        0.0
    );
}

/// On the in-memory API alone: kube-apiserver keeps a second pod subnet from 1.23 on only.
#[test]
fn two_families_have_a_device_each() {
    let mut stage = Stage::new(Backend::Memory);
    let node = &stage.cluster.nodes()[0].node;
    let address = node.address(routelet_model::Family::V6);
    // Before the agent starts; a Node's pod subnets cannot be changed, only given once.
    let own_node = objects::node("node-1")
        .pod_cidrs(["10.244.1.0/24", "fd00:244:1::/64"])
        .internal_ip(node.address(routelet_model::Family::V4))
        .internal_ip(address);
    stage.delete(objects::node("node-1"));
    stage.apply(own_node);
    stage.own.extend(own("node-1", "fd00:244:1::/64"));
    stage.apply(
        objects::node("both")
            .pod_cidrs(["10.245.1.0/24", "fd00:245:1::/64"])
            .internal_ip("172.30.100.1".parse().unwrap())
            .internal_ip("fd00:30::6401".parse().unwrap()),
    );
    stage.apply(peer_object(2));
    stage.start_agent(&[]);
    stage.cluster.wait_ready().unwrap();
    stage.expect([
        remote("both", "10.245.1.0/24", "172.30.100.1"),
        remote("both", "fd00:245:1::/64", "fd00:30::6401"),
        peer(2),
    ]);

    // The families are independent: one of them changes, the other is not touched.
    let before = stage.settled_operations();
    stage.apply(
        objects::node("both")
            .pod_cidrs(["10.245.1.0/24", "fd00:245:1::/64"])
            .internal_ip("172.30.100.1".parse().unwrap())
            .internal_ip("fd00:30::6402".parse().unwrap()),
    );
    stage.expect([
        remote("both", "10.245.1.0/24", "172.30.100.1"),
        remote("both", "fd00:245:1::/64", "fd00:30::6402"),
        peer(2),
    ]);
    stage.expect_operations(&before, &NEW_ADDRESS);
}

#[test]
fn of_two_nodes_with_one_subnet_the_older_keeps_it() {
    const REFUSED: &str = "routelet_refused{reason=\"subnet_taken\"}";
    let mut stage = Stage::with_agent(Backend::from_env().unwrap(), [1]);
    stage.expect([peer(1)]);
    stage.next_second();
    let rival = || {
        objects::node("rival")
            .pod_cidrs(["10.245.1.0/24"])
            .internal_ip(peer_address(9))
    };
    let before = stage.settled_operations();
    stage.apply(rival());
    stage.expect_log(&["refused", "10.245.1.0/24", "rival", "peer-1"]);
    stage.expect_event("SubnetTaken", "Node", "rival");
    stage.expect_metric(REFUSED, |count| count == 1.0);
    stage.expect([peer(1)]);
    stage.expect_operations(&before, &[("nft_element create", 1)]);

    stage.delete(peer_object(1));
    stage.expect([remote("rival", "10.245.1.0/24", "172.30.100.9")]);
    stage.expect_metric(REFUSED, |count| count == 0.0);
    stage.expect_log(&["no longer refused", "rival"]);
    // Once, not once per pass.
    stage.expect_log_lines(&["WARN", "reason=subnet_taken"], 1);
}
