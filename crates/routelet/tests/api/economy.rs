//! What the agent costs the API server, and what an event costs the node: counted, not timed.

use routelet_lab::Backend;
use routelet_lab::api::{Resource, Verb};
use serde_json::Value;

use crate::support::{NEW_ADDRESS, ONE_PEER, Stage, peer, peer_address, peer_name, peer_object, pod, remote};

/// Times that events woke the dataplane.
const WOKEN: &str = "routelet_event_to_kernel_seconds_count";
/// Published after all else that an event has brought: who has seen this has seen the other metrics.
const PEERS: &str = "routelet_peers";
/// Batches handed to the kernel.
const BATCHES: &str = "routelet_batch_operations_count";

#[test]
fn one_watch_for_each_resource_and_no_list_beside_it() {
    let mut stage = Stage::with_agent(Backend::Memory, 1..=3);
    let counters = stage.api().counters();
    for resource in [Resource::Nodes, Resource::Pods] {
        assert_eq!(counters.open_watches(resource), 1);
        assert_eq!(counters.requests(resource, Verb::Watch), 1);
    }
    assert_eq!(counters.requests.values().sum::<u64>(), 2, "{counters:?}");
}

#[test]
fn heartbeats_end_in_the_watcher() {
    const BEATS: u64 = 5;
    let mut stage = Stage::with_agent(Backend::Memory, 1..=20);
    stage.expect((1..=20).map(peer));
    stage.expect_metric(PEERS, |peers| peers == 20.0);
    let api = stage.api();
    let (operations, woken) = (stage.settled_operations(), stage.metric(WOKEN));
    api.reset_counters();
    let mut own_bytes = 0;
    for _ in 0..BEATS {
        for name in (1..=20).map(peer_name).chain(["node-1".to_owned()]) {
            api.heartbeat(&name).unwrap();
            own_bytes += api.get(Resource::Nodes, &name).unwrap().to_string().len() as u64;
        }
    }
    // Events come in order: when the kernel has this one, the heartbeats have been dealt with.
    stage.apply(peer_object(21));
    own_bytes += api.get(Resource::Nodes, "peer-21").unwrap().to_string().len() as u64;
    stage.expect((1..=21).map(peer));
    stage.expect_operations(&operations, &ONE_PEER);
    stage.expect_metric(PEERS, |peers| peers == 21.0);
    assert_eq!(
        stage.metric(WOKEN) - woken,
        1.0,
        "no heartbeat wakes the dataplane"
    );

    let counters = api.counters();
    assert_eq!(counters.requests.values().sum::<u64>(), 0, "{counters:?}");
    let (events, sent) = (BEATS * 21 + 1, counters.bytes_sent(Resource::Nodes, Verb::Watch));
    // Around each object: {"type":"MODIFIED","object":…} and a new line.
    assert!(
        (own_bytes..own_bytes + events * 40).contains(&sent),
        "{sent} bytes for {own_bytes} bytes of objects"
    );
    assert_eq!(counters.total_bytes_sent(), sent);
}

#[test]
fn updates_without_news_of_a_pod_end_in_the_watcher() {
    let mut stage = Stage::with_agent(Backend::Memory, []);
    stage.add_pod("a", 2);
    stage.expect([pod("a", "10.244.1.2")]);
    stage.expect_metric("routelet_pods", |pods| pods == 1.0);
    let api = stage.api();
    let (operations, woken) = (stage.settled_operations(), stage.metric(WOKEN));
    for restarts in 1..=10 {
        let news: Value =
            serde_json::json!({ "status": { "message": format!("restarted {restarts} times") } });
        api.patch(Resource::Pods, "default/a", news).unwrap();
    }
    stage.delete(stage.pod_object("a", 2));
    stage.expect([]);
    stage.expect_operations(&operations, &[("route delete", 1)]);
    stage.expect_metric("routelet_pods", |pods| pods == 0.0);
    stage.expect_metric("routelet_pods", |pods| pods == 0.0);
    assert_eq!(stage.metric(WOKEN) - woken, 1.0);
}

#[test]
fn among_300_peers_an_event_costs_what_it_changes() {
    let mut stage = Stage::with_agent(Backend::Memory, 1..=300);
    stage.expect((1..=300).map(peer));
    stage.expect_metric(PEERS, |peers| peers == 300.0);

    let (before, batches) = (stage.settled_operations(), stage.metric(BATCHES));
    stage.apply(peer_object(301));
    stage.expect((1..=301).map(peer));
    stage.expect_operations(&before, &ONE_PEER);
    stage.expect_metric(PEERS, |peers| peers == 301.0);
    assert_eq!(stage.metric(BATCHES) - batches, 1.0, "all of it in one batch");

    let before = stage.settled_operations();
    let address = peer_address(999).to_string();
    let addresses = serde_json::json!([{ "type": "InternalIP", "address": address }]);
    stage.apply(peer_object(301).set("/status/addresses", addresses));
    stage.expect(
        (1..=300)
            .map(peer)
            .chain([remote("peer-301", "10.246.45.0/24", &address)]),
    );
    stage.expect_operations(&before, &NEW_ADDRESS);

    let before = stage.settled_operations();
    stage.delete(peer_object(301));
    stage.expect((1..=300).map(peer));
    stage.expect_operations(
        &before,
        &[
            ("fdb delete", 1),
            ("nft_element delete", 2),
            ("neighbour delete", 1),
            ("nexthop delete", 1),
            ("route delete", 1),
        ],
    );

    stage.link_pod("a", 2);
    let before = stage.settled_operations();
    stage.apply(stage.pod_object("a", 2));
    stage.expect((1..=300).map(peer).chain([pod("a", "10.244.1.2")]));
    stage.expect_operations(&before, &[("route create", 1)]);
}
