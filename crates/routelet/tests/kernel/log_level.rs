//! What the agent logs, changed while it runs: on the unix socket, and not on the port.

use std::path::Path;
use std::time::Duration;

use routelet_cni::agent::{self, Answer, Limits};
use routelet_lab::{Backend, wait};

use crate::program::{routelet, told};
use crate::stage::{NO_AUDIT, Stage};

const LIMITS: Limits = Limits {
    patience: Duration::from_secs(30),
    longest: 1 << 16,
};

fn ask(stage: &mut Stage, method: &str, body: &str) -> Answer {
    let socket = stage.agent().socket();
    agent::ask(&socket, method, "/log-level", body, LIMITS).unwrap()
}

/// Exit code, standard output, standard error.
fn log_level(socket: &Path, words: &[&str]) -> (i32, String, String) {
    told(
        routelet(&["log-level"])
            .args(words)
            .arg("--admin-socket")
            .arg(socket),
    )
}

/// Has a repair made, which is told at level info.
fn repair(stage: &mut Stage) {
    stage.wait_noticed();
}

#[test]
fn the_level_is_changed_while_the_agent_runs_and_back_again() {
    let mut stage = Stage::new(1, NO_AUDIT);
    let socket = stage.agent().socket();
    assert_eq!(log_level(&socket, &[]), (0, "info\n".to_owned(), String::new()));
    repair(&mut stage);
    stage.agent().expect_log_lines(&["repaired what"], 1).unwrap();

    let (code, stdout, stderr) = log_level(&socket, &["error"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(
        stdout.starts_with("error (until") && stdout.contains("say info"),
        "{stdout}"
    );
    let changed = ["the log level was changed", "from=info", "to=error"];
    stage.agent().expect_log_lines(&changed, 1).unwrap();
    repair(&mut stage);
    assert_eq!(log_level(&socket, &["--reset"]).1, "info\n");
    // The line of the change back follows all that was told before.
    stage
        .agent()
        .expect_log_lines(&["the log level was changed", "from=error", "to=info"], 1)
        .unwrap();
    stage.agent().expect_log_lines(&["repaired what"], 1).unwrap();
    repair(&mut stage);
    stage.agent().expect_log_lines(&["repaired what"], 2).unwrap();
}

/// A single module is heard from then on, and the rest as little as the level says.
#[test]
fn a_target_is_heard_from_then_on() {
    let mut stage = Stage::without_agent_on(Backend::Memory, 1);
    stage.start_agent(NO_AUDIT);
    let socket = stage.agent().socket();
    assert_eq!(log_level(&socket, &["off,routelet_watcher=debug"]).0, 0);
    let told = "the log level was changed from=info to=off,routelet_watcher=debug";
    stage.agent().wait_log(told, wait::LONG).unwrap();
    repair(&mut stage);
    let (_, server) = stage.cluster.api().memory().unwrap();
    server.stop().unwrap();
    stage
        .agent()
        .wait_log("DEBUG routelet_watcher::status: still no watch", wait::LONG)
        .unwrap();
    stage.agent().expect_log_lines(&["repaired what"], 0).unwrap();
}

#[test]
fn a_wrong_filter_is_refused_with_the_words_of_the_flag() {
    let mut stage = Stage::new(0, NO_AUDIT);
    let words = "\"loud\" is no level: one of off, error, warn, info, debug, trace is wanted";
    let answer = ask(&mut stage, "PUT", "info,routelet=loud");
    assert_eq!((answer.status, answer.body.trim()), (400, words));
    assert_eq!(ask(&mut stage, "PUT", "").status, 400);
    let now = ask(&mut stage, "GET", "");
    assert_eq!(now.body, r#"{"filter":"info","of_settings":"info"}"#);
    let socket = stage.agent().socket();
    let (code, _, stderr) = log_level(&socket, &["info,routelet=loud"]);
    assert_eq!(code, 2);
    assert!(stderr.contains(words), "{stderr}");
    let (code, _, stderr) = log_level(&socket, &["info", "--reset"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("contradict each other"), "{stderr}");
}

/// The port is anyone's on the node.
#[test]
fn the_port_knows_nothing_of_it() {
    let mut stage = Stage::new(0, NO_AUDIT);
    assert_eq!(stage.agent().get("/log-level").unwrap().status, 404);
}
