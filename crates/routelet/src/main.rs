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
mod encapsulation;
mod firewall;
mod inquiry;
mod instance;
mod liveness;
mod logging;
mod metrics;
mod saved_sysctls;
mod signals;
mod state;
mod story;
mod trace;

use std::io::Write;
use std::process::ExitCode;

use args::{Command, LogArgs, RunArgs, Settings, TraceArgs};
use cni::install::InstallError;
use instance::InstanceError;

fn main() -> ExitCode {
    let invocation = args::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match &invocation.command {
        Command::Run(args) => worked(run(args, &invocation.settings)),
        Command::InstallCni(args) => worked(start_log(&args.log).and_then(|()| Ok(cni::install::run(args)?))),
        Command::Cleanup(args) => worked(start_log(&args.log).and_then(|()| cleanup::run(args))),
        Command::Status(args) => answered(ask::status::run(args)),
        Command::Trace(args) => trace(args),
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

/// The end of a subcommand that answers on standard output.
fn answered(done: anyhow::Result<u8>) -> ExitCode {
    let code = done.unwrap_or_else(|error| {
        // Where standard error is closed there is no one to tell.
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        exit_code(&error)
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
    );
    match (already_runs, wrong_setting, not_ready) {
        (true, ..) => args::EXIT_ALREADY_RUNS,
        (_, true, _) => args::EXIT_USAGE,
        (.., true) => args::EXIT_NOT_READY,
        _ => args::EXIT_FAILURE,
    }
}

/// Looks at a packet's way; says on standard error why it cannot.
fn trace(settings: &TraceArgs) -> ExitCode {
    match trace::run(settings) {
        Ok(true) => ExitCode::from(args::EXIT_STOPPED),
        Ok(false) => ExitCode::from(args::EXIT_FAILURE),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(args::EXIT_USAGE)
        }
    }
}

fn start_log(settings: &LogArgs) -> anyhow::Result<()> {
    Ok(logging::init(settings.log_format, settings.log_level.clone())?)
}

fn run(args: &RunArgs, settings: &Settings) -> anyhow::Result<()> {
    start_log(&args.admin.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(agent::run(args, settings))
}
