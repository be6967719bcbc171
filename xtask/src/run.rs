//! Running programs: cargo, and what cargo has built.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

/// The cargo that runs this.
pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs cargo, and fails where it does.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    let status = Command::new(cargo_program())
        .args(arguments)
        .status()
        .context("cargo cannot be run")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

/// Where cargo builds to.
pub(crate) fn target_directory() -> Result<PathBuf> {
    // This program lies in it, below the profile's directory.
    let program = std::env::current_exe().context("this program's path cannot be had")?;
    let directory = program
        .ancestors()
        .nth(2)
        .context("this program lies in no target directory")?;
    Ok(directory.to_owned())
}

/// A program that cargo has built.
pub(crate) fn program(profile: &str, name: &str) -> Result<Command> {
    let path = target_directory()?.join(profile).join(name);
    ensure!(path.is_file(), "{} is not there after the build", path.display());
    Ok(Command::new(path))
}

/// Builds the agent, the CNI plugin and the programs of the lab; `more` says how.
pub(crate) fn build_programs(more: &[&str]) -> Result<()> {
    let packages = [
        "--package=routelet",
        "--package=routelet-cni",
        "--package=routelet-lab",
    ];
    cargo(&[&["build", "--bins"], &packages[..], more].concat())
}

/// Builds the release, and runs a program of the lab from it.
pub(crate) fn release_program(name: &str, arguments: &[String]) -> Result<ExitCode> {
    build_programs(&["--release"])?;
    let mut command = program("release", name)?;
    command.args(arguments);
    finish(command)
}

/// Runs a program, and fails where it does.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{command:?} cannot be run"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}

/// What a program prints, which must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{command:?} cannot be run"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).with_context(|| format!("what {command:?} prints"))
}

/// Runs a program to its end and takes its exit code over.
pub(crate) fn finish(mut command: Command) -> Result<ExitCode> {
    let status = command
        .status()
        .with_context(|| format!("{command:?} cannot be run"))?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Tells something beside what the programs print.
#[expect(clippy::print_stderr, reason = "the chores speak to whoever runs them")]
pub(crate) fn complain(text: &str) {
    eprintln!("xtask: {text}");
}
