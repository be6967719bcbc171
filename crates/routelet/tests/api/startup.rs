//! The agent starts while the API is away, half there, or not for it: it waits, says why it is not ready, and takes
//! nothing away.

use ipnet::IpNet;
use routelet_lab::Backend;
use routelet_lab::api::{Fault, On, Resource};
use routelet_netlink::setup::RouteSpec;

use crate::support::{OURS, Stage, State, peer, peer_object, pod, state};

/// A node whose kernel still holds routes of a former agent: to a pod that is gone, and to a node that is gone.
fn stage() -> (Stage, State) {
    let stage = Stage::new(Backend::Memory);
    let mut setup = stage.cluster.nodes()[0].node.setup().unwrap();
    let [pod, node]: [IpNet; 2] = [
        "10.244.1.77/32".parse().unwrap(),
        "10.244.77.0/24".parse().unwrap(),
    ];
    setup
        .add_route(RouteSpec::to_link(pod, "eth0").protocol(OURS))
        .unwrap();
    setup
        .add_route(RouteSpec::blackhole(node).protocol(OURS))
        .unwrap();
    let former = state(stage.netns());
    assert_eq!(former.len(), 2);
    (stage, former)
}

#[test]
fn an_api_that_cannot_be_reached_is_waited_for() {
    let (mut stage, former) = stage();
    stage.server().stop().unwrap();
    stage.start_agent(&[]);
    stage.expect_errors(3.0);
    for reason in [
        "the first list of the Nodes",
        "the first list of this node's Pods",
    ] {
        stage.expect_not_ready(reason);
    }
    assert_eq!(
        stage.agent().get("/livez").unwrap().status,
        200,
        "a restart would change nothing"
    );
    assert_eq!(state(stage.netns()), former);
    assert!(stage.operations().is_empty());
    stage.expect_log(&["Connection refused", "resource=nodes"]);

    stage.server().start().unwrap();
    stage.cluster.wait_ready().unwrap();
    stage.expect([]);
}

#[test]
fn nothing_is_removed_before_the_pods_are_known() {
    nothing_is_removed_before(Resource::Pods, "this node's Pods");
}

#[test]
fn nothing_is_removed_before_the_nodes_are_known() {
    nothing_is_removed_before(Resource::Nodes, "the Nodes");
}

fn nothing_is_removed_before(resource: Resource, reason: &str) {
    let (mut stage, former) = stage();
    let api = stage.api();
    stage.apply(peer_object(1));
    stage.add_pod("a", 2);
    api.faults().always(On::resource(resource), Fault::Stall);
    stage.start_agent(&[]);
    match resource {
        Resource::Pods => stage.expect([former, peer(1)]),
        // Without its own Node, the agent does not know which addresses a pod may have.
        _ => {
            stage.expect_log(&["listed", "resource=pods"]);
            assert_eq!(state(stage.netns()), former);
        }
    }
    stage.expect_not_ready(reason);
    assert!(stage.operations().keys().all(|name| !name.ends_with("delete")));

    api.faults().clear();
    stage.cluster.wait_ready().unwrap();
    stage.expect([peer(1), pod("a", "10.244.1.2")]);
}

#[test]
fn streaming_lists_are_used_where_the_server_has_them() {
    let stage = Stage::with_agent(Backend::Memory, 1..=2);
    for resource in ["pods", "nodes"] {
        assert_eq!(
            stage.metric(&format!(
                "routelet_watch_streaming_list{{resource=\"{resource}\"}}"
            )),
            1.0
        );
    }
    stage.expect([peer(1), peer(2)]);
}

#[test]
fn plain_lists_are_used_where_it_does_not() {
    let mut stage = Stage::new(Backend::Memory);
    stage.api().streaming_lists(false);
    stage.apply(peer_object(1));
    stage.start_agent(&[]);
    stage.cluster.wait_ready().unwrap();
    stage.expect([peer(1)]);
    for resource in ["pods", "nodes"] {
        assert_eq!(
            stage.metric(&format!(
                "routelet_watch_streaming_list{{resource=\"{resource}\"}}"
            )),
            0.0
        );
        let errors = format!("routelet_watch_errors_total{{resource=\"{resource}\"}}");
        assert_eq!(stage.metric(&errors), 0.0, "an old server is no trouble");
    }
    stage.apply(peer_object(2));
    stage.expect([peer(1), peer(2)]);
}

#[test]
fn a_wrong_token_is_told_and_a_right_one_helps() {
    let (mut stage, former) = stage();
    let api = stage.api();
    api.require_token(Some("secret"));
    stage.start_agent(&[]);
    stage.expect_log(&["401", "Unauthorized", "resource=nodes"]);
    assert_eq!(state(stage.netns()), former);
    api.require_token(None);
    stage.cluster.wait_ready().unwrap();
    stage.expect([]);
}
