//! Watches: the client's watcher on a server that behaves.

use std::time::Duration;

use futures::StreamExt;
use kube::api::{WatchEvent, WatchParams};
use kube::runtime::watcher::{Config, watcher};
use routelet_lab::api::{Resource, Verb, objects};
use serde_json::json;

use crate::support::{Events, Lab};

fn annotate(lab: &Lab, node: &str, value: &str) -> u64 {
    let patch = json!({"metadata": {"annotations": {"test": value}}});
    lab.api
        .patch(Resource::Nodes, node, patch)
        .unwrap()
        .resource_version
}

#[tokio::test]
async fn list_then_changes() {
    let lab = Lab::with_nodes(&["a", "b"]);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "listed b", "done"]).await;
    lab.api.create(Resource::Nodes, objects::node("c")).unwrap();
    annotate(&lab, "a", "1");
    lab.api.delete(Resource::Nodes, "b").unwrap();
    events.expect(&["applied c", "applied a", "deleted b"]).await;
    let counters = lab.api.counters();
    assert_eq!(counters.open_watches(Resource::Nodes), 1);
    assert_eq!(counters.requests(Resource::Nodes, Verb::Watch), 1);
    drop(events);
    lab.wait_for(|counters| counters.open_watches(Resource::Nodes) == 0)
        .await;
}

#[tokio::test]
async fn streaming_list_then_changes() {
    let lab = Lab::with_nodes(&["a", "b"]);
    let mut events = lab.watch_nodes(Config::default().streaming_lists());
    events.expect(&["init", "listed a", "listed b", "done"]).await;
    lab.api.create(Resource::Nodes, objects::node("c")).unwrap();
    events.expect(&["applied c"]).await;
    assert_eq!(lab.api.counters().requests(Resource::Nodes, Verb::List), 0);
}

#[tokio::test]
async fn a_streaming_list_of_nothing_ends_too() {
    let lab = Lab::with_nodes(&[]);
    lab.watch_nodes(Config::default().streaming_lists())
        .expect(&["init", "done"])
        .await;
}

#[tokio::test]
async fn an_old_server_refuses_a_streaming_list_and_serves_a_list() {
    let lab = Lab::with_nodes(&["a"]);
    lab.api.streaming_lists(false);
    lab.watch_nodes(Config::default().streaming_lists())
        .expect_error("sendInitialEvents is forbidden")
        .await;
    lab.watch_nodes(Config::default())
        .expect(&["init", "listed a", "done"])
        .await;
}

#[tokio::test]
async fn a_watch_resumes_without_a_new_list_and_misses_nothing() {
    let lab = Lab::with_nodes(&["a"]);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "done"]).await;
    annotate(&lab, "a", "1");
    events.expect(&["applied a"]).await;
    lab.server.stop().unwrap();
    lab.wait_for(|counters| counters.open_watches(Resource::Nodes) == 0)
        .await;
    lab.api.create(Resource::Nodes, objects::node("b")).unwrap();
    lab.server.start().unwrap();
    events.recover(&["applied b"]).await;
    assert_eq!(lab.api.counters().requests(Resource::Nodes, Verb::List), 1);
}

#[tokio::test]
async fn a_version_that_history_has_lost_is_a_410_in_the_stream() {
    let lab = Lab::with_nodes(&["a", "b"]);
    lab.api.compact();
    let mut stream = Box::pin(lab.nodes().watch(&WatchParams::default(), "2").await.unwrap());
    let Some(Ok(WatchEvent::Error(status))) = stream.next().await else {
        panic!("an ERROR event")
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(stream.next().await.is_none());
    // The version of the compaction itself can be watched from.
    let present = lab.api.resource_version().to_string();
    let mut stream = Box::pin(
        lab.nodes()
            .watch(&WatchParams::default(), &present)
            .await
            .unwrap(),
    );
    annotate(&lab, "a", "1");
    assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Modified(_)))));
}

