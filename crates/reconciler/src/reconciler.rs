//! The reconciler's state, and the order in which a step does its work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use routelet_model::{Family, Host, IfName, Key, Kind, Object, RouteTarget};
use routelet_netlink::{Error, Hint};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::backoff::{Backoff, Trouble};
use crate::carrier::{Batch, Carrier};
use crate::flows::Flows;
use crate::ownership::{pod_route_link, pod_veth};
use crate::table::{Cause, Count, Slot, Table};
use crate::{Kernel, Ownership, Report};

/// How long after a link's change its objects are looked at once more: the kernel tells of a link that
/// goes down before it has taken the routes away, and a dump does not wait for it.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// How long after a failed attempt the host's links and addresses are read again.
const HOST_AGAIN: Duration = Duration::from_secs(1);

/// Brings the kernel to the wanted objects and keeps it there.
#[derive(Debug)]
pub struct Reconciler<K> {
    pub(crate) kernel: Carrier<K>,
    pub(crate) ownership: Ownership,
    pub(crate) table: Table,
    pub(crate) backoff: Backoff,
    pub(crate) report: Report,
    /// Whether objects may be taken away.
    pub(crate) may_remove: bool,
    /// Keys that wait for another object: a link that is not there or not up, a nexthop.
    pub(crate) waiting: FxHashMap<Key, FxHashSet<Key>>,
    /// When everything is to be read: at the start, after lost notifications, after a failed read.
    pub(crate) resync_at: Option<Instant>,
    /// Until when no full comparison follows the last one.
    pub(crate) rested_at: Instant,
    /// Reads that failed in a row.
    pub(crate) failed_reads: u32,
    /// Whether the nft table may be otherwise than is known: dump what it holds.
    pub(crate) nft_touched: bool,
    /// Links whose objects may have gone without a word: dump these.
    pub(crate) suspects: BTreeSet<IfName>,
    /// Links that are to be looked at a second time, and when.
    pub(crate) second_look: Option<(Instant, BTreeSet<IfName>)>,
    /// Links and nexthops that are gone, and with them, silently, what used them.
    pub(crate) gone: FxHashSet<Key>,
    /// Whether someone else's routes may stand before ours unheard of, which no dump of ours shows.
    pub(crate) others_unknown: bool,
    /// Whether someone else's routes that serve in place of ours may have gone, with a link and without a word.
    pub(crate) others_in_doubt: bool,
    /// Keys of routes that could not be made because something stood there which was gone when it was looked at.
    pub(crate) vanished: FxHashSet<Key>,
    /// Whether notifications were lost since the last full comparison.
    pub(crate) lost: bool,
    /// Whether the host's own links or addresses have changed since they were last read.
    pub(crate) host_changed: bool,
    /// When they are read again, after that has failed.
    host_again_at: Option<Instant>,
    /// Whether a link of the host has changed, and perhaps the name of a device's parent with it.
    relook_links: bool,
    /// Number of the latest dump.
    pub(crate) generation: u32,
    pub(crate) flows: Flows,
    // Reused from step to step.
    pub(crate) hints: Vec<Hint>,
    pub(crate) batch: Batch,
    pub(crate) spare: Batch,
}

/// What a step leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do at once.
    More,
    /// Nothing to do until something happens, or until the time given.
    Idle(Option<Instant>),
}

impl<K: Kernel> Reconciler<K> {
    /// A reconciler that knows nothing yet; its first step, at `now` or later, reads the kernel's state.
    pub fn new(kernel: K, ownership: Ownership, now: Instant) -> Self {
        Self {
            kernel: Carrier::new(kernel),
            ownership,
            table: Table::default(),
            backoff: Backoff::default(),
            report: Report::default(),
            may_remove: false,
            waiting: FxHashMap::default(),
            resync_at: Some(now),
            rested_at: now,
            failed_reads: 0,
            nft_touched: false,
            suspects: BTreeSet::new(),
            second_look: None,
            gone: FxHashSet::default(),
            others_unknown: true,
            others_in_doubt: false,
            vanished: FxHashSet::default(),
            lost: false,
            host_changed: true,
            host_again_at: None,
            relook_links: false,
            generation: 0,
            flows: Flows::default(),
            hints: Vec::new(),
            batch: Batch::default(),
            spare: Batch::default(),
        }
    }

