//! From marked keys to operations.

use std::mem::discriminant;
use std::net::IpAddr;
use std::time::Instant;

use routelet_model::{Family, IfName, Key, Kind, LinkKind, Object, RouteTarget};
use routelet_netlink::{Operation, Verb};
use rustc_hash::FxHashMap;

use crate::backoff::Repair;
use crate::carrier::Before;
use crate::ownership::pod_route_link;
use crate::report::Repaired;
use crate::resync::is_setting;
use crate::table::{Cause, Slot};
use crate::{Kernel, Reconciler};

/// Operations in one batch: enough that the cost of a batch doesn't count, few enough that an event which
/// comes in between waits for a millisecond or two only.
const BATCH: usize = 1024;

/// Whether an object has to go before others can be made: a set takes no ranges that overlap. Its elements that come
/// and go in one batch do so at once.
fn makes_room(key: &Key) -> bool {
    matches!(key, Key::NftElement { set, .. } if set.has_ranges())
}

/// What is to be done about a key.
enum Plan {
    /// Nothing.
    Nothing,
    /// Write it.
    Write(Verb),
    /// It can only be made once another object is there.
    WaitFor(Key),
    /// Take it away, once nothing is left to make.
    Remove,
}

/// What an object needs of the link that it lies on.
#[derive(Clone, Copy)]
enum LinkNeed {
    There,
    Up,
    Running,
}

impl<K: Kernel> Reconciler<K> {
    /// Makes and changes links, and reads back what became of them. True where it wrote.
    pub(crate) fn write_links(&mut self, now: Instant) -> bool {
        while let Some(key) = self.table.pop(Kind::Link) {
            self.plan_key(key, now);
        }
        if self.batch.operations.is_empty() {
            return false;
        }
        for operation in &self.batch.operations {
            // A device that is made, or made anew, carries nothing. (The kernel's own IPIP device is not made.)
            let is_ipip =
                matches!(&operation.object, Object::Link(link) if matches!(link.kind, LinkKind::Ipip { .. }));
            if operation.verb == Verb::Create && !is_ipip {
                self.gone.insert(operation.key);
            }
        }
        self.send(now);
        self.land(now);
        if let Err(error) = self.read_links(now) {
            self.report.failed_reads.push((Kind::Link, error.to_string()));
            self.resync_at = Some(now);
        }
        true
    }

