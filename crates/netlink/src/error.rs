//! The one error type of this crate.

use std::io;
use std::net::IpAddr;

use routelet_model::{IfName, Key};

/// What went wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a request.
    #[error("the kernel refused: {}{}", describe(*errno), message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Refused {
        /// The error number, positive.
        errno: i32,
        /// What the kernel says beyond the number (NLMSGERR_ATTR_MSG), where it says anything.
        message: Option<String>,
    },
    /// No answer came, or answers were lost: the request may have been carried out or not. A dump tells.
    #[error(
        "the kernel's answer was lost: whether the request was carried out is unknown until the next dump"
    )]
    OutcomeUnknown,
    /// The link that the object is on does not exist.
    #[error("there is no link {0}: wait until it appears")]
    NoSuchLink(IfName),
    /// A route is to lead through a nexthop object that does not exist.
    #[error("there is no nexthop via {gateway} dev {link}: create it before the route")]
    NoSuchNexthop {
        /// The nexthop's device.
        link: IfName,
        /// The nexthop's gateway.
        gateway: IpAddr,
    },
    /// A device of another kind, or an IPIP device with end points, has the name of ours.
    #[error("a device that is no IPIP device for any remote end has the name {0}: delete or rename it")]
    NotIpip(IfName),
    /// The nft table that the object is in does not exist.
    #[error("there is no nft table of ours: create it before what is in it")]
    NoNftTable,
    /// This kernel has no nf_tables.
    #[error("this kernel has no nf_tables: load the module nf_tables, or build it (CONFIG_NF_TABLES_INET)")]
    NoNftables,
    /// The kernel's tables changed during each attempt to dump them.
    #[error("the dump was interrupted {0} times by changes: try again later")]
    Interrupted(u32),
    /// A message of the kernel could not be understood.
    #[error("a message of the kernel could not be read: {0}")]
    Decode(&'static str),
    /// The operation makes no sense for the object: a fault of the caller.
    #[error("{0} cannot be brought about like this: it is a fault in routelet, please report it")]
    Unsupported(Key),
    /// A socket or a file below /proc/sys failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The error of the system.
        source: io::Error,
    },
}

impl Error {
    /// The error number, where the system gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether something stands already where an object was to be created.
    pub fn is_already_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether the link that the object is on is away or down: wait for the link, a retry alone is of no use.
    pub fn is_missing_link(&self) -> bool {
        // Of a nexthop's link, the kernel says it by text alone.
        matches!(self, Self::NoSuchLink(_))
            || matches!(self.errno(), Some(libc::ENODEV | libc::ENETDOWN))
            || self.is_refused_as("Invalid device index")
    }

    /// Whether the nexthop object that a route is to use has gone.
    pub fn is_missing_nexthop(&self) -> bool {
        matches!(self, Self::NoSuchNexthop { .. }) || self.is_refused_as("Nexthop id does not exist")
    }

    fn is_refused_as(&self, text: &str) -> bool {
        matches!(self, Self::Refused { errno: libc::EINVAL, message: Some(message) } if message == text)
    }

    /// An I/O error on `what`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what: what.into(),
            source,
        }
    }
}

fn describe(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