    /// Takes a change of the wanted objects: `None` for one that is wanted no more.
    pub fn want(&mut self, key: Key, object: Option<Object>) {
        self.backoff.clear(&key);
        self.table.edit(key, |slot| {
            let is_new = slot.wanted.is_none();
            // Beside a blackhole, someone else's route is let be.
            let was_alone =
                matches!(&slot.wanted, Some(before) if *before != Object::Route(RouteTarget::Blackhole));
            slot.withdrawn = match (&object, &slot.wanted) {
                (None, Some(before)) => pod_veth(&key, before),
                (None, None) => slot.withdrawn,
                (Some(_), _) => None,
            };
            slot.wanted = object;
            slot.drift = None;
            match (&slot.wanted, &slot.actual, &key) {
                // Another's route is no concern where none is wanted.
                (None, Some(Object::Foreign { .. }), Key::Route { .. }) => slot.actual = None,
                (Some(wanted), Some(actual @ Object::Route(_)), _) if !was_alone => {
                    // Another's was seen where none was wanted so far, which was no concern.
                    let is_crowded = slot.crowded && *wanted != Object::Route(RouteTarget::Blackhole);
                    // Else no one has looked whether one stands there too.
                    if is_crowded || !wanted.satisfied_by(actual) {
                        slot.actual = Some(Object::OddRoutes);
                        slot.drift = (is_crowded && is_new).then_some(Cause::Changed);
                    }
                }
                _ => {}
            }
        });
        // An object that is neither wanted nor there leaves no slot behind.
        self.table.drop_empty(&key);
        self.wake(&key);
    }

    /// From now on, what is ours and not wanted may be taken away: the wanted objects are complete.
    pub fn allow_removal(&mut self) {
        if !self.may_remove {
            self.may_remove = true;
            // What was found until now is left from an agent before this one: no one has added it since.
            self.table.forgive_surplus();
            self.table.queue_all();
        }
    }

    /// Whether that has been allowed.
    pub fn may_remove(&self) -> bool {
        self.may_remove
    }

    /// Whether the kernel is known to have anything of ours that is not wanted, pods' routes aside.
    pub fn is_anything_left(&self) -> bool {
        let is_left = |(key, slot): (&Key, &Slot)| {
            let actual = slot.actual.as_ref().filter(|_| slot.wanted.is_none());
            actual.is_some_and(|actual| {
                self.ownership.owns(key, actual) && pod_route_link(key, actual).is_none()
            })
        };
        self.table.iter().any(is_left)
    }

    /// Orders a full comparison with the kernel at the next step, and forgets what is of no more use: `now` closes
    /// old fights.
    pub fn audit(&mut self, now: Instant) {
        self.resync_at = Some(now);
        self.others_in_doubt = true;
        self.backoff.prune(now);
        self.vanished.clear();
        self.table.shrink();
        let Self { waiting, table, .. } = self;
        waiting.retain(|_, keys| {
            keys.retain(|key| table.get(key).is_some_and(|slot| !slot.in_sync()));
            !keys.is_empty()
        });
    }

    /// The host's links and addresses, where they may have changed since the last call. One that fails is tried
    /// again by a step after a while. None also while a batch is under way: the step after it has ended comes first.
    pub fn host_if_changed(&mut self, now: Instant) -> Result<Option<Host>, Error> {
        if !self.host_changed || self.kernel.is_away() {
            return Ok(None);
        }
        self.host_changed = false;
        self.host_again_at = None;
        match self.kernel.at_hand().host() {
            Ok(host) => {
                self.relook_links = true;
                Ok(Some(host))
            }
            Err(error) => {
                self.host_again_at = Some(now + HOST_AGAIN);
                Err(error)
            }
        }
    }

