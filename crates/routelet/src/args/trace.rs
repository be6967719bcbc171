//! Settings of `routelet trace`: the question, and what the agent was told.

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::asking::{AgentArgs, OutputArgs};
use super::setting::Given;
use super::{ApiArgs, MarkArgs, Setting};
use crate::trace::End;

/// Everything that `routelet trace` can be told. The agent's settings are read in a second step ([`TraceArgs::settings`]).
#[derive(Debug, Clone)]
pub(crate) struct TraceArgs {
    /// The question.
    pub(crate) question: Question,
    /// The agent's settings that are given as flags.
    given: Given,
}

/// What is not the agent's.
#[derive(Debug, Clone, Args)]
pub(crate) struct Question {
    /// The pod that sends: NAMESPACE/NAME of a pod of this node, or its address.
    #[arg(value_name = "FROM")]
    pub(crate) from: End,

    /// Whom it sends to: NAMESPACE/NAME of any pod, or any address.
    #[arg(value_name = "TO")]
    pub(crate) to: End,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

/// The agent's settings that a trace follows.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceSettings {
    /// Whether the agent masquerades what leaves the cluster: then it is a break that nothing does.
    #[arg(long, env = "ROUTELET_MASQUERADE", value_name = "true|false", default_value = "true",
        default_missing_value = "true", num_args = 0..=1, require_equals = true,
        action = clap::ArgAction::Set, help_heading = "Agent")]
    pub(crate) masquerade: bool,

    #[command(flatten)]
    pub(crate) api: ApiArgs,

    #[command(flatten)]
    pub(crate) marks: MarkArgs,
}

impl Args for TraceArgs {
    fn augment_args(command: Command) -> Command {
        TraceSettings::augment_args(Question::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TraceArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            question: Question::from_arg_matches(matches)?,
            given: Given::of::<TraceSettings>(matches),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl TraceArgs {
    /// The agent's settings: the flags given, else those of the agent that runs, else variables and defaults.
    pub(crate) fn settings(&self, of_agent: &[Setting]) -> Result<TraceSettings, clap::Error> {
        let followed = TraceSettings::augment_args(Command::new(""));
        let is_followed = |setting: &&Setting| {
            let mut flags = followed.get_arguments().filter_map(clap::Arg::get_long);
            flags.any(|flag| flag == setting.flag)
        };
        self.given
            .beside(of_agent.iter().filter(is_followed), "routelet trace")
    }
}
