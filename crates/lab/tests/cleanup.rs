//! Nothing outlives the process that made the lab, however it ends.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use routelet_lab::process::Process;
use routelet_lab::{Lab, TempDir, wait};
use routelet_netlink::Netns;

/// Names a file; once it is there, the victim panics.
const PANIC: &str = "ROUTELET_TEST_PANIC";

/// What the other tests start and end: a lab with a process in a node.
#[test]
#[ignore = "started by the other tests"]
fn victim() {
    let lab = Lab::new().unwrap();
    let node = lab.node("node-1").unwrap();
    let _pod = node.pod("web", &["10.244.1.2".parse().unwrap()]).unwrap();
    let directory = TempDir::new().unwrap();
    let mut command = Command::new("sleep");
    command.arg("1000");
    let child = Process::start("sleep", node.netns(), command).unwrap();
    let inode = std::fs::read_link(format!("/proc/{}/ns/net", child.pid())).unwrap();
    println!(
        "victim: {} {} {}",
        child.pid(),
        inode.display(),
        directory.path().display()
    );
    let panic = std::env::var_os(PANIC).unwrap();
    wait::until(wait::LONG, "the end", || Path::new(&panic).exists()).unwrap();
    panic!("as it was told");
}

fn in_use(netns: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        std::fs::read_link(process.path().join("ns/net")).is_ok_and(|link| link == Path::new(netns))
    })
}

/// Starts the victim, lets `end` end it, and waits until nothing is left of it but perhaps its directory. Returns how it
/// ended, and whether the directory is gone.
fn ended(end: impl FnOnce(&Process, &Path)) -> (ExitStatus, bool) {
    let ours = TempDir::new().unwrap();
    let panic = ours.path().join("panic");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "victim", "--ignored", "--nocapture"]);
    command.env(PANIC, &panic);
    let mut victim = Process::start("the victim", &Netns::current().unwrap(), command).unwrap();
    // The test harness may write the test's name before it, on the same line.
    let line = victim.wait_log("victim: ", wait::LONG).unwrap();
    let (_, told) = line.rsplit_once("victim: ").unwrap();
    let [pid, netns, directory] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    assert!(in_use(netns) && Path::new(directory).exists());

    end(&victim, &panic);
    let status = victim.wait_exit(wait::LONG).unwrap();
    // Killed by the kernel, and taken in by init some time later.
    wait::until(wait::LONG, "the process in the node to be gone", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        status.map_or(true, |status| status.contains("State:\tZ"))
    })
    .unwrap();
    wait::until(wait::LONG, "the node's namespace to be gone", || !in_use(netns)).unwrap();
    (status, !Path::new(directory).exists())
}

/// Its directory stays, for the next one to sweep.
fn signalled(signal: Signal) {
    let (status, _) = ended(|victim, _| {
        kill(Pid::from_raw(victim.pid().cast_signed()), signal).unwrap();
    });
    assert_eq!(status.signal(), Some(signal as i32), "{status}");
}

#[test]
fn a_killed_process_leaves_nothing_in_the_kernel() {
    signalled(Signal::SIGKILL);
}

#[test]
fn an_interrupted_process_leaves_nothing_in_the_kernel() {
    signalled(Signal::SIGINT);
}

#[test]
fn a_test_that_panics_leaves_nothing() {
    let (status, is_swept) = ended(|_, panic| std::fs::write(panic, "").unwrap());
    assert_eq!(status.code(), Some(101), "{status}");
    assert!(is_swept, "its temporary directory is left");
}
