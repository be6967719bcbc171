//! Batches on their way to the kernel, and its answers back into the table.

use std::time::Instant;

use routelet_model::{Key, Kind, Object};
use routelet_netlink::{Error, Operation, Verb};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::carrier::{Batch, Before};
use crate::resync::note_slot;
use crate::table::Slot;
use crate::{Kernel, Reconciler};

impl<K: Kernel> Reconciler<K> {
    /// Sends the batch, and takes the answers in unless it is a long one.
    pub(crate) fn send(&mut self, now: Instant) {
        if self.batch.operations.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, std::mem::take(&mut self.spare));
        self.report.batches.push(batch.operations.len());
        for operation in &batch.operations {
            self.report.operations.add(operation.key.kind(), operation.verb);
        }
        let done = self.kernel.send(batch);
        if let Some(error) = self.kernel.take_no_thread() {
            self.report.no_thread = Some(error.to_string());
        }
        if let Some(batch) = done {
            self.take_in(batch, now);
        }
    }

    /// Waits for the batch that is under way, and takes the answers in.
    pub(crate) fn land(&mut self, now: Instant) {
        if let Some(batch) = self.kernel.land() {
            self.take_in(batch, now);
        }
    }

    fn take_in(&mut self, mut batch: Batch, now: Instant) {
        let Batch {
            operations,
            previous,
            failures,
        } = &mut batch;
        let mut blocked = FxHashSet::default();
        for failure in failures.drain(..) {
            let operation = &operations[failure.index];
            self.report
                .operations
                .take_back(operation.key.kind(), operation.verb);
            self.report
                .errors
                .push((operation.key.kind(), failure.error.errno().unwrap_or(0)));
            self.take_back(operation, std::mem::take(&mut previous[failure.index]));
            // What is wanted otherwise by now has been queued, and is no trouble yet.
            if !self.is_still_to_be(operation) {
                self.table.queue(operation.key);
                continue;
            }
            let stands_there = operation.key.kind() == Kind::Route && failure.error.is_already_exists();
            match operation.verb {
                Verb::Create if stands_there => _ = blocked.insert(operation.key),
                // Ours is there, hidden by another one before it.
                Verb::Replace if stands_there => self.table.edit(operation.key, |slot| {
                    slot.actual = Some(Object::OddRoutes);
                }),
                _ => self.note_failure(operation.key, &failure.error, now),
            }
        }
        if !blocked.is_empty() {
            self.look_at(blocked);
        }
        for operation in operations.iter() {
            if operation.key == Key::NftTable && operation.verb != Verb::Create {
                // It took along all that it held.
                self.nft_touched = true;
            }
            if operation.verb == Verb::Delete {
                self.table.drop_empty(&operation.key);
            } else {
                self.wake(&operation.key);
            }
        }
        if self.backoff.in_trouble() {
            for operation in operations.iter() {
                if self.table.get(&operation.key).is_none_or(Slot::in_sync) {
                    self.recover(&operation.key);
                }
            }
        }
        batch.clear();
        self.spare = batch;
    }

    /// Whether the object is wanted so, or not wanted where it was to go.
    fn is_still_to_be(&self, operation: &Operation) -> bool {
        let wanted = self
            .table
            .get(&operation.key)
            .and_then(|slot| slot.wanted.as_ref());
        match operation.verb {
            Verb::Delete => true,
            Verb::Create | Verb::Replace | Verb::Supplant => wanted == Some(&operation.object),
        }
    }

    /// Takes back what was planned and not sent.
    pub(crate) fn unplan(&mut self) {
        let Batch {
            operations, previous, ..
        } = std::mem::take(&mut self.batch);
        for (operation, previous) in operations.iter().zip(previous).rev() {
            self.take_back(operation, previous);
            self.table.queue(operation.key);
        }
    }

    /// Undoes in the table what has not come about.
    fn take_back(&mut self, operation: &Operation, previous: Before) {
        let key = operation.key;
        // A repair that failed is none yet.
        let repairs = &mut self.report.repairs;
        let repair = repairs
            .iter()
            .rposition(|repair| repair.key == key)
            .map(|at| repairs.swap_remove(at));
        self.table.settle(&key, |slot| {
            slot.actual = previous.actual;
            slot.crowded = previous.crowded;
            slot.drift = repair.map(|repair| repair.cause);
        });
    }

    /// Looks at routes that could not be made because something stands there: it may be ours, where a notification
    /// told late of its being gone. What is not ours is replaced, or serves as well, and either is told.
    fn look_at(&mut self, mut blocked: FxHashSet<Key>) {
        let Self { kernel, table, .. } = self;
        let dump = kernel.at_hand().dump(Kind::Route, None, &mut |key, object| {
            if blocked.remove(&key) {
                note_slot(table, key, Some(object));
            }
        });
        if let Err(error) = dump {
            self.report.failed_reads.push((Kind::Route, error.to_string()));
        }
        if blocked.is_empty() {
            return;
        }
        let mut others = FxHashMap::default();
        let read = self.kernel.at_hand().dump_others(&mut |key, object| {
            if blocked.contains(&key) {
                others.entry(key).or_insert(object);
            }
        });
        if let Err(error) = &read {
            self.report.failed_reads.push((Kind::Route, error.to_string()));
        }
        for key in blocked {
            let found = match others.remove(&key) {
                Some(found) => found,
                // It went before it was looked at. Where that seems to happen again and again, something stands there
                // that no dump shows.
                None if read.is_ok() && self.vanished.insert(key) => {
                    self.table.edit(key, |slot| slot.actual = None);
                    continue;
                }
                None => Object::Foreign { protocol: 0 },
            };
            self.vanished.remove(&key);
            self.table.edit(key, |slot| {
                slot.actual = Some(found.clone());
                slot.crowded = true;
            });
            let serves = self.table.get(&key).is_some_and(Slot::in_sync);
            let told = if serves {
                &mut self.report.yielded
            } else {
                &mut self.report.replaced
            };
            told.push((key, found));
        }
    }

    /// Plans what comes after a failure.
    fn note_failure(&mut self, key: Key, error: &Error, now: Instant) {
        let passing =
            error.is_missing_link() || error.is_missing_nexthop() || matches!(error, Error::NoNftTable);
        let again = self.backoff.attempts(&key) > 0;
        // A link that goes takes what is on it along, and tells of itself last.
        if matches!(error, Error::NoNftTable) {
            self.nft_touched |= !again;
        } else if matches!(error, Error::OutcomeUnknown) || passing && !again {
            // What we believe of the kernel is wrong. That a link is still missing is no news, though.
            self.resync_soon(now);
        }
        if let Some(trouble) = self.backoff.failed(key, error.to_string(), passing, now) {
            self.report.refused.push((key, trouble.clone()));
        }
    }

    /// Notes that a key which was in trouble is so no more.
    pub(crate) fn recover(&mut self, key: &Key) {
        if let Some(trouble) = self.backoff.clear(key)
            && trouble.told
        {
            self.report.recovered.push((*key, trouble));
        }
    }
}
