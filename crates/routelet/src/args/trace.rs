//! Settings of `routelet trace`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ApiArgs, MarkArgs, values};
use crate::trace::End;

/// Everything that `routelet trace` can be told: beside the question, what the agent was told. Where the agent answers, its
/// own settings count.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// The pod that sends: NAMESPACE/NAME of a pod of this node, or its address.
    #[arg(value_name = "FROM")]
    pub(crate) from: End,

    /// Whom it sends to: NAMESPACE/NAME of any pod, or any address.
    #[arg(value_name = "TO")]
    pub(crate) to: End,

    /// A table for people, or JSON for programs.
    #[arg(
        long,
        env = "ROUTELET_OUTPUT",
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    pub(crate) output: Output,

    /// The agent's unix socket.
    #[arg(long, env = "ROUTELET_ADMIN_SOCKET", value_name = "PATH", default_value = "/run/routelet/routelet.sock",
        value_parser = values::absolute, help_heading = "Agent")]
    pub(crate) admin_socket: PathBuf,

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

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}
