//! `cargo xtask test --upgrade-from COMMIT`: the tests of upgrades, with the agent of an earlier commit.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::run::{
    build_programs, cargo_program, complain, finish, output, program, succeed, target_directory,
};

/// Builds the commit's agent, apart from everything else, and runs the tests with it.
pub(crate) fn test(commit: &str) -> Result<ExitCode> {
    let wanted = format!("{commit}^{{commit}}");
    let commit = output(Command::new("git").args(["rev-parse", "--verify", "--quiet", &wanted]))
        .with_context(|| format!("--upgrade-from {commit}: git knows no such commit"))?;
    let commit = commit.trim();
    let directory = target_directory()?.join("upgrade");
    let source = directory.join("source");
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    fs::create_dir_all(&source)?;
    complain(&format!("builds the agent of {commit}"));
    let archive = directory.join("source.tar");
    succeed(
        Command::new("git")
            .args(["archive", "--output"])
            .arg(&archive)
            .arg(commit),
    )?;
    succeed(
        Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&source),
    )?;
    let built = directory.join("target");
    succeed(
        Command::new(cargo_program())
            .args(["build", "--package", "routelet", "--bins", "--target-dir"])
            .arg(&built)
            .current_dir(&source),
    )?;
    build_programs(&[])?;
    let mut tests = program("debug", "rootless")?;
    tests
        .arg(cargo_program())
        .args([
            "test",
            "--package",
            "routelet",
            "--test",
            "upgrade",
            "--test",
            "earlier",
        ])
        .env("ROUTELET_EARLIER_BIN", built.join("debug/routelet"));
    finish(tests)
}
