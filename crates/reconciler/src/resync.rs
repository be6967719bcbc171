//! Reading the kernel's state: a dump is the truth, and what it does not show is not there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use routelet_model::{IfName, Key, Kind, Object, RouteTarget};
use routelet_netlink::Error;
use rustc_hash::FxHashSet;

use crate::ownership::Ownership;
use crate::table::{Cause, Slot, Table};
use crate::{Kernel, Reconciler};

/// The kinds of what lies on links, which are read by dump once these are known; settings are read one by one.
const ON_LINKS: [Kind; 5] = [
    Kind::Address,
    Kind::Fdb,
    Kind::Neighbour,
    Kind::Nexthop,
    Kind::Route,
];
/// The kinds of what can be set but neither made nor taken away.
const SETTINGS: [Kind; 2] = [Kind::Sysctl, Kind::ChecksumOffload];
/// The kinds of what the nft table holds, and the table.
const NFT: [Kind; 3] = [Kind::NftTable, Kind::NftElement, Kind::NftRules];
/// Delay before a read that failed is tried again; doubled with each failure in a row.
const REREAD_FIRST: Duration = Duration::from_millis(20);
/// How many times as long as a full comparison took there is none after it, save by an audit.
const RESYNC_REST: u32 = 10;
/// How often that delay is doubled at most: about five seconds.
const REREAD_DOUBLINGS: u32 = 8;

impl<K: Kernel> Reconciler<K> {
    /// Compares everything with the kernel. `now` is the present. How long it takes is measured here, for no one else can.
    pub(crate) fn resync_all(&mut self, now: Instant) {
        let started = Instant::now();
        self.suspects.clear();
        let lost = std::mem::take(&mut self.lost);
        self.host_changed |= lost;
        self.others_unknown |= lost;
        if let Err((kind, error)) = self.read_everything(now) {
            return self.reread_later(kind, &error, now);
        }
        self.resync_at = None;
        self.failed_reads = 0;
        self.read_settings(|_| true);
        self.table.queue_all();
        let took = started.elapsed();
        self.rested_at = now + took * RESYNC_REST;
        self.report.resyncs.push(took);
    }

    /// Plans a full comparison: at once, or when the last one is some time ago. A burst of others' routes that
    /// overruns the notifications again and again does not keep us reading.
    pub(crate) fn resync_soon(&mut self, now: Instant) {
        let at = now.max(self.rested_at);
        self.resync_at = Some(self.resync_at.map_or(at, |planned| planned.min(at)));
    }

    fn read_everything(&mut self, now: Instant) -> Result<(), (Kind, Error)> {
        self.generation = self.generation.wrapping_add(1);
        self.read_links(now).map_err(|error| (Kind::Link, error))?;
        self.forget_with_gone(Some(Cause::Deleted));
        let kinds: Vec<Kind> = ON_LINKS.into_iter().chain(NFT).collect();
        for kind in &kinds {
            self.read(*kind, None).map_err(|error| (*kind, error))?;
        }
        self.nft_touched = false;
        let generation = self.generation;
        self.table
            .forget_actual(&kinds, Some(Cause::Deleted), |key, slot, actual| {
                // Someone else's routes are in no dump of ours.
                let others = matches!(actual, Object::Foreign { .. });
                slot.seen != generation && !(others && key.kind() == Kind::Route)
            });
        Ok(())
    }

    /// Compares the nft table with the kernel.
    pub(crate) fn resync_nft(&mut self, now: Instant) {
        self.nft_touched = false;
        self.generation = self.generation.wrapping_add(1);
        for kind in NFT {
            if let Err(error) = self.read(kind, None) {
                return self.reread_later(kind, &error, now);
            }
        }
        let generation = self.generation;
        self.table
            .forget_actual(&NFT, Some(Cause::Deleted), |_, slot, _| slot.seen != generation);
        self.wake(&Key::NftTable);
    }

    /// Compares what lies on some links with the kernel.
    pub(crate) fn resync_links(&mut self, links: &BTreeSet<IfName>, now: Instant) {
        self.generation = self.generation.wrapping_add(1);
        for link in links {
            for kind in ON_LINKS {
                if let Err(error) = self.read(kind, Some(*link)) {
                    return self.reread_later(kind, &error, now);
                }
            }
        }
        let generation = self.generation;
        self.table
            .forget_actual(&ON_LINKS, Some(Cause::Deleted), |key, slot, actual| {
                slot.seen != generation && lies_on(key, actual).is_some_and(|link| links.contains(&link))
            });
        self.read_settings(|link| link.is_some_and(|link| links.contains(&link)));
    }