#[tokio::test]
async fn compaction_while_away_leads_to_a_new_list() {
    let lab = Lab::with_nodes(&["a", "b"]);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "listed b", "done"]).await;
    annotate(&lab, "a", "1");
    events.expect(&["applied a"]).await; // so the watch is open
    lab.server.stop().unwrap();
    lab.api.delete(Resource::Nodes, "b").unwrap();
    lab.api.compact();
    lab.server.start().unwrap();
    events.recover(&["init", "listed a", "done"]).await;
}

#[tokio::test]
async fn compaction_does_not_disturb_an_open_watch_that_is_up_to_date() {
    let lab = Lab::with_nodes(&["a"]);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "done"]).await;
    annotate(&lab, "a", "1");
    events.expect(&["applied a"]).await;
    lab.api.create(Resource::Pods, objects::pod("x", "p")).unwrap(); // the revision moves on without a node event
    lab.api.compact();
    annotate(&lab, "a", "2");
    events.expect(&["applied a"]).await;
}

#[tokio::test]
async fn bookmarks_move_the_version_on_where_nothing_changes() {
    let lab = Lab::with_nodes(&["a"]);
    lab.api.bookmark_interval(Duration::from_millis(20));
    let present = lab.api.resource_version();
    let watch = lab
        .nodes()
        .watch(&WatchParams::default(), &present.to_string())
        .await
        .unwrap();
    let mut stream = Box::pin(watch);
    let created = lab.api.create(Resource::Pods, objects::pod("x", "p")).unwrap();
    loop {
        let Some(Ok(WatchEvent::Bookmark(bookmark))) = stream.next().await else {
            panic!("a bookmark")
        };
        let version: u64 = bookmark.metadata.resource_version.parse().unwrap();
        assert!((present..=created.resource_version).contains(&version));
        if version == created.resource_version {
            break;
        }
    }
}

#[tokio::test]
async fn a_bookmark_on_demand_saves_the_watcher_from_compaction() {
    let lab = Lab::with_nodes(&["a"]);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "done"]).await;
    for n in 0..10 {
        lab.api
            .create(Resource::Pods, objects::pod("x", &format!("p{n}")))
            .unwrap();
    }
    let watching = tokio::spawn(async move {
        events.expect(&["applied b"]).await;
    });
    lab.wait_for(|counters| counters.open_watches(Resource::Nodes) == 1)
        .await;
    let before = lab.api.counters().bytes_sent(Resource::Nodes, Verb::Watch);
    lab.api.faults().bookmark_watches(Resource::Nodes);
    lab.wait_for(move |counters| counters.bytes_sent(Resource::Nodes, Verb::Watch) > before)
        .await;
    lab.api.faults().end_watches(Resource::Nodes);
    lab.api.compact();
    lab.wait_for(|counters| counters.requests(Resource::Nodes, Verb::Watch) == 2)
        .await;
    lab.api.create(Resource::Nodes, objects::node("b")).unwrap();
    watching.await.unwrap();
}

#[tokio::test]
async fn a_selected_watch_sees_objects_come_into_and_go_out_of_its_sight() {
    let lab = Lab::with_nodes(&["a"]);
    lab.api
        .create(Resource::Pods, objects::pod("default", "here").node("a"))
        .unwrap();
    lab.api
        .create(Resource::Pods, objects::pod("default", "there").node("b"))
        .unwrap();
    let config = Config::default().fields("spec.nodeName=a,status.phase!=Failed");
    let mut events = Events::of(watcher(lab.pods(), config));
    events.expect(&["init", "listed here", "done"]).await;
    let phase = |name: &str, phase: &str| {
        lab.api
            .patch(Resource::Pods, name, json!({"status": {"phase": phase}}))
            .unwrap();
    };
    lab.api
        .create(Resource::Pods, objects::pod("default", "new"))
        .unwrap();
    lab.api
        .patch(Resource::Pods, "new", json!({"spec": {"nodeName": "a"}}))
        .unwrap();
    phase("there", "Running"); // out of sight: no event
    phase("here", "Running");
    phase("here", "Failed");
    phase("here", "Running");
    lab.api.delete(Resource::Pods, "here").unwrap();
    lab.api.delete(Resource::Pods, "there").unwrap(); // out of sight
    lab.api.delete(Resource::Pods, "new").unwrap();
    events
        .expect(&[
            "applied new",
            "applied here",
            "deleted here",
            "applied here",
            "deleted here",
            "deleted new",
        ])
        .await;
}

