//! What is logged, changed while the agent runs: by root on its node, on the unix socket only.
//!
//! | request | answer |
//! |---|---|
//! | `GET /log-level` | the filter in force, and that of the settings |
//! | `PUT /log-level`, the filter as body | the same, after the change; 400 with what is wrong with the filter |
//! | `DELETE /log-level` | the same, after the settings' filter has come into force again |

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde::{Deserialize, Serialize};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::reload::{self, Handle};

use crate::logging::LogFilter;

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogLevel {
    /// The filter in force.
    pub(crate) filter: String,
    /// That of the settings (--log-level).
    pub(crate) of_settings: String,
}

/// The hand on the filter. Clones hold the same.
#[derive(Debug, Clone)]
pub(crate) struct LogControl {
    handle: Handle<Targets, Registry>,
    of_settings: LogFilter,
    in_force: Arc<Mutex<LogFilter>>,
}

impl LogControl {
    /// A hand on a filter, which begins with that of the settings, and the filter.
    pub(crate) fn new(of_settings: LogFilter) -> (Self, reload::Layer<Targets, Registry>) {
        let (layer, handle) = reload::Layer::new(of_settings.targets().clone());
        let in_force = Arc::new(Mutex::new(of_settings.clone()));
        let control = Self {
            handle,
            of_settings,
            in_force,
        };
        (control, layer)
    }

    /// What is logged now.
    pub(crate) fn now(&self) -> LogLevel {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        LogLevel {
            filter: in_force.to_string(),
            of_settings: self.of_settings.to_string(),
        }
    }

    /// Has this logged from now on. The change itself is logged whatever the filters say, so that a log that falls
    /// silent says why. Fails where nothing is logged at all.
    fn set(&self, filter: LogFilter) -> Result<(), reload::Error> {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let telling = filter
            .targets()
            .clone()
            .with_target(module_path!(), tracing::Level::INFO);
        self.handle.reload(telling)?;
        tracing::info!(from = %in_force, to = %filter, "the log level was changed");
        self.handle.reload(filter.targets().clone())?;
        // Libraries that use `log` ask there first.
        log::set_max_level(filter.most_verbose());
        *in_force = filter;
        Ok(())
    }

    fn reset(&self) -> Result<(), reload::Error> {
        self.set(self.of_settings.clone())
    }
}

/// The endpoint, for the router of what only root may do.
pub(crate) fn endpoint<S>(control: LogControl) -> MethodRouter<S> {
    get(show).put(change).delete(reset).with_state(control)
}

async fn show(State(control): State<LogControl>) -> Response {
    Json(control.now()).into_response()
}

async fn change(State(control): State<LogControl>, filter: String) -> Response {
    match filter.trim().parse() {
        Ok(filter) => changed(&control, control.set(filter)),
        Err(wrong) => (StatusCode::BAD_REQUEST, format!("{wrong}\n")).into_response(),
    }
}

async fn reset(State(control): State<LogControl>) -> Response {
    changed(&control, control.reset())
}

fn changed(control: &LogControl, done: Result<(), reload::Error>) -> Response {
    match done {
        Ok(()) => Json(control.now()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