    /// Does a bounded piece of work: takes the notifications in, reads what has become doubtful, and writes
    /// one batch. `now` is the present. Where the host's links have changed it only says that there is more to do,
    /// until [`Self::host_if_changed`] has told of them.
    pub fn step(&mut self, now: Instant) -> Progress {
        if self.kernel.is_away() {
            if self.may_plan_ahead(now) {
                self.plan_ahead(now);
            }
            self.land(now);
            self.take_hints(now);
            if !self.may_plan_ahead(now) {
                self.unplan();
            }
            if !self.batch.operations.is_empty() {
                self.send(now);
                return Progress::More;
            }
        } else {
            self.take_hints(now);
        }
        if self.host_again_at.is_some_and(|at| at <= now) {
            self.host_changed = true;
        }
        // What is wanted follows from the host's links: first what it shall be now, then the writing.
        if self.host_changed {
            return Progress::More;
        }
        if std::mem::take(&mut self.relook_links)
            && let Err(error) = self.read_links(now)
        {
            self.report.failed_reads.push((Kind::Link, error.to_string()));
            self.resync_soon(now);
        }
        for key in self.backoff.due(now) {
            match self.table.get(&key) {
                Some(_) => self.table.queue(key),
                // Someone else has taken away what we could not.
                None => self.recover(&key),
            }
        }
        if self.second_look.as_ref().is_some_and(|(at, _)| *at <= now)
            && let Some((_, links)) = self.second_look.take()
        {
            self.suspects.extend(links);
            self.others_in_doubt = true;
        }
        if self.resync_at.is_some_and(|at| at <= now) {
            self.resync_all(now);
        }
        // Once all that is wanted is known, at the latest.
        if self.others_unknown && self.may_remove && self.resync_at.is_none() {
            self.read_others(now);
        }
        if std::mem::take(&mut self.others_in_doubt) {
            self.reread_serving(now);
        }
        self.forget_with_gone(Some(Cause::Deleted));
        // Links come first and alone: what is on them depends on what became of them.
        if self.write_links(now) {
            self.forget_with_gone(None);
        }
        if !self.suspects.is_empty() {
            let links = std::mem::take(&mut self.suspects);
            self.resync_links(&links, now);
        }
        if self.nft_touched {
            self.resync_nft(now);
        }
        self.write_batch(now);
        if self.kernel.is_away() {
            return Progress::More;
        }
        self.flush_flows(now);
        if !self.table.is_idle() || !self.gone.is_empty() || self.nft_touched {
            return Progress::More;
        }
        let second_look = self.second_look.as_ref().map(|(at, _)| *at);
        Progress::Idle(
            [
                self.backoff.next(),
                second_look,
                self.resync_at,
                self.host_again_at,
                self.flows.again_at,
            ]
            .into_iter()
            .flatten()
            .min(),
        )
    }

    /// Whether nothing has to be read, and no link made, before anything else is written.
    fn may_plan_ahead(&self, now: Instant) -> bool {
        !self.host_changed
            && !self.relook_links
            && self.resync_at.is_none_or(|at| now < at)
            && self.suspects.is_empty()
            && self.gone.is_empty()
            && !self.nft_touched
            && self.table.is_idle_of(Kind::Link)
    }

    /// Plans a second look at a link's objects.
    pub(crate) fn look_again(&mut self, link: IfName, now: Instant) {
        let (_, links) = self
            .second_look
            .get_or_insert_with(|| (now + SECOND_LOOK, BTreeSet::new()));
        links.insert(link);
    }

    /// Takes what happened since the last call; nothing while a batch is under way, of which it is not known yet what
    /// will have happened.
    pub fn take_report(&mut self) -> Report {
        match self.kernel.is_away() {
            true => Report::default(),
            false => std::mem::take(&mut self.report),
        }
    }

