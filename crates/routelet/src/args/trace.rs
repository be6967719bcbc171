//! Settings of `routelet trace`.

use clap::Args;

use super::asking::{AgentArgs, OutputArgs};
use super::{ApiArgs, MarkArgs};
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

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) agent: AgentArgs,

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
