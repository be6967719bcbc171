//! routelet: a node-local routing daemon for Kubernetes.
//!
//! This crate only puts together what the others do: the watcher follows the cluster, the planner says what
//! the kernel shall hold, the reconciler brings it there.

mod admin;
mod agent;
mod args;
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

use std::io::{self, Write};
use std::process::ExitCode;

use args::{Command, LogArgs, RunArgs, Settings, TraceArgs};
use cni::install::InstallError;
use instance::InstanceError;

fn main() -> ExitCode {
    let invocation = args::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = match &invocation.command {
        Command::Run(settings) => run(settings, &invocation.settings),
        Command::InstallCni(settings) => {
            start_log(&settings.log).and_then(|()| Ok(cni::install::run(settings)?))
        }
        Command::Cleanup(settings) => start_log(&settings.log).and_then(|()| cleanup::run(settings)),
        Command::Trace(settings) => return trace(settings),
    };
    match done {
        Ok(()) => ExitCode::from(args::EXIT_STOPPED),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
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
            let _ = writeln!(io::stderr(), "error: {error:#}");
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
