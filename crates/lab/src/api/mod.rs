//! An in-memory Kubernetes API over real HTTP: what the agent lists and watches in tests, demo and measurements.
//!
//! It behaves as kube-apiserver does where the agent looks: one resourceVersion, lists in pages, watches that
//! resume, bookmarks, streaming lists, field selectors, 410. And it misbehaves on demand: see [`Faults`].
//!
//! Not here: TLS, RBAC, admission, validation, label selectors, graceful deletion, field ownership.

mod body;
mod counters;
mod faults;
mod http;
mod list;
mod merge;
pub mod objects;
mod resource;
mod selector;
mod server;
mod status;
mod store;
mod stored;
mod watch;
mod write;

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper::http::HeaderValue;
use serde_json::Value;

pub use counters::Counters;
pub use faults::{Fault, Faults, Garbage, On, Snapshot};
pub use resource::{Resource, Verb};
pub use server::Server;
pub use status::Status;

use counters::Tally;
use http::Query;
use merge::{Merge, merge};
use store::Store;
use stored::Event;

/// The API's objects and settings. Clones share them; any number of servers may serve them.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

pub(crate) struct Shared {
    store: Mutex<Store>,
    faults: Faults,
    tally: Arc<Tally>,
    settings: RwLock<Settings>,
}

struct Settings {
    token: Option<String>,
    streaming_lists: bool,
    bookmark_interval: Duration,
}

/// A write that took place.
#[derive(Clone, Debug)]
pub struct Change {
    /// The object's new resourceVersion.
    pub resource_version: u64,
    /// When the change was put where the watch streams find it, just before they were woken.
    pub published: Instant,
    event: Option<Arc<Event>>,
}

impl Change {
    fn new(event: Arc<Event>) -> Change {
        Change {
            resource_version: event.revision(),
            published: event.published,
            event: Some(event),
        }
    }

    /// When the first watch stream took the change to write it to its connection. Later than `published` by the
    /// wake-up of the server's thread; `None` so long as no watch has taken it.
    pub fn first_sent(&self) -> Option<Instant> {
        self.event
            .as_ref()
            .and_then(|event| event.first_sent.get().copied())
    }
}

impl Default for Api {
    fn default() -> Self {
        Api::new()
    }
}

impl Api {
    /// An empty cluster.
    pub fn new() -> Api {
        let tally = Arc::new(Tally::default());
        Api(Arc::new(Shared {
            store: Mutex::new(Store::new()),
            faults: Faults::new(Arc::clone(&tally)),
            tally,
            settings: RwLock::new(Settings {
                token: None,
                streaming_lists: true,
                bookmark_interval: Duration::from_secs(60),
            }),
        }))
    }

    /// Serves on `listener`, which may belong to another network namespace, from a thread of its own.
    ///
    /// For [`Server::start`] to listen again in that namespace, call this from a thread that is in it.
    ///
    /// # Errors
    /// The thread or its runtime cannot be made, or the listener has no address.
    pub fn serve(&self, listener: TcpListener) -> io::Result<Server> {
        Server::spawn(Arc::clone(&self.0), listener)
    }

    /// Serves on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// As [`Api::serve`], or no port can be bound.
    pub fn serve_locally(&self) -> io::Result<Server> {
        self.serve(TcpListener::bind(("127.0.0.1", 0))?)
    }

    /// Creates an object. Its `uid` and `creationTimestamp` are kept if it has them; a pod without a namespace goes
    /// to `default`. Unlike a POST, this keeps a pod's status.
    ///
    /// # Errors
    /// 409 if it is there already, 422 without a name.
    pub fn create(&self, resource: Resource, object: impl Into<Value>) -> Result<Change, Status> {
        let object = into_object(object.into())?;
        Ok(Change::new(self.0.store().create(resource, object)?))
    }

    /// Replaces an object as a whole, status included.
    ///
    /// # Errors
    /// 404 if it is not there, 409 if it names a resourceVersion that is not the present one.
    pub fn replace(&self, resource: Resource, object: impl Into<Value>) -> Result<Change, Status> {
        let mut object = into_object(object.into())?;
        let mut store = self.0.store();
        let key = Store::key(resource, &mut object)?;
        let event = store.replace(resource, &key, object)?;
        Ok(event.map_or_else(|| unchanged(&store, resource, &key), Change::new))
    }

    /// Applies a JSON merge patch to an object as a whole, status included. `name` is `name` or `namespace/name`.
    ///
    /// # Errors
    /// 404 if it is not there.
    pub fn patch(&self, resource: Resource, name: &str, patch: Value) -> Result<Change, Status> {
        let key = key(resource, name);
        let patch = into_object(patch)?;
        let mut store = self.0.store();
        let not_found = || Status::not_found(resource.info().plural, &key.1);
        let (old, _) = store.get(resource, &key).ok_or_else(not_found)?;
        let mut new = old.clone();
        merge(&mut new, patch, Merge::Json);
        let event = store.replace(resource, &key, new)?;
        Ok(event.map_or_else(|| unchanged(&store, resource, &key), Change::new))
    }

