//! The ways that are tested: whose turn it is, and what came of it. No socket and no clock are here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use routelet_model::{Family, PerFamily};
use routelet_netlink::echo;
use routelet_planner::{OverlayChange, OverlayEnd};

use super::verdict::{Account, Size, Verdict};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long after a probe the same peer is not asked again, however few there are.
const REST: Duration = Duration::from_secs(1);

/// A peer, by its name, and the family of its pods.
pub(crate) type PeerId = (Arc<str>, Family);

/// A probe to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) number: u64,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// In bytes, with the IP header.
    pub(crate) bytes: u32,
}

/// What has become of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered after so long.
    Answered(Duration),
    /// Not answered in time, or refused by this node's own kernel.
    Lost,
}

/// A probe that has come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) peer: PeerId,
    /// The peer's tunnel address.
    pub(crate) address: IpAddr,
    pub(crate) size: Size,
    /// In bytes, with the IP header.
    pub(crate) bytes: u32,
    pub(crate) fate: Fate,
    /// What is held of the way, before and after.
    pub(crate) verdict: [Verdict; 2],
}

#[derive(Debug)]
struct Peer {
    address: IpAddr,
    account: Account,
    /// Where it stands in the queues; nowhere while it is asked.
    queued: Option<(Queue, Instant)>,
}

#[derive(Debug)]
struct Asked {
    peer: PeerId,
    to: IpAddr,
    size: Size,
    bytes: u32,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Regular,
    /// Something was lost: these have every second turn, so that one of thousands is not waited for.
    Suspect,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    /// Between two probes.
    gap: Duration,
    ends: PerFamily<Option<OverlayEnd>>,
    peers: BTreeMap<PeerId, Peer>,
    queues: [BTreeSet<(Instant, PeerId)>; 2],
    suspects_turn: bool,
    /// When the next probe may go out.
    slot: Instant,
    asked: HashMap<u64, Asked>,
    /// In the order of their times.
    expiries: VecDeque<(Instant, u64)>,
    number: u64,
}

impl Table {
    /// One without peers, for so many probes a second.
    pub(crate) fn new(rate: u32, now: Instant) -> Self {
        Self {
            gap: Duration::from_secs(1) / rate,
            ends: PerFamily::default(),
            peers: BTreeMap::new(),
            queues: [BTreeSet::new(), BTreeSet::new()],
            suspects_turn: false,
            slot: now,
            asked: HashMap::new(),
            expiries: VecDeque::new(),
            number: 0,
        }
    }

    /// Takes a change of the tunnel's ends. A peer that comes is asked first after `delay`. Returns who is no longer
    /// tested, and what was held of the way.
    pub(crate) fn change(
        &mut self,
        change: OverlayChange,
        now: Instant,
        delay: Duration,
    ) -> Option<(PeerId, Verdict)> {
        match change {
            OverlayChange::Own { family, end } => {
                *self.ends.get_mut(family) = end;
                None
            }
            OverlayChange::Peer {
                node,
                family,
                address,
            } => {
                let id: PeerId = (node.into(), family);
                let before = self.peers.remove(&id);
                if let Some((queue, at)) = before.as_ref().and_then(|peer| peer.queued) {
                    self.queues[queue as usize].remove(&(at, id.clone()));
                }
                if let Some(address) = address {
                    let peer = Peer {
                        address,
                        account: Account::new(now),
                        queued: None,
                    };
                    self.peers.insert(id.clone(), peer);
                    self.queue(&id, now + delay);
                }
                before.map(|peer| (id, peer.account.verdict()))
            }
        }
    }

