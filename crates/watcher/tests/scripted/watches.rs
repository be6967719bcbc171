//! The watch of Nodes: every trouble and what follows.

use std::time::Duration;

use crate::server::node;
use routelet_model::ClusterEvent;
use routelet_watcher::{ErrorKind, WatchState};
use serde_json::json;
use tokio::time::Instant;

use crate::setup::{NODES, STREAMING, Setup};

#[tokio::test(start_paused = true)]
async fn heartbeats_end_here() {
    let (mut setup, stream) = Setup::synced().await;
    for version in 11..1011 {
        let mut heartbeat = node("a", version, "10.0.1.0/24");
        heartbeat["status"]["conditions"] = json!([{"type": "Ready", "lastHeartbeatTime": version}]);
        stream.event("MODIFIED", heartbeat);
    }
    stream.event("MODIFIED", node("a", 2000, "10.0.7.0/24"));
    setup.told(&["+a"]).await;
    assert_eq!(setup.nodes().events_dropped_unchanged, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_resumes_where_it_was() {
    let (mut setup, stream) = Setup::synced().await;
    stream.event("ADDED", node("c", 11, "10.0.3.0/24"));
    setup.told(&["+c"]).await;
    stream.cut();
    let asked = setup.expect(&["watch=true", "resourceVersion=11"]).await;
    assert!(!asked.line.contains("sendInitialEvents"), "{}", asked.line);
    assert!(matches!(
        setup.nodes().state,
        WatchState::Failing {
            kind: ErrorKind::Cut,
            attempts: 1,
            ..
        }
    ));
    let stream = asked.stream();
    stream.event("DELETED", node("c", 12, "10.0.3.0/24"));
    setup.told(&["-c"]).await;
    assert!(matches!(setup.nodes().state, WatchState::Watching));
    assert_eq!(setup.nodes().relists, 0);
}

#[tokio::test(start_paused = true)]
async fn half_an_event_is_told_again() {
    let (mut setup, stream) = Setup::synced().await;
    let event = json!({"type": "ADDED", "object": node("c", 11, "10.0.3.0/24")}).to_string();
    stream.raw(event[..event.len() / 2].to_owned());
    drop(stream);
    let stream = setup.expect(&["watch=true", "resourceVersion=10"]).await.stream();
    // in pieces, with a bookmark in the same piece as the end
    for byte in event.bytes() {
        stream.raw(vec![byte]);
    }
    stream.raw("\n{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Node\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"30\"}}}\n");
    setup.told(&["+c"]).await;
    assert_eq!(setup.errors(ErrorKind::Cut), 1);
    drop(stream);
    setup.expect(&["watch=true", "resourceVersion=30"]).await;
}

#[tokio::test(start_paused = true)]
async fn garbage_is_asked_for_again_and_then_skipped() {
    let (mut setup, stream) = Setup::synced().await;
    stream.raw("{]\n");
    let stream = setup.expect(&["watch=true", "resourceVersion=10"]).await.stream();
    assert_eq!(setup.errors(ErrorKind::Garbage), 1);
    stream.raw("{]\n");
    stream.event("ADDED", node("c", 12, "10.0.3.0/24"));
    setup.told(&["+c"]).await;
    assert_eq!(setup.nodes().events_skipped, 1);
    assert!(setup.server.is_quiet(NODES));
}

#[tokio::test(start_paused = true)]
async fn odd_objects_do_not_stop_the_others() {
    let (mut setup, stream) = Setup::synced().await;
    stream.event(
        "ADDED",
        json!({"metadata": {"name": "odd", "resourceVersion": "11"}, "spec": "rubbish",
        "status": {"addresses": {"not": "a list"}}}),
    );
    stream.event("ADDED", json!({"metadata": {"resourceVersion": "12"}}));
    stream.event("ADDED", node("c", 13, "bogus"));
    setup.told(&["+odd"]).await;
    let Some(ClusterEvent::NodeApplied(c)) = setup.events.recv().await else {
        panic!("no Node c")
    };
    assert_eq!(c.name, "c");
    assert_eq!(c.unreadable.len(), 1);
    assert_eq!(
        (c.unreadable[0].field, c.unreadable[0].value.as_str()),
        ("spec.podCIDRs", "bogus")
    );
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let (mut setup, nodes) = Setup::new().await;
    let asked_at = Instant::now();
    nodes.status(429, "TooManyRequests", &[("retry-after", "7")]);
    let again = setup.expect(STREAMING).await;
    let waited = asked_at.elapsed();
    assert!(
        waited >= Duration::from_secs(7) && waited < Duration::from_secs(8),
        "{waited:?}"
    );
    assert_eq!(setup.errors(ErrorKind::Throttled), 1);
    again.stream().end_list("10");
    setup.told(&["nodes"]).await;
}

#[tokio::test(start_paused = true)]
async fn errors_back_off_and_never_end_it() {
    let (mut setup, nodes) = Setup::new().await;
    nodes.status(500, "InternalError", &[]);
    let mut waits = Vec::new();
    for round in 0..20 {
        let before = Instant::now();
        let asked = setup.expect(STREAMING).await;
        waits.push(before.elapsed());
        match round % 3 {
            0 => asked.refuse(),
            1 => asked.status(503, "ServiceUnavailable", &[]),
            _ => asked.status(403, "Forbidden", &[]),
        }
    }
    assert!(waits[0] <= Duration::from_millis(200), "{waits:?}");
    assert!(
        waits[12..]
            .iter()
            .all(|w| *w >= Duration::from_secs(15) && *w <= Duration::from_secs(31)),
        "{waits:?}"
    );
    let stream = setup.expect(STREAMING).await.stream();
    let status = setup.nodes();
    assert!(
        matches!(status.state, WatchState::Failing { attempts: 21, .. }),
        "{:?}",
        status.state
    );
    assert_eq!(status.errors.values().sum::<u64>(), 21);
    assert_eq!(setup.errors(ErrorKind::Denied), 6);
    stream.end_list("10");
    setup.told(&["nodes"]).await;
    assert!(matches!(setup.nodes().state, WatchState::Watching));
    // after it held for a while, the next trouble begins with a short wait again
    tokio::time::advance(Duration::from_secs(10)).await;
    stream.bookmark("11");
    tokio::task::yield_now().await;
    let before = Instant::now();
    stream.cut();
    setup.expect(&["watch=true"]).await;
    assert!(before.elapsed() <= Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_made_anew() {
    let (mut setup, stream) = Setup::synced().await;
    let asked = setup.expect(&["watch=true", "resourceVersion=10"]).await;
    assert!(!asked.line.contains("sendInitialEvents"), "{}", asked.line);
    assert_eq!(setup.errors(ErrorKind::Silent), 1);
    drop(stream);
    asked.stream().event("ADDED", node("c", 11, "10.0.3.0/24"));
    setup.told(&["+c"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_in_due_course_is_no_trouble() {
    let (mut setup, stream) = Setup::synced().await;
    tokio::time::advance(Duration::from_secs(60)).await;
    stream.bookmark("40");
    tokio::task::yield_now().await;
    let before = Instant::now();
    drop(stream);
    setup.expect(&["watch=true", "resourceVersion=40"]).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert!(setup.nodes().errors.is_empty());
    assert!(matches!(setup.nodes().state, WatchState::Connecting));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_each_watch_at_once_is_not_hammered() {
    let (mut setup, stream) = Setup::synced().await;
    drop(stream);
    let before = Instant::now();
    for _ in 0..12 {
        drop(setup.expect(&["watch=true", "resourceVersion=10"]).await.stream());
    }
    assert!(
        before.elapsed() > Duration::from_secs(30),
        "{:?}",
        before.elapsed()
    );
}

/// What fails after a long time did not work so long: it is asked for ever more rarely, too.
#[tokio::test(start_paused = true)]
async fn a_server_that_stays_mute_is_asked_ever_more_rarely() {
    let (mut setup, nodes) = Setup::new().await;
    // Not dropped: that would refuse it.
    let mut mute = vec![nodes];
    let mut waits = Vec::new();
    for _ in 0..12 {
        let before = Instant::now();
        mute.push(setup.expect(STREAMING).await);
        waits.push(before.elapsed() - Duration::from_secs(30));
    }
    assert!(waits[0] <= Duration::from_millis(200), "{waits:?}");
    let last = &waits[10..];
    assert!(
        last.iter().all(|wait| *wait >= Duration::from_secs(15)),
        "{waits:?}"
    );
}
