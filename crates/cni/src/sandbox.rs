//! Where the plugin's work is done: the pod's network namespace, and the host veths in the plugin's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use routelet_model::IfName;
use routelet_netlink::{Netns, Setup};

use crate::attachment::Attachment;
use crate::error::{Code, Error};

/// The network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A pod's namespace.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) netns: Netns,
    /// Open in it.
    pub(crate) inside: Setup,
}

impl Sandbox {
    /// Opens the namespace at `path`, which must not be the host's: its eth0 is no pod's.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let metadata = fs::metadata(path).map_err(|error| {
            let message =
                format!("CNI_NETNS is {shown}, which cannot be found: {error}; is the sandbox gone?");
            Error::new(Code::UnknownContainer, message)
        })?;
        let own = fs::metadata(OWN)
            .map_err(|error| Error::new(Code::Io, format!("{OWN}: {error}; is /proc mounted?")))?;
        if (metadata.dev(), metadata.ino()) == (own.dev(), own.ino()) {
            let message = format!(
                "CNI_NETNS is {shown}, which is the host's: a pod with the host's network gets no CNI"
            );
            return Err(Error::new(Code::InvalidNetns, message));
        }
        let open = || {
            let netns = Netns::open(path)?;
            let inside = Setup::open_in(&netns)?;
            Ok(Self { netns, inside })
        };
        open().map_err(|error: routelet_netlink::Error| {
            let message = format!("CNI_NETNS is {shown}, which is no network namespace to enter: {error}");
            Error::new(Code::InvalidNetns, message)
        })
    }
}

/// Opens the plugin's own namespace, which is the host's.
pub(crate) fn host() -> Result<Setup, Error> {
    Setup::open().map_err(Error::kernel("on the host"))
}

/// Takes the attachment's host veth away, and with it the pod's end and all that is on both. It is found by what is
/// written on it: the name may be that of a newer sandbox of the same pod by now, whose veth stays.
pub(crate) fn remove_veth(
    host: &mut Setup,
    name: Option<IfName>,
    attachment: &Attachment,
) -> Result<(), Error> {
    let is_its =
        |alias: Option<&str>| alias.and_then(|alias| alias.parse().ok()).as_ref() == Some(attachment);
    let refused = || {
        Error::kernel(format!(
            "removing the host veth of container {}",
            attachment.container_id
        ))
    };
    if let Some(name) = name
        && let Some(link) = host.link(name.as_str()).map_err(refused())?
        && is_its(link.alias.as_deref())
    {
        return host.delete(&link).map_err(refused());
    }
    for link in host.links().map_err(refused())? {
        if is_its(link.alias.as_deref()) {
            host.delete(&link).map_err(refused())?;
        }
    }
    Ok(())
}
