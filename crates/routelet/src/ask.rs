//! The subcommands that ask the running agent, on its unix socket.

pub(crate) mod log_level;
pub(crate) mod status;
pub(crate) mod table;

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use routelet_cni::agent::{self, Answer, Limits};

use crate::state::State;

/// What may come back: the state of the largest clusters takes some megabytes, and the agent answers between two batches
/// to the kernel.
const LIMITS: Limits = Limits {
    patience: Duration::from_secs(10),
    longest: 256 << 20,
};

/// The agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// No one answers.
    #[error(
        "no agent answers on --admin-socket {}: see that routelet run is at work on this node and serves this socket, and \
         that you are root here", socket.display()
    )]
    NoAgent {
        /// The socket.
        socket: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The answer is a refusal.
    #[error("the agent on --admin-socket {} answers {method} {path} with HTTP status {status}: {reason}", socket.display())]
    Status {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        method: &'static str,
        /// Of what.
        path: &'static str,
        /// The answer's status.
        status: u16,
        /// What it says.
        reason: String,
    },
    /// The answer cannot be read.
    #[error(
        "what answers on --admin-socket {} is not an agent of this version: use the program of the agent's version",
        socket.display()
    )]
    NotOurs {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl AskError {
    /// Whether no agent was there to answer.
    pub(crate) fn is_no_agent(&self) -> bool {
        let Self::NoAgent { source, .. } = self else {
            return false;
        };
        matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
    }
}

/// All that the agent behind the socket knows, and the same as the JSON that it came as.
pub(crate) fn state(socket: &Path) -> Result<(State, String), AskError> {
    let text = ask(socket, "GET", "/state", "")?;
    let state = serde_json::from_str(&text).map_err(|source| AskError::NotOurs {
        socket: socket.to_owned(),
        source,
    })?;
    Ok((state, text))
}

/// The agent's answer to a question.
pub(crate) fn ask(
    socket: &Path,
    method: &'static str,
    path: &'static str,
    body: &str,
) -> Result<String, AskError> {
    let asked = agent::ask(socket, method, path, body, LIMITS);
    let Answer { status, body } = asked.map_err(|source| AskError::NoAgent {
        socket: socket.to_owned(),
        source,
    })?;
    if status == 200 {
        return Ok(body);
    }
    Err(AskError::Status {
        socket: socket.to_owned(),
        method,
        path,
        status,
        reason: body.trim().to_owned(),
    })
}

/// Writes what was asked for. Who stops reading has read enough.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
