//! Streaming lists (KEP-3157) of the real code: at the start, and anew once a watch has expired.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use routelet_lab::{Backend, api_machinery, skip, wait};

use crate::server;
use crate::support::{Stage, peer, peer_object, pod};

const RESOURCES: [&str; 2] = ["nodes", "pods"];

/// The queries of requests for this resource that the server has logged, each once it was over.
fn queries(stage: &mut Stage, resource: &str) -> Vec<String> {
    let begin = format!("URI=\"/api/v1/{resource}?");
    let lines = server(&mut stage.cluster).log();
    let query = |line: &String| Some(line.split_once(&begin)?.1.split_once('"')?.0.to_owned());
    lines
        .iter()
        .filter(|line| line.contains("userAgent=\"routelet"))
        .filter_map(query)
        .collect()
}

#[test]
fn the_first_list_is_streamed_and_as_new_as_the_store() {
    if let Err(reason) = api_machinery::assets() {
        skip!("{reason}");
    }
    let mut stage = Stage::with_agent(Backend::ApiMachinery, 1..=3);
    stage.add_pod("web", 2);
    stage.expect([peer(1), peer(2), peer(3), pod("web", "10.244.1.2")]);
    for resource in RESOURCES {
        let resource = format!("resource={resource}");
        stage.expect_log_lines(&[" listed ", &resource, "streaming=true"], 1);
    }
    stage.expect_log_lines(&["streaming=false"], 0);

    stage.cluster.node(0).agent().unwrap().kill().unwrap();
    for resource in RESOURCES {
        let mut found = Vec::new();
        wait::until(wait::LONG, "the server's word of the watch", || {
            found = queries(&mut stage, resource);
            !found.is_empty()
        })
        .unwrap();
        let [query] = &found[..] else {
            panic!("several requests: {found:?}")
        };
        let asked: Vec<&str> = query.split('&').collect();
        assert!(
            asked.contains(&"watch=true") && asked.contains(&"sendInitialEvents=true"),
            "{query}"
        );
        // With a version, the server's cache would answer as it is.
        let version = asked
            .iter()
            .find_map(|pair| pair.strip_prefix("resourceVersion="));
        assert_eq!(version.unwrap_or_default(), "", "{query}");
    }
}

#[test]
fn what_went_while_a_watch_expired_is_taken_out_of_the_kernel() {
    if let Err(reason) = api_machinery::assets() {
        skip!("{reason}");
    }
    let mut stage = Stage::with_agent(Backend::ApiMachinery, 1..=3);
    for (name, host) in [("web", 2), ("db", 3)] {
        stage.add_pod(name, host);
    }
    let (web, db) = (pod("web", "10.244.1.2"), pod("db", "10.244.1.3"));
    stage.expect([peer(1), peer(2), peer(3), web, db.clone()]);
    let before = stage.settled_operations();

    let pid = Pid::from_raw(stage.agent().pid().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    server(&mut stage.cluster).restart().unwrap();
    stage.delete(peer_object(2));
    stage.delete(stage.pod_object("web", 2));
    // A server that has just been started knows the events since then only.
    server(&mut stage.cluster).restart().unwrap();
    kill(pid, Signal::SIGCONT).unwrap();

    stage.expect([peer(1), peer(3), db]);
    for resource in RESOURCES {
        let resource = format!("resource={resource}");
        stage.expect_log(&["the watch has expired", &resource, "410"]);
        stage.expect_log(&["listed anew", &resource, "streaming=true"]);
    }
    let deleted = [
        ("fdb delete", 1),
        ("neighbour delete", 1),
        ("nexthop delete", 1),
        ("nft_element delete", 2),
        ("route delete", 2),
    ];
    stage.expect_operations(&before, &deleted);
}
