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
mod tests;
