//! The CNI plugin: at the asking of a container runtime it connects a pod to its node with a veth pair, gives it its
//! addresses and routes, and takes all of it away again.
//!
//! It is a short-lived program of its own, run anew for each verb of the CNI specification. The agent need not run. What
//! it sets on the host is what the agent wants there, so that the agent finds nothing to do.

mod add;
pub mod agent;
mod attachment;
mod check;
mod config;
mod conflist;
mod del;
mod error;
mod gc;
pub mod install;
mod ipam;
mod lease;
mod network;
mod readiness;
mod request;
mod result;
mod sandbox;
mod status;
mod version;

use std::io::Read;

pub use attachment::{Attachment, InvalidAlias};
pub use config::{DEFAULT_SOCKET, IpamConfig, NetworkConfig};
pub use conflist::{Conflist, NotOurs, PLUGIN, UNINSTALLED_CONFLIST, refusing};
pub use error::{Code, Error};
pub use lease::{Lease, Removal, read_leases, remove_lease, remove_nobodys_leases};
pub use result::{CniResult, Interface, IpConfig, Route};
use serde_json::{Map, Value, json};
pub use version::SpecVersion;

use crate::config::Input;
use crate::request::{Request, Verb};

/// What the plugin answers.
#[derive(Debug)]
pub enum Answer {
    /// It is done; some verbs have something to say.
    Done(Option<Value>),
    /// It is not done; the JSON says why.
    Failed(Value),
}

/// Does what the environment (CNI_…) and `stdin`, the network configuration, ask for.
pub fn run(stdin: &mut dyn Read) -> Answer {
    // An answer is in the version of the question, as far as that can be read.
    let mut version = SpecVersion::NEWEST;
    match carry_out(stdin, &mut version) {
        Ok(value) => Answer::Done(value),
        Err(error) => Answer::Failed(error.to_json(version)),
    }
}

fn carry_out(stdin: &mut dyn Read, version: &mut SpecVersion) -> Result<Option<Value>, Error> {
    let verb = Verb::read()?;
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).map_err(|error| {
        Error::new(
            Code::Io,
            format!("the network configuration cannot be read: {error}"),
        )
    })?;
    if verb == Verb::Version {
        return tell_versions(&bytes).map(Some);
    }
    let whole = config::parse(&bytes)?;
    *version = config::spec_version(&whole)?;
    if *version < verb.since() {
        let message = format!(
            "cniVersion is {version}: {} has been there since {}",
            verb.as_str(),
            verb.since()
        );
        return Err(Error::new(Code::IncompatibleVersion, message));
    }
    let input = Input::read(whole)?;
    if let Some(why) = &input.config.refuse
        && matches!(verb, Verb::Add | Verb::Status)
    {
        return Err(Error::new(Code::NotAvailable, why));
    }
    match verb {
        Verb::Add => Ok(Some(add::add(&input, &Request::read()?)?.to_json(input.version))),
        Verb::Del => del::del(&input, &Request::read()?).map(|()| None),
        Verb::Check => check::check(&input, &Request::read()?).map(|()| None),
        Verb::Status => status::status(&input).map(|()| None),
        Verb::Gc => gc::gc(&input).map(|()| None),
        Verb::Version => Ok(None),
    }
}

/// Of the question, only its version counts, and any will do.
fn tell_versions(stdin: &[u8]) -> Result<Value, Error> {
    let whole = match stdin.trim_ascii() {
        [] => Map::new(),
        _ => config::parse(stdin)?,
    };
    let asked = whole.get("cniVersion").and_then(Value::as_str);
    Ok(json!({
        "cniVersion": asked.unwrap_or(SpecVersion::NEWEST.as_str()),
        "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str),
    }))
}
