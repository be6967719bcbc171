//! The watch of Nodes against a server that the test plays, on a paused clock: every trouble and what follows.

use std::sync::Arc;
use std::time::Duration;

use crate::server::{Asked, Server, Stream, list, node, told};
use routelet_model::{ClusterEvent, Resource};
use routelet_watcher::{ErrorKind, HostAddresses, Status, WatchState, WatchStatus};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The agent's watches; that of Pods gets an empty streaming list and is then left alone.
struct Setup {
    server: Server,
    events: mpsc::Receiver<ClusterEvent>,
    status: Arc<Status>,
    agent: JoinHandle<()>,
    _pods: Stream,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

const PODS: &str = "/api/v1/pods?";
const NODES: &str = "/api/v1/nodes?";
const STREAMING: &[&str] = &[
    "watch=true",
    "sendInitialEvents=true",
    "resourceVersionMatch=NotOlderThan",
];

impl Setup {
    /// Starts the agent and gives its first request for Nodes.
    async fn new() -> (Self, Asked) {
        let (mut server, client) = Server::new();
        let (sender, mut events) = mpsc::channel(1000);
        let status = Arc::new(Status::default());
        let agent = tokio::spawn(routelet_watcher::run(
            client,
            "n1".to_owned(),
            sender,
            status.clone(),
            HostAddresses::unknown(),
        ));
        let pods = server
            .next(PODS)
            .await
            .with(&["fieldSelector=spec.nodeName%3Dn1"])
            .stream();
        pods.end_list("1");
        let nodes = server.next(NODES).await.with(STREAMING);
        told(&mut events, &["pods"]).await;
        (
            Self {
                server,
                events,
                status,
                agent,
                _pods: pods,
            },
            nodes,
        )
    }

    /// Starts the agent, with Nodes a and b told by a streaming list at version 10.
    async fn synced() -> (Self, Stream) {
        let (mut setup, nodes) = Self::new().await;
        let stream = nodes.stream();
        stream.event("ADDED", node("a", 5, "10.0.1.0/24"));
        stream.event("ADDED", node("b", 6, "10.0.2.0/24"));
        stream.end_list("10");
        setup.told(&["+a", "+b", "nodes"]).await;
        (setup, stream)
    }

    /// The next request for Nodes, which has all of `parts` in its line.
    async fn expect(&mut self, parts: &[&str]) -> Asked {
        self.server.next(NODES).await.with(parts)
    }

    async fn told(&mut self, wanted: &[&str]) {
        told(&mut self.events, wanted).await;
    }

    fn nodes(&self) -> WatchStatus {
        self.status.get(Resource::Nodes)
    }

