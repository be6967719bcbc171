//! Settings of `routelet cleanup`.

use std::path::PathBuf;

use clap::Args;

use super::{CniFilesArgs, LogArgs, MarkArgs, values};

/// Everything that `routelet cleanup` can be told: the same as the agent was, where it was told anything.
#[derive(Debug, Clone, Args)]
pub(crate) struct CleanupArgs {
    #[command(flatten)]
    pub(crate) marks: MarkArgs,

    #[command(flatten)]
    pub(crate) files: CniFilesArgs,

    /// The agent's unix socket.
    #[arg(long, env = "ROUTELET_ADMIN_SOCKET", value_name = "PATH", default_value = "/run/routelet/routelet.sock",
        value_parser = values::absolute, help_heading = "Agent")]
    pub(crate) admin_socket: PathBuf,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}
