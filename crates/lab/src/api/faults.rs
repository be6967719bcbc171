//! Scripted misbehaviour: what the API does wrong, to which requests, and how often.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::counters::Tally;
use super::store::Listing;
use super::{Resource, Status, Verb};

/// The requests that a fault is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct On {
    resource: Option<Resource>,
    verb: Option<Verb>,
}

impl On {
    /// Every request for a resource of the API.
    pub const ANY: On = On {
        resource: None,
        verb: None,
    };

    /// Lists of `resource`.
    pub fn list(resource: Resource) -> On {
        On {
            resource: Some(resource),
            verb: Some(Verb::List),
        }
    }

    /// Watches of `resource`.
    pub fn watch(resource: Resource) -> On {
        On {
            resource: Some(resource),
            verb: Some(Verb::Watch),
        }
    }

    /// Everything that is asked of `resource`.
    pub fn resource(resource: Resource) -> On {
        On {
            resource: Some(resource),
            verb: None,
        }
    }

    /// Every request of one verb.
    pub fn verb(verb: Verb) -> On {
        On {
            resource: None,
            verb: Some(verb),
        }
    }

    fn covers(self, resource: Resource, verb: Verb) -> bool {
        self.resource.is_none_or(|wanted| wanted == resource) && self.verb.is_none_or(|wanted| wanted == verb)
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The request is refused with this answer.
    Status(Status),
    /// The connection is closed without an answer.
    Drop,
    /// No answer, until the faults are cleared; then the request is served.
    Stall,
    /// The answer comes in pieces of at most `bytes`, each after `delay`.
    Slow {
        /// Largest piece, in bytes.
        bytes: usize,
        /// Wait before each piece.
        delay: Duration,
    },
    /// The answer is rubbish.
    Garbage(Garbage),
    /// A list is answered from this older state. Other requests are served as usual.
    Stale(Snapshot),
    /// The resourceVersion is too old: a list answers 410, a watch begins with an ERROR event of code 410.
    Expired,
}

/// Kinds of rubbish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// The first half of a JSON document, then the connection is closed.
    HalfDocument,
    /// A line that is not JSON at all; the answer then ends, a watch goes on.
    NotJson,
    /// JSON, but with fields of the wrong types; the answer then ends, a watch goes on.
    WrongShape,
}

impl Garbage {
    /// What is sent in a watch stream.
    pub(crate) fn watch_line(self) -> Bytes {
        Bytes::from_static(match self {
            Garbage::HalfDocument => br#"{"type":"MODIFIED","object":{"kind":"No"#,
            Garbage::NotJson => b"<html>502 Bad Gateway</html>\n",
            Garbage::WrongShape => {
                b"{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"name\":7,\"resourceVersion\":[]},\"spec\":\"x\"}}\n"
            }
        })
    }

    /// What is sent as an answer to anything else.
    pub(crate) fn document(self) -> Bytes {
        Bytes::from_static(match self {
            Garbage::HalfDocument => {
                br#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metad"#
            }
            Garbage::NotJson => b"<html>502 Bad Gateway</html>\n",
            Garbage::WrongShape => br#"{"kind":"List","apiVersion":"v1","metadata":"none","items":{"a":1}}"#,
        })
    }
}

/// A state of a resource to serve later as a stale list; see [`Api::snapshot`](super::Api::snapshot).
#[derive(Clone, Debug)]
pub struct Snapshot(pub(crate) Listing);

/// What an open watch is told to do.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Close the connection in mid-stream.
    Cut,
    /// End the stream properly.
    End,
    /// Send an ERROR event with this status, then end.
    Error(Status),
    /// Send rubbish.
    Garbage(Garbage),
    /// Send nothing any more, or again.
    Silence(bool),
    /// Send a bookmark now.
    Bookmark,
}

struct Rule {
    on: On,
    fault: Fault,
    /// Requests that it still applies to; `None` is without end.
    left: Option<u32>,
}

