//! Lists of Nodes: streaming and plain, broken off, old, asked for once more.

use crate::server::{list, node};
use routelet_watcher::{ErrorKind, WatchState};
use serde_json::json;

use crate::setup::{STREAMING, Setup};

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
