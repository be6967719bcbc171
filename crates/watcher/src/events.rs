//! Kubernetes Events about Nodes and Pods: told when there is time, never waited for, never a cause of failure.
//!
//! What is told again (same subject, reason and note) becomes a series of the Event that is there, written at
//! most once in ten minutes. New Events are held to a burst of 20, and then one in five seconds. What does not
//! fit into the queue is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use routelet_model::Subject;
use rustc_hash::FxHashMap;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Who reports, as `kubectl describe` shows it.
const CONTROLLER: &str = "routelet";
/// Notices that wait at most.
const QUEUE: usize = 64;
/// New Events at once, at most.
const BURST: u32 = 20;
/// Time in which the burst grows by one.
const REFILL: Duration = Duration::from_secs(5);
/// A series is written at most so often.
const SERIES_EVERY: Duration = Duration::from_secs(600);
/// API servers keep an Event for an hour by default; later the same is a new one.
const KEPT: Duration = Duration::from_secs(3600);
/// Longest time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Where Events about objects without a namespace go: the one place that API servers of every version allow.
/// `kubectl describe node` finds them anywhere.
const CLUSTER_NAMESPACE: &str = "kube-system";
/// Longest note that the API takes, in bytes.
const MAX_NOTE: usize = 1024;
/// Longest part of an Event's name that the subject's name makes up, in bytes.
const MAX_SUBJECT: usize = 230;

/// Whether someone should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

/// Something to tell the cluster's users.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notice {
    /// What it is about.
    pub subject: Subject,
    /// Why, in one word of CamelCase: `DuplicateAddress`.
    pub reason: &'static str,
    /// What happened, in a sentence.
    pub note: String,
    /// Whether someone should look.
    pub severity: Severity,
}

/// What became of the notices.
#[derive(Debug, Default)]
pub struct Counts {
    written: AtomicU64,
    folded: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Events and series written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Notices that were told before and wait for the next writing of their series.
    pub fn folded(&self) -> u64 {
        self.folded.load(Ordering::Relaxed)
    }

    /// Notices for which the queue had no place.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Notices that the API server did not take.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Takes notices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    queue: mpsc::Sender<Notice>,
    counts: Arc<Counts>,
}

impl Publisher {
    /// A publisher for the agent on `node_name`, and the work that writes its Events. The work ends when the
    /// last publisher is gone.
    pub fn new(client: Client, node_name: String) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, notices) = mpsc::channel(QUEUE);
        let counts = Arc::<Counts>::default();
        let writer = Writer {
            client,
            node_name,
            told: FxHashMap::default(),
            allowance: Allowance {
                left: BURST,
                since: Instant::now(),
            },
            counts: counts.clone(),
            failing: false,
        };
        (Self { queue, counts }, writer.run(notices))
    }

    /// Hands a notice over. Never waits.
    pub fn publish(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            count(&self.counts.dropped);
        }
    }

    /// What became of the notices.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// An Event that has been written.
struct Told {
    namespace: String,
    name: String,
    times: i32,
    written: Instant,
}

struct Writer {
    client: Client,
    node_name: String,
    told: FxHashMap<Notice, Told>,
    allowance: Allowance,
    counts: Arc<Counts>,
    /// Whether the last write failed: the log hears of the first failure and no more until one succeeds.
    failing: bool,
}

impl Writer {
    async fn run(mut self, mut notices: mpsc::Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            self.told.retain(|_, told| told.written.elapsed() < KEPT);
            if let Some(told) = self.told.get_mut(&notice) {
                told.times = told.times.saturating_add(1);
                if told.written.elapsed() < SERIES_EVERY {
                    count(&self.counts.folded);
                    continue;
                }
            }
            self.allowance.take().await;
            match timeout(REQUEST_TIMEOUT, self.write(notice)).await {
                Ok(Ok(())) => {
                    self.failing = false;
                    count(&self.counts.written);
                }
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_) => self.failed("no answer in time"),
            }
        }
    }

    fn failed(&mut self, error: &str) {
        count(&self.counts.failed);
        if !self.failing {
            tracing::warn!(
                error,
                "Kubernetes Events cannot be written; routing is not affected"
            );
        }
        self.failing = true;
    }

    async fn write(&mut self, notice: Notice) -> Result<(), Error> {
        let now = MicroTime(jiff::Timestamp::now());
        if let Some(told) = self.told.get_mut(&notice) {
            told.written = Instant::now();
            let api = Api::<Event>::namespaced(self.client.clone(), &told.namespace);
            let series = json!({"series": {"count": told.times, "lastObservedTime": now}});
            match api
                .patch_metadata(&told.name, &PatchParams::default(), &Patch::Merge(series))
                .await
            {
                Err(Error::Api(status)) if status.is_not_found() => {} // gone: a new one, then
                result => return result.map(drop),
            }
        }
        let (namespace, event) = new_event(&notice, &self.node_name, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        Api::<Event>::namespaced(self.client.clone(), &namespace)
            .create(&PostParams::default(), &event)
            .await?;
        self.told.insert(
            notice,
            Told {
                namespace,
                name,
                times: 1,
                written: Instant::now(),
            },
        );
        Ok(())
    }
}

/// The namespace for an Event, and the Event.
fn new_event(notice: &Notice, node_name: &str, now: MicroTime) -> (String, Event) {
    let regarding = match &notice.subject {
        Subject::Node { name, uid } => ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(name.clone()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        },
        Subject::Pod { id, uid } => ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(id.namespace.clone()),
            name: Some(id.name.clone()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        },
    };
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        ..regarding
    };
    let namespace = regarding
        .namespace
        .clone()
        .unwrap_or_else(|| CLUSTER_NAMESPACE.to_owned());
    let subject = cut(regarding.name.as_deref().unwrap_or_default(), MAX_SUBJECT);
    let severity = match notice.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{subject}.{:x}", now.0.as_nanosecond())),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        action: Some("Routing".to_owned()),
        event_time: Some(now),
        note: Some(cut(&notice.note, MAX_NOTE).to_owned()),
        reason: Some(notice.reason.to_owned()),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(node_name, 128).to_owned()),
        type_: Some(severity.to_owned()),
        ..Event::default()
    };
    (namespace, event)
}

/// The beginning of a text, at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// How many Events may be written now: a bucket that fills up again.
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    /// Takes one, waiting until there is one.
    async fn take(&mut self) {
        let refills = (self.since.elapsed().as_secs() / REFILL.as_secs()) as u32;
        self.left = self.left.saturating_add(refills).min(BURST);
        self.since += REFILL * refills;
        if self.left == 0 {
            self.since += REFILL;
            sleep_until(self.since).await;
        } else {
            self.left -= 1;
        }
    }
}
