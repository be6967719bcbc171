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
use routelet_lab::{TempDir, wait};
use routelet_netlink::Netns;

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
    // Where a shell runs the tests in the background, they have inherited that interrupts are ignored.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT");
    command.arg(env!("CARGO_BIN_EXE_lab-victim")).arg(&panic);
    let mut victim = Process::start("the victim", &Netns::current().unwrap(), command).unwrap();
    let line = victim.wait_log("victim: ", wait::LONG).unwrap();
    let told = line.strip_prefix("victim: ").unwrap();
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
