//! The test of the way to the other nodes through the tunnel (`--overlay-check`), by ICMP echo between the nodes' tunnel
//! addresses: docs/overlay-check.md.
//!
//! It has a task of its own, so that no batch in the kernel delays an answer. It changes nothing: what is wrong is told.

mod table;
mod tell;
mod verdict;
mod verdicts;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use routelet_model::{Family, PerFamily};
use routelet_netlink::Error;
use routelet_netlink::echo::{Echo, Question};
use routelet_planner::OverlayChange;
use tokio::sync::{mpsc, watch};

use crate::admin::NotReady;
use crate::metrics::Metrics;
use table::{Probe, Table};
use tell::Teller;
use verdict::Verdict;
use verdicts::Verdicts;

/// Peers that are told at once are asked first within this time, each node's in another order.
const SPREAD: Duration = Duration::from_secs(1);

/// The check, to those who do not do it. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct OverlayCheck {
    changes: mpsc::UnboundedSender<OverlayChange>,
    /// What is held of each way.
    pub(crate) verdicts: Verdicts,
}

impl OverlayCheck {
    /// Tells what there is to test.
    pub(crate) fn tell(&self, change: OverlayChange) {
        // One that has ended has said why.
        let _ = self.changes.send(change);
    }
}

/// Begins to test as soon as the agent is ready, with so many probes a second at most.
pub(crate) fn start(rate: u32, ready: watch::Receiver<NotReady>, metrics: Arc<Metrics>) -> OverlayCheck {
    let (sender, changes) = mpsc::unbounded_channel();
    let random = RandomState::new();
    let verdicts = Verdicts::default();
    let check = Check {
        verdicts: verdicts.clone(),
        table: Table::new(rate, Instant::now()),
        teller: Teller::new(metrics),
        sockets: PerFamily::default(),
        changes,
        token: random.hash_one("token"),
        random,
        changed: false,
    };
    tokio::spawn(check.run(rate, ready));
    OverlayCheck {
        changes: sender,
        verdicts,
    }
}

struct Check {
    table: Table,
    teller: Teller,
    verdicts: Verdicts,
    sockets: PerFamily<Socket>,
    changes: mpsc::UnboundedReceiver<OverlayChange>,
    random: RandomState,
    /// Marks our probes.
    token: u64,
    /// Whether the peers, or what is held of them, are not as they were last counted.
    changed: bool,
}

#[derive(Default)]
enum Socket {
    /// Nothing was to be asked in this family so far.
    #[default]
    Unneeded,
    Open(Echo),
    /// It cannot be had, which was told.
    Denied,
}

impl Check {
    async fn run(mut self, rate: u32, mut ready: watch::Receiver<NotReady>) {
        if ready.wait_for(Vec::is_empty).await.is_err() {
            return;
        }
        tracing::info!(
            probes_a_second_at_most = rate,
            "the way to the other nodes is tested"
        );
        loop {
            self.work();
            let wake = self.table.next_wake();
            let wake = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            };
            let PerFamily { v4, v6 } = &mut self.sockets;
            tokio::select! {
                change = self.changes.recv() => match change {
                    Some(change) => self.take(change),
                    None => return,
                },
                () = v4.ready() => {}
                () = v6.ready() => {}
                () = wake => {}
            }
        }
    }

    /// Does all that there is to do at present.
    fn work(&mut self) {
        while let Ok(change) = self.changes.try_recv() {
            self.take(change);
        }
        let now = Instant::now();
        let mut outcomes = Vec::new();
        for family in Family::ALL {
            if let Socket::Open(echo) = self.sockets.get_mut(family) {
                while let Some(answer) = echo.answer() {
                    if answer.token == self.token {
                        outcomes.extend(self.table.answered(answer.number, answer.from, now));
                    }
                }
            }
        }
        while let Some(outcome) = self.table.take_expired(now) {
            outcomes.push(outcome);
        }
        while let Some(probe) = self.table.take_due(now) {
            match self.send(&probe) {
                Ok(()) => {}
                // The device has not the MTU yet that it is to have, or there is no room for a moment.
                Err(error) if is_for_a_moment(&error) => {
                    tracing::debug!(%error, "a probe was withdrawn");
                    self.table.withdrawn(probe.number, now);
                }
                Err(error) => {
                    tracing::debug!(%error, "a probe was not sent");
                    outcomes.extend(self.table.refused(probe.number, now));
                }
            }
        }
        self.changed |= outcomes
            .iter()
            .any(|outcome| outcome.verdict[0] != outcome.verdict[1]);
        for outcome in &outcomes {
            self.verdicts.set(&outcome.peer, Some(outcome.verdict[1]));
            self.teller.outcome(outcome);
        }
        if std::mem::take(&mut self.changed) {
            self.teller.counts(self.table.verdicts());
        }
    }

    fn take(&mut self, mut change: OverlayChange) {
        self.changed = true;
        let delay = match &mut change {
            OverlayChange::Own { family, end } => {
                let socket = self.sockets.get_mut(*family);
                socket.open(*family);
                // Without a socket nothing is asked.
                end.take_if(|_| !matches!(socket, Socket::Open(_)));
                Duration::ZERO
            }
            // Two nodes that start at once do not ask the others in one order.
            OverlayChange::Peer { node, .. } => {
                SPREAD.mul_f64((self.random.hash_one(node) % 1024) as f64 / 1024.0)
            }
        };
        let comes = match &change {
            OverlayChange::Peer {
                node,
                family,
                address: Some(_),
            } => Some((node.as_str().into(), *family)),
            _ => None,
        };
        if let Some((peer, _)) = self.table.change(change, Instant::now(), delay) {
            self.teller.gone(&peer);
            self.verdicts.set(&peer, None);
        }
        if let Some(peer) = comes {
            self.verdicts.set(&peer, Some(Verdict::Unknown));
        }
    }

    fn send(&self, probe: &Probe) -> Result<(), Error> {
        let Socket::Open(echo) = self.sockets.get(Family::of(probe.to)) else {
            return Ok(());
        };
        echo.ask(&Question {
            token: self.token,
            number: probe.number,
            from: probe.from,
            to: probe.to,
            size: probe.bytes,
        })
    }
}

impl Socket {
    fn open(&mut self, family: Family) {
        if !matches!(self, Self::Unneeded) {
            return;
        }
        *self = match Echo::open(family) {
            Ok(echo) => Self::Open(echo),
            Err(error) => {
                tracing::warn!(
                    %family, %error,
                    "the way to the other nodes cannot be tested: it takes the group 0 in net.ipv4.ping_group_range, or \
                     the capability NET_RAW (chart value capabilities)"
                );
                Self::Denied
            }
        };
    }

    /// Waits for answers.
    async fn ready(&mut self) {
        let Self::Open(echo) = self else {
            return std::future::pending().await;
        };
        if let Err(error) = echo.ready().await {
            tracing::warn!(%error, "the way to the other nodes is tested no more");
            *self = Self::Denied;
        }
    }
}

/// Whether an error says nothing of the way: the device has not the MTU yet that it is to have, or there is no room.
fn is_for_a_moment(error: &Error) -> bool {
    let errno = error.errno().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMSGSIZE | Errno::ENOBUFS | Errno::EAGAIN))
}