#[tokio::test]
async fn event_types_of_a_selected_watch() {
    let lab = Lab::with_nodes(&[]);
    let present = lab.api.resource_version().to_string();
    let params = WatchParams::default().fields("spec.nodeName=a");
    let mut stream = Box::pin(lab.pods().watch(&params, &present).await.unwrap());
    lab.api
        .create(Resource::Pods, objects::pod("default", "p"))
        .unwrap();
    let bound = lab
        .api
        .patch(Resource::Pods, "p", json!({"spec": {"nodeName": "a"}}))
        .unwrap();
    let Some(Ok(WatchEvent::Added(pod))) = stream.next().await else {
        panic!("ADDED")
    };
    assert_eq!(
        pod.metadata.resource_version,
        Some(bound.resource_version.to_string())
    );
    let moved = lab
        .api
        .patch(Resource::Pods, "p", json!({"spec": {"nodeName": "b"}}))
        .unwrap();
    let Some(Ok(WatchEvent::Deleted(pod))) = stream.next().await else {
        panic!("DELETED")
    };
    assert_eq!(
        pod.metadata.resource_version,
        Some(moved.resource_version.to_string())
    );
    assert_eq!(
        pod.spec.unwrap().node_name.as_deref(),
        Some("a"),
        "a deletion shows the state that was seen last"
    );
}

#[tokio::test]
async fn a_watch_from_no_version_begins_with_what_is_there() {
    let lab = Lab::with_nodes(&["a"]);
    let mut stream = Box::pin(lab.nodes().watch(&WatchParams::default(), "0").await.unwrap());
    assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Added(_)))));
    annotate(&lab, "a", "1");
    assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Modified(_)))));
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let lab = Lab::with_nodes(&["a"]);
    let present = lab.api.resource_version().to_string();
    let watch = lab
        .nodes()
        .watch(&WatchParams::default().timeout(1), &present)
        .await
        .unwrap();
    assert_eq!(watch.count().await, 0);
}

#[tokio::test]
async fn heartbeats_are_changes_and_tell_when_they_were_sent() {
    let lab = Lab::with_nodes(&["a"]);
    let present = lab.api.resource_version().to_string();
    let mut stream = Box::pin(
        lab.nodes()
            .watch(&WatchParams::default(), &present)
            .await
            .unwrap(),
    );
    let mut times = Vec::new();
    for _ in 0..3 {
        let change = lab.api.heartbeat("a").unwrap();
        let Some(Ok(WatchEvent::Modified(node))) = stream.next().await else {
            panic!("MODIFIED")
        };
        assert_eq!(
            node.metadata.resource_version,
            Some(change.resource_version.to_string())
        );
        assert!(change.first_sent().is_some());
        let conditions = node.status.unwrap().conditions.unwrap();
        times.push(conditions.last().unwrap().last_heartbeat_time.clone().unwrap());
    }
    times.dedup();
    assert_eq!(times.len(), 3);
}

#[tokio::test]
async fn a_watch_that_history_has_overtaken_gets_410() {
    let lab = Lab::with_nodes(&["a"]);
    lab.api.keep_history(2);
    let mut events = lab.watch_nodes(Config::default());
    events.expect(&["init", "listed a", "done"]).await;
    let watching = tokio::spawn(async move {
        events.expect_error("too old resource version").await;
        events.expect(&["init", "listed a", "done"]).await;
    });
    lab.wait_for(|counters| counters.open_watches(Resource::Nodes) == 1)
        .await;
    lab.api.faults().silence_watches(Resource::Nodes);
    for _ in 0..5 {
        lab.api.heartbeat("a").unwrap();
    }
    lab.api.faults().clear();
    watching.await.unwrap();
}
