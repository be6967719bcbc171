//! When the agent says that the node is ready, and what it says then.

use routelet_lab::wait;
use routelet_model::{Key, Object, RouteTarget};

use crate::stage::{DEVICE, NO_AUDIT, OURS, Stage, create, peer_subnet};

#[test]
fn ready_means_that_the_kernel_is_right() {
    let mut stage = Stage::without_agent(20);
    stage.add_pod("web", 2);
    stage.add_pod("db", 3);
    stage.start_agent(NO_AUDIT);
    stage.assert_right("the agent said that it was ready");
    assert_eq!((stage.sum("routelet_peers"), stage.sum("routelet_pods")), (20, 2));
    let written: usize = stage.wanted().len() - 2;
    let line = stage.agent().wait_log("in sync", wait::LONG).unwrap();
    for field in [
        "peers=20",
        "pods=2",
        "nexthop=20",
        "fdb=20",
        "neighbour=20",
        "route=23",
        "removed=0",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    // All but the two host veths, and but for settings that were right already.
    let count = stage.sum("routelet_operations_total");
    assert!(
        count <= written as u64 && line.contains(&format!("written={count} ")),
        "{line}"
    );

    stage.add_peer(21);
    stage.remove_peer(1);
    stage.remove_pod("db");
    stage.wait_right("the cluster changed");
    assert_eq!((stage.sum("routelet_peers"), stage.sum("routelet_pods")), (20, 1));
    stage.agent().expect_log_lines(&["in sync"], 1).unwrap();
}

/// Without its own Node the agent cannot know what the node should have: it is not ready, says why, and neither makes
/// nor removes anything.
#[test]
fn not_ready_without_the_own_node() {
    let mut stage = Stage::without_agent(2);
    let node = stage.cluster.node_object(0).build();
    stage.cluster.api().delete(&node).unwrap();
    stage.meddle(
        OURS,
        &[create(
            Key::route(peer_subnet(9)),
            Object::Route(RouteTarget::Blackhole),
        )],
    );
    let before = stage.kernel();
    stage.cluster.start_agent(0, NO_AUDIT).unwrap();
    wait::until(wait::LONG, "the agent to miss nothing but its Node", || {
        stage.agent().get("/readyz").is_ok_and(|response| {
            response.status == 503
                && response.body.lines().count() == 1
                && response.body.contains("no Node \"node-1\"")
        })
    })
    .unwrap();
    assert_eq!(stage.agent().get("/livez").unwrap().status, 200);
    assert_eq!(stage.kernel(), before);

    stage.cluster.api().apply(&node).unwrap();
    stage.cluster.wait_ready().unwrap();
    stage.wait_right("the Node was created");
    let line = stage.agent().wait_log("in sync", wait::LONG).unwrap();
    assert!(line.contains("removed=1"), "{line}");
}

/// Neither is the agent ready while the kernel refuses an object, which it names.
#[test]
fn not_ready_while_the_kernel_refuses() {
    let mut stage = Stage::without_agent(2);
    stage.setup().add_bridge(DEVICE).unwrap();
    stage.cluster.start_agent(0, NO_AUDIT).unwrap();
    let refused = format!("link {DEVICE}: the kernel refused");
    wait::until(wait::LONG, "the agent to name the device", || {
        let response = stage.agent().get("/readyz");
        response.is_ok_and(|response| response.status == 503 && response.body.starts_with(&refused))
    })
    .unwrap();
    stage.setup().delete_link(DEVICE).unwrap();
    stage.cluster.wait_ready().unwrap();
    stage.assert_right("the agent said that it was ready");
}
