//! The keyed table: for each kernel object what is wanted, what the kernel has, and whether the two still
//! have to be compared.
//!
//! A key whose wanted or actual side changed is queued once, by kind. Objects are made in the order of the
//! kinds and, when nothing is left to make, taken away in the reverse order: make before break.

use std::net::IpAddr;

use indexmap::IndexMap;
use routelet_model::{IfName, Key, Kind, Object};
use rustc_hash::FxBuildHasher;

use crate::ownership::pod_route_link;

/// Number of kinds.
pub(crate) const KINDS: usize = Kind::ALL.len();

/// Why the kernel's side of a slot is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Someone took away an object that we want.
    Deleted,
    /// Someone changed an object that we want.
    Changed,
    /// Someone added an object that is ours by its mark and that we don't want.
    Surplus,
}

impl Cause {
    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Changed => "changed",
            Self::Surplus => "surplus",
        }
    }
}

/// One object's two sides.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// What the planner wants.
    pub(crate) wanted: Option<Object>,
    /// What the kernel has, as far as is known.
    pub(crate) actual: Option<Object>,
    /// The last dump that showed the object.
    pub(crate) seen: u32,
    /// Whether the key is queued.
    queued: bool,
    /// The host veth that a pod's route led to when it was last wanted, where it is wanted no more.
    pub(crate) withdrawn: Option<IfName>,
    /// What someone did to the object since it was last in sync.
    pub(crate) drift: Option<Cause>,
    /// Of a route: whether others may stand beside the one that is known, under the same key.
    pub(crate) crowded: bool,
}

impl Slot {
    /// Whether the kernel has what is wanted; also true where nothing is wanted and nothing is there.
    pub(crate) fn in_sync(&self) -> bool {
        match (&self.wanted, &self.actual) {
            (Some(wanted), Some(actual)) => wanted.satisfied_by(actual),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Numbers of objects of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Wanted by the planner.
    pub wanted: usize,
    /// Known to be in the kernel, be they wanted or not.
    pub actual: usize,
    /// Wanted, and missing in the kernel or otherwise there.
    pub out_of_sync: usize,
}

/// Slots lie one after the other: a growing table moves no more than their places in the index.
type Slots = IndexMap<Key, Slot, FxBuildHasher>;

/// The table. Every change of a slot goes through it, so that its counts always hold.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By kind, so that a look at a few links does not pass by all the routes.
    slots: [Slots; KINDS],
    queue: [Vec<Key>; KINDS],
    removals: [Vec<Key>; KINDS],
    books: Books,
}

/// What is noted at each change of a slot.
#[derive(Debug, Default)]
struct Books {
    counts: [Count; KINDS],
    address_edits: Vec<AddressEdit>,
}

/// That the slot of a single address' route was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressEdit {
    /// The route.
    pub(crate) key: Key,
    /// The address.
    pub(crate) address: IpAddr,
    /// The link that it led to before, if it led to one.
    pub(crate) before: Option<IfName>,
}

impl Table {
    /// The slot of a key.
    pub(crate) fn get(&self, key: &Key) -> Option<&Slot> {
        self.slots[key.kind() as usize].get(key)
    }

    fn get_mut(&mut self, key: &Key) -> Option<&mut Slot> {
        self.slots[key.kind() as usize].get_mut(key)
    }

    /// What the kernel has under a key.
    pub(crate) fn actual(&self, key: &Key) -> Option<&Object> {
        self.get(key)?.actual.as_ref()
    }

