//! How the watches stand: for probes, metrics and the log, which hears of a trouble once and of its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use routelet_model::Resource;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind};

/// How the watches stand. The watcher writes, anyone reads.
#[derive(Debug, Default)]
pub struct Status {
    pods: Mutex<WatchStatus>,
    nodes: Mutex<WatchStatus>,
    /// Asks for the Nodes as the store has them.
    nodes_of_store: Notify,
}

/// How one watch stands.
#[derive(Debug, Clone, Default)]
pub struct WatchStatus {
    /// What it is doing.
    pub state: WatchState,
    /// Whether the last list came as a stream of events (KEP-3157), not as one document.
    pub streaming_list: bool,
    /// Complete lists after the first.
    pub relists: u64,
    /// Whether there has been a complete list.
    pub synced: bool,
    /// Troubles so far, by kind.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// When the API server last told of an object, news or not.
    pub last_event: Option<Instant>,
    /// When the API server last said anything.
    pub last_contact: Option<Instant>,
    /// Objects known.
    pub objects: usize,
    /// Updates without news, heartbeats above all, that ended in the watcher.
    pub events_dropped_unchanged: u64,
    /// Events that were skipped: unreadable when told, and when told again, or about an object without a name.
    pub events_skipped: u64,
}

/// What a watch is doing.
#[derive(Debug, Clone, Default)]
pub enum WatchState {
    /// Connecting for the first time, or anew after the server closed the watch in due course.
    #[default]
    Connecting,
    /// Being told all that there is.
    Listing,
    /// Being told of changes.
    Watching,
    /// In trouble, trying again and again.
    Failing {
        /// Since when.
        since: Instant,
        /// The latest trouble.
        error: String,
        /// Its kind.
        kind: ErrorKind,
        /// All kinds since then; each has been told once.
        kinds: BTreeSet<ErrorKind>,
        /// Failed tries since then.
        attempts: u32,
    },
}

impl Status {
    /// How the watch of `resource` stands now.
    pub fn get(&self, resource: Resource) -> WatchStatus {
        self.lock(resource).clone()
    }

    /// Has the Nodes listed once more, as the store has them, as soon as they are watched.
    pub fn ask_store_for_nodes(&self) {
        self.nodes_of_store.notify_one();
    }

    /// Resolves when that is asked for.
    pub(crate) async fn store_is_asked_for(&self, resource: Resource) {
        match resource {
            Resource::Nodes => self.nodes_of_store.notified().await,
            Resource::Pods => std::future::pending().await,
        }
    }

    fn lock(&self, resource: Resource) -> MutexGuard<'_, WatchStatus> {
        let status = match resource {
            Resource::Pods => &self.pods,
            Resource::Nodes => &self.nodes,
        };
        status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes one watch's status.
    pub(crate) fn update(&self, resource: Resource, change: impl FnOnce(&mut WatchStatus)) {
        change(&mut self.lock(resource));
    }

    /// The watch connects, or is told all that there is. Trouble is over only when this succeeds.
    pub(crate) fn working(&self, resource: Resource, state: WatchState) {
        let mut status = self.lock(resource);
        if !matches!(status.state, WatchState::Failing { .. }) {
            status.state = state;
        }
    }

    /// A list is complete.
    pub(crate) fn listed(&self, resource: Resource, objects: usize, streaming: bool) {
        let mut status = self.lock(resource);
        status.objects = objects;
        status.streaming_list = streaming;
        if status.synced {
            status.relists += 1;
            tracing::info!(%resource, objects, streaming, "listed anew");
        } else {
            status.synced = true;
            tracing::info!(%resource, objects, streaming, "listed");
        }
    }

    /// The watch works.
    pub(crate) fn watching(&self, resource: Resource) {
        let mut status = self.lock(resource);
        status.last_contact = Some(Instant::now());
        if let WatchState::Failing { since, attempts, .. } = &status.state {
            let outage_seconds = since.elapsed().as_secs_f64();
            tracing::info!(%resource, outage_seconds, attempts, "the API server is back");
        }
        status.state = WatchState::Watching;
    }

    /// The watch is in trouble.
    pub(crate) fn failed(&self, resource: Resource, error: &Error) {
        let mut status = self.lock(resource);
        let kind = error.kind();
        *status.errors.entry(kind).or_default() += 1;
        let (since, before, mut kinds) = match std::mem::take(&mut status.state) {
            WatchState::Failing {
                since,
                attempts,
                kinds,
                ..
            } => (since, attempts, kinds),
            _ => (Instant::now(), 0, BTreeSet::new()),
        };
        let attempts = before + 1;
        let news = kinds.insert(kind);
        let word = kind.as_str();
        if before == 0 {
            tracing::warn!(%resource, %error, kind = word, "lost the watch; the node stays as it is, trying again");
        } else if news {
            tracing::warn!(%resource, %error, kind = word, attempts, "still no watch, for another reason");
        } else {
            tracing::debug!(%resource, %error, kind = word, attempts, "still no watch");
        }
        status.state = WatchState::Failing {
            since,
            error: error.to_string(),
            kind,
            kinds,
            attempts,
        };
    }

    /// The server has forgotten the version that was watched from; the watch lists anew.
    pub(crate) fn expired(&self, resource: Resource, error: &Error) {
        *self.lock(resource).errors.entry(error.kind()).or_default() += 1;
        tracing::info!(%resource, %error, "the watch has expired, listing anew");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn trouble_lasts_until_the_watch_works_again() {
        let status = Status::default();
        let nodes = Resource::Nodes;
        status.failed(nodes, &Error::Cut(None));
        status.failed(nodes, &Error::Silent(Duration::from_secs(30)));
        status.working(nodes, WatchState::Connecting);
        let now = status.get(nodes);
        assert!(
            matches!(
                now.state,
                WatchState::Failing {
                    attempts: 2,
                    kind: ErrorKind::Silent,
                    ..
                }
            ),
            "{now:?}"
        );
        assert_eq!(
            now.errors,
            BTreeMap::from([(ErrorKind::Cut, 1), (ErrorKind::Silent, 1)])
        );
        assert!(matches!(status.get(Resource::Pods).state, WatchState::Connecting));
        status.watching(nodes);
        assert!(matches!(status.get(nodes).state, WatchState::Watching));
    }
}
