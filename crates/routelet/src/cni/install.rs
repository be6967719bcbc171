//! `routelet install-cni`: asks the agent on this node for the plugin's configuration, waits for it, and puts plugin and
//! configuration in place.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use routelet_cni::{Conflist, NotOurs, agent};

use crate::args::InstallCniArgs;
use crate::cni::files;

/// How long after an answer the agent is asked again. It cannot be waited for otherwise: there may be no socket yet.
const AGAIN: Duration = Duration::from_millis(200);

/// Why plugin and configuration are not in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// The agent did not become ready in time.
    #[error("the agent was not ready within --timeout {}s: {reason}", timeout.as_secs())]
    NotReady {
        /// The time.
        timeout: Duration,
        /// What was waited for at the end.
        reason: String,
    },
    /// What answers is no agent.
    #[error(
        "--admin-socket {} answers HTTP status {status} to GET /cni: is it the socket of routelet's agent, and of this \
         version?", socket.display()
    )]
    Status {
        /// The socket.
        socket: PathBuf,
        /// The answer's status.
        status: u16,
    },
    /// The agent's answer cannot be used.
    #[error(
        "--admin-socket {} gave a configuration that is not this version's: run install-cni of the agent's version",
        socket.display()
    )]
    NotOurs {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        source: NotOurs,
    },
    /// A file could not be written, or the program not be read.
    #[error("cannot install the CNI plugin: {}", files::REMEDY)]
    Files(#[source] io::Error),
}

/// Puts plugin and configuration in place. What is there already is not written.
pub(crate) fn run(args: &InstallCniArgs) -> Result<(), InstallError> {
    let list = wait_for_list(args)?;
    let written = files::install(&args.files, &list).map_err(InstallError::Files)?;
    if !written {
        tracing::info!("the CNI plugin and its configuration are in place already");
    }
    if let Some(name) = files::rival(&args.files).map_err(InstallError::Files)? {
        files::tell_rival(&args.files, &name);
    }
    Ok(())
}

fn wait_for_list(args: &InstallCniArgs) -> Result<Conflist, InstallError> {
    let socket = &args.admin_socket;
    let give_up = Instant::now() + args.timeout;
    let mut told = String::new();
    loop {
        let reason = match agent::get(socket, "/cni") {
            Ok(answer) if answer.status == 200 => {
                return Conflist::from_text(&answer.body).map_err(|source| InstallError::NotOurs {
                    socket: socket.clone(),
                    source,
                });
            }
            Ok(answer) if answer.status == 503 => {
                let reasons: Vec<_> = answer.body.lines().collect();
                reasons.join("; ")
            }
            Ok(answer) => {
                return Err(InstallError::Status {
                    socket: socket.clone(),
                    status: answer.status,
                });
            }
            Err(error) => format!(
                "it does not answer on --admin-socket {}: {error}; see that it runs on this node and serves this socket",
                socket.display()
            ),
        };
        if Instant::now() >= give_up {
            return Err(InstallError::NotReady {
                timeout: args.timeout,
                reason,
            });
        }
        if told != reason {
            tracing::info!("waiting for the agent: {reason}");
            told = reason;
        }
        pause(give_up);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "neither a socket that is not there nor an agent that is not ready tells when that changes"
)]
fn pause(give_up: Instant) {
    thread::sleep(AGAIN.min(give_up.saturating_duration_since(Instant::now())));
}
