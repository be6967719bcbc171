//! Settings of `routelet diff`: those of the agent, and a few of its own.

use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::asking::{Output, OutputArgs};
use super::{AdminSocket, RunArgs, Setting, explain, values};
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
    given: Vec<Setting>,
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
        let run = RunArgs::augment_args(Command::new("run"));
        let given = run.get_arguments().filter_map(|argument| {
            let id = argument.get_id().as_str();
            let is_given = matches.value_source(id) == Some(ValueSource::CommandLine);
            let words = is_given.then(|| matches.get_raw(id))??;
            let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
            Some(Setting {
                flag: argument.get_long()?.to_owned(),
                value: words.join(","),
            })
        });
        let given: Vec<_> = given.collect();
        let log_level = given
            .iter()
            .find(|setting| setting.flag == "log-level")
            .and_then(|setting| setting.value.parse().ok());
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
        let is_given = |flag: &str| self.given.iter().any(|setting| setting.flag == flag);
        let of_agent = of_agent.iter().filter(|setting| !is_given(&setting.flag));
        let of_agent = of_agent.map(|setting| format!("--{}={}", setting.flag, setting.value));
        let words = ["routelet diff".to_owned()].into_iter().chain(of_agent);
        let words: Vec<String> = words.chain(self.given.iter().map(ToString::to_string)).collect();
        let mut command = RunArgs::augment_args(Command::new("routelet diff"));
        let read = command
            .try_get_matches_from_mut(&words)
            .and_then(|matches| RunArgs::from_arg_matches(&matches));
        let settings = read.map_err(|error| {
            let program = Command::new("routelet").subcommand(command.clone());
            let words: Vec<_> = words.iter().map(Into::into).collect();
            explain::name_variables(error, &program, &words)
        })?;
        settings
            .check()
            .map_err(|fault| command.error(clap::error::ErrorKind::ValueValidation, fault))?;
        Ok(settings)
    }
}