    /// All slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Slot)> {
        self.slots.iter().flatten()
    }

    /// The slots of one kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Slot)> {
        self.slots[kind as usize].iter()
    }

    /// Numbers of objects of a kind.
    pub(crate) fn count(&self, kind: Kind) -> Count {
        self.books.counts[kind as usize]
    }

    /// Changes the slot of a key, making it where there is none, and queues it where its sides differ
    /// afterwards.
    pub(crate) fn edit(&mut self, key: Key, change: impl FnOnce(&mut Slot)) {
        let slot = self.slots[key.kind() as usize].entry(key).or_default();
        edit_slot(&key, slot, &mut self.books, change);
        if !slot.in_sync() && !slot.queued {
            slot.queued = true;
            self.queue[key.kind() as usize].push(key);
        }
    }

    /// Notes that a dump shows an object. False where it is not as the table has it.
    pub(crate) fn confirm(&mut self, key: &Key, actual: &Object, generation: u32) -> bool {
        match self.get_mut(key) {
            Some(slot) if slot.actual.as_ref() == Some(actual) => {
                slot.seen = generation;
                true
            }
            _ => false,
        }
    }

    /// Changes a slot that exists without queueing it: the caller is about to act on it.
    pub(crate) fn settle(&mut self, key: &Key, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots[key.kind() as usize].get_mut(key) {
            edit_slot(key, slot, &mut self.books, change);
        }
    }

    /// Forgets what the kernel has of some kinds wherever `gone` says so, and queues what is wanted there. `cause` is
    /// what someone else did to it, if it was someone else.
    pub(crate) fn forget_actual(
        &mut self,
        kinds: &[Kind],
        cause: Option<Cause>,
        mut gone: impl FnMut(&Key, &Slot, &Object) -> bool,
    ) {
        let of_kinds = self.slots.iter_mut().zip(Kind::ALL);
        let of_kinds = of_kinds.filter(|(_, kind)| kinds.contains(kind));
        for (key, slot) in of_kinds.flat_map(|(slots, _)| slots) {
            let Some(actual) = &slot.actual else { continue };
            if !gone(key, slot, actual) {
                continue;
            }
            edit_slot(key, slot, &mut self.books, |slot| {
                slot.actual = None;
                if slot.wanted.is_some() {
                    slot.drift = cause.or(slot.drift);
                }
            });
            // Also where nothing is wanted: an empty slot goes when it is taken from the queue.
            if !slot.queued {
                slot.queued = true;
                self.queue[key.kind() as usize].push(*key);
            }
        }
    }

    /// Forgets that someone added what is not wanted.
    pub(crate) fn forgive_surplus(&mut self) {
        let slots = self.slots.iter_mut().flat_map(Slots::values_mut);
        for slot in slots.filter(|slot| slot.wanted.is_none()) {
            slot.drift = None;
        }
    }

    /// Queues every key whose sides differ.
    pub(crate) fn queue_all(&mut self) {
        for (key, slot) in self.slots.iter_mut().flatten() {
            if !slot.in_sync() && !slot.queued {
                slot.queued = true;
                self.queue[key.kind() as usize].push(*key);
            }
        }
    }

    /// Queues a key, whatever its sides are.
    pub(crate) fn queue(&mut self, key: Key) {
        if let Some(slot) = self.get_mut(&key)
            && !slot.queued
        {
            slot.queued = true;
            self.queue[key.kind() as usize].push(key);
        }
    }

    /// Takes the next key of a kind from the queue.
    pub(crate) fn pop(&mut self, kind: Kind) -> Option<Key> {
        let key = self.queue[kind as usize].pop()?;
        if let Some(slot) = self.get_mut(&key) {
            slot.queued = false;
            if slot.wanted.is_none() && slot.actual.is_none() {
                self.slots[kind as usize].swap_remove(&key);
            }
        }
        Some(key)
    }

    /// Sets a key aside for removal, once nothing is left to make.
    pub(crate) fn set_aside(&mut self, key: Key) {
        self.removals[key.kind() as usize].push(key);
    }

    /// Takes the next key that was set aside, in the reverse order of making.
    pub(crate) fn pop_removal(&mut self) -> Option<Key> {
        self.removals.iter_mut().rev().find_map(Vec::pop)
    }

    /// Drops a slot that holds nothing.
    pub(crate) fn drop_empty(&mut self, key: &Key) {
        if self
            .get(key)
            .is_some_and(|s| s.wanted.is_none() && s.actual.is_none() && !s.queued)
        {
            self.slots[key.kind() as usize].swap_remove(key);
        }
    }

    /// Takes the edits of single addresses' routes since the last call, in their order.
    pub(crate) fn take_address_edits(&mut self) -> Vec<AddressEdit> {
        std::mem::take(&mut self.books.address_edits)
    }

    /// Whether nothing is queued and nothing set aside.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.iter().all(Vec::is_empty) && self.removals.iter().all(Vec::is_empty)
    }

    /// Whether nothing of a kind is queued.
    pub(crate) fn is_idle_of(&self, kind: Kind) -> bool {
        self.queue[kind as usize].is_empty()
    }

    /// Gives back memory that a burst of changes took.
    pub(crate) fn shrink(&mut self) {
        for queue in self.queue.iter_mut().chain(&mut self.removals) {
            if queue.is_empty() && queue.capacity() > 1024 {
                *queue = Vec::new();
            }
        }
    }
}

/// Changes a slot and keeps the books right.
fn edit_slot(key: &Key, slot: &mut Slot, books: &mut Books, change: impl FnOnce(&mut Slot)) {
    if let Key::Route { destination, .. } = key
        && destination.prefix_len() == destination.max_prefix_len()
        && *key == Key::route(*destination)
    {
        books.address_edits.push(AddressEdit {
            key: *key,
            address: destination.addr(),
            before: slot
                .actual
                .as_ref()
                .and_then(|actual| pod_route_link(key, actual)),
        });
    }
    let count = &mut books.counts[key.kind() as usize];
    count.wanted -= usize::from(slot.wanted.is_some());
    count.actual -= usize::from(slot.actual.is_some());
    count.out_of_sync -= usize::from(slot.wanted.is_some() && !slot.in_sync());
    change(slot);
    count.wanted += usize::from(slot.wanted.is_some());
    count.actual += usize::from(slot.actual.is_some());
    count.out_of_sync += usize::from(slot.wanted.is_some() && !slot.in_sync());
}
