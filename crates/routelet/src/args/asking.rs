//! Settings of the subcommands that ask the running agent.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values;
use crate::logging::LogFilter;

/// Whom to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct AgentArgs {
    /// Unix socket of the agent on this node.
    #[arg(long, env = "ROUTELET_ADMIN_SOCKET", value_name = "PATH", default_value = "/run/routelet/routelet.sock",
        value_parser = values::absolute)]
    pub(crate) admin_socket: PathBuf,
}

/// How to show the answer.
#[derive(Debug, Clone, Args)]
pub(crate) struct OutputArgs {
    /// Tables for people, or JSON for programs.
    #[arg(
        long,
        env = "ROUTELET_OUTPUT",
        value_name = "HOW",
        value_enum,
        default_value = "table"
    )]
    pub(crate) output: Output,
}

/// For whom the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned tables.
    Table,
    /// One JSON document.
    Json,
}

/// Everything that `routelet status` can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) agent: AgentArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    /// Show every peer and every pod. Without it: 30 of each, first those that something is wrong with.
    #[arg(long, env = "ROUTELET_ALL", value_name = "true|false", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set)]
    pub(crate) all: bool,
}

/// Everything that `routelet log-level` can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogLevelArgs {
    /// What to log from now on, as for --log-level of run: a level (off, error, warn, info, debug, trace), after commas
    /// TARGET=LEVEL. Without it, what is logged is shown.
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Option<LogFilter>,

    /// Log again what the agent's settings say.
    #[arg(long, env = "ROUTELET_RESET", value_name = "true|false", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set)]
    pub(crate) reset: bool,

    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

impl LogLevelArgs {
    /// What is wrong between settings that are right each by itself.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (&self.filter, self.reset) {
            (Some(filter), true) => Err(format!(
                "FILTER {filter} and --reset contradict each other: give one of them"
            )),
            _ => Ok(()),
        }
    }
}
