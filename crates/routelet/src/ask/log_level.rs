//! `routelet log-level`: shows and changes what the running agent logs.

use crate::args::{EXIT_STOPPED, LogLevelArgs};
use crate::ask::{AskError, ask, print};
use crate::log_level::LogLevel;

/// Asks or changes, and shows what is logged then; the exit code.
pub(crate) fn run(args: &LogLevelArgs) -> anyhow::Result<u8> {
    let socket = &args.agent.admin_socket;
    let filter = args.filter.as_ref().map(ToString::to_string);
    let (method, body) = match (&filter, args.reset) {
        (Some(filter), _) => ("PUT", filter.as_str()),
        (None, true) => ("DELETE", ""),
        (None, false) => ("GET", ""),
    };
    let answer = ask(socket, method, "/log-level", body)?;
    let level: LogLevel = serde_json::from_str(&answer).map_err(|source| AskError::NotOurs {
        socket: socket.clone(),
        source,
    })?;
    print(&match level.filter == level.of_settings {
        true => format!("{}\n", level.filter),
        false => format!(
            "{} (until the agent starts anew or routelet log-level --reset; its settings say {})\n",
            level.filter, level.of_settings
        ),
    })?;
    Ok(EXIT_STOPPED)
}
