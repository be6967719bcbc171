//! Wrong answers of the API server, one by one: the node keeps its routes throughout and converges afterwards.

use std::time::Duration;

use routelet_lab::api::{Api, Fault, Garbage, On, Resource, Snapshot, Status, Verb};
use routelet_lab::{Backend, wait};

use crate::support::{ONE_PEER, Operations, Stage, peer, peer_object, pod};

const RELISTS: &str = "routelet_watch_relists_total{resource=\"nodes\"}";
const ERRORS: &str = "routelet_watch_errors_total{resource=\"nodes\"}";

/// An agent with peers 1 and 2 and a pod meets the trouble while peer 2 goes and peer 3 comes: no more than that
/// happens to the kernel.
fn survives(trouble: impl FnOnce(&Api)) -> Stage {
    let mut stage = Stage::with_agent(Backend::Memory, 1..=2);
    stage.add_pod("a", 2);
    stage.expect([peer(1), peer(2), pod("a", "10.244.1.2")]);
    let before = stage.settled_operations();
    trouble(&stage.api());
    stage.delete(peer_object(2));
    stage.apply(peer_object(3));
    stage.expect([peer(1), peer(3), pod("a", "10.244.1.2")]);
    stage.expect_operations(
        &before,
        &[
            ("fdb create", 1),
            ("nft_element create", 2),
            ("fdb delete", 1),
            ("nft_element delete", 2),
            ("neighbour create", 1),
            ("neighbour delete", 1),
            ("nexthop create", 1),
            ("nexthop delete", 1),
            ("route create", 1),
            ("route delete", 1),
        ],
    );
    stage
}

/// The watches break off, and the next `times` requests for each resource meet the fault.
fn answered(times: u32, fault: Fault) -> Stage {
    survives(|api| {
        for resource in [Resource::Nodes, Resource::Pods] {
            api.faults().next(times, On::resource(resource), fault.clone());
        }
        api.faults().cut_watches(None);
    })
}

/// The log tells loss and return of both watches, `times` each.
fn tells(stage: &Stage, times: usize) {
    for label in ["resource=nodes", "resource=pods"] {
        stage.expect_log_lines(&["the API server is back", label], times);
        stage.expect_log_lines(&["lost the watch", label], times);
    }
}

#[test]
fn gone_410() {
    // A watch is answered, and only then told that it has expired; the list that follows is refused.
    let stage = answered(2, Fault::Expired);
    tells(&stage, 2);
    assert_eq!(stage.metric(ERRORS), 3.0);
    stage.expect_metric(RELISTS, |relists| relists == 1.0);
}

#[test]
fn gone_410_in_mid_stream() {
    let stage = survives(|api| api.faults().expire_watches(None));
    stage.expect_metric(RELISTS, |relists| relists == 1.0);
    stage.expect_log(&["listing anew", "resource=nodes"]);
    // It is no trouble, but the course of things.
    stage.expect_log_lines(&["lost the watch"], 0);
}

#[test]
fn too_many_requests_429() {
    let stage = answered(
        1,
        Fault::Status(Status::new(429, "slow down").retry_after(Duration::from_secs(1))),
    );
    tells(&stage, 1);
    assert_eq!(stage.metric(ERRORS), 2.0);
    assert_eq!(stage.metric(RELISTS), 0.0);
    stage.expect_log(&["429", "slow down", "resource=nodes"]);
}

#[test]
fn a_server_that_asks_to_be_left_alone_is() {
    let mut stage = Stage::with_agent(Backend::Memory, 1..=2);
    let api = stage.api();
    let busy = Status::new(429, "slow down").retry_after(Duration::from_secs(300));
    api.faults()
        .always(On::resource(Resource::Nodes), Fault::Status(busy));
    api.faults().always(
        On::resource(Resource::Pods),
        Fault::Status(Status::new(500, "no idea")),
    );
    api.reset_counters();
    api.faults().cut_watches(None);
    // The other watch, that was told nothing, tries again and again meanwhile.
    let counters = api
        .wait_for(wait::LONG, |counters| {
            counters.requests(Resource::Pods, Verb::Watch) == 4
        })
        .unwrap();
    assert_eq!(counters.requests(Resource::Nodes, Verb::Watch), 1);
    stage.expect([peer(1), peer(2)]);
}

#[test]
fn internal_error_500() {
    let stage = answered(2, Fault::Status(Status::new(500, "etcdserver: leader changed")));
    tells(&stage, 1);
    assert_eq!(stage.metric(ERRORS), 3.0);
    stage.expect_log(&["etcdserver: leader changed", "resource=nodes"]);
}

#[test]
fn internal_error_500_in_mid_stream() {
    let stage = survives(|api| {
        api.faults()
            .fail_watches(None, Status::new(500, "etcdserver: no leader"))
    });
    assert_eq!(stage.metric(ERRORS), 1.0);
    assert_eq!(stage.metric(RELISTS), 0.0);
}

