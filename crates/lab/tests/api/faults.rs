//! Each kind of misbehaviour, as the client meets it.

use std::time::Duration;

use kube::Error;
use kube::api::ListParams;
use kube::runtime::watcher::Config;
use routelet_lab::api::{Fault, Garbage, On, Resource, Status, Verb, objects};

use crate::support::Lab;

const NODES: Resource = Resource::Nodes;

#[tokio::test]
async fn refusals_for_the_next_few_then_none() {
    let lab = Lab::with_nodes(&["a"]);
    for code in [429, 500, 503, 401, 403] {
        let status = Status::new(code, "not now").retry_after(Duration::from_secs(3));
        lab.api.faults().next(2, On::list(NODES), Fault::Status(status));
        for _ in 0..2 {
            let error = lab.nodes().list(&ListParams::default()).await.unwrap_err();
            let Error::Api(status) = error else {
                panic!("an API error, not {error:?}")
            };
            assert_eq!((status.code, status.message.as_str()), (code, "not now"));
            assert_eq!(status.details.unwrap().retry_after_seconds, 3);
        }
        lab.nodes().list(&ListParams::default()).await.unwrap();
    }
    assert_eq!(lab.api.counters().faults, 10);
}

#[tokio::test]
async fn a_fault_is_for_its_resource_and_verb_only() {
    let lab = Lab::with_nodes(&["a"]);
    lab.api.faults().always(On::list(Resource::Pods), Fault::Drop);
    lab.api.faults().always(On::verb(Verb::Watch), Fault::Drop);
    lab.nodes().list(&ListParams::default()).await.unwrap();
    lab.pods().list(&ListParams::default()).await.unwrap_err();
    lab.api.faults().clear();
    lab.pods().list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn dropped_and_stalled_requests() {
    let lab = Lab::with_nodes(&["a"]);
    lab.api.faults().next(1, On::ANY, Fault::Drop);
    let error = lab.nodes().list(&ListParams::default()).await.unwrap_err();
    assert!(
        matches!(error, Error::HyperError(_) | Error::Service(_)),
        "{error:?}"
    );

    lab.api.faults().next(1, On::ANY, Fault::Stall);
    let nodes = lab.nodes();
    let stalled = tokio::spawn(async move { nodes.list(&ListParams::default()).await });
    lab.wait_for(|counters| counters.faults == 2).await;
    lab.nodes().get("a").await.unwrap(); // others are served meanwhile
    assert!(!stalled.is_finished());
    lab.api.faults().clear();
    assert_eq!(stalled.await.unwrap().unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_slow_answer_comes_whole() {
    let lab = Lab::with_nodes(&["a"]);
    let slow = Fault::Slow {
        bytes: 100,
        delay: Duration::from_millis(1),
    };
    lab.api.faults().next(1, On::list(NODES), slow);
    assert_eq!(
        lab.nodes()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}

#[tokio::test]
async fn garbage_in_place_of_a_list() {
    let lab = Lab::with_nodes(&["a"]);
    for garbage in [Garbage::HalfDocument, Garbage::NotJson, Garbage::WrongShape] {
        lab.api.faults().next(1, On::list(NODES), Fault::Garbage(garbage));
        let error = lab.nodes().list(&ListParams::default()).await.unwrap_err();
        assert!(!matches!(error, Error::Api(_)), "{error:?}");
    }
    lab.nodes().list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_stale_list_then_a_watch_that_catches_up() {
    let lab = Lab::with_nodes(&["a"]);
    let old = lab.api.snapshot(NODES);
    lab.api.create(NODES, objects::node("b")).unwrap();
    lab.api.delete(NODES, "a").unwrap();
    lab.api.faults().next(1, On::list(NODES), Fault::Stale(old));
    let mut events = lab.watch_nodes(Config::default());
    events
        .expect(&["init", "listed a", "done", "applied b", "deleted a"])
        .await;
}

#[tokio::test]
async fn expired_at_the_start_and_in_mid_stream() {
    let lab = Lab::with_nodes(&["a"]);
    lab.api.faults().next(1, On::list(NODES), Fault::Expired);
    lab.api.faults().next(1, On::watch(NODES), Fault::Expired);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init"]).await;
    events.expect_error("too old").await; // the list
    events.expect(&["init", "listed a", "done"]).await;
    events.expect_error("410").await; // the watch
    events.expect(&["init", "listed a", "done"]).await;
    let watching = tokio::spawn(async move {
        events.expect_error("410").await;
        events.expect(&["init", "listed a", "done"]).await;
    });
    lab.wait_for(|counters| counters.open_watches(NODES) == 1).await;
    lab.api.faults().expire_watches(NODES);
    watching.await.unwrap();
}

#[tokio::test]
async fn cut_ended_and_garbled_watches_are_resumed() {
    let lab = Lab::with_nodes(&["a"]);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "done"]).await;
    let harms: [&dyn Fn(); 5] = [
        &|| lab.api.faults().cut_watches(NODES),
        &|| lab.api.faults().end_watches(None),
        &|| lab.api.faults().garble_watches(NODES, Garbage::HalfDocument),
        &|| lab.api.faults().garble_watches(NODES, Garbage::NotJson),
        &|| lab.api.faults().garble_watches(NODES, Garbage::WrongShape),
    ];
    lab.api.heartbeat("a").unwrap();
    events.expect(&["applied a"]).await; // so the watch is open
    for harm in harms {
        harm();
        lab.api.heartbeat("a").unwrap();
        events.recover(&["applied a"]).await;
    }
    assert_eq!(lab.api.counters().requests(NODES, Verb::List), 1);
}

#[tokio::test]
async fn a_watch_that_fails_with_another_error_goes_on_or_is_resumed() {
    let lab = Lab::with_nodes(&["a"]);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "done"]).await;
    lab.api.heartbeat("a").unwrap();
    events.expect(&["applied a"]).await;
    lab.api
        .faults()
        .fail_watches(NODES, Status::new(500, "etcdserver: no leader"));
    events.expect_error("no leader").await;
    lab.api.heartbeat("a").unwrap();
    events.recover(&["applied a"]).await;
}

#[tokio::test]
async fn a_silent_watch_says_nothing_until_it_may_and_then_all() {
    let lab = Lab::with_nodes(&["a"]);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "done"]).await;
    lab.api.heartbeat("a").unwrap();
    events.expect(&["applied a"]).await;
    lab.api.faults().silence_watches(NODES);
    let before = lab.api.counters().bytes_sent(NODES, Verb::Watch);
    lab.api.create(NODES, objects::node("b")).unwrap();
    lab.api.create(NODES, objects::node("c")).unwrap();
    // A second watch, not silent, shows that the server had its chance to send.
    let mut other = lab.watch_nodes(Config::default().fields("metadata.name=d"));
    other.expect(&["init", "done"]).await;
    let present = lab.api.create(NODES, objects::node("d")).unwrap();
    other.expect(&["applied d"]).await;
    assert!(present.first_sent().is_some());
    let sent = lab.api.counters().bytes_sent(NODES, Verb::Watch) - before;
    assert!(sent < 2_000, "only the event of d was sent, but {sent} bytes");
    lab.api.faults().clear();
    events.expect(&["applied b", "applied c", "applied d"]).await;
}

#[tokio::test]
async fn refused_connections_leave_open_ones_alone() {
    let lab = Lab::with_nodes(&["a"]);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "done"]).await;
    lab.api.heartbeat("a").unwrap();
    events.expect(&["applied a"]).await;
    lab.server.refuse().unwrap();
    std::net::TcpStream::connect(lab.server.address()).unwrap_err();
    lab.api.heartbeat("a").unwrap();
    events.expect(&["applied a"]).await;
    lab.server.start().unwrap();
    std::net::TcpStream::connect(lab.server.address()).unwrap();
}

#[tokio::test]
async fn a_stopped_server_comes_back_with_what_it_had() {
    let lab = Lab::with_nodes(&["a"]);
    lab.nodes().list(&ListParams::default()).await.unwrap();
    lab.server.stop().unwrap();
    lab.nodes().list(&ListParams::default()).await.unwrap_err();
    lab.server.start().unwrap();
    assert_eq!(
        lab.nodes()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let address = lab.server.address();
    drop(lab.server);
    std::net::TcpStream::connect(address).unwrap_err();
}
