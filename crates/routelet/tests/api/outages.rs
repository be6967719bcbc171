//! The API server is away: the kernel stays as it is, and on the return exactly the differences are applied.

use routelet_lab::Backend;
use routelet_lab::api::{Fault, On, Resource};

use crate::support::{ONE_PEER, Stage, peer, peer_address, peer_object, pod};

/// Peers 1 to 3, pods a and b.
fn stage() -> Stage {
    let mut stage = Stage::with_agent(Backend::Memory, 1..=3);
    stage.add_pod("a", 2);
    stage.add_pod("b", 3);
    stage.expect([
        peer(1),
        peer(2),
        peer(3),
        pod("a", "10.244.1.2"),
        pod("b", "10.244.1.3"),
    ]);
    stage
}

/// A peer and a pod come, a peer and a pod go, a peer moves.
fn change_the_cluster(stage: &mut Stage) {
    stage.apply(peer_object(2).set("/status/addresses", moved()));
    stage.delete(peer_object(3));
    stage.apply(peer_object(4));
    stage.delete(stage.pod_object("b", 3));
    stage.add_pod("c", 4);
}

fn moved() -> serde_json::Value {
    serde_json::json!([{ "type": "InternalIP", "address": peer_address(99).to_string() }])
}

fn expect_the_changes(stage: &Stage) {
    let moved = crate::support::remote("peer-2", "10.245.2.0/24", &peer_address(99).to_string());
    stage.expect([
        peer(1),
        moved,
        peer(4),
        pod("a", "10.244.1.2"),
        pod("c", "10.244.1.4"),
    ]);
}

/// What the changes take, and no more.
const DIFFERENCES: [(&str, u64); 11] = [
    ("nft_element create", 3),
    ("nft_element delete", 3),
    ("fdb create", 1),
    ("fdb delete", 1),
    ("fdb replace", 1),
    ("neighbour create", 1),
    ("neighbour delete", 1),
    ("nexthop create", 1),
    ("nexthop delete", 1),
    ("route create", 2),
    ("route delete", 2),
];

#[test]
fn an_outage_changes_nothing_and_its_end_brings_exactly_the_differences() {
    let mut stage = stage();
    let before = stage.settled_operations();
    stage.server().stop().unwrap();
    change_the_cluster(&mut stage);
    stage.expect_errors(4.0);
    stage.expect([
        peer(1),
        peer(2),
        peer(3),
        pod("a", "10.244.1.2"),
        pod("b", "10.244.1.3"),
    ]);
    stage.expect_operations(&before, &[]);
    assert_eq!(
        stage.agent().get("/readyz").unwrap().status,
        200,
        "the node's pods have their network"
    );

    stage.server().start().unwrap();
    expect_the_changes(&stage);
    stage.expect_operations(&before, &DIFFERENCES);
    for resource in ["pods", "nodes"] {
        let label = format!("resource={resource}");
        stage.expect_log_lines(&["the API server is back", &label], 1);
        stage.expect_log_lines(&["lost the watch", &label], 1);
        let relists = format!("routelet_watch_relists_total{{resource=\"{resource}\"}}");
        assert_eq!(stage.metric(&relists), 0.0, "the watch resumes where it was");
    }
    assert_eq!(stage.metric("routelet_watch_objects{resource=\"nodes\"}"), 4.0);
    assert_eq!(stage.metric("routelet_watch_objects{resource=\"pods\"}"), 2.0);
}

#[test]
fn a_restart_with_its_history_gone_shows_what_was_deleted_meanwhile() {
    let mut stage = stage();
    let before = stage.settled_operations();
    stage.server().stop().unwrap();
    change_the_cluster(&mut stage);
    stage.api().compact();
    stage.expect_errors(2.0);
    stage.expect_operations(&before, &[]);

    stage.server().start().unwrap();
    expect_the_changes(&stage);
    stage.expect_operations(&before, &DIFFERENCES);
    for resource in ["pods", "nodes"] {
        let relists = format!("routelet_watch_relists_total{{resource=\"{resource}\"}}");
        stage.expect_metric(&relists, |relists| relists == 1.0);
        stage.expect_log_lines(&["listing anew", &format!("resource={resource}")], 1);
    }
}

#[test]
fn a_restarted_server_costs_nothing() {
    let mut stage = stage();
    let before = stage.settled_operations();
    stage.server().stop().unwrap();
    stage.server().start().unwrap();
    stage.apply(peer_object(4));
    stage.expect([
        peer(1),
        peer(2),
        peer(3),
        peer(4),
        pod("a", "10.244.1.2"),
        pod("b", "10.244.1.3"),
    ]);
    stage.expect_operations(&before, &ONE_PEER);
    assert_eq!(
        stage.metric("routelet_watch_relists_total{resource=\"nodes\"}"),
        0.0
    );
}

#[test]
fn a_server_that_accepts_and_does_not_answer_is_waited_for() {
    let mut stage = stage();
    let before = stage.settled_operations();
    let api = stage.api();
    api.faults().always(On::ANY, Fault::Stall);
    api.reset_counters();
    api.faults().cut_watches(None);
    change_the_cluster(&mut stage);
    let stalled = |resource| {
        move |counters: &routelet_lab::api::Counters| {
            counters.requests(resource, routelet_lab::api::Verb::Watch) > 0
        }
    };
    for resource in [Resource::Nodes, Resource::Pods] {
        api.wait_for(routelet_lab::wait::LONG, stalled(resource)).unwrap();
    }
    stage.expect_operations(&before, &[]);
    api.faults().clear();
    expect_the_changes(&stage);
    stage.expect_operations(&before, &DIFFERENCES);
}

#[test]
fn a_watch_that_falls_silent_catches_up_when_it_speaks_again() {
    let mut stage = stage();
    let before = stage.settled_operations();
    let api = stage.api();
    api.faults().silence_watches(Resource::Nodes);
    stage.apply(peer_object(4));
    stage.delete(stage.pod_object("b", 3));
    // The other watch goes on.
    stage.expect([peer(1), peer(2), peer(3), pod("a", "10.244.1.2")]);
    stage.expect_operations(&before, &[("route delete", 1)]);
    api.faults().clear();
    stage.expect([peer(1), peer(2), peer(3), peer(4), pod("a", "10.244.1.2")]);
    assert_eq!(
        stage.metric("routelet_watch_errors_total{resource=\"nodes\"}"),
        0.0
    );
}

#[test]
fn a_listener_that_is_closed_harms_no_open_watch() {
    let mut stage = stage();
    stage.server().refuse().unwrap();
    stage.apply(peer_object(4));
    stage.delete(peer_object(1));
    stage.expect([
        peer(2),
        peer(3),
        peer(4),
        pod("a", "10.244.1.2"),
        pod("b", "10.244.1.3"),
    ]);
    stage.api().faults().cut_watches(None);
    stage.delete(peer_object(2));
    stage.expect_errors(1.0);
    stage.server().start().unwrap();
    stage.expect([peer(3), peer(4), pod("a", "10.244.1.2"), pod("b", "10.244.1.3")]);
}
