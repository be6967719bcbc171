//! routelet: a node-local routing daemon for Kubernetes.
//!
//! This crate only puts together what the others do: the watcher follows the cluster, the planner says what
//! the kernel shall hold, the reconciler brings it there.

mod admin;
mod agent;
mod args;
mod cni;
mod dataplane;
mod encapsulation;
mod firewall;
mod instance;
mod liveness;
mod logging;
mod metrics;
mod signals;
mod story;

use std::process::ExitCode;

use args::{Command, RunArgs, Setting};
use instance::InstanceError;

fn main() -> ExitCode {
    let invocation = args::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let Command::Run(settings) = invocation.command;
    match run(&settings, &invocation.changed) {
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
    match (already_runs, wrong_setting) {
        (true, _) => args::EXIT_ALREADY_RUNS,
        (_, true) => args::EXIT_USAGE,
        _ => args::EXIT_FAILURE,
    }
}

fn run(settings: &RunArgs, changed: &[Setting]) -> anyhow::Result<()> {
    logging::init(settings.admin.log_format, settings.admin.log_level.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(agent::run(settings, changed))
}
