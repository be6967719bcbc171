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
mod instance;
mod liveness;
mod logging;
mod metrics;
mod overlay_check;
mod saved_sysctls;
mod signals;
mod story;

use std::process::ExitCode;

use args::{Command, LogArgs, RunArgs, Setting};
use cni::install::InstallError;
use instance::InstanceError;

fn main() -> ExitCode {
    let invocation = args::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = match &invocation.command {
        Command::Run(settings) => run(settings, &invocation.changed),
        Command::InstallCni(settings) => {
            start_log(&settings.log).and_then(|()| Ok(cni::install::run(settings)?))
        }
        Command::Cleanup(settings) => start_log(&settings.log).and_then(|()| cleanup::run(settings)),
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

fn start_log(settings: &LogArgs) -> anyhow::Result<()> {
    Ok(logging::init(settings.log_format, settings.log_level.clone())?)
}

fn run(settings: &RunArgs, changed: &[Setting]) -> anyhow::Result<()> {
    start_log(&settings.admin.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(agent::run(settings, changed))
}
