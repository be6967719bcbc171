//! DEL: disconnects a container.

use crate::attachment::Attachment;
use crate::config::Input;
use crate::error::Error;
use crate::ipam::Ipam;
use crate::network::host_veth;
use crate::request::Request;
use crate::sandbox::{host, remove_veth};

/// Disconnects the container, as often as it is asked to: neither its namespace nor the result of the ADD is needed.
///
/// The addresses are given back last: who gets them next shall not find the old routes.
pub(crate) fn del(input: &Input, request: &Request) -> Result<(), Error> {
    let attachment = Attachment::of(&input.config.name, request);
    // Where the name cannot be had, the veth is found without.
    let veth = host_veth(&input.config, request).ok();
    remove_veth(&mut host()?, veth, &attachment)?;
    match Ipam::find(input)? {
        Some(ipam) => ipam.del(),
        None => Ok(()),
    }
}