    /// Looks for routes of someone else's that stand under the keys of ours, wanted or not. At a start and after lost
    /// notifications; else the kernel tells of each.
    pub(crate) fn read_others(&mut self, now: Instant) {
        let Self { kernel, table, .. } = self;
        let read = kernel.at_hand().dump_others(&mut |key, object| {
            let Some(slot) = table.get(&key) else { return };
            match &slot.wanted {
                Some(wanted) if wanted.satisfied_by(&object) => {}
                Some(_) => table.edit(key, |slot| {
                    slot.actual = Some(object);
                    slot.crowded = true;
                }),
                // Until one is.
                None => table.settle(&key, |slot| slot.crowded = true),
            }
        });
        match read {
            Ok(()) => self.others_unknown = false,
            Err(error) => self.reread_later(Kind::Route, &error, now),
        }
    }

    /// Looks for routes of someone else's that serve in place of ours, which else show when ours cannot be made.
    pub(crate) fn read_serving(&mut self, now: Instant) {
        let Self { kernel, table, .. } = self;
        let read = kernel.at_hand().dump_others(&mut |key, object| {
            let serves = |slot: &Slot| {
                let wanted = slot.wanted.as_ref().filter(|_| slot.actual.is_none());
                wanted.is_some_and(|wanted| wanted.satisfied_by(&object))
            };
            if table.get(&key).is_some_and(serves) {
                table.edit(key, |slot| slot.actual = Some(object));
            }
        });
        if let Err(error) = read {
            self.reread_later(Kind::Route, &error, now);
        }
    }

    /// Looks whether the routes of someone else's that serve in place of ours are still there.
    pub(crate) fn reread_serving(&mut self, now: Instant) {
        let serves = |(key, slot): (&Key, &Slot)| {
            let foreign = matches!(slot.actual, Some(Object::Foreign { .. }));
            (foreign && slot.wanted.is_some()).then_some(*key)
        };
        let routes = self.table.of_kind(Kind::Route);
        let mut gone: FxHashSet<Key> = routes.filter_map(serves).collect();
        if gone.is_empty() {
            return;
        }
        if let Err(error) = self
            .kernel
            .at_hand()
            .dump_others(&mut |key, _| _ = gone.remove(&key))
        {
            return self.reread_later(Kind::Route, &error, now);
        }
        for key in gone {
            self.table.edit(key, |slot| slot.actual = None);
        }
    }

    /// Plans a full comparison after a read that failed.
    fn reread_later(&mut self, kind: Kind, error: &Error, now: Instant) {
        let delay = REREAD_FIRST * (1 << self.failed_reads.min(REREAD_DOUBLINGS));
        self.failed_reads += 1;
        self.resync_at = Some(now + delay);
        self.report.failed_reads.push((kind, error.to_string()));
    }

    /// Reads the links that we follow.
    pub(crate) fn read_links(&mut self, now: Instant) -> Result<(), Error> {
        let mut links = Vec::new();
        self.kernel.at_hand().dump(Kind::Link, None, &mut |key, object| {
            if let Key::Link(link) = key {
                links.push((link, object));
            }
        })?;
        let shown: BTreeSet<IfName> = links.iter().map(|(link, _)| *link).collect();
        let lost: Vec<IfName> = self
            .table
            .of_kind(Kind::Link)
            .filter_map(|(key, slot)| match key {
                Key::Link(link) if slot.actual.is_some() && !shown.contains(link) => Some(*link),
                _ => None,
            })
            .collect();
        for link in lost {
            self.lose_link(link);
        }
        for (link, object) in links {
            self.see_link(link, object, now);
        }
        Ok(())
    }

    /// Reads the objects of one kind, of all links or of one.
    fn read(&mut self, kind: Kind, link: Option<IfName>) -> Result<(), Error> {
        let Self {
            kernel,
            table,
            ownership,
            generation,
            ..
        } = self;
        kernel.at_hand().dump(kind, link, &mut |key, object| {
            if !table.confirm(&key, &object, *generation) {
                note(table, ownership, key, object, (*generation, link.is_some()));
            }
        })
    }

