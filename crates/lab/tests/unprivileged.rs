//! The lab and the demo without root. A `main` of its own in place of the test harness, whose threads would forbid a
//! user namespace.
//!
//! The demo starts the agent's program, which has to be built before (`cargo xtask test` does it).

#![expect(
    clippy::print_stdout,
    reason = "helpers of tests, which clippy does not take for tests"
)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use routelet_lab::process::{Process, built_program};
use routelet_lab::{Lab, TempDir, ping, privilege, skip, wait};
use routelet_model::Family;
use routelet_netlink::Netns;

/// Of `nobody`, who owns nothing.
const NOBODY: u32 = 65534;
/// What the lab's part writes at its end.
const LAB_WORKS: &str = "a lab of an ordinary user: ok";

fn main() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return build_a_lab();
    }
    if !is_mapped(NOBODY)? {
        skip::record("root of a user namespace without a second user: all tests are an ordinary user's here");
        return Ok(());
    }
    let directory = TempDir::new()?;
    let programs = [
        (std::env::current_exe()?, "unprivileged"),
        (env!("CARGO_BIN_EXE_demo").into(), "demo"),
        (built_program("routelet", "ROUTELET_BIN")?, "routelet"),
        // Which the lab looks for beside itself.
        (built_program("routelet-cni", "ROUTELET_CNI_BIN")?, "routelet-cni"),
        (built_program("lab-ipam", "ROUTELET_LAB_IPAM_BIN")?, "lab-ipam"),
    ];
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    for (program, name) in programs {
        let copy = directory.path().join(name);
        std::fs::copy(program, &copy)?;
        std::fs::set_permissions(copy, PermissionsExt::from_mode(0o755))?;
    }
    let program = |name| Command::new(directory.path().join(name));
    let mut process = start_as_nobody("the test as nobody", program("unprivileged"))?;
    let status = process.wait_exit(2 * wait::LONG)?;
    let log = process.log().join("\n");
    println!("{log}");
    ensure!(status.success(), "as an ordinary user: {status}");
    if log.contains(LAB_WORKS) {
        let mut command = program("demo");
        command
            .arg("--keep")
            .env("ROUTELET_BIN", directory.path().join("routelet"));
        let demo = start_as_nobody("the demo as nobody", command)?;
        show_the_demo(demo)?;
    }
    Ok(())
}

/// Whether this process' user namespace has the user.
fn is_mapped(user: u32) -> Result<bool> {
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    let holds = |line: &str| {
        let [first, _, count] = line
            .split_whitespace()
            .map(str::parse::<u64>)
            .collect::<Result<Vec<_>, _>>()
            .ok()?
            .try_into()
            .ok()?;
        Some((first..first + count).contains(&user.into()))
    };
    Ok(map.lines().any(|line| holds(line) == Some(true)))
}

fn start_as_nobody(name: &str, mut command: Command) -> Result<Process> {
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    for variable in ["ROUTELET_CNI_BIN", "ROUTELET_LAB_IPAM_BIN"] {
        command.env_remove(variable);
    }
    Process::start(name, &Netns::current()?, command)
}

/// All of it works, the way in that it tells is one, and it ends when it is interrupted.
fn show_the_demo(mut demo: Process) -> Result<()> {
    let told = demo.wait_log(" ip route", 4 * wait::LONG);
    let hint = told.with_context(|| demo.log().join("\n"))?;
    let mut command = Command::new("sh");
    command.args(["-c", hint.trim()]);
    let mut entered = start_as_nobody("the hint", command)?;
    let status = entered.wait_exit(wait::LONG)?;
    let routes = entered.log().join("\n");
    ensure!(status.success(), "{hint}: {status}\n{routes}");
    ensure!(
        routes.contains("10.244.2.0/24"),
        "no route to node-2 by {hint}:\n{routes}"
    );
    kill(Pid::from_raw(demo.pid().cast_signed()), Signal::SIGINT)?;
    let status = demo.wait_exit(wait::LONG)?;
    ensure!(status.success(), "{status}\n{}", demo.log().join("\n"));
    println!("the demo of an ordinary user: ok");
    Ok(())
}

fn build_a_lab() -> Result<()> {
    if let Err(error) = privilege::enter_user_namespace_if_needed() {
        skip::record(&format!("{error:#}"));
        return Ok(());
    }
    let lab = Lab::new()?;
    let nodes = lab.nodes(2)?;
    let pod = nodes[0].pod("web", &["10.244.1.2".parse()?, "fd00:244:1::2".parse()?])?;
    for family in Family::ALL {
        let report = ping(
            nodes[0].netns(),
            nodes[1].address(family),
            3,
            Duration::from_millis(1),
        )?;
        ensure!(report.lost.is_empty(), "{family}: {report}");
    }
    let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
    nodes[0]
        .netns()
        .run(forward)?
        .context("sysctls of the node can be written")?;
    ensure!(Path::new(&pod.netns().path()).exists());
    let mut command = Command::new("true");
    command.env_clear();
    let mut process = Process::start("a process in the node", nodes[0].netns(), command)?;
    ensure!(process.wait_exit(wait::LONG)?.success());
    println!("{LAB_WORKS}");
    Ok(())
}
