//! Nothing outlives the process that made the lab, however it ends.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

use std::path::Path;
use std::process::Command;

use routelet_lab::process::Process;
use routelet_lab::{Lab, TempDir, wait};
use routelet_netlink::Netns;

/// What the other test starts and kills: a lab with a process in a node.
#[test]
#[ignore = "started by killed_process_leaves_nothing"]
fn victim() {
    let lab = Lab::new().unwrap();
    let node = lab.node("node-1").unwrap();
    let _pod = node.pod("web", &["10.244.1.2".parse().unwrap()]).unwrap();
    let _directory = TempDir::new().unwrap();
    let mut command = Command::new("sleep");
    command.arg("1000");
    let mut child = Process::start("sleep", node.netns(), command).unwrap();
    let inode = std::fs::read_link(format!("/proc/{}/ns/net", child.pid())).unwrap();
    println!("victim: {} {}", child.pid(), inode.display());
    child.wait_exit(wait::LONG).unwrap();
}

fn in_use(netns: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        std::fs::read_link(process.path().join("ns/net")).is_ok_and(|link| link == Path::new(netns))
    })
}

#[test]
fn killed_process_leaves_nothing() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "victim", "--ignored", "--nocapture"]);
    let mut victim = Process::start("the victim", &Netns::current().unwrap(), command).unwrap();
    // The test harness may write the test's name before it, on the same line.
    let line = victim.wait_log("victim: ", wait::LONG).unwrap();
    let (_, told) = line.rsplit_once("victim: ").unwrap();
    let (pid, netns) = told.split_once(' ').unwrap();
    assert!(in_use(netns));

    victim.kill().unwrap();
    // Killed by the kernel, and taken in by init some time later.
    wait::until(wait::LONG, "the process in the node to be gone", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        status.map_or(true, |status| status.contains("State:\tZ"))
    })
    .unwrap();
    wait::until(wait::LONG, "the node's namespace to be gone", || !in_use(netns)).unwrap();
}
