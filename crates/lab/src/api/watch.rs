//! Watches: the initial state, the changes since, bookmarks, and the faults of open streams.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep_until};

use super::body::{self, Body, Chunk, Cut};
use super::counters::OpenWatch;
use super::faults::{Garbage, Order};
use super::list::{CHUNK, too_large};
use super::resource::Path;
use super::selector::Selector;
use super::stored::{Event, EventKind, Stored};
use super::{Query, Resource, Shared, Status};

/// A watch ends by itself after this long unless the client says otherwise; a real server picks 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// One open watch.
struct Watch {
    shared: Arc<Shared>,
    resource: Resource,
    selector: Selector,
    /// All changes up to this revision have been seen.
    cursor: u64,
    /// Objects that were there at the start and are still to be sent.
    initial: std::vec::IntoIter<Arc<Stored>>,
    /// Whether a bookmark marks the end of the initial objects.
    announce_end: bool,
    ready: VecDeque<(Bytes, Option<Arc<Event>>)>,
    ending: Option<Ending>,
    silent: bool,
    bookmarks: Option<Interval>,
    deadline: tokio::time::Instant,
    changes: watch::Receiver<()>,
    orders: mpsc::UnboundedReceiver<Order>,
    _open: OpenWatch,
}

enum Ending {
    Proper,
    Cut,
}

/// Answers a watch request.
///
/// As with a real server, a resourceVersion that is too old is no refusal: the stream begins, with an ERROR event.
pub(crate) fn open(shared: &Arc<Shared>, path: &Path, query: &Query) -> Result<Body, Status> {
    let resource = path.resource;
    let selector = Selector::parse(resource, path.namespace.as_deref(), query.field_selector())?;
    let asked = query.number("resourceVersion")?;
    let store = shared.store();
    let streaming_list = wants_streaming_list(shared, query)?;
    if streaming_list && asked.is_some_and(|asked| asked > store.revision()) {
        return Err(too_large(asked.unwrap_or_default(), store.revision()));
    }
    let from_start = streaming_list || asked.unwrap_or(0) == 0;
    let mut ready = VecDeque::new();
    let mut ending = None;
    if !from_start && let Err(status) = store.may_resume(resource, asked.unwrap_or_default()) {
        ready.push_back((error_line(&status), None));
        ending = Some(Ending::Proper);
    }
    let initial: Vec<_> = if from_start {
        let listing = store.listing(resource);
        listing
            .objects
            .iter()
            .filter(|object| selector.matches(&object.fields))
            .cloned()
            .collect()
    } else {
        Vec::new()
    };
    let allow_bookmarks = query.flag("allowWatchBookmarks");
    let started = tokio::time::Instant::now();
    let bookmarks = allow_bookmarks.then(|| {
        let period = shared.bookmark_interval();
        let mut interval = interval_at(started + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    });
    let timeout = query
        .number("timeoutSeconds")?
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let watch = Watch {
        shared: Arc::clone(shared),
        resource,
        selector,
        cursor: if from_start {
            store.revision()
        } else {
            asked.unwrap_or_default()
        },
        initial: initial.into_iter(),
        announce_end: streaming_list && allow_bookmarks,
        ready,
        ending,
        silent: false,
        bookmarks,
        deadline: started + timeout,
        changes: store.changes(resource),
        orders: shared.faults.enlist(resource),
        _open: shared.tally.open_watch(resource),
    };
    drop(store);
    Ok(body::streamed(stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((chunk, watch))
    })))
}

/// The stream that a watch from a forgotten version gets: one ERROR event.
pub(crate) fn expired() -> Body {
    body::full(error_line(&Status::too_old(1, 2)))
}

