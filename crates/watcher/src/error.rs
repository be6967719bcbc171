//! What can go wrong with the Kubernetes API, and what each trouble asks for.

use std::error::Error as _;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{InClusterError, KubeconfigError};
use kube::core::Status;

/// Trouble with the Kubernetes API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("--kubeconfig {path:?} (ROUTELET_KUBECONFIG) cannot be used: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// No kubeconfig is given, and this is not a pod with a service account.
    #[error(
        "no kubeconfig is given and the pod's own credentials cannot be used: {0}; give a kubeconfig, or run in a pod with a service account token"
    )]
    InCluster(#[source] InClusterError),
    /// The address that shall stand in for the API's makes no URL.
    #[error("API server host {host:?} and port {port:?} make no URL: {source}")]
    Server {
        /// The host that was given.
        host: Option<String>,
        /// The port that was given.
        port: Option<u16>,
        /// Why.
        source: http::Error,
    },
    /// The HTTP client cannot be made from the configuration (certificates, credentials).
    #[error("no client for the Kubernetes API: {}", chain(.0))]
    Client(#[source] kube::Error),
    /// A request did not reach the API server, or its answer did not come.
    #[error("the API server cannot be reached: {}", chain(.0))]
    Unreachable(#[source] kube::Error),
    /// The API server is connected and says nothing.
    #[error("the API server was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// A streaming list began and went silent before its end.
    #[error("the API server began a streaming list and did not end it within {} s", .0.as_secs())]
    NoListEnd(Duration),
    /// The API server answered with an error.
    #[error("the API server answers {code} {reason}: {message}")]
    Refused {
        /// HTTP status, or the one in an error among the events of a watch.
        code: u16,
        /// `reason` of the API's Status; empty where there is none.
        reason: String,
        /// What it says.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
        /// It does not know the resource version yet that it was asked for: it is behind, or it has been
        /// restored to an earlier state.
        behind: bool,
    },
    /// An answer broke off before its end.
    #[error("the API server's answer broke off")]
    Cut(#[source] Option<kube::Error>),
    /// The host has lost the address that the connection goes from, so nothing more comes.
    #[error("the connection to the API server goes from {0}, which this host has no more")]
    AddressLost(IpAddr),
    /// An answer that is not what the Kubernetes API sends.
    #[error("the API server's answer cannot be read: {0}")]
    Garbage(#[source] serde_json::Error),
    /// A list that is older than what the API server has told before.
    #[error("the API server's list is of version {listed}, and {told} has been told before")]
    Stale {
        /// The list's resource version.
        listed: String,
        /// The newest version told.
        told: String,
    },
    /// A list without a resource version, from which nothing could be watched.
    #[error("the API server's list has no metadata.resourceVersion")]
    NoVersion,
    /// One event of a watch is longer than any object can be.
    #[error("the API server sends an event of over {0} bytes")]
    TooLong(usize),
}

/// The kinds of trouble, to count them by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No connection, TLS trouble, no credentials at hand.
    Unreachable,
    /// Connected, but nothing comes.
    Silent,
    /// 410 and the like: the resource version is too old (or unknown), or a list is: list again.
    Expired,
    /// 429.
    Throttled,
    /// 401 and 403.
    Denied,
    /// 5xx.
    Server,
    /// Any other error that the API server answers with.
    Refused,
    /// An answer broke off, or its connection is dead.
    Cut,
    /// An answer that cannot be read.
    Garbage,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: [ErrorKind; 9] = [
        Self::Unreachable,
        Self::Silent,
        Self::Expired,
        Self::Throttled,
        Self::Denied,
        Self::Server,
        Self::Refused,
        Self::Cut,
        Self::Garbage,
    ];

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Expired => "expired",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Server => "server",
            Self::Refused => "refused",
            Self::Cut => "cut",
            Self::Garbage => "garbage",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Error {
    /// Which kind of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Kubeconfig { .. }
            | Self::InCluster(_)
            | Self::Server { .. }
            | Self::Client(_)
            | Self::Unreachable(_) => ErrorKind::Unreachable,
            Self::Silent(_) | Self::NoListEnd(_) => ErrorKind::Silent,
            Self::Refused { behind: true, .. } | Self::Refused { code: 410, .. } | Self::Stale { .. } => {
                ErrorKind::Expired
            }
            Self::Refused { code: 429, .. } => ErrorKind::Throttled,
            Self::Refused { code: 401 | 403, .. } => ErrorKind::Denied,
            Self::Refused { code: 500.., .. } => ErrorKind::Server,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Cut(_) | Self::AddressLost(_) => ErrorKind::Cut,
            Self::Garbage(_) | Self::NoVersion | Self::TooLong(_) => ErrorKind::Garbage,
        }
    }

    /// How long the API server wants to be left alone; 1 s where it throttles and does not say.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused {
                retry_after: Some(wait),
                ..
            } => Some(*wait),
            Self::Refused { code: 429, .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whether it says that the parameters of the request are wrong: so do servers that have no streaming
    /// lists (422 Invalid from those that know `sendInitialEvents` but have it off, and from those that
    /// refuse `resourceVersionMatch` on a watch).
    pub(crate) fn refuses_parameters(&self) -> bool {
        matches!(self, Self::Refused { code: 400 | 422, .. })
    }

    /// Of JSON: what ends too early was cut off, anything else is garbage.
    pub(crate) fn from_json(error: serde_json::Error) -> Self {
        if error.is_eof() {
            Self::Cut(None)
        } else {
            Self::Garbage(error)
        }
    }

    /// What a Status says.
    pub(crate) fn from_status(status: Status, retry_after_header: Option<Duration>) -> Self {
        let (seconds, causes) = match status.details {
            Some(details) => (details.retry_after_seconds, details.causes),
            None => (0, Vec::new()),
        };
        let in_details = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        Self::Refused {
            code: status.code,
            reason: status.reason,
            message: status.message,
            retry_after: retry_after_header.or(in_details),
            behind: causes
                .iter()
                .any(|cause| cause.reason == "ResourceVersionTooLarge"),
        }
    }
}

/// An error and its causes in one line: kube's own messages leave the innermost out.
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
