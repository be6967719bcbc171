//! The project's chores. Each does its own set-up and needs nothing but a Rust toolchain and Linux.

mod docs;
mod image;
mod kernel;
mod manifests;
mod run;
mod upgrade;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use run::{build_programs, release_program};

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Shows routelet at work: three nodes, their agents and pods, on this machine, in network namespaces.
    #[command(disable_help_flag = true)]
    Demo {
        /// Arguments of the demo; --help lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs all tests: units, properties, real kernels in network namespaces, agents on an in-memory API.
    Test {
        /// A kernel series to run the tests of the kernel on, in a virtual machine: 5.10, 6.1, 6.12 or sid, all from
        /// Debian. May be given several times.
        #[arg(long)]
        kernel: Vec<String>,
        /// A commit whose agent the present one is to replace, node by node, under traffic, and be replaced by again.
        /// Runs the tests of upgrades and no others.
        #[arg(long, conflicts_with_all = ["kernel", "arguments"], value_name = "COMMIT")]
        upgrade_from: Option<String>,
        /// Arguments for `cargo test`, such as `-p routelet-planner`; none for the whole workspace.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures, in network namespaces, beside a raw writer of netlink batches.
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of the benchmark; --help lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Makes an image of the agent and the CNI plugin, without a container engine: target/image/routelet.tar, for `ctr
    /// images import` and `docker load`.
    Image(image::ImageArgs),
    /// Makes the parts of docs/ that follow from the source: the settings and the metrics.
    Docs(docs::DocsArgs),
    /// Makes what follows from the Helm chart: deploy/routelet.yaml and the table in the chart's README.
    Manifests(manifests::ManifestsArgs),
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            run::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<ExitCode> {
    match chore {
        Chore::Demo { arguments } => release_program("demo", &arguments),
        Chore::Bench { arguments } => release_program("bench", &arguments),
        Chore::Test {
            upgrade_from: Some(commit),
            ..
        } => upgrade::test(&commit),
        Chore::Test {
            kernel, arguments, ..
        } => test(&kernel, arguments),
        Chore::Image(args) => image::image(&args),
        Chore::Docs(args) => docs::docs(&args),
        Chore::Manifests(args) => manifests::manifests(&args),
    }
}

/// Runs `cargo test`, as root or in a user namespace, and tells at the end which tests could not run here.
fn test(kernels: &[String], mut arguments: Vec<String>) -> Result<ExitCode> {
    build_programs(&[])?;
    if !kernels.is_empty() {
        return kernel::test(kernels, &arguments);
    }
    if arguments.is_empty() {
        arguments.push("--workspace".to_owned());
    }
    let skipped = run::target_directory()?.join("skipped-tests.txt");
    if skipped.exists() {
        std::fs::remove_file(&skipped)?;
    }
    let mut command = run::program("debug", "rootless")?;
    command
        .arg(run::cargo_program())
        .arg("test")
        .args(&arguments)
        .env("ROUTELET_SKIPPED", &skipped);
    let code = run::finish(command)?;
    let reasons = std::fs::read_to_string(&skipped).unwrap_or_default();
    for reason in reasons.lines() {
        run::complain(&format!("skipped: {reason}"));
    }
    run::complain(&format!("{} skipped", reasons.lines().count()));
    Ok(code)
}