    /// Reads the wanted settings of the links that `of` picks; `None` stands for the whole host.
    fn read_settings(&mut self, of: impl Fn(Option<IfName>) -> bool) {
        let settings = SETTINGS.into_iter().flat_map(|kind| self.table.of_kind(kind));
        let keys: Vec<Key> = settings
            .map(|(key, _)| *key)
            .filter(|key| of(key.link()))
            .collect();
        for key in keys {
            let actual = self.setting(key);
            note_slot(&mut self.table, key, actual);
        }
    }

    /// Reads the wanted offload of a link. The kernel tells of its change as of the link's, and not what it is.
    pub(crate) fn reread_offload(&mut self, link: IfName) {
        let key = Key::ChecksumOffload(link);
        // What is not known yet is read before it is written.
        if self.table.actual(&key).is_some() {
            let actual = self.setting(key);
            note_slot(&mut self.table, key, actual);
        }
    }

    /// What the kernel has of a setting.
    pub(crate) fn setting(&mut self, key: Key) -> Option<Object> {
        // One that cannot be read is written blindly, and the failure of that is told.
        let kernel = self.kernel.at_hand();
        match key {
            Key::Sysctl(sysctl) => kernel.sysctl(sysctl).unwrap_or_default().map(Object::Sysctl),
            Key::ChecksumOffload(link) => {
                let on = kernel.checksum_offload(link).unwrap_or_default();
                on.map(Object::ChecksumOffload)
            }
            _ => None,
        }
    }
}

/// Puts an object that a dump shows, be it of all links or of one, and that is not as the table has it, into the table.
fn note(
    table: &mut Table,
    ownership: &Ownership,
    key: Key,
    object: Object,
    (generation, of_one_link): (u32, bool),
) {
    match table.get(&key).map(|slot| (slot, &slot.actual)) {
        None if !ownership.owns(&key, &object) => return,
        // Someone else's stands before it, of which no dump of ours tells.
        Some((slot, Some(Object::Foreign { .. }))) if key.kind() == Kind::Route && !slot.in_sync() => {
            table.settle(&key, |slot| slot.seen = generation);
            return table.queue(key);
        }
        // Of several side by side, some lead to other links.
        Some((_, Some(Object::OddRoutes))) if of_one_link => {
            table.settle(&key, |slot| slot.seen = generation);
            return table.queue(key);
        }
        _ => {}
    }
    let object = among_others(table, &key, object);
    note_slot(table, key, Some(object));
    table.settle(&key, |slot| slot.seen = generation);
}

/// A route of ours as it counts: odd where others may stand beside it under its key, which are to go. Only those beside a
/// blackhole are let be.
pub(crate) fn among_others(table: &Table, key: &Key, object: Object) -> Object {
    let may_not_be_alone = |slot: &Slot| match &slot.wanted {
        Some(Object::Route(target)) => slot.crowded && *target != RouteTarget::Blackhole,
        _ => false,
    };
    match object {
        Object::Route(_) if table.get(key).is_some_and(may_not_be_alone) => Object::OddRoutes,
        object => object,
    }
}

/// Sets what the kernel has under a key, and what that says of someone else's doing.
pub(crate) fn note_slot(table: &mut Table, key: Key, actual: Option<Object>) {
    table.edit(key, |slot: &mut Slot| {
        let was_in_sync = slot.in_sync();
        let cause = match (&slot.wanted, &slot.actual, &actual) {
            // What is found at the first look is no one's doing since.
            (Some(_), None, _) => None,
            (Some(_), Some(_), None) => Some(Cause::Deleted),
            (Some(_), Some(_), Some(_)) => Some(Cause::Changed),
            (None, ..) => Some(Cause::Surplus),
        };
        slot.actual = actual;
        if slot.in_sync() {
            slot.drift = None;
        } else if was_in_sync || slot.drift.is_some() {
            // The latest counts: a link is set down before it is deleted.
            slot.drift = cause.or(slot.drift);
        }
    });
}

/// Whether the key is that of a setting.
pub(crate) fn is_setting(key: &Key) -> bool {
    SETTINGS.contains(&key.kind())
}

/// The link that an object lies on.
fn lies_on(key: &Key, actual: &Object) -> Option<IfName> {
    match actual {
        Object::Route(target) => RouteTarget::link(target),
        _ => key.link(),
    }
}