    /// Deletes an object at once. `name` is `name` or `namespace/name`.
    ///
    /// # Errors
    /// 404 if it is not there.
    pub fn delete(&self, resource: Resource, name: &str) -> Result<Change, Status> {
        Ok(Change::new(
            self.0.store().delete(resource, &key(resource, name))?,
        ))
    }

    /// The object as a GET would show it. `name` is `name` or `namespace/name`.
    pub fn get(&self, resource: Resource, name: &str) -> Option<Value> {
        let json = self.0.store().get(resource, &key(resource, name))?.1.json();
        serde_json::from_slice(&json).ok()
    }

    /// All objects of a resource, by namespace and name.
    pub fn list(&self, resource: Resource) -> Vec<Value> {
        let listing = self.0.store().listing(resource);
        listing
            .objects
            .iter()
            .filter_map(|object| serde_json::from_slice(&object.json()).ok())
            .collect()
    }

    /// What a kubelet does every few seconds (every five minutes where it uses Leases): new `lastHeartbeatTime`s in
    /// the node's conditions and nothing else. Times have whole seconds; a second heartbeat in one second counts up.
    ///
    /// # Errors
    /// 404 if the node is not there.
    pub fn heartbeat(&self, node: &str) -> Result<Change, Status> {
        let key = key(Resource::Nodes, node);
        Ok(Change::new(self.0.store().modify(
            Resource::Nodes,
            &key,
            objects::beat,
        )?))
    }

    /// The present resourceVersion.
    pub fn resource_version(&self) -> u64 {
        self.0.store().revision()
    }

    /// The present state of a resource, to be served later as [`Fault::Stale`].
    pub fn snapshot(&self, resource: Resource) -> Snapshot {
        Snapshot(self.0.store().listing(resource))
    }

    /// Forgets all history: who refers to a version before this gets 410.
    pub fn compact(&self) {
        self.0.store().compact();
    }

    /// How many changes of each resource are kept for watches to resume from (10,000 unless set).
    pub fn keep_history(&self, changes: usize) {
        self.0.store().set_history_limit(changes);
    }

    /// Whether watches may begin with the initial state (`sendInitialEvents`), as from Kubernetes 1.32 on, or are
    /// refused as by older servers. On unless set.
    pub fn streaming_lists(&self, granted: bool) {
        self.0.settings_mut(|settings| settings.streaming_lists = granted);
    }

    /// How often a watch that begins from now on gets a bookmark (60 s unless set).
    /// To send one at once: [`Faults::bookmark_watches`].
    ///
    /// An interval of zero is taken as a millisecond.
    pub fn bookmark_interval(&self, interval: Duration) {
        self.0
            .settings_mut(|settings| settings.bookmark_interval = interval.max(Duration::from_millis(1)));
    }

    /// From now on, requests need this bearer token, or none. Open watches go on.
    pub fn require_token(&self, token: Option<&str>) {
        self.0
            .settings_mut(|settings| settings.token = token.map(str::to_owned));
    }

    /// The script of misbehaviour.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// What was asked and sent so far.
    pub fn counters(&self) -> Counters {
        self.0.tally.read()
    }

    /// Sets the counters to zero, except for the open watches.
    pub fn reset_counters(&self) {
        self.0.tally.reset();
    }

    /// Blocks until the counters satisfy `condition`.
    ///
    /// # Errors
    /// The last reading, if the time is up.
    pub fn wait_for(
        &self,
        timeout: Duration,
        condition: impl FnMut(&Counters) -> bool,
    ) -> Result<Counters, Counters> {
        self.0.tally.wait(timeout, condition)
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings_mut(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn settings<T>(&self, read: impl FnOnce(&Settings) -> T) -> T {
        read(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn streaming_lists(&self) -> bool {
        self.settings(|settings| settings.streaming_lists)
    }

    fn bookmark_interval(&self) -> Duration {
        self.settings(|settings| settings.bookmark_interval)
    }

    fn authorizes(&self, authorization: Option<&HeaderValue>) -> bool {
        self.settings(|settings| match &settings.token {
            None => true,
            Some(token) => authorization
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.strip_prefix("Bearer "))
                .is_some_and(|given| given == token),
        })
    }
}

fn into_object(value: Value) -> Result<serde_json::Map<String, Value>, Status> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(Status::bad_request(format!("not a JSON object: {other}"))),
    }
}

/// `name` or `namespace/name`; a namespaced object without a namespace is in `default`.
fn key(resource: Resource, name: &str) -> store::Key {
    match name.split_once('/') {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None if resource.info().namespaced => ("default".to_owned(), name.to_owned()),
        None => (String::new(), name.to_owned()),
    }
}

/// The answer to a write that changed nothing.
fn unchanged(store: &Store, resource: Resource, key: &store::Key) -> Change {
    let resource_version = store.get(resource, key).map_or(0, |(_, stored)| stored.revision);
    Change {
        resource_version,
        published: Instant::now(),
        event: None,
    }
}