/// Whether the request is a streaming list (KEP-3157) that this server grants.
fn wants_streaming_list(shared: &Shared, query: &Query) -> Result<bool, Status> {
    let invalid = |causes: &str| {
        Err(Status::new(
            422,
            format!("ListOptions.meta.k8s.io \"\" is invalid: {causes}"),
        ))
    };
    let initial = query.get("sendInitialEvents").is_some();
    let matching = query.get("resourceVersionMatch");
    if !shared.streaming_lists() && (initial || matching.is_some()) {
        return invalid(
            "[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch, sendInitialEvents: \
             Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled]",
        );
    }
    if initial && matching != Some("NotOlderThan") {
        return invalid(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
    }
    if !initial && matching.is_some() {
        return invalid("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch");
    }
    Ok(query.flag("sendInitialEvents"))
}

impl Watch {
    /// The next chunk; `None` at the proper end of the stream.
    async fn next(&mut self) -> Option<Chunk> {
        loop {
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            if matches!(self.ending, Some(Ending::Cut)) && self.ready.is_empty() {
                return Some(Err(Cut));
            }
            if !self.silent {
                if self.ready.is_empty() && self.ending.is_none() {
                    self.gather();
                }
                if let Some((bytes, event)) = self.ready.pop_front() {
                    if let Some(event) = event {
                        event.first_sent.get_or_init(Instant::now);
                    }
                    return Some(Ok(bytes));
                }
                if self.ending.is_some() {
                    return None;
                }
            }
            self.wait().await;
        }
    }

    /// Fills `ready` with what there is to send.
    fn gather(&mut self) {
        self.changes.mark_unchanged(); // before reading, so that no change goes unseen
        if self.initial.len() > 0 {
            let mut chunk = Vec::with_capacity(CHUNK);
            while chunk.len() < CHUNK
                && let Some(object) = self.initial.next()
            {
                object.append_line(EventKind::Added, &mut chunk);
            }
            self.ready.push_back((chunk.into(), None));
            return;
        }
        if std::mem::take(&mut self.announce_end) {
            self.ready.push_back((self.bookmark(self.cursor, true), None));
        }
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        match store.changes_since(self.resource, self.cursor) {
            Ok(events) => {
                let lines = events.filter_map(|event| {
                    let line = event.line_for(&self.selector)?;
                    Some((line, Some(Arc::clone(event))))
                });
                self.ready.extend(lines);
                self.cursor = store.revision();
            }
            Err(oldest) => self.fail(&Status::too_old(self.cursor, oldest)),
        }
    }

    /// Waits for anything that may give something to send.
    async fn wait(&mut self) {
        let bookmarks = &mut self.bookmarks;
        let tick = async {
            match bookmarks {
                Some(interval) => interval.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            order = self.orders.recv() => if let Some(order) = order { self.obey(order) },
            // Sender and store live as long as `shared`, so this fails never.
            _ = self.changes.changed(), if !self.silent => {}
            _ = tick, if !self.silent => self.push_bookmark(),
            () = sleep_until(self.deadline), if !self.silent => self.ending = Some(Ending::Proper),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Cut => {
                self.ready.clear();
                self.ending = Some(Ending::Cut);
            }
            Order::End => self.ending = Some(Ending::Proper),
            Order::Error(status) => self.fail(&status),
            Order::Garbage(garbage) => {
                self.ready.push_back((garbage.watch_line(), None));
                if garbage == Garbage::HalfDocument {
                    self.ending = Some(Ending::Cut);
                }
            }
            Order::Silence(silent) => self.silent = silent,
            Order::Bookmark if self.bookmarks.is_some() => self.push_bookmark(),
            Order::Bookmark => {}
        }
    }

    fn fail(&mut self, status: &Status) {
        self.ready.push_back((error_line(status), None));
        self.ending = Some(Ending::Proper);
    }

    /// Bookmarks the present revision, behind all changes up to it.
    fn push_bookmark(&mut self) {
        if self.initial.len() == 0 && !self.announce_end {
            self.gather();
            if self.ending.is_none() {
                self.ready.push_back((self.bookmark(self.cursor, false), None));
            }
        }
    }

    fn bookmark(&self, revision: u64, ends_initial: bool) -> Bytes {
        let info = self.resource.info();
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": info.kind, "apiVersion": info.api_version, "metadata": metadata});
        line(&json!({"type": "BOOKMARK", "object": object}))
    }
}

fn error_line(status: &Status) -> Bytes {
    line(&json!({"type": "ERROR", "object": status.to_json()}))
}

fn line(event: &Value) -> Bytes {
    format!("{event}\n").into()
}
