//! One kind of object, watched for ever: list or streaming list, watch, and what follows from each trouble.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{ListParams, VersionMatch, WatchEvent, WatchParams};
use kube::core::{Request, Status as ApiStatus};
use routelet_model::{ClusterEvent, Source};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::addresses::HostAddresses;
use crate::backoff::{Backoff, random};
use crate::error::{Error, ErrorKind};
use crate::fold::Fold;
use crate::http::{self, Lines};
use crate::kind::Kind;
use crate::list::ListDecoder;
use crate::status::{Status, WatchState};

/// Annotation of the bookmark that ends a streaming list (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// How long the answer to a watch may take to begin, and a list to go on.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same after the host has lost an address, for the first try: other connections kept for use again may have gone from
/// it as well. Each one that does not answer is given up, and the next try has twice the time.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// How long the answer to a list may take to begin: the API server gives itself up to a minute.
const LIST_PATIENCE: Duration = Duration::from_secs(65);
/// How long a watch may be silent. API servers send a bookmark a minute; where none comes the connection may
/// be dead, and watching anew from where it stopped costs one request.
const WATCH_SILENCE: Duration = Duration::from_secs(90);
/// After how long a watch is asked to end, in seconds; up to twice as long at random, as other clients do.
const WATCH_SECONDS: f64 = 300.0;
/// A watch that held for so long was a success.
const HELD: Duration = Duration::from_secs(5);

/// Where the watch stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    /// To be listed for the first time: as the server's cache has it where a list from the store would cost the store
    /// dearly, that is, where there are no streaming lists.
    Any,
    /// To be listed, at least as new as this version: an older cache of another server would undo what has
    /// been told.
    AtLeast(String),
    /// To be listed as the server's store has it: the versions known are worth nothing.
    Latest,
    /// To be watched from this version on.
    After(String),
}

/// Whether the server has streaming lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streaming {
    Untried,
    Yes,
    No,
}

/// A watch of one kind of object.
pub(crate) struct Watch<K: Kind> {
    client: Client,
    field_selector: Option<String>,
    events: mpsc::Sender<ClusterEvent>,
    status: Arc<Status>,
    host: HostAddresses,
    /// How long the answer to the next watch may take to begin.
    patience: Duration,
    fold: Fold<K>,
    position: Position,
    streaming: Streaming,
    /// Where an event could not be read: the second time it is skipped.
    unread_after: Option<Position>,
    /// Since when it has been told of changes, where it is. What failed after a long time did not work so long.
    working_since: Option<Instant>,
}

impl<K: Kind> Watch<K> {
    pub(crate) fn new(
        client: Client,
        field_selector: Option<String>,
        events: mpsc::Sender<ClusterEvent>,
        status: Arc<Status>,
        host: HostAddresses,
    ) -> Self {
        Self {
            client,
            field_selector,
            events,
            status,
            host,
            patience: PATIENCE,
            fold: Fold::new(),
            position: Position::Any,
            streaming: Streaming::Untried,
            unread_after: None,
            working_since: None,
        }
    }

