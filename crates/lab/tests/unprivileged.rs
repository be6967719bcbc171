//! A lab without root. A `main` of its own in place of the test harness, whose threads would forbid a user namespace.

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
use routelet_lab::process::{Process, built_program};
use routelet_lab::{Lab, TempDir, ping, privilege, skip, wait};
use routelet_model::Family;
use routelet_netlink::Netns;

/// Of `nobody`, who owns nothing.
const NOBODY: u32 = 65534;

fn main() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        become_nobody()
    } else {
        build_a_lab()
    }
}

/// Runs this program again as an ordinary user.
fn become_nobody() -> Result<()> {
    let directory = TempDir::new()?;
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    let program = directory.path().join("unprivileged");
    // With the programs that it looks for beside itself.
    for (from, to) in [
        (std::env::current_exe()?, program.clone()),
        (
            built_program("routelet-cni", "ROUTELET_CNI_BIN")?,
            directory.path().join("routelet-cni"),
        ),
        (
            built_program("lab-ipam", "ROUTELET_LAB_IPAM_BIN")?,
            directory.path().join("lab-ipam"),
        ),
    ] {
        std::fs::copy(from, &to)?;
        std::fs::set_permissions(to, PermissionsExt::from_mode(0o755))?;
    }
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    for variable in ["ROUTELET_CNI_BIN", "ROUTELET_LAB_IPAM_BIN"] {
        command.env_remove(variable);
    }
    let mut process = Process::start("the test as nobody", &Netns::current()?, command)?;
    let status = process.wait_exit(2 * wait::LONG)?;
    println!("{}", process.log().join("\n"));
    ensure!(status.success(), "as an ordinary user: {status}");
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
    println!("a lab of an ordinary user: ok");
    Ok(())
}