/// The script. Rules are tried in the order in which they were added; the first that covers a request applies.
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
    watches: Mutex<Vec<(Resource, mpsc::UnboundedSender<Order>)>>,
    cleared: watch::Sender<()>,
    tally: Arc<Tally>,
}

impl Faults {
    pub(crate) fn new(tally: Arc<Tally>) -> Faults {
        Faults {
            rules: Mutex::default(),
            watches: Mutex::default(),
            cleared: watch::Sender::new(()),
            tally,
        }
    }

    /// The next `times` requests that `on` covers meet `fault`.
    pub fn next(&self, times: u32, on: On, fault: Fault) {
        self.add(Rule {
            on,
            fault,
            left: Some(times),
        });
    }

    /// All requests that `on` covers meet `fault`, until [`Faults::clear`].
    pub fn always(&self, on: On, fault: Fault) {
        self.add(Rule {
            on,
            fault,
            left: None,
        });
    }

    /// Ends all faults: stalled requests are served, silent watches speak again and send what they held back.
    pub fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.cleared.send_replace(());
        self.order(None, &Order::Silence(false));
    }

    /// Closes the connections of the open watches (of one resource, or of all) in mid-stream.
    pub fn cut_watches(&self, resource: impl Into<Option<Resource>>) {
        self.order(resource.into(), &Order::Cut);
    }

    /// Ends the open watches properly, as a server does at its timeout.
    pub fn end_watches(&self, resource: impl Into<Option<Resource>>) {
        self.order(resource.into(), &Order::End);
    }

    /// Sends an ERROR event in the open watches, then ends them.
    pub fn fail_watches(&self, resource: impl Into<Option<Resource>>, status: Status) {
        self.order(resource.into(), &Order::Error(status));
    }

    /// Sends an ERROR event with code 410 in the open watches, then ends them.
    pub fn expire_watches(&self, resource: impl Into<Option<Resource>>) {
        self.fail_watches(resource, Status::too_old(1, 2));
    }

    /// Sends rubbish in the open watches.
    pub fn garble_watches(&self, resource: impl Into<Option<Resource>>, garbage: Garbage) {
        self.order(resource.into(), &Order::Garbage(garbage));
    }

    /// Lets the open watches fall silent without closing them, until [`Faults::clear`].
    pub fn silence_watches(&self, resource: impl Into<Option<Resource>>) {
        self.order(resource.into(), &Order::Silence(true));
    }

    /// Sends a bookmark now to the open watches that allow bookmarks. No fault, but at home here.
    pub fn bookmark_watches(&self, resource: impl Into<Option<Resource>>) {
        self.order(resource.into(), &Order::Bookmark);
    }

    /// The fault that a request meets, used up by one.
    pub(crate) fn take(&self, resource: Resource, verb: Verb) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let index = rules.iter().position(|rule| rule.on.covers(resource, verb))?;
        let rule = rules.get_mut(index)?;
        let fault = rule.fault.clone();
        if let Some(left) = &mut rule.left {
            *left -= 1;
            if *left == 0 {
                rules.remove(index);
            }
        }
        self.tally.update(|counters| counters.faults += 1);
        Some(fault)
    }

    /// Ticks when the faults are cleared.
    pub(crate) fn cleared(&self) -> watch::Receiver<()> {
        self.cleared.subscribe()
    }

    /// The orders for a watch that begins now.
    pub(crate) fn enlist(&self, resource: Resource) -> mpsc::UnboundedReceiver<Order> {
        let (sender, orders) = mpsc::unbounded_channel();
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|(_, watch)| !watch.is_closed());
        watches.push((resource, sender));
        orders
    }

    fn order(&self, of: Option<Resource>, order: &Order) {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for (resource, watch) in watches.iter() {
            if of.is_none_or(|wanted| wanted == *resource) {
                let _gone_already = watch.send(order.clone());
            }
        }
    }

    fn add(&self, rule: Rule) {
        if rule.left != Some(0) {
            self.rules
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(rule);
        }
    }
}