    fn errors(&self, kind: ErrorKind) -> u64 {
        self.nodes().errors.get(&kind).copied().unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_then_changes() {
    let (mut setup, stream) = Setup::synced().await;
    stream.event("ADDED", node("c", 11, "10.0.3.0/24"));
    stream.event("DELETED", node("a", 12, "10.0.1.0/24"));
    stream.event("MODIFIED", node("b", 13, "10.0.9.0/24"));
    setup.told(&["+c", "-a", "+b"]).await;
    let status = setup.nodes();
    assert!(matches!(status.state, WatchState::Watching));
    assert!(status.streaming_list && status.synced);
    assert_eq!((status.objects, status.relists), (2, 0));
}

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
async fn a_refused_streaming_list_is_remembered() {
    for (code, reason) in [(422, "Invalid"), (400, "BadRequest")] {
        let (mut setup, nodes) = Setup::new().await;
        nodes.status(code, reason, &[]);
        let asked = setup.expect(&["resourceVersion=0"]).await;
        assert!(
            !asked.line.contains("watch=") && !asked.line.contains("limit="),
            "{}",
            asked.line
        );
        asked.json(list(
            10,
            &[node("a", 5, "10.0.1.0/24"), node("b", 6, "10.0.2.0/24")],
        ));
        let stream = setup.expect(&["watch=true", "resourceVersion=10"]).await.stream();
        setup.told(&["+a", "+b", "nodes of a cache"]).await;
        // version too old: lists anew, as a document at once, at least as new as what is known
        stream.bookmark("15");
        stream.event(
            "ERROR",
            json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
        );
        let asked = setup
            .expect(&[
                "GET /api/v1/nodes?",
                "resourceVersion=15",
                "resourceVersionMatch=NotOlderThan",
            ])
            .await;
        assert!(!asked.line.contains("watch="), "{}", asked.line);
        asked.json(list(20, &[node("b", 6, "10.0.2.0/24")]));
        setup.expect(&["watch=true", "resourceVersion=20"]).await.stream();
        setup.told(&["-a", "nodes of a cache"]).await;
        let status = setup.nodes();
        assert!(!status.streaming_list);
        assert_eq!(status.relists, 1);
        assert_eq!(
            setup.errors(ErrorKind::Refused),
            0,
            "no error: the server is older, that is all"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ignores_the_parameter_never_ends_the_list() {
    let (mut setup, nodes) = Setup::new().await;
    let stream = nodes.stream();
    stream.event("ADDED", node("a", 5, "10.0.1.0/24"));
    setup.told(&["+a"]).await;
    let asked = setup.expect(&["resourceVersion=0"]).await;
    assert!(!asked.line.contains("watch="), "{}", asked.line);
    asked.json(list(10, &[node("a", 5, "10.0.1.0/24")]));
    setup.told(&["nodes of a cache"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_mute_server_is_not_taken_for_an_old_one() {
    let (mut setup, nodes) = Setup::new().await;
    let again = setup.expect(STREAMING).await; // the first is given up
    drop(nodes);
    again.stream().end_list("10");
    setup.told(&["nodes"]).await;
    assert_eq!(setup.errors(ErrorKind::Silent), 1);
    assert!(setup.nodes().streaming_list);
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_lists_anew_and_tells_what_is_gone() {
    let (mut setup, stream) = Setup::synced().await;
    stream.bookmark("15");
    stream.event(
        "ERROR",
        json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
    );
    let asked = setup.expect(STREAMING).await;
    assert!(
        asked.line.contains("resourceVersion=15"),
        "no older than what is known: {}",
        asked.line
    );
    let stream = asked.stream();
    stream.event("ADDED", node("b", 6, "10.0.2.0/24"));
    stream.event("ADDED", node("c", 16, "10.0.3.0/24"));
    stream.end_list("20");
    setup.told(&["+c", "-a", "nodes"]).await;
    assert_eq!(setup.errors(ErrorKind::Expired), 1);
    assert_eq!(setup.nodes().relists, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_restored_to_an_earlier_state_is_believed_in_the_end() {
    let (mut setup, stream) = Setup::synced().await;
    stream.cut();
    let asked = setup.expect(&["watch=true", "resourceVersion=10"]).await;
    let too_large = json!({"type": "ERROR", "object": {"kind": "Status", "code": 504, "reason": "Timeout",
        "message": "Too large resource version: 10, current: 3",
        "details": {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large"}]}}});
    asked.stream().raw(format!("{too_large}\n"));
    let asked = setup.expect(STREAMING).await;
    assert!(asked.line.ends_with("resourceVersion="), "{}", asked.line);
    let stream = asked.stream();
    stream.event("ADDED", node("a", 2, "10.0.1.0/24"));
    stream.end_list("3");
    setup.told(&["-b", "nodes"]).await;
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
async fn half_a_list_deletes_nothing() {
    let (mut setup, nodes) = Setup::new().await;
    nodes.status(422, "Invalid", &[]);
    let both = [node("a", 5, "10.0.1.0/24"), node("b", 6, "10.0.2.0/24")];
    setup.expect(&[]).await.json(list(10, &both));
    let stream = setup.expect(&["watch=true"]).await.stream();
    setup.told(&["+a", "+b", "nodes of a cache"]).await;
    stream.event(
        "ERROR",
        json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
    );
    let text = list(20, &both).to_string();
    setup
        .expect(&[])
        .await
        .stream()
        .raw(text[..text.len() * 2 / 3].to_owned());
    setup.expect(&[]).await.json(list(20, &both));
    setup.told(&["nodes of a cache"]).await;
    assert_eq!(setup.errors(ErrorKind::Cut), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broken_streaming_list_deletes_nothing() {
    let (mut setup, stream) = Setup::synced().await;
    stream.event(
        "ERROR",
        json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
    );
    let stream = setup.expect(STREAMING).await.stream();
    stream.event("ADDED", node("a", 5, "10.0.1.0/24"));
    stream.event("ADDED", node("c", 11, "10.0.3.0/24"));
    setup.told(&["+c"]).await;
    stream.cut();
    let stream = setup.expect(STREAMING).await.stream();
    stream.event("ADDED", node("b", 6, "10.0.2.0/24"));
    stream.event("ADDED", node("c", 11, "10.0.3.0/24"));
    stream.end_list("20");
    setup.told(&["-a", "nodes"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_older_than_what_was_told_deletes_nothing() {
    let expired = || json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
    let (mut setup, stream) = Setup::synced().await;
    stream.event("ERROR", expired());
    setup.expect(STREAMING).await.stream().end_list("9");
    // the store itself is asked then
    let asked = setup.expect(STREAMING).await;
    assert!(asked.line.ends_with("resourceVersion="), "{}", asked.line);
    let stream = asked.stream();
    stream.event("ADDED", node("a", 5, "10.0.1.0/24"));
    stream.end_list("20");
    setup.told(&["-b", "nodes"]).await;

    stream.event("ERROR", expired());
    setup.expect(STREAMING).await.status(422, "Invalid", &[]);
    setup.expect(&["resourceVersion=20"]).await.json(list(10, &[]));
    let asked = setup.expect(&[]).await;
    assert!(!asked.line.contains("resourceVersion="), "{}", asked.line);
    asked.json(list(10, &[]));
    setup.told(&["-a", "nodes"]).await;
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

/// An object that a list lacks counts as gone: none is skipped there.
#[tokio::test(start_paused = true)]
async fn garbage_within_a_list_deletes_nothing() {
    let (mut setup, stream) = Setup::synced().await;
    stream.event(
        "ERROR",
        json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
    );
    for _ in 0..3 {
        let stream = setup.expect(STREAMING).await.stream();
        stream.event("ADDED", node("a", 5, "10.0.1.0/24"));
        stream.raw("{]\n");
        stream.end_list("20");
    }
    let stream = setup.expect(STREAMING).await.stream();
    stream.event("ADDED", node("a", 5, "10.0.1.0/24"));
    stream.event("ADDED", node("b", 6, "10.0.2.0/24"));
    stream.event("ADDED", node("c", 7, "10.0.3.0/24"));
    stream.end_list("20");
    setup.told(&["+c", "nodes"]).await;
    assert_eq!(
        (setup.errors(ErrorKind::Garbage), setup.nodes().events_skipped),
        (3, 0)
    );
}

/// A first list from a cache may lack what another server has told others; who needs to know asks the store.
#[tokio::test(start_paused = true)]
async fn the_store_is_asked_where_a_cache_is_not_enough() {
    let (mut setup, nodes) = Setup::new().await;
    nodes.status(422, "Invalid", &[]);
    let a = node("a", 5, "10.0.1.0/24");
    setup
        .expect(&["resourceVersion=0"])
        .await
        .json(list(10, std::slice::from_ref(&a)));
    let _stream = setup.expect(&["watch=true", "resourceVersion=10"]).await.stream();
    setup.told(&["+a", "nodes of a cache"]).await;
    setup.status.ask_store_for_nodes();
    let asked = setup.expect(&[]).await;
    assert!(
        !asked.line.contains("resourceVersion=") && !asked.line.contains("watch="),
        "{}",
        asked.line
    );
    asked.json(list(12, &[a, node("b", 6, "10.0.2.0/24")]));
    setup.told(&["+b", "nodes"]).await;
}
