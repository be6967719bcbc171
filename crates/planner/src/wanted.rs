//! The objects and refusals of those whom an event touches, and the difference that it makes to them.

use std::net::IpAddr;
use std::sync::Arc;

use routelet_model::{Family, Key, Node, Object, Subject};

use crate::claims::Claims;
use crate::own::Facts;
use crate::{Notice, Plan, Reason, Refusal, Settings, Way};

/// What the objects of any owner depend on.
pub(crate) struct Known<'a> {
    pub(crate) settings: &'a Settings,
    /// This node's facts in force, if it is known at all.
    pub(crate) own: Option<&'a Facts>,
    pub(crate) claims: &'a Claims,
    /// Whether all Nodes have been told.
    pub(crate) all_nodes: bool,
}

/// Wanted objects and standing refusals, gathered from one or more owners.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    objects: Vec<(Key, Object)>,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) ways: Vec<Going>,
}

/// The way to a peer's pods of one family.
#[derive(Debug)]
pub(crate) struct Going {
    pub(crate) node: Arc<Node>,
    pub(crate) family: Family,
    pub(crate) way: Way,
    pub(crate) remote: IpAddr,
}

impl Wanted {
    pub(crate) fn object(&mut self, key: Key, object: Object) {
        self.objects.push((key, object));
    }

    pub(crate) fn refuse(&mut self, subject: impl Into<Subject>, reason: Reason, message: String) {
        self.refusals.push(Refusal {
            subject: subject.into(),
            reason,
            message,
        });
    }

    pub(crate) fn way(&mut self, node: &Arc<Node>, family: Family, way: Way, remote: IpAddr) {
        self.ways.push(Going {
            node: node.clone(),
            family,
            way,
            remote,
        });
    }

    /// The keys of the objects.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.objects.iter().map(|(key, _)| *key)
    }

    fn sort(&mut self) {
        self.objects.sort_unstable_by_key(|(key, _)| *key);
        // A Node that lists a subnet twice wants one route.
        self.objects.dedup_by_key(|(key, _)| *key);
        self.refusals.sort_unstable();
        self.refusals.dedup();
    }

    /// Adds to `plan` what leads from here to `after`.
    pub(crate) fn change_to(mut self, mut after: Wanted, plan: &mut Plan) {
        self.sort();
        after.sort();
        let (gone, set) = difference(self.objects, after.objects, |(key, _)| *key);
        plan.changes
            .extend(gone.into_iter().rev().map(|(key, _)| (key, None)));
        plan.changes
            .extend(set.into_iter().map(|(key, object)| (key, Some(object))));
        let (resolved, refused) = difference(self.refusals, after.refusals, Refusal::clone);
        plan.notices.extend(resolved.into_iter().map(Notice::Resolved));
        plan.notices.extend(refused.into_iter().map(Notice::Refused));
    }
}

/// Of two lists in the order of their keys: what is in `before` under a key that `after` lacks, and what is
/// in `after` and not the same in `before`.
fn difference<T: PartialEq, K: Ord>(
    before: Vec<T>,
    after: Vec<T>,
    key: impl Fn(&T) -> K,
) -> (Vec<T>, Vec<T>) {
    let (mut gone, mut set) = (Vec::new(), Vec::new());
    let mut before = before.into_iter().peekable();
    for new in after {
        let at = key(&new);
        while let Some(old) = before.next_if(|old| key(old) < at) {
            gone.push(old);
        }
        let old = before.next_if(|old| key(old) == at);
        if old.as_ref() != Some(&new) {
            set.push(new);
        }
    }
    gone.extend(before);
    (gone, set)
}
