//! Settings of `routelet diff`: those of the agent, and a few of its own.

use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::asking::{Output, OutputArgs};
use super::setting::Given;
use super::{AdminSocket, RunArgs, Setting, values};
use crate::logging::LogFilter;

/// Everything that `routelet diff` can be told. The agent's settings are read in a second step ([`DiffArgs::settings`]),
/// for an agent that runs knows better what it was told.
#[derive(Debug, Clone)]
pub(crate) struct DiffArgs {
    /// How to show the differences.
    pub(crate) output: Output,
    /// How long the lists of Pods and Nodes may take.
    pub(crate) timeout: Duration,
    /// Where an agent that runs is asked for its settings.
    pub(crate) admin_socket: AdminSocket,
    /// What to log, where a flag says so.
    pub(crate) log_level: Option<LogFilter>,
    /// The agent's settings that are given as flags.
    given: Given,
}

/// What is not the agent's.
#[derive(Debug, Clone, Args)]
struct Own {
    #[command(flatten)]
    output: OutputArgs,

    /// How long to wait for the lists of Pods and Nodes: 0s to 24h, as in 90s, 5m or 1h.
    #[arg(long, env = "ROUTELET_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = values::timeout)]
    timeout: Duration,
}

impl Args for DiffArgs {
    fn augment_args(command: Command) -> Command {
        RunArgs::augment_args(Own::augment_args(command))
            .mut_arg("node_name", |argument| argument.required(false))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DiffArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let own = Own::from_arg_matches(matches)?;
        let given = Given::of::<RunArgs>(matches);
        let log_level = given.value("log-level").and_then(|value| value.parse().ok());
        Ok(Self {
            output: own.output.output,
            timeout: own.timeout,
            admin_socket: matches
                .get_one("admin_socket")
                .cloned()
                .unwrap_or(AdminSocket::Off),
            log_level,
            given,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl DiffArgs {
    /// The agent's settings: the flags given, else those of the agent that runs, else variables and defaults.
    pub(crate) fn settings(&self, of_agent: &[Setting]) -> Result<RunArgs, clap::Error> {
        const NAME: &str = "routelet diff";
        let settings: RunArgs = self.given.beside(of_agent.iter(), NAME)?;
        settings.check().map_err(|fault| {
            let mut command = RunArgs::augment_args(Command::new(NAME));
            command.error(ErrorKind::ValueValidation, fault)
        })?;
        Ok(settings)
    }
}
