//! `routelet status` beside a real agent: what it shows, and its exit codes.

use std::net::IpAddr;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use routelet_lab::{TempDir, wait};
use serde_json::Value;

use crate::program::{routelet, told};
use crate::stage::{NO_AUDIT, Stage, delete};

/// Exit code, standard output, standard error.
fn status(socket: &Path, words: &[&str]) -> (i32, String, String) {
    told(
        routelet(&["status"])
            .args(words)
            .arg("--admin-socket")
            .arg(socket),
    )
}

/// The words of the line that begins with these.
fn line<'a>(text: &'a str, beginning: &str) -> Vec<&'a str> {
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with(beginning));
    line.unwrap_or_else(|| panic!("no {beginning:?} in:\n{text}"))
        .split_whitespace()
        .collect()
}

#[test]
fn a_node_that_is_well_is_shown_in_tables_and_ends_with_0() {
    let mut stage = Stage::with_web();
    let (socket, veth) = (stage.agent().socket(), stage.veth("web").to_string());
    let (code, text, stderr) = status(&socket, &[]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{text}");
    assert_eq!(line(&text, "Node"), ["Node", "node-1"]);
    assert!(
        line(&text, "Agent")
            .join(" ")
            .starts_with("Agent ready, in sync; version"),
        "{text}"
    );
    assert_eq!(line(&text, "Encapsulation")[1], "vxlan");
    assert_eq!(
        line(&text, "Pods").join(" "),
        format!(
            "Pods 10.244.1.0/24, from {}/16 on eth0 by vxlan.calico, MTU 1450",
            stage.cluster.nodes()[0].node.address(routelet_model::Family::V4)
        )
    );
    assert_eq!(line(&text, "API")[1..5], ["pods", "watching,", "1", "objects,"]);
    assert_eq!(line(&text, "Last repair"), ["Last", "repair", "none"]);
    assert_eq!(line(&text, "route "), ["route", "5", "5", "0"]);
    assert_eq!(
        line(&text, "peer-2").join(" "),
        "peer-2 10.128.2.0/24 172.30.128.2 vxlan vxlan.calico in sync"
    );
    assert_eq!(
        line(&text, "default/web").join(" "),
        format!("default/web 10.244.1.2 {veth} in place")
    );
    assert!(!text.contains("Trouble"), "{text}");

    let (route, object) = stage
        .wanted()
        .into_iter()
        .find(|(key, _)| key.to_string() == "route 10.128.2.0/24")
        .unwrap();
    stage.meddle(80, &[delete(route, object)]);
    wait::until(wait::LONG, "the repair to be shown", || {
        let (code, text, _) = status(&socket, &[]);
        let words = line(&text, "Last repair").join(" ");
        code == 0 && words.ends_with("ago: route 10.128.2.0/24 (deleted), 1 in all")
    })
    .unwrap();
}

#[test]
fn the_same_comes_as_json() {
    let mut stage = Stage::new(1, NO_AUDIT);
    let (code, text, stderr) = status(&stage.agent().socket(), &["--output", "json"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let state: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["node"], "node-1");
    assert_eq!(state["peers"][0]["name"], "peer-1");
}

#[test]
fn what_is_to_be_looked_at_is_listed_and_ends_with_5() {
    let mut stage = Stage::new(1, NO_AUDIT);
    let stranger = stage
        .cluster
        .pod_object(0, "stranger", 4)
        .unwrap()
        .ips([IpAddr::from([192, 0, 2, 7])]);
    stage.cluster.api().apply(&stranger.build()).unwrap();
    let waiting = stage.cluster.pod_object(0, "waiting", 3).unwrap();
    stage.cluster.api().apply(&waiting.build()).unwrap();
    let socket = stage.agent().socket();
    let mut last = String::new();
    wait::until(wait::LONG, "two pods to be looked at", || {
        let (code, text, _) = status(&socket, &[]);
        last = text;
        code == 5 && last.contains("2 to look at")
    })
    .unwrap();
    let trouble = last.split("Trouble:\n").nth(1).unwrap();
    let lines: Vec<_> = trouble.lines().take(2).collect();
    assert!(
        lines[0].contains("pod default/waiting has no route to 10.244.1.3: its host veth"),
        "{last}"
    );
    assert!(
        lines[1].contains("pod default/stranger has the address 192.0.2.7, outside of"),
        "{last}"
    );
    assert_eq!(line(&last, "default/stranger").last(), Some(&"refused"), "{last}");
    assert_eq!(line(&last, "default/waiting").last(), Some(&"missing"), "{last}");
}

/// Of many peers, those that something is wrong with are shown first; all of them on demand.
#[test]
fn many_peers_are_cut_short() {
    let mut stage = Stage::new(40, NO_AUDIT);
    let bad = stage.cluster.node_object(0).build();
    let mut bad = bad.clone();
    bad["metadata"]["name"] = "zz-bad".into();
    bad["spec"]["podCIDRs"] = serde_json::json!(["10.129.0.0/24"]);
    bad["status"]["addresses"] = serde_json::json!([]);
    stage.cluster.api().apply(&bad).unwrap();
    let socket = stage.agent().socket();
    let mut last = String::new();
    wait::until(wait::LONG, "the bad peer to be shown", || {
        last = status(&socket, &[]).1;
        last.contains("zz-bad ")
    })
    .unwrap();
    assert!(last.contains("and 11 more: --all shows them\n"), "{last}");
    let shown = |text: &str| text.lines().filter(|line| line.starts_with("peer-")).count();
    assert_eq!(shown(&last), 29);
    assert_eq!(shown(&status(&socket, &["--all"]).1), 40);
}

#[test]
fn an_agent_that_is_not_ready_ends_with_4() {
    let mut stage = Stage::without_its_node_object();
    let socket = stage.agent().socket();
    wait::until(wait::LONG, "the reason to be shown", || {
        let (code, text, _) = status(&socket, &[]);
        code == 4 && text.contains("Not ready:\n  there is no Node \"node-1\"")
    })
    .unwrap();
}

#[test]
fn where_no_agent_answers_it_says_which_socket_was_asked() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("routelet.sock");
    let (code, stdout, stderr) = status(&socket, &[]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.starts_with(&format!(
            "error: no agent answers on --admin-socket {}: see that routelet run is at work on this node",
            socket.display()
        )) && stderr.contains("No such file or directory"),
        "{stderr}"
    );
}

/// One that hangs in the kernel is told from one that is not there.
#[test]
fn an_agent_that_does_not_answer_ends_with_1() {
    let mut stage = Stage::new(0, NO_AUDIT);
    let (socket, pid) = (stage.agent().socket(), stage.agent().pid());
    let pid = Pid::from_raw(pid.cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    let (code, stdout, stderr) = status(&socket, &[]);
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("no answer within 10s"), "{stderr}");
}
