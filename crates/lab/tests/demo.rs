//! The demo works from beginning to end, and leaves nothing behind when it is interrupted.
//!
//! It starts the agent's program, which has to be built before (`cargo xtask test` does it).

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use routelet_lab::process::{Process, built_program};
use routelet_lab::{TempDir, wait};
use routelet_netlink::Netns;

fn demo(arguments: &[&str]) -> Process {
    let agent = built_program("routelet", "ROUTELET_BIN").unwrap();
    demo_with(arguments, &agent, &std::env::temp_dir())
}

/// `agent` is the agents' program, `temporary` is where the demo has its temporary files.
fn demo_with(arguments: &[&str], agent: &Path, temporary: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command
        .args(arguments)
        .env("ROUTELET_BIN", agent)
        .env("TMPDIR", temporary);
    Process::start("the demo", &Netns::current().unwrap(), command).unwrap()
}

#[test]
fn all_of_it_works() {
    let mut demo = demo(&[]);
    let status = demo.wait_exit(4 * wait::LONG).unwrap();
    let output = demo.log().join("\n");
    assert!(status.success(), "{status}:\n{output}");
    // Columns are as wide as they need to be.
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in [
        "node-3 172.30.0.4 10.244.3.0/24 66:87:de:de:c9:2e",
        "node-3 fd00:30::4 fd00:244:3::/64 66:aa:b0:50:e4:84",
        "ARP, Request who-has 169.254.1.1 tell 10.244.1.2",
        "ARP, Reply 169.254.1.1 is-at ee:ee:ee:ee:ee:ee",
        "IP (ttl 63) 10.244.1.3 > 10.244.1.2: ICMP echo reply",
        "IP6 (hlim 63) fd00:244:1::3 > fd00:244:1::2: ICMP6, echo reply",
        "pod to pod on a node web-1 api-1 fd00:244:1::3 50 0 63",
        "pod to pod across nodes web-1 web-2 10.244.2.2 50 0 62",
        "pod to the outside web-1 a machine outside fd00:30::1 50 0 63",
        "outside to the pod a machine outside web-1 10.244.1.2 50 0 63",
        "web-1 10.244.1.2 a machine outside 172.30.0.2 its node's",
        "web-1 fd00:244:1::2 a machine outside fd00:30::2 its node's",
        "deletes vxlan.calico",
        "The kernel's state is what it was.",
        "Node node-4 written to the API",
        "Node node-3 deleted from the API",
        "All of it worked",
    ] {
        assert!(words.contains(line), "no line {line:?} in:\n{output}");
    }
    assert!(
        !output.contains('\x1b'),
        "colours, though this is no terminal:\n{output}"
    );
}

#[test]
fn a_step_that_fails_is_named() {
    let mut demo = demo_with(&[], Path::new("/bin/false"), &std::env::temp_dir());
    let status = demo.wait_exit(2 * wait::LONG).unwrap();
    assert_eq!(status.code(), Some(1), "{}", demo.log().join("\n"));
    for part in [
        "FAILED in step 2 (An agent on each node: `routelet run`)",
        "the agent on node-1 ended before it was ready",
    ] {
        demo.wait_log(part, wait::LONG).unwrap();
    }
    assert!(!demo.log().join("\n").contains("All of it worked"));
}

#[test]
fn it_stays_until_it_is_interrupted_and_then_leaves_nothing() {
    let mut demo = demo(&["--keep"]);
    let line = demo.wait_log("nsenter --net=", 4 * wait::LONG).unwrap();
    let (_, netns) = line.rsplit_once("--net=").unwrap();
    let netns = std::fs::metadata(netns).unwrap();
    demo.wait_log("9099/metrics", wait::LONG).unwrap();
    let hint = demo.wait_log(" ip route", wait::LONG).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", hint.trim()]);
    let mut entered = Process::start("the hint", &Netns::current().unwrap(), command).unwrap();
    let status = entered.wait_exit(wait::LONG).unwrap();
    assert!(status.success(), "{hint}: {status}");
    entered.wait_log("10.244.2.0/24", wait::LONG).unwrap();
    kill(Pid::from_raw(demo.pid().cast_signed()), Signal::SIGINT).unwrap();
    assert!(
        demo.wait_exit(wait::LONG).unwrap().success(),
        "{}",
        demo.log().join("\n")
    );
    assert!(!in_use(&netns), "a process is left in a namespace of the demo");
}

#[test]
fn an_interrupted_one_leaves_nothing() {
    let temporary = TempDir::new().unwrap();
    let agent = built_program("routelet", "ROUTELET_BIN").unwrap();
    let mut demo = demo_with(&[], &agent, temporary.path());
    let line = demo.wait_log("ms after its start", wait::LONG).unwrap();
    let agent = line
        .split_once("pid ")
        .unwrap()
        .1
        .split_once(',')
        .unwrap()
        .0
        .to_owned();
    kill(Pid::from_raw(demo.pid().cast_signed()), Signal::SIGTERM).unwrap();
    let status = demo.wait_exit(2 * wait::LONG).unwrap();
    assert_eq!(status.code(), Some(130), "{}", demo.log().join("\n"));
    assert!(
        !Path::new(&format!("/proc/{agent}")).exists(),
        "the agent with pid {agent} is left"
    );
    let left = std::fs::read_dir(temporary.path()).unwrap().flatten();
    let left: Vec<_> = left
        .map(|entry| entry.file_name())
        .filter(|name| name != ".lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Whether a process is in the namespace.
fn in_use(netns: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        std::fs::metadata(process.path().join("ns/net")).is_ok_and(|of| of.ino() == netns.ino())
    })
}
