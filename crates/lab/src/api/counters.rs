//! What was asked of the API and what it sent, for tests and measurements to assert on.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Resource, Verb};

/// A reading of the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests received, faulted ones included.
    pub requests: BTreeMap<(Resource, Verb), u64>,
    /// Bytes of answer bodies handed to the connection.
    pub bytes_sent: BTreeMap<(Resource, Verb), u64>,
    /// Watch streams open now.
    pub open_watches: BTreeMap<Resource, u64>,
    /// Requests refused for a missing or wrong token.
    pub unauthorized: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Faults that a request ran into.
    pub faults: u64,
}

impl Counters {
    /// Requests of one kind.
    pub fn requests(&self, resource: Resource, verb: Verb) -> u64 {
        self.requests.get(&(resource, verb)).copied().unwrap_or(0)
    }

    /// Bytes sent in answer to one kind of request.
    pub fn bytes_sent(&self, resource: Resource, verb: Verb) -> u64 {
        self.bytes_sent.get(&(resource, verb)).copied().unwrap_or(0)
    }

    /// Watch streams of a resource that are open now.
    pub fn open_watches(&self, resource: Resource) -> u64 {
        self.open_watches.get(&resource).copied().unwrap_or(0)
    }

    /// Bytes sent in all.
    pub fn total_bytes_sent(&self) -> u64 {
        self.bytes_sent.values().sum()
    }
}

/// The live counters.
#[derive(Default)]
pub(crate) struct Tally {
    counters: Mutex<Counters>,
    changed: Condvar,
}

impl Tally {
    pub(crate) fn update(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    pub(crate) fn read(&self) -> Counters {
        self.counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Blocks until `condition` holds; the reading that did not satisfy it when the time is up.
    pub(crate) fn wait(
        &self,
        timeout: Duration,
        mut condition: impl FnMut(&Counters) -> bool,
    ) -> Result<Counters, Counters> {
        let deadline = Instant::now() + timeout;
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if condition(&counters) {
                return Ok(counters.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(counters.clone());
            }
            counters = self
                .changed
                .wait_timeout(counters, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Back to zero, except for the watches that are open.
    pub(crate) fn reset(&self) {
        self.update(|counters| {
            let open_watches = std::mem::take(&mut counters.open_watches);
            *counters = Counters {
                open_watches,
                ..Counters::default()
            };
        });
    }

    /// Counts a watch as open until the guard goes.
    pub(crate) fn open_watch(self: &Arc<Self>, resource: Resource) -> OpenWatch {
        self.update(|counters| *counters.open_watches.entry(resource).or_default() += 1);
        OpenWatch {
            tally: Arc::clone(self),
            resource,
        }
    }
}

/// An open watch, for as long as this lives.
pub(crate) struct OpenWatch {
    tally: Arc<Tally>,
    resource: Resource,
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.tally.update(|counters| {
            if let Some(open) = counters.open_watches.get_mut(&self.resource) {
                *open -= 1;
            }
        });
    }
}
