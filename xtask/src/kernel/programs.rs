//! The test programs that run in a virtual machine, and those that do not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run::{cargo_program, output};

/// The packages whose tests ask something of the kernel.
const PACKAGES: [&str; 4] = [
    "routelet-netlink",
    "routelet-reconciler",
    "routelet-cni",
    "routelet",
];

/// Their test programs that do not run in the virtual machine, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("cni/routelet_cni", NO_KERNEL),
    ("reconciler/devices", FAKE),
    ("reconciler/faults", FAKE),
    ("reconciler/flows", FAKE),
    ("reconciler/foreign", FAKE),
    ("reconciler/long_batches", FAKE),
    ("reconciler/nft", FAKE),
    ("reconciler/offload", FAKE),
    ("reconciler/patience", FAKE),
    ("reconciler/routelet_reconciler", NO_KERNEL),
    ("routelet/routelet", NO_KERNEL),
    ("routelet/api", NO_KERNEL),
    ("routelet/chart", NO_KERNEL),
    ("routelet/cli", NO_KERNEL),
    ("routelet/cluster_facts", NO_KERNEL),
    ("routelet/containerd", RUNTIME),
    ("routelet/credentials", NO_KERNEL),
    ("routelet/readme", NO_KERNEL),
    ("routelet/runtime", RUNTIME),
    ("cni/routelet-cni", NO_KERNEL),
];
const NO_KERNEL: &str = "what it tests is the same on all kernels";
const FAKE: &str = "it tests on a fake kernel";
const RUNTIME: &str = "it needs containerd and images";

/// A test program that cargo has built.
pub(super) struct Program {
    /// Crate and target, such as `netlink/objects`.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// The directory in which cargo would run it.
    pub(super) directory: PathBuf,
}

/// Builds the tests that cargo's `arguments` name, and without arguments those that ask something of the kernel.
/// Returns them, and the names of those that are not to run with the reasons.
pub(super) fn build(arguments: &[String]) -> Result<(Vec<Program>, Vec<String>)> {
    let mut command = Command::new(cargo_program());
    command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    if arguments.is_empty() {
        PACKAGES.iter().for_each(|package| {
            command.args(["--package", package]);
        });
    }
    let messages = output(command.args(arguments).stderr(Stdio::inherit()))?;
    let mut programs = Vec::new();
    for message in messages.lines() {
        programs.extend(program(
            &serde_json::from_str(message).context("cargo's messages")?,
        ));
    }
    ensure!(!programs.is_empty(), "cargo has built no tests");
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    let mut left_out = Vec::new();
    if arguments.is_empty() {
        programs.retain(|program| {
            let reason = LEFT_OUT.iter().find(|(name, _)| *name == program.name);
            left_out.extend(reason.map(|(name, reason)| format!("{name}: {reason}")));
            reason.is_none()
        });
    }
    Ok((programs, left_out))
}

/// The test program that a message of cargo's tells of.
fn program(message: &Value) -> Option<Program> {
    if message["profile"]["test"] != true {
        return None;
    }
    let path = Path::new(message["executable"].as_str()?);
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?;
    let krate = directory.file_name()?.to_str()?;
    let target = message["target"]["name"].as_str()?;
    Some(Program {
        name: format!("{krate}/{target}"),
        path: path.to_owned(),
        directory: directory.to_owned(),
    })
}
