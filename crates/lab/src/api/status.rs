//! Kubernetes' answer to what it will not do: the `Status` object, as an error type of its own.

use std::time::Duration;

use serde_json::{Value, json};

/// A refusal, as the Kubernetes API words it (`meta/v1` Status).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {reason}: {message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, as `NotFound`, `Conflict`, `Expired`.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
    /// The `Retry-After` header, sent in whole seconds.
    pub retry_after: Option<Duration>,
}

impl Status {
    /// A refusal with the code's usual reason.
    pub fn new(code: u16, message: impl Into<String>) -> Status {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Expired",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "Unknown",
        };
        Status {
            code,
            reason,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The same, asking the client to come back after `delay`.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Status {
        self.retry_after = Some(delay);
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, message)
    }

    pub(crate) fn already_exists(plural: &str, name: &str) -> Status {
        let message = format!("{plural} \"{name}\" already exists");
        Status {
            reason: "AlreadyExists",
            ..Status::new(409, message)
        }
    }

    pub(crate) fn not_found(plural: &str, name: &str) -> Status {
        Status::new(404, format!("{plural} \"{name}\" not found"))
    }

    pub(crate) fn conflict(plural: &str, name: &str) -> Status {
        let message = format!(
            "Operation cannot be fulfilled on {plural} \"{name}\": the object has been modified; please apply \
             your changes to the latest version and try again"
        );
        Status::new(409, message)
    }

    /// A watch asked for changes that history no longer holds.
    pub(crate) fn too_old(asked: u64, oldest: u64) -> Status {
        Status::new(410, format!("too old resource version: {asked} ({oldest})"))
    }

    /// The object that goes over the wire.
    pub(crate) fn to_json(&self) -> Value {
        let mut details = json!({});
        if let Some(delay) = self.retry_after {
            details["retryAfterSeconds"] = delay.as_secs().into();
        }
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        })
    }
}
