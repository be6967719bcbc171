//! Kubernetes Events against a server that the test plays.

use std::time::Duration;

use crate::server::Server;
use routelet_model::{PodId, Subject};
use routelet_watcher::events::{Notice, Publisher, Severity};
use serde_json::json;
use tokio::time::Instant;

const EVENTS: &str = "/apis/events.k8s.io/v1/";

fn notice(note: &str) -> Notice {
    Notice {
        subject: Subject::Pod {
            id: PodId {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
            },
            uid: "u1".to_owned(),
        },
        reason: "DuplicateAddress",
        note: note.to_owned(),
        severity: Severity::Warning,
    }
}

async fn created(server: &mut Server) -> serde_json::Value {
    let asked = server.next(EVENTS).await.with(&["POST"]);
    let body = asked.body.clone();
    asked.json(body.clone());
    body
}

#[tokio::test(start_paused = true)]
async fn one_event_with_all_that_the_api_wants() {
    let (mut server, client) = Server::new();
    let (publisher, work) = Publisher::new(client, "n1".to_owned());
    let work = tokio::spawn(work);
    publisher.publish(notice("two pods hold 10.0.0.1"));
    let event = created(&mut server).await;
    assert_eq!(event["metadata"]["namespace"], "shop");
    assert!(
        event["metadata"]["name"].as_str().unwrap().starts_with("web."),
        "{event}"
    );
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "web", "uid": "u1"})
    );
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&json!("DuplicateAddress"), &json!("Warning"))
    );
    assert_eq!(event["note"], "two pods hold 10.0.0.1");
    assert_eq!(
        (&event["reportingController"], &event["reportingInstance"]),
        (&json!("routelet"), &json!("n1"))
    );
    assert!(event["eventTime"].is_string() && event["action"].is_string());

    publisher.publish(Notice {
        subject: Subject::Node {
            name: "n2".to_owned(),
            uid: "u2".to_owned(),
        },
        note: "ü".repeat(2000),
        ..notice("")
    });
    let event = created(&mut server).await;
    assert_eq!(event["metadata"]["namespace"], "kube-system");
    assert_eq!(event["note"].as_str().unwrap().len(), 1024);
    drop(publisher);
    work.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn repetitions_become_a_series() {
    let (mut server, client) = Server::new();
    let (publisher, work) = Publisher::new(client, "n1".to_owned());
    tokio::spawn(work);
    for _ in 0..5 {
        publisher.publish(notice("a"));
    }
    publisher.publish(notice("b"));
    let first = created(&mut server).await;
    assert_eq!(first["note"], "a");
    assert_eq!(
        created(&mut server).await["note"],
        "b",
        "another note is another Event"
    );
    assert_eq!(publisher.counts().folded(), 4);
    tokio::time::advance(Duration::from_secs(601)).await;
    publisher.publish(notice("a"));
    let name = first["metadata"]["name"].as_str().unwrap();
    let asked = server
        .next(EVENTS)
        .await
        .with(&["PATCH", "/namespaces/shop/events/", name]);
    assert_eq!(asked.body["series"]["count"], 6);
    assert!(asked.body["series"]["lastObservedTime"].is_string());
    asked.status(404, "NotFound", &[]);
    assert_eq!(
        created(&mut server).await["note"],
        "a",
        "the server has forgotten it: a new one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_held_back_and_never_blocks() {
    let (mut server, client) = Server::new();
    let (publisher, work) = Publisher::new(client, "n1".to_owned());
    tokio::spawn(work);
    for number in 0..1000 {
        publisher.publish(notice(&number.to_string()));
    }
    assert_eq!(publisher.counts().dropped(), 1000 - 64);
    let began = Instant::now();
    for _ in 0..20 {
        created(&mut server).await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    for _ in 0..4 {
        created(&mut server).await;
    }
    assert_eq!(began.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn failures_end_nothing() {
    let (mut server, client) = Server::new();
    let (publisher, work) = Publisher::new(client, "n1".to_owned());
    tokio::spawn(work);
    publisher.publish(notice("a"));
    server.next(EVENTS).await.status(403, "Forbidden", &[]);
    publisher.publish(notice("b"));
    let _unanswered = server.next(EVENTS).await;
    publisher.publish(notice("a"));
    assert_eq!(
        created(&mut server).await["note"],
        "a",
        "what was not written is not remembered"
    );
    assert_eq!(publisher.counts().failed(), 2);
}