#[test]
fn unavailable_503() {
    let stage = answered(2, Fault::Status(Status::new(503, "apiserver is shutting down")));
    tells(&stage, 1);
}

#[test]
fn a_connection_closed_without_an_answer() {
    let stage = answered(2, Fault::Drop);
    tells(&stage, 1);
}

#[test]
fn half_a_json_document() {
    let stage = answered(2, Fault::Garbage(Garbage::HalfDocument));
    assert_eq!(stage.metric(ERRORS), 3.0);
}

#[test]
fn half_an_event_in_mid_stream() {
    let stage = survives(|api| api.faults().garble_watches(None, Garbage::HalfDocument));
    assert_eq!(stage.metric(RELISTS), 0.0);
}

#[test]
fn an_answer_that_is_no_json() {
    answered(1, Fault::Garbage(Garbage::NotJson));
}

#[test]
fn lines_that_are_no_json_in_mid_stream() {
    let stage = survives(|api| {
        for _ in 0..3 {
            api.faults().garble_watches(None, Garbage::NotJson);
        }
    });
    assert_eq!(stage.metric(RELISTS), 0.0);
}

#[test]
fn events_of_the_wrong_shape_in_mid_stream() {
    survives(|api| api.faults().garble_watches(None, Garbage::WrongShape));
}

#[test]
fn answers_of_a_byte_at_a_time() {
    let slow = Fault::Slow {
        bytes: 64,
        delay: Duration::from_millis(1),
    };
    survives(|api| {
        api.faults().next(2, On::ANY, slow);
        api.faults().cut_watches(None);
    });
}

/// An old server, or one in between, that does not care how new a list is asked for.
#[test]
fn a_stale_list_takes_nothing_away() {
    let mut stage = Stage::new(Backend::Memory);
    let api = stage.api();
    api.streaming_lists(false);
    stage.apply(peer_object(1));
    let old = api.snapshot(Resource::Nodes);
    stage.apply(peer_object(2));
    stage.start_agent(&[]);
    stage.expect([peer(1), peer(2)]);
    let before = stage.settled_operations();

    api.faults().next(1, On::list(Resource::Nodes), Fault::Stale(old));
    api.faults().expire_watches(Resource::Nodes);
    stage.expect_metric(RELISTS, |relists| relists >= 1.0);
    stage.apply(peer_object(3));
    stage.expect([peer(1), peer(2), peer(3)]);
    stage.expect_operations(&before, &ONE_PEER);
}

/// The server's cache is as it was then: the next list comes from it, and the watch after it does not catch up in time.
fn lags_behind(api: &Api, then: &Snapshot) {
    let late = Fault::Slow {
        bytes: 1 << 16,
        delay: Duration::from_secs(600),
    };
    api.faults()
        .next(1, On::list(Resource::Nodes), Fault::Stale(then.clone()));
    let no_streaming_lists = Fault::Status(Status::new(422, "sendInitialEvents is forbidden"));
    api.faults()
        .next(1, On::watch(Resource::Nodes), no_streaming_lists);
    api.faults().next(1, On::watch(Resource::Nodes), late);
}

/// Another server's cache may know less than the agent before this one did. What was made for a Node that is missing there
/// goes only when the store lacks it, too.
#[test]
fn a_stale_first_list_takes_nothing_away() {
    let mut stage = Stage::new(Backend::Memory);
    let api = stage.api();
    api.streaming_lists(false);
    stage.apply(peer_object(1));
    let old = api.snapshot(Resource::Nodes);
    stage.apply(peer_object(2));
    stage.start_agent(&[]);
    stage.cluster.wait_ready().unwrap();
    stage.expect([peer(1), peer(2)]);

    stage.cluster.node(0).agent().unwrap().kill().unwrap();
    lags_behind(&api, &old);
    stage.cluster.node(0).agent().unwrap().restart().unwrap();
    stage.cluster.wait_ready().unwrap();
    stage.expect([peer(1), peer(2)]);
    assert_eq!(stage.operations(), Operations::new());

    stage.cluster.node(0).agent().unwrap().kill().unwrap();
    stage.delete(peer_object(2));
    lags_behind(&api, &old);
    api.faults().next(1, On::list(Resource::Nodes), Fault::Stall);
    let agent = stage.cluster.node(0).agent().unwrap();
    agent.restart().unwrap();
    wait::until(wait::LONG, "the agent to wait for the store alone", || {
        agent.get("/readyz").is_ok_and(|response| {
            response.status == 503
                && response.body.lines().count() == 1
                && response.body.contains("from the API server's store")
        })
    })
    .unwrap();
    stage.expect([peer(1), peer(2)]);
    api.faults().clear();
    stage.cluster.wait_ready().unwrap();
    stage.expect([peer(1)]);
    stage.expect_log_lines(&["listing once more, from the API server's store"], 1);
    stage.expect_metric(RELISTS, |relists| relists == 1.0);
}
