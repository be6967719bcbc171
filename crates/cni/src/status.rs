//! STATUS: whether an ADD would succeed and lead to a pod that the cluster reaches.

use crate::config::Input;
use crate::error::{Code, Error};
use crate::ipam::Ipam;
use crate::readiness::ask_agent;
use crate::request::Verb;

/// Asks the agent and the IPAM plugin.
pub(crate) fn status(input: &Input) -> Result<(), Error> {
    ask_agent(&input.config.socket)?;
    let ipam = Ipam::require(input).map_err(|error| match error.code {
        Code::NoIpam => Error {
            code: Code::NotAvailable,
            ..error
        },
        _ => error,
    })?;
    ipam.pass_on(Verb::Status)
}