    /// Watches until dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            self.working_since = None;
            let end = self.session().await;
            let held = self.working_since.is_some_and(|since| since.elapsed() >= HELD);
            if held {
                backoff.reset();
            }
            let asked = match end {
                Ok(()) if held => {
                    self.status.working(K::RESOURCE, WatchState::Connecting);
                    continue;
                }
                // a server that closes each watch at once
                Ok(()) => None,
                Err(error) if self.falls_back(&error) => {
                    self.streaming = Streaming::No;
                    tracing::info!(resource = %K::RESOURCE, %error, "no streaming lists here, using plain lists");
                    continue;
                }
                Err(error) => {
                    self.patience = match error {
                        Error::AddressLost(_) => FIRST_PATIENCE,
                        _ => (self.patience * 2).min(PATIENCE),
                    };
                    self.note(&error);
                    error.retry_after()
                }
            };
            tokio::time::sleep(backoff.next(asked)).await;
        }
    }

    /// Whether `error` says that the server has no streaming lists. A server too old to know the parameter
    /// tells all objects and then nothing more.
    fn falls_back(&self, error: &Error) -> bool {
        let listing = !matches!(self.position, Position::After(_));
        listing
            && match self.streaming {
                Streaming::Untried => error.refuses_parameters() || matches!(error, Error::NoListEnd(_)),
                Streaming::Yes => error.refuses_parameters(),
                Streaming::No => false,
            }
    }

    /// Tells the status of a trouble, and draws the conclusion for where to go on. That a watch expires is in the
    /// course of things; a list that is refused as too old is not.
    fn note(&mut self, error: &Error) {
        if error.kind() != ErrorKind::Expired {
            return self.status.failed(K::RESOURCE, error);
        }
        let behind = matches!(error, Error::Refused { behind: true, .. });
        match &self.position {
            Position::After(version) => {
                self.status.expired(K::RESOURCE, error);
                self.position = if behind {
                    Position::Latest
                } else {
                    Position::AtLeast(version.clone())
                };
            }
            _ => {
                self.status.failed(K::RESOURCE, error);
                self.position = Position::Latest;
            }
        }
    }

    /// A list older than what has been told would take back what is newer. Where a server sends one though it was
    /// asked for a newer one, the store itself is asked next.
    fn check_age(&self, listed: &str) -> Result<(), Error> {
        let Position::AtLeast(told) = &self.position else {
            return Ok(());
        };
        match (listed.parse::<u64>(), told.parse::<u64>()) {
            (Ok(version), Ok(least)) if version < least => Err(Error::Stale {
                listed: listed.to_owned(),
                told: told.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// From connecting to the end of the watch, `Ok` where the server ends it in due course.
    async fn session(&mut self) -> Result<(), Error> {
        match self.position.clone() {
            Position::After(version) => {
                let lines = self.watch(&version, false).await?;
                self.watching();
                self.follow(lines, false).await
            }
            from if self.streaming != Streaming::No => {
                // Without a version, the server's cache waits until it has all that the store has.
                let version = match &from {
                    Position::AtLeast(version) => version,
                    Position::Any | Position::Latest | Position::After(_) => "",
                };
                let lines = self.watch(version, true).await?;
                self.begin_list();
                self.follow(lines, true).await
            }
            from => {
                let version = self.list(&from).await?;
                let lines = self.watch(&version, false).await?;
                self.watching();
                self.follow(lines, false).await
            }
        }
    }

    /// Opens a watch; with `initial`, one that begins with all that there is.
    async fn watch(&mut self, version: &str, initial: bool) -> Result<Lines, Error> {
        let params = WatchParams {
            field_selector: self.field_selector.clone(),
            timeout: Some((WATCH_SECONDS * (1.0 + random())) as u32),
            send_initial_events: initial,
            ..WatchParams::default()
        };
        let request = Request::new(K::PATH)
            .watch(&params, version)
            .map_err(bad_request)?;
        let answer = http::send(&self.client, request, self.patience).await?;
        self.patience = PATIENCE;
        Ok(Lines::new(answer))
    }

    /// Lists without a watch and gives the version to watch from.
    async fn list(&mut self, from: &Position) -> Result<String, Error> {
        let mut params = ListParams {
            field_selector: self.field_selector.clone(),
            ..ListParams::default()
        };
        // no page size: with one, the server would not answer from its cache
        params = match from {
            Position::AtLeast(version) => params.at(version).matching(VersionMatch::NotOlderThan),
            Position::Latest => params,
            Position::Any | Position::After(_) => params.match_any(),
        };
        let request = Request::new(K::PATH).list(&params).map_err(bad_request)?;
        let answer = http::send(&self.client, request, LIST_PATIENCE).await?;
        let mut body = answer.into_body();
        self.begin_list();
        let mut decoder = ListDecoder::default();
        while let Some(piece) = http::next_piece(&mut body, PATIENCE).await? {
            for slim in decoder.feed::<K::Slim>(&piece)? {
                self.apply(slim).await;
            }
        }
        let version = decoder.finish()?.metadata.resource_version;
        if version.is_empty() {
            return Err(Error::NoVersion);
        }
        self.check_age(&version)?;
        let source = match from {
            Position::Latest => Source::Store,
            Position::Any | Position::AtLeast(_) | Position::After(_) => Source::Cache,
        };
        self.end_list(version.clone(), source).await;
        Ok(version)
    }

    /// Follows a watch to its end. `listing`: it begins with all that there is.
    async fn follow(&mut self, mut lines: Lines, mut listing: bool) -> Result<(), Error> {
        let from = lines.from;
        let mut lost = pin!(lost(self.host.clone(), from));
        let status = self.status.clone();
        loop {
            let patience = if listing { PATIENCE } else { WATCH_SILENCE };
            let line = tokio::select! {
                biased;
                line = lines.next(patience) => line,
                error = &mut lost => return Err(error),
                () = status.store_is_asked_for(K::RESOURCE), if !listing => {
                    self.position = Position::Latest;
                    tracing::info!(resource = %K::RESOURCE, "listing once more, from the API server's store");
                    return Ok(());
                }
            };
            let line = match line {
                Ok(Some(line)) => line,
                Ok(None) if listing => return Err(Error::Cut(None)),
                Ok(None) => return Ok(()),
                Err(Error::Silent(patience)) if listing => return Err(Error::NoListEnd(patience)),
                Err(error) => return Err(error),
            };
            let version = match serde_json::from_slice::<WatchEvent<K::Slim>>(line) {
                Ok(WatchEvent::Added(slim) | WatchEvent::Modified(slim)) => {
                    let version = K::version(&slim).to_owned();
                    self.apply(slim).await;
                    version
                }
                Ok(WatchEvent::Deleted(slim)) => {
                    let version = K::version(&slim).to_owned();
                    self.delete(slim).await;
                    version
                }
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    self.contact();
                    let metadata = bookmark.metadata;
                    if listing && metadata.annotations.contains_key(INITIAL_EVENTS_END) {
                        self.check_age(&metadata.resource_version)?;
                        listing = false;
                        self.streaming = Streaming::Yes;
                        self.end_list(metadata.resource_version.clone(), Source::Store)
                            .await;
                        self.watching();
                    }
                    metadata.resource_version
                }
                Ok(WatchEvent::Error(status)) => return Err(Error::from_status(*status, None)),
                Err(error) => match serde_json::from_slice::<ApiStatus>(line) {
                    Ok(status) if status.code != 0 => return Err(Error::from_status(status, None)),
                    // An object that a list lacks counts as gone.
                    _ if listing => return Err(Error::from_json(error)),
                    _ => {
                        self.skip_if_seen(Error::from_json(error))?;
                        continue;
                    }
                },
            };
            if !listing && !version.is_empty() {
                self.position = Position::After(version);
            }
        }
    }

    /// An event cannot be read. The first time that ends the watch, which resumes from the last one that could
    /// and so is told it again; the second time it is skipped, lest one event stand before all later ones.
    fn skip_if_seen(&mut self, error: Error) -> Result<(), Error> {
        if self.unread_after.as_ref() != Some(&self.position) {
            self.unread_after = Some(self.position.clone());
            return Err(error);
        }
        tracing::warn!(resource = %K::RESOURCE, %error, "skipped an event of the API server");
        self.status
            .update(K::RESOURCE, |status| status.events_skipped += 1);
        Ok(())
    }

    fn watching(&mut self) {
        self.working_since = Some(Instant::now());
        self.status.watching(K::RESOURCE);
    }

    fn begin_list(&mut self) {
        self.fold.begin_list();
        self.status.working(K::RESOURCE, WatchState::Listing);
    }

    async fn end_list(&mut self, version: String, source: Source) {
        for event in self.fold.end_list() {
            self.tell(event).await;
        }
        self.position = Position::After(version);
        let streaming = self.streaming == Streaming::Yes;
        self.status.listed(K::RESOURCE, self.fold.len(), streaming);
        self.tell(ClusterEvent::Synced(K::RESOURCE, source)).await;
    }

    async fn apply(&mut self, slim: K::Slim) {
        let (Some(key), now) = (K::key(&slim), std::time::Instant::now()) else {
            return;
        };
        let event = K::read(slim).and_then(|object| self.fold.apply(key, object));
        self.status.update(K::RESOURCE, |status| {
            status.last_event = Some(now);
            status.last_contact = Some(now);
            status.objects = self.fold.len();
            status.events_dropped_unchanged += u64::from(event.is_none());
        });
        if let Some(event) = event {
            self.tell(event).await;
        }
    }

    async fn delete(&mut self, slim: K::Slim) {
        let event = K::key(&slim).and_then(|key| self.fold.delete(key));
        let now = std::time::Instant::now();
        self.status.update(K::RESOURCE, |status| {
            status.last_event = Some(now);
            status.last_contact = Some(now);
            status.objects = self.fold.len();
        });
        if let Some(event) = event {
            self.tell(event).await;
        }
    }

    fn contact(&self) {
        let now = std::time::Instant::now();
        self.status
            .update(K::RESOURCE, |status| status.last_contact = Some(now));
    }

    async fn tell(&self, event: ClusterEvent) {
        if self.events.send(event).await.is_err() {
            // nobody listens any more: wait to be dropped
            std::future::pending::<()>().await;
        }
    }
}

/// Resolves when the host has lost the address that a connection goes from, where that is known.
async fn lost(host: HostAddresses, from: Option<IpAddr>) -> Error {
    let Some(from) = from else {
        return std::future::pending().await;
    };
    host.lost(from).await;
    Error::AddressLost(from)
}

fn bad_request(error: kube::core::request::Error) -> Error {
    Error::Client(kube::Error::BuildRequest(error))
}
