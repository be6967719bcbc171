//! routelet: a node-local routing daemon for Kubernetes.
//!
//! This crate only puts together what the others do: the watcher follows the cluster, the planner says what
//! the kernel shall hold, the reconciler brings it there.

mod admin;
mod agent;
mod args;
mod ask;
mod cleanup;
mod cni;
mod dataplane;
mod diff;
#[cfg(test)]
mod documented;
mod encapsulation;
mod firewall;
mod inquiry;
mod instance;
mod liveness;
mod log_level;
mod logging;
mod metrics;
mod neighbour_tables;
mod node;
mod overlay_check;
mod saved_sysctls;
mod signals;
mod state;
mod story;
mod trace;

use std::io::Write;
use std::process::ExitCode;

use args::{Command, LogArgs, RunArgs, Settings};
use cni::install::InstallError;
use diff::NotAllKnown;
use instance::InstanceError;
use log_level::LogControl;

fn main() -> ExitCode {
    let invocation = args::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match &invocation.command {
        Command::Run(args) => worked(run(args, &invocation.settings)),
        Command::InstallCni(args) => worked(start_log(&args.log).and_then(|_| Ok(cni::install::run(args)?))),
        Command::Cleanup(args) => worked(start_log(&args.log).and_then(|_| cleanup::run(args))),
        Command::Status(args) => answered(ask::status::run(args), args::EXIT_FAILURE),
        Command::LogLevel(args) => answered(ask::log_level::run(args), args::EXIT_FAILURE),
        Command::Diff(args) => answered(diff::run(args), args::EXIT_CANNOT_COMPARE),
        Command::Trace(args) => answered(trace::run(args), args::EXIT_USAGE),
    }
}

/// The end of a subcommand whose log tells how it went.
fn worked(done: anyhow::Result<()>) -> ExitCode {
    let code = done.map_or_else(
        |error| {
            tracing::error!("{error:#}");
            exit_code(&error)
        },
        |()| args::EXIT_STOPPED,
    );
    ExitCode::from(code)
}

/// The end of a subcommand that answers on standard output; `failure` is the exit code where it cannot.
fn answered(done: anyhow::Result<u8>, failure: u8) -> ExitCode {
    let code = done.unwrap_or_else(|error| {
        // Where standard error is closed there is no one to tell.
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        match exit_code(&error) {
            args::EXIT_FAILURE => failure,
            code => code,
        }
    });
    ExitCode::from(code)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let already_runs = matches!(
        error.downcast_ref::<InstanceError>(),
        Some(InstanceError::AlreadyRuns { .. })
    );
    let wrong_setting = matches!(
        error.downcast_ref::<routelet_watcher::Error>(),
        Some(routelet_watcher::Error::Kubeconfig { .. })
    );
    let not_ready = matches!(
        error.downcast_ref::<InstallError>(),
        Some(InstallError::NotReady { .. })
    ) || error.is::<NotAllKnown>();
    match (already_runs, wrong_setting, not_ready) {
        (true, ..) => args::EXIT_ALREADY_RUNS,
        (_, true, _) => args::EXIT_USAGE,
        (.., true) => args::EXIT_NOT_READY,
        _ => args::EXIT_FAILURE,
    }
}

fn start_log(settings: &LogArgs) -> anyhow::Result<LogControl> {
    Ok(logging::init(settings.log_format, settings.log_level.clone())?)
}

fn run(args: &RunArgs, settings: &Settings) -> anyhow::Result<()> {
    let log = start_log(&args.admin.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(agent::run(args, settings, log))
}
