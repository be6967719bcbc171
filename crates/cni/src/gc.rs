//! GC: takes away what the runtime does not know of any more.

use std::collections::BTreeSet;

use crate::attachment::Attachment;
use crate::config::{Input, ValidAttachment};
use crate::error::{Code, Error};
use crate::ipam::Ipam;
use crate::lease::{read_leases, remove_nobodys_leases};
use crate::request::Verb;
use crate::sandbox::host;

/// Removes host veths and gives back addresses of this network that belong to no valid attachment, then lets the IPAM
/// plugin do the same. What fails does not keep the rest from being done.
pub(crate) fn gc(input: &Input) -> Result<(), Error> {
    let valid = input.valid_attachments()?;
    let is_valid = |container_id: &str, ifname: &str| {
        let its = |one: &ValidAttachment| {
            one.container_id == container_id && (one.ifname == ifname || ifname.is_empty())
        };
        valid.iter().any(its)
    };
    let mut troubles = Vec::new();
    let mut dead = BTreeSet::new();

    let mut host = host()?;
    for link in host.links().map_err(Error::kernel("listing the host's links"))? {
        let Some(owner) = link
            .alias
            .as_deref()
            .and_then(|alias| alias.parse::<Attachment>().ok())
        else {
            continue;
        };
        if owner.network != input.config.name || is_valid(&owner.container_id, owner.ifname.as_str()) {
            continue;
        }
        match host.delete(&link) {
            Ok(()) => {
                dead.insert((owner.container_id, owner.ifname.to_string()));
            }
            // Its address stays with it.
            Err(error) => troubles.push(Error::kernel(format!(
                "removing the host veth of container {}",
                owner.container_id
            ))(error)),
        }
    }
    match Ipam::find(input) {
        Ok(Some(ipam)) => give_back(input, &ipam, &is_valid, dead, &mut troubles),
        Ok(None) => {}
        Err(error) => troubles.push(error),
    }
    let mut troubles = troubles.into_iter();
    match troubles.next() {
        None => Ok(()),
        Some(first) => Err(troubles.fold(first, |error, more| error.with_details(more.to_string()))),
    }
}

fn give_back(
    input: &Input,
    ipam: &Ipam,
    is_valid: &dyn Fn(&str, &str) -> bool,
    mut dead: BTreeSet<(String, String)>,
    troubles: &mut Vec<Error>,
) {
    if ipam.is_host_local() {
        // It takes no part in GC itself. A lease whose ADD did not get to a veth is found nowhere else.
        let directory = input.host_local_leases();
        match remove_nobodys_leases(&directory).and_then(|_| read_leases(&directory)) {
            Ok(leases) => dead.extend(
                leases
                    .into_iter()
                    .filter(|lease| !is_valid(&lease.container_id, &lease.ifname))
                    .map(|lease| (lease.container_id, lease.ifname)),
            ),
            Err(error) => {
                let message = format!("host-local's leases in {}: {error}", directory.display());
                troubles.push(Error::new(Code::Io, message));
            }
        }
    }
    for (container_id, ifname) in dead {
        // host-local takes an empty name for a lease that tells none; others want a name that may be one.
        let ifname = if ifname.is_empty() { "eth0" } else { &ifname };
        troubles.extend(ipam.del_of(&container_id, ifname).err());
    }
    troubles.extend(ipam.pass_on(Verb::Gc).err());
}