    /// The next probe, where one is due. It counts as sent.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Probe> {
        if now < self.slot {
            return None;
        }
        let order = match self.suspects_turn {
            true => [Queue::Suspect, Queue::Regular],
            false => [Queue::Regular, Queue::Suspect],
        };
        for queue in order {
            while let Some((at, id)) = self.queues[queue as usize].first().cloned() {
                if at > now {
                    break;
                }
                self.queues[queue as usize].remove(&(at, id.clone()));
                if let Some(probe) = self.ask(&id, now) {
                    self.suspects_turn = queue == Queue::Regular;
                    self.slot = now + self.gap;
                    return Some(probe);
                }
                // Without an end of our own there is nothing to ask from.
                self.queue(&id, now + REST);
            }
        }
        None
    }

    fn ask(&mut self, id: &PeerId, now: Instant) -> Option<Probe> {
        let end = (*self.ends.get(id.1))?;
        let peer = self.peers.get_mut(id)?;
        peer.queued = None;
        let size = peer.account.next();
        let bytes = match size {
            Size::Small => echo::SMALLEST,
            Size::Large => end.mtu,
        };
        self.number += 1;
        let asked = Asked {
            peer: id.clone(),
            to: peer.address,
            size,
            bytes,
            at: now,
        };
        self.asked.insert(self.number, asked);
        self.expiries.push_back((now + PATIENCE, self.number));
        Some(Probe {
            number: self.number,
            from: end.address,
            to: peer.address,
            bytes,
        })
    }

    /// An answer has come. `None` where no one waits for it.
    pub(crate) fn answered(&mut self, number: u64, from: IpAddr, now: Instant) -> Option<Outcome> {
        if self.asked.get(&number)?.to != from {
            return None;
        }
        let asked = self.asked.remove(&number)?;
        let took = now.saturating_duration_since(asked.at);
        self.conclude(asked, Fate::Answered(took), now)
    }

    /// The kernel did not send a probe.
    pub(crate) fn refused(&mut self, number: u64, now: Instant) -> Option<Outcome> {
        let asked = self.asked.remove(&number)?;
        self.conclude(asked, Fate::Lost, now)
    }

    /// A probe was none: it says nothing of the way.
    pub(crate) fn withdrawn(&mut self, number: u64, now: Instant) {
        if let Some(asked) = self.asked.remove(&number) {
            self.queue(&asked.peer, now + REST);
        }
    }

    /// The next of the probes whose time is over.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Outcome> {
        while let Some((at, number)) = self.expiries.front().copied() {
            if at > now {
                return None;
            }
            self.expiries.pop_front();
            if let Some(asked) = self.asked.remove(&number)
                && let Some(outcome) = self.conclude(asked, Fate::Lost, now)
            {
                return Some(outcome);
            }
        }
        None
    }

    fn conclude(&mut self, asked: Asked, fate: Fate, now: Instant) -> Option<Outcome> {
        let peer = self.peers.get_mut(&asked.peer)?;
        // It went and came again meanwhile: the new one has a place in the queues.
        if peer.queued.is_some() {
            return None;
        }
        let before = peer.account.verdict();
        match fate {
            Fate::Answered(_) => peer.account.answered(asked.size),
            Fate::Lost => peer.account.lost(asked.size, now),
        }
        let outcome = Outcome {
            address: peer.address,
            size: asked.size,
            bytes: asked.bytes,
            fate,
            verdict: [before, peer.account.verdict()],
            peer: asked.peer,
        };
        self.queue(&outcome.peer, now.max(asked.at + REST));
        Some(outcome)
    }

    fn queue(&mut self, id: &PeerId, at: Instant) {
        if let Some(peer) = self.peers.get_mut(id) {
            let queue = match peer.account.is_suspect() {
                true => Queue::Suspect,
                false => Queue::Regular,
            };
            peer.queued = Some((queue, at));
            self.queues[queue as usize].insert((at, id.clone()));
        }
    }

    /// When there will be something to do.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let due = self.queues.iter().filter_map(|queue| queue.first());
        let probe = due.map(|(at, _)| (*at).max(self.slot)).min();
        let expiry = self.expiries.front().map(|(at, _)| *at);
        [probe, expiry].into_iter().flatten().min()
    }

    /// What is held of each way.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = (&PeerId, Verdict)> {
        self.peers.iter().map(|(id, peer)| (id, peer.account.verdict()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Family = Family::V4;

    fn address(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        [10, 200, high, low].into()
    }

    fn peer(number: u16, is_there: bool) -> OverlayChange {
        OverlayChange::Peer {
            node: format!("node-{number}"),
            family: V4,
            address: is_there.then(|| address(number)),
        }
    }

    fn end() -> OverlayChange {
        let end = OverlayEnd {
            address: address(0),
            mtu: 1450,
        };
        OverlayChange::Own {
            family: V4,
            end: Some(end),
        }
    }

    /// A network in which time passes without anyone waiting.
    struct World {
        table: Table,
        now: Instant,
        sent: Vec<(Duration, Probe)>,
        start: Instant,
    }

    impl World {
        fn new(rate: u32, peers: u16) -> Self {
            let now = Instant::now();
            let mut table = Table::new(rate, now);
            table.change(end(), now, Duration::ZERO);
            for number in 1..=peers {
                table.change(peer(number, true), now, Duration::ZERO);
            }
            Self {
                table,
                now,
                sent: Vec::new(),
                start: now,
            }
        }

        /// Lets time pass; a probe is answered at once where `arrives` says so. Returns the changes of verdicts.
        fn pass(&mut self, time: Duration, arrives: impl Fn(&Probe) -> bool) -> Vec<(Arc<str>, Verdict)> {
            let end = self.now + time;
            let mut changes = Vec::new();
            while let Some(wake) = self.table.next_wake().filter(|wake| *wake <= end) {
                self.now = self.now.max(wake);
                let mut outcomes = Vec::new();
                while let Some(probe) = self.table.take_due(self.now) {
                    self.sent.push((self.now - self.start, probe));
                    if arrives(&probe) {
                        outcomes.extend(self.table.answered(probe.number, probe.to, self.now));
                    }
                }
                outcomes.extend(std::iter::from_fn(|| self.table.take_expired(self.now)));
                let changed = outcomes
                    .into_iter()
                    .filter(|outcome| outcome.verdict[0] != outcome.verdict[1]);
                changes.extend(changed.map(|outcome| (outcome.peer.0, outcome.verdict[1])));
            }
            self.now = end;
            changes
        }

        fn sent_to(&self, number: u16) -> usize {
            let to = address(number);
            self.sent.iter().filter(|(_, probe)| probe.to == to).count()
        }
    }

    #[test]
    fn no_second_has_more_probes_than_the_rate_whatever_becomes_of_them() {
        for (rate, peers) in [(1, 3), (10, 5000), (1000, 5000), (1000, 2)] {
            let mut world = World::new(rate, peers);
            world.pass(Duration::from_secs(5), |_| true);
            world.pass(Duration::from_secs(5), |_| false);
            world.pass(Duration::from_secs(5), |probe| probe.bytes < 100);
            let times: Vec<_> = world.sent.iter().map(|(at, _)| *at).collect();
            for window in times.windows(rate as usize + 1) {
                assert!(
                    window[rate as usize] - window[0] >= Duration::from_secs(1),
                    "{rate} {peers}"
                );
            }
            assert!(!times.is_empty());
        }
    }

    #[test]
    fn each_peer_has_its_turn_and_none_is_asked_more_than_once_a_second() {
        let mut world = World::new(100, 50);
        world.pass(Duration::from_secs(10), |_| true);
        for number in 1..=50 {
            assert!(
                (9..=11).contains(&world.sent_to(number)),
                "{}",
                world.sent_to(number)
            );
        }
        let mut world = World::new(10, 50);
        world.pass(Duration::from_secs(10), |_| true);
        for number in 1..=50 {
            assert!(
                (1..=3).contains(&world.sent_to(number)),
                "{}",
                world.sent_to(number)
            );
        }
    }

    #[test]
    fn small_and_large_probes_are_sent_from_our_end() {
        let mut world = World::new(10, 1);
        world.pass(Duration::from_secs(3), |_| true);
        let sizes: Vec<_> = world
            .sent
            .iter()
            .map(|(_, probe)| (probe.from, probe.bytes))
            .collect();
        let (small, large) = ((address(0), 64), (address(0), 1450));
        assert_eq!(sizes, [small, large, small, large]);
    }

    /// With 1,000 peers and 10 probes a second, a round takes 100 s. Who has lost something is not waited for so long.
    #[test]
    fn one_lost_among_many_is_found_out_soon_after_its_turn() {
        let mut world = World::new(10, 1000);
        assert_eq!(world.pass(Duration::from_secs(100), |_| true).len(), 1000);
        let changes = world.pass(Duration::from_secs(110), |probe| probe.to != address(7));
        assert_eq!(changes, [("node-7".into(), Verdict::Unreachable)]);
        let times: Vec<_> = world
            .sent
            .iter()
            .filter(|(at, probe)| *at > Duration::from_secs(100) && probe.to == address(7))
            .map(|(at, _)| *at)
            .collect();
        assert!(times[2] - times[0] < Duration::from_secs(3), "{times:?}");
        assert_eq!(
            world.pass(Duration::from_secs(3), |_| true),
            [("node-7".into(), Verdict::Reachable)]
        );
    }

    #[test]
    fn with_all_lost_and_one_left_the_one_has_every_second_turn() {
        let mut world = World::new(10, 20);
        world.pass(Duration::from_secs(10), |_| true);
        let changes = world.pass(Duration::from_secs(60), |probe| probe.to == address(20));
        assert_eq!(changes.len(), 19);
        let before = world.sent_to(20);
        world.pass(Duration::from_secs(10), |probe| probe.to == address(20));
        assert!(world.sent_to(20) - before >= 9);
    }

    #[test]
    fn answers_of_strangers_late_ones_and_second_ones_are_none() {
        let mut world = World::new(10, 1);
        let probe = world.table.take_due(world.now).unwrap();
        assert_eq!(world.table.answered(probe.number, address(9), world.now), None);
        assert_eq!(world.table.answered(77, probe.to, world.now), None);
        let soon = world.now + Duration::from_millis(5);
        let outcome = world.table.answered(probe.number, probe.to, soon).unwrap();
        assert_eq!(outcome.fate, Fate::Answered(Duration::from_millis(5)));
        assert_eq!(outcome.verdict, [Verdict::Unknown, Verdict::Reachable]);
        assert_eq!(world.table.answered(probe.number, probe.to, soon), None);
        let later = world.now + Duration::from_secs(2);
        let probe = world.table.take_due(later).unwrap();
        let expired = world.table.take_expired(later + PATIENCE).unwrap();
        assert_eq!((expired.fate, expired.size), (Fate::Lost, Size::Large));
        assert_eq!(
            world.table.answered(probe.number, probe.to, later + PATIENCE),
            None
        );
    }

    #[test]
    fn who_goes_is_asked_no_more_and_what_was_held_is_told() {
        let mut world = World::new(10, 2);
        world.pass(Duration::from_secs(2), |_| true);
        let probe = loop {
            if let Some(probe) = world.table.take_due(world.now) {
                break probe;
            }
            world.now += Duration::from_millis(100);
        };
        let number = if probe.to == address(1) { 1 } else { 2 };
        let gone = world.table.change(peer(number, false), world.now, Duration::ZERO);
        assert_eq!(gone.unwrap().1, Verdict::Reachable);
        assert_eq!(world.table.answered(probe.number, probe.to, world.now), None);
        world.sent.clear();
        world.pass(Duration::from_secs(5), |_| true);
        assert_eq!(world.sent_to(number), 0);
        assert_eq!(world.table.verdicts().count(), 1);
    }

    #[test]
    fn without_an_end_of_our_own_nothing_is_sent_until_there_is_one() {
        let mut world = World::new(10, 2);
        let none = OverlayChange::Own {
            family: V4,
            end: None,
        };
        world.table.change(none, world.now, Duration::ZERO);
        world.pass(Duration::from_secs(5), |_| true);
        assert_eq!(world.sent, []);
        world.table.change(end(), world.now, Duration::ZERO);
        assert_eq!(world.pass(Duration::from_secs(2), |_| true).len(), 2);
    }
}