    /// Writes one batch: first what is to be made, in the order of the kinds; and only when nothing of that
    /// is left, what is to be taken away, in the reverse order. A link is made in no batch: if that failed, the
    /// rest of the batch would go to whatever has its name.
    pub(crate) fn write_batch(&mut self, now: Instant) {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Link) {
            while self.batch.operations.len() < BATCH {
                let Some(key) = self.table.pop(kind) else { break };
                self.plan_key(key, now);
            }
        }
        if self.batch.operations.is_empty() && !self.table.has_no_removals() {
            // No removal puts a device out of use.
            let in_use = self.devices_in_use();
            while self.batch.operations.len() < BATCH {
                let Some(key) = self.table.pop_removal() else {
                    break;
                };
                self.plan_removal(key, &in_use, now);
            }
        }
        self.send(now);
    }

    /// Plans the next batch while one is under way: only what is to be made where nothing is, which is in no batch of
    /// those that go that way; and nothing that might use what is still to be changed.
    pub(crate) fn plan_ahead(&mut self, now: Instant) {
        let mut later = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Link) {
            while self.batch.operations.len() < BATCH {
                let Some(key) = self.table.pop(kind) else { break };
                match self.table.get(&key) {
                    Some(slot) if slot.actual.is_none() && slot.wanted.is_some() => self.plan_key(key, now),
                    Some(_) => later.push(key),
                    None => self.recover(&key),
                }
            }
            let is_wanted = |key: &Key| self.table.get(key).is_some_and(|slot| slot.wanted.is_some());
            if later.iter().any(is_wanted) {
                break;
            }
        }
        for key in later {
            self.table.queue(key);
        }
    }

    /// Decides what to do about a key, and does all of it but the writing.
    fn plan_key(&mut self, key: Key, now: Instant) {
        let Some(mut slot) = self.table.get(&key) else {
            return self.recover(&key);
        };
        if is_setting(&key) && slot.wanted.is_some() && slot.actual.is_none() {
            // Read first, write only what differs.
            let actual = self.setting(key);
            self.table.settle(&key, |slot| slot.actual = actual);
            let Some(read) = self.table.get(&key) else { return };
            slot = read;
        }
        match self.plan(&key, slot) {
            Plan::Nothing => {
                self.recover(&key);
            }
            Plan::WaitFor(awaited) => {
                self.waiting.entry(awaited).or_default().insert(key);
            }
            Plan::Remove if makes_room(&key) => self.plan_removal(key, &FxHashMap::default(), now),
            Plan::Remove => self.table.set_aside(key),
            Plan::Write(verb) => {
                let Some(wanted) = slot.wanted.clone() else { return };
                if self.backoff.must_wait(&key, now) || !self.repair_is_due(key, now) {
                    return;
                }
                if verb == Verb::Create
                    && let Some(old) = self.table.actual(&key).filter(|old| gives_way(old))
                {
                    let old = old.clone();
                    self.emit(Verb::Delete, key, old);
                }
                self.emit(verb, key, wanted);
            }
        }
    }

    fn plan(&self, key: &Key, slot: &Slot) -> Plan {
        let (wanted, actual) = match (&slot.wanted, &slot.actual) {
            (None, None) => return Plan::Nothing,
            (None, Some(_)) if self.may_take_away(key, slot) => return Plan::Remove,
            (None, Some(actual)) => {
                // A pod's route that stays because of its veth goes when the veth's pod turns out to be another.
                return pod_route_link(key, actual)
                    .map_or(Plan::Nothing, |veth| Plan::WaitFor(Key::Link(veth)));
            }
            (Some(wanted), Some(actual)) if wanted.satisfied_by(actual) => return Plan::Nothing,
            (Some(wanted), actual) => (wanted, actual),
        };
        if let Some(awaited) = self.awaited(key, wanted) {
            return Plan::WaitFor(awaited);
        }
        if let Some(veth) = pod_route_link(key, wanted)
            && self.was_given_another(veth, key)
        {
            return Plan::WaitFor(Key::Link(veth));
        }
        match (wanted, actual) {
            (Object::Link(wanted), None) if wanted.kind == LinkKind::Veth => Plan::WaitFor(*key),
            (Object::Link(wanted), Some(Object::Link(actual))) if wanted.kind != actual.kind => {
                match wanted.kind {
                    // What differs cannot be changed while it lives. A device of another kind under its name
                    // is not ours to delete: making ours fails, and that is told.
                    LinkKind::Vxlan(_) | LinkKind::Ipip { .. } => Plan::Write(Verb::Create),
                    LinkKind::Veth | LinkKind::Other => Plan::WaitFor(*key),
                }
            }
            (_, None) => Plan::Write(Verb::Create),
            // Someone else's route beside ours is to stay, which a replacement might hit.
            (Object::Route(RouteTarget::Blackhole), Some(_)) => Plan::Write(Verb::Create),
            // The kernel lets one that leads to a nexthop object be as it is, and says that the replacement went well.
            (Object::Fdb(_), Some(Object::Foreign { .. })) => Plan::Write(Verb::Create),
            (Object::Route(_), Some(Object::OddRoutes)) => Plan::Write(Verb::Supplant),
            (Object::Route(_), Some(Object::Foreign { .. })) if slot.crowded => Plan::Write(Verb::Supplant),
            (_, Some(_)) => Plan::Write(Verb::Replace),
        }
    }

    /// The object that is missing for `wanted` to be made, if any.
    fn awaited(&self, key: &Key, wanted: &Object) -> Option<Key> {
        if matches!(key, Key::NftElement { .. } | Key::NftRules) {
            let is_right = self.table.actual(&Key::NftTable) == Some(&Object::NftTable);
            return (!is_right).then_some(Key::NftTable);
        }
        let target = match wanted {
            Object::Route(target) => Some(target),
            _ => None,
        };
        let link = key.link().or_else(|| target.and_then(RouteTarget::link))?;
        if self.ownership.follows(link) {
            let needs = match key {
                Key::Sysctl(_) | Key::ChecksumOffload(_) | Key::Address { .. } => LinkNeed::There,
                Key::Nexthop { .. } => LinkNeed::Running,
                _ => LinkNeed::Up,
            };
            if !self.link_is_there(link, needs) {
                return Some(Key::Link(link));
            }
        }
        match target {
            Some(RouteTarget::Nexthop { link, gateway }) => {
                let nexthop = Key::Nexthop {
                    link: *link,
                    gateway: *gateway,
                };
                self.table.actual(&nexthop).is_none().then_some(nexthop)
            }
            _ => None,
        }
    }

    fn link_is_there(&self, link: IfName, need: LinkNeed) -> bool {
        let Some(slot) = self.table.get(&Key::Link(link)) else {
            return false;
        };
        let Some(Object::Link(actual)) = &slot.actual else {
            return false;
        };
        // What is wanted on a VXLAN device is not put on a bridge that has its name.
        let of_another_kind = match &slot.wanted {
            Some(Object::Link(wanted)) => discriminant(&wanted.kind) != discriminant(&actual.kind),
            _ => false,
        };
        !of_another_kind
            && match need {
                LinkNeed::There => true,
                LinkNeed::Up => actual.up,
                LinkNeed::Running => actual.running,
            }
    }

    /// Whether the CNI plugin says that it gave the route's address to the pod behind the veth. Its word is newer than
    /// the API's, which hears of the address from the kubelet.
    fn was_given(&self, veth: IfName, key: &Key) -> bool {
        let Key::Route { destination, .. } = key else {
            return false;
        };
        self.given(veth).contains(&destination.addr())
    }

    /// Whether it says that it gave others of the family, but not this one: as long as the API has not heard of a
    /// sandbox made anew, as after a reboot.
    fn was_given_another(&self, veth: IfName, key: &Key) -> bool {
        let Key::Route { destination, .. } = key else {
            return false;
        };
        let family = Family::of_net(*destination);
        let given = self.given(veth);
        given.iter().any(|address| Family::of(*address) == family) && !given.contains(&destination.addr())
    }

    fn given(&self, veth: IfName) -> &[IpAddr] {
        match self.table.actual(&Key::Link(veth)) {
            Some(Object::Link(link)) => &link.given,
            _ => &[],
        }
    }

    /// Whether an object that is not wanted may be taken away.
    pub(crate) fn may_take_away(&self, key: &Key, slot: &Slot) -> bool {
        let Some(actual) = &slot.actual else { return false };
        if !self.may_remove || !self.ownership.owns(key, actual) {
            return false;
        }
        if key
            .link()
            .is_some_and(|link| self.ownership.follows(link) && !self.link_is_there(link, LinkNeed::There))
        {
            return false;
        }
        // A pod's route that was never wanted to lead there: the API may merely not have told us of the pod yet. It
        // stays as long as its veth lives and no pod that we know of owns the veth.
        match pod_route_link(key, actual) {
            Some(link) if slot.withdrawn != Some(link) && self.ownership.is_host_veth(link) => {
                let veth = self.table.get(&Key::Link(link));
                veth.is_none_or(|veth| veth.actual.is_none() || veth.wanted.is_some())
                    && !self.was_given(link, key)
            }
            _ => true,
        }
    }

    /// Notes a repair where the key was in sync until someone else touched it. False where the repair has to
    /// wait, as someone touches it again and again.
    pub(crate) fn repair_is_due(&mut self, key: Key, now: Instant) -> bool {
        let Some(slot) = self.table.get(&key) else {
            return false;
        };
        let Some(cause) = slot.drift else { return true };
        let found = slot.actual.clone().filter(|_| cause != Cause::Deleted);
        match self.backoff.repair(key, now) {
            Repair::Now => {
                self.table.settle(&key, |slot| slot.drift = None);
                self.report.repairs.push(Repaired { key, cause, found });
                true
            }
            Repair::Later { first } => {
                if first {
                    self.report.fights.push(key);
                }
                false
            }
        }
    }

    /// Puts an operation into the batch. The table has it as done from here on, so that what depends on it
    /// can go into the same batch; a failure takes that back.
    pub(crate) fn emit(&mut self, verb: Verb, key: Key, object: Object) {
        let mut actual = (verb != Verb::Delete).then(|| object.clone());
        let mut previous = Before::default();
        self.table.settle(&key, |slot| {
            if let (Some(Object::Link(new)), Some(Object::Link(old))) = (&mut actual, &slot.actual) {
                new.index = old.index;
            }
            previous = Before {
                actual: std::mem::replace(&mut slot.actual, actual),
                crowded: std::mem::take(&mut slot.crowded),
            };
        });
        self.batch.operations.push(Operation { verb, key, object });
        self.batch.previous.push(previous);
    }
}

/// Whether what is there is deleted where another is to be made: a device whose parameters cannot be changed, our own
/// routes where a blackhole shall be, an FDB entry of a shape that we never make.
fn gives_way(old: &Object) -> bool {
    match old {
        Object::Link(old) => matches!(old.kind, LinkKind::Vxlan(_)),
        Object::Route(_) | Object::OddRoutes | Object::Foreign { .. } => true,
        _ => false,
    }
}