    /// Numbers of objects of a kind.
    pub fn count(&self, kind: Kind) -> Count {
        self.table.count(kind)
    }

    /// How many neighbours of a family the kernel is known to have on our devices.
    pub fn neighbours(&self, family: Family) -> usize {
        let is_of = |(key, slot): &(&Key, &Slot)| {
            matches!(key, Key::Neighbour { address, .. } if Family::of(*address) == family)
                && slot.actual.is_some()
        };
        self.table.of_kind(Kind::Neighbour).filter(is_of).count()
    }

    /// Keys that the kernel refuses at present.
    pub fn troubles(&self) -> impl Iterator<Item = (&Key, &Trouble)> {
        self.backoff.troubles().filter(|(_, trouble)| trouble.told)
    }

    /// What is wanted under a key and what the kernel has there, as far as is known.
    pub fn look_up(&self, key: &Key) -> (Option<&Object>, Option<&Object>) {
        let slot = self.table.get(key);
        let side = |side: fn(&Slot) -> &Option<Object>| slot.and_then(|slot| side(slot).as_ref());
        (side(|slot| &slot.wanted), side(|slot| &slot.actual))
    }

    /// Whether the object is wanted and the kernel has it as it should be.
    pub fn is_in_place(&self, key: &Key) -> bool {
        let is_in_place = |slot: &Slot| slot.wanted.is_some() && slot.in_sync();
        self.table.get(key).is_some_and(is_in_place)
    }

    /// Whether the kernel's state is still to be read, for the first time or again.
    pub fn is_in_doubt(&self) -> bool {
        self.resync_at.is_some()
    }

    /// Wanted objects that are not in the kernel as they should be, with what is there instead.
    pub fn differences(&self) -> impl Iterator<Item = (&Key, &Object, Option<&Object>)> {
        self.table.iter().filter_map(|(key, slot): (&Key, &Slot)| {
            let wanted = slot.wanted.as_ref()?;
            (!slot.in_sync()).then_some((key, wanted, slot.actual.as_ref()))
        })
    }

    /// Host veths that are there though their pod, which was known, is wanted no more, and to which no route of ours leads:
    /// whatever is behind one has been cut off since.
    pub fn abandoned_veths(&self) -> BTreeSet<IfName> {
        let of_links = self.table.of_kind(Kind::Link);
        let withdrawn = of_links.filter(|(_, slot)| slot.wanted.is_none() && slot.actual.is_some());
        let mut veths: BTreeSet<IfName> = withdrawn.filter_map(|(_, slot)| slot.withdrawn).collect();
        if veths.is_empty() {
            return veths;
        }
        for (_, slot) in self.table.of_kind(Kind::Route) {
            if let Some(Object::Route(target)) = &slot.actual
                && let Some(link) = target.link()
            {
                veths.remove(&link);
            }
        }
        veths
    }

    /// Objects that would be taken away: ours by their marks, and not wanted.
    pub fn surplus(&self) -> impl Iterator<Item = (&Key, &Object)> {
        self.table.iter().filter_map(|(key, slot): (&Key, &Slot)| {
            let actual = slot.actual.as_ref()?;
            (slot.wanted.is_none() && self.may_take_away(key, slot)).then_some((key, actual))
        })
    }

    /// Reads all of the kernel's state, and writes nothing: for who only wants to see [`Self::differences`] and
    /// [`Self::surplus`]. False where something could not be read, as the report says.
    pub fn look(&mut self, now: Instant) -> bool {
        self.resync_all(now);
        if self.resync_at.is_none() {
            self.read_others(now);
            self.read_serving(now);
        }
        self.resync_at.is_none()
    }

    /// The kernel, to wait for its notifications when there is nothing left to do.
    pub fn kernel_mut(&mut self) -> &mut K {
        self.kernel.at_hand()
    }
}
