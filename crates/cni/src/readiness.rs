//! Whether the agent is ready: `GET /readyz` on its unix socket.

use std::io;
use std::path::Path;

use crate::agent::{self, Answer};
use crate::error::{Code, Error};

/// Asks the agent. The error says why it is not ready.
pub(crate) fn ask_agent(socket: &Path) -> Result<(), Error> {
    let not_ready = |message| Err(Error::new(Code::NotAvailable, message));
    let shown = socket.display();
    match agent::get(socket, "/readyz") {
        Ok(Answer { status: 200, .. }) => Ok(()),
        Ok(Answer { status: 503, body }) => Err(Error::new(
            Code::NotAvailable,
            "routelet's agent on this node is not ready yet",
        )
        .with_details(body.trim())),
        Ok(Answer { status, .. }) => not_ready(format!(
            "{shown} answers HTTP status {status}: is it routelet's agent?"
        )),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => not_ready(format!(
            "{shown} does not answer in HTTP: is it routelet's agent?"
        )),
        Err(error) => not_ready(format!(
            "routelet's agent does not answer on {shown}: {error}; see that it runs on this node"
        )),
    }
}
