//! A process for tests to end: it makes a lab with a process in a node, says so, and panics once the file that its argument
//! names is there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use routelet_lab::process::Process;
use routelet_lab::{Lab, TempDir, wait};

#[expect(clippy::print_stdout, reason = "whoever ends it reads what it made")]
#[expect(clippy::panic, reason = "that is what it is for")]
fn main() -> Result<()> {
    let panic = std::env::args_os().nth(1).map(PathBuf::from);
    let panic = panic.context("name the file at which to panic")?;
    let lab = Lab::new()?;
    let node = lab.node("node-1")?;
    let _pod = node.pod("web", &["10.244.1.2".parse()?])?;
    let directory = TempDir::new()?;
    let mut command = Command::new("sleep");
    command.arg("1000");
    let child = Process::start("sleep", node.netns(), command)?;
    let inode = std::fs::read_link(format!("/proc/{}/ns/net", child.pid()))?;
    println!(
        "victim: {} {} {}",
        child.pid(),
        inode.display(),
        directory.path().display()
    );
    wait::until(wait::LONG, "the end", || panic.exists())?;
    panic!("as it was told");
}
