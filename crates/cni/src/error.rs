//! What the plugin answers when it cannot do what it is asked.

use serde_json::{Value, json};

use crate::SpecVersion;

/// Error codes: below 100 those of the CNI specification, from 100 on the plugin's own. docs/cni.md explains them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration is of a version of the specification that the plugin does not speak, or that has not the
    /// verb.
    IncompatibleVersion,
    /// The container does not exist: there is nothing to clean up.
    UnknownContainer,
    /// A variable of the environment is missing or wrong.
    InvalidEnvironment,
    /// Something could not be read or written.
    Io,
    /// What should be JSON is none.
    Undecodable,
    /// A field of the network configuration is missing or wrong.
    InvalidConfig,
    /// CNI_NETNS names no network namespace, or the host's.
    InvalidNetns,
    /// No ADD can be served at present.
    NotAvailable,
    /// The IPAM plugin is not there or cannot be run.
    NoIpam,
    /// The container has an interface of this name, or the pod one of this network, already.
    InterfaceTaken,
    /// The IPAM plugin's answer cannot be used.
    IpamAnswer,
    /// The kernel refused something.
    Kernel,
    /// Something was set, and reads back as another value.
    ReadBack,
    /// CHECK found something that is not as ADD left it.
    NotAsAdded,
    /// What another plugin answered, passed on.
    Delegate(u32),
}

impl Code {
    /// The number.
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Undecodable => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::NotAvailable => 50,
            Self::NoIpam => 100,
            Self::InterfaceTaken => 101,
            Self::IpamAnswer => 102,
            Self::Kernel => 103,
            Self::ReadBack => 104,
            Self::NotAsAdded => 105,
            Self::Delegate(code) => code,
        }
    }
}

/// An answer that says what went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of trouble it is.
    pub code: Code,
    /// What went wrong with which thing, and what to do.
    pub message: String,
    /// What else there is to know.
    pub details: String,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    /// The kernel, or a file of it, refused `what`.
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(routelet_netlink::Error) -> Self {
        move |error| Self::new(Code::Kernel, format!("{}: {error}", what.into()))
    }

    /// The error with one more thing to know.
    pub(crate) fn with_details(mut self, details: impl AsRef<str>) -> Self {
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(details.as_ref());
        self
    }

    /// The answer, in the form of a version of the specification.
    pub(crate) fn to_json(&self, version: SpecVersion) -> Value {
        json!({
            "cniVersion": version.as_str(),
            "code": self.code.number(),
            "msg": self.message,
            "details": self.details,
        })
    }
}
