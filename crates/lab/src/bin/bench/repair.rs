//! Repair of what someone else deletes or changes, by the real agent, and by a raw writer that knows beforehand what
//! will be done.

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Plan;
use crate::agent::{Rig, pause};
use crate::api_events::BETWEEN;
use crate::damage::{Along, Damage, Orders, Victim};
use crate::listener::{Change, Listener};
use crate::raw::RawSocket;
use crate::report::{LATENCY, Report, Table, Target, grouped, latency};
use crate::statistics::{Samples, millis};

/// Pods on the node.
const PODS: u8 = 110;
/// An object that someone touches more than ten times in ten seconds is fought about, and repaired ever more rarely;
/// that a device goes and comes counts twice for what is on it. After this long a fight is over.
const TRUCE: Duration = Duration::from_millis(10_500);
/// So few touches by each kind of damage to the device stay below that without a truce.
const WITHOUT_TRUCE: usize = 2;
/// For the agent to have its second look, which it takes a little later at what concerns a device.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// Who repairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Agent,
    RawWriter,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::RawWriter => "raw writer",
        }
    }
}

/// Times of one kind of damage.
#[derive(Debug, Default)]
struct Times {
    /// Until the object itself is as it was.
    first: Samples,
    /// Until all is back that went along.
    all: Samples,
}

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut table = Table::new("Repair of what someone else deletes or changes", &LATENCY);
    for nodes in plan.repair_nodes {
        let mut all = Damage::ALL.map(|damage| (damage, Times::default(), Times::default()));
        for _ in 0..plan.repeats {
            let mut rig = Rig::new(*nodes, PODS)?;
            rig.start()?;
            rig.netns().run(|| -> Result<()> {
                let mut scene = Scene::open(&rig)?;
                for (damage, times, _) in &mut all {
                    if damage.is_single() && plan.few > WITHOUT_TRUCE {
                        pause(TRUCE);
                    }
                    scene.sample(plan, *damage, By::Agent, times)?;
                }
                Ok(())
            })??;
            // What it has made stays, for the raw writer to repair.
            rig.stop_in_sync()?;
            rig.netns().run(|| -> Result<()> {
                let mut scene = Scene::open(&rig)?;
                for (damage, _, raw) in &mut all {
                    scene.sample(plan, *damage, By::RawWriter, raw)?;
                }
                Ok(())
            })??;
        }
        for (damage, times, raw) in &all {
            table.row(latency(damage.name(), *nodes, &times.first, &raw.first));
            if let Some(Along { name, .. }) = damage.along() {
                table.row(latency(name, *nodes, &times.all, &raw.all));
            }
        }
        targets(*nodes, &all, report);
    }
    report.table(table);
    Ok(())
}

fn targets(nodes: usize, all: &[(Damage, Times, Times)], report: &mut Report) {
    let present = grouped(nodes);
    let slowest = |figure: fn(&Samples) -> Duration| {
        let alone = all.iter().filter(|(damage, ..)| damage.along().is_none());
        let times = alone.map(|(_, times, _)| figure(&times.first));
        millis(times.max().unwrap_or_default())
    };
    for (value, limit, measured) in [
        ("p50", 1.0, slowest(Samples::median)),
        ("p99", 10.0, slowest(|samples| samples.percentile(0.99))),
    ] {
        let what = format!("repair of an object, {present} nodes present, slowest kind, {value}, ms");
        report.target(Target {
            what,
            limit,
            measured,
        });
    }
    let mut ratio = |name: &str, ours: &Samples, raw: &Samples| {
        report.target(Target {
            what: format!("{name}, {present} nodes present, p50, times the raw writer"),
            limit: 1.5,
            measured: ours.median().as_secs_f64() / raw.median().as_secs_f64(),
        });
    };
    for (damage, times, raw) in all {
        if let Some(Along { name, .. }) = damage.along() {
            ratio(damage.name(), &times.first, &raw.first);
            ratio(name, &times.all, &raw.all);
        }
    }
}

/// A node, someone who does damage to it, and who repairs it where the agent does not.
struct Scene<'a> {
    rig: &'a Rig,
    socket: RawSocket,
    listener: Listener,
    nft_socket: RawSocket,
    nft_listener: Listener,
}

impl<'a> Scene<'a> {
    /// In the node's namespace, which the calling thread is in.
    fn open(rig: &'a Rig) -> Result<Self> {
        Ok(Self {
            rig,
            socket: RawSocket::open()?,
            listener: Listener::open()?,
            nft_socket: RawSocket::open_nft()?,
            nft_listener: Listener::open_nft()?,
        })
    }

    /// Does the damage as often as the plan says.
    fn sample(&mut self, plan: &Plan, damage: Damage, by: By, times: &mut Times) -> Result<()> {
        if by == By::RawWriter && !damage.is_repaired_by_raw_writer() {
            return Ok(());
        }
        let count = if damage.is_single() {
            plan.few
        } else {
            plan.samples
        };
        for number in 0..count {
            let what = || {
                format!(
                    "{}, repaired by the {}, sample {number}",
                    damage.name(),
                    by.name()
                )
            };
            let orders = Victim::of(self.rig, &mut self.socket)?
                .orders(damage, number)
                .with_context(what)?;
            pause(BETWEEN);
            match damage.along() {
                None => times.first.push(self.one(&orders, by).with_context(what)?),
                Some(along) => {
                    let (first, all) = self.all(&orders, along, by).with_context(what)?;
                    times.first.push(first);
                    times.all.push(all);
                    pause(SECOND_LOOK);
                }
            }
        }
        Ok(())
    }

    /// Harms one object, and gives the time from just before that until the kernel tells that it is as it was.
    fn one(&mut self, orders: &Orders, by: By) -> Result<Duration> {
        let (socket, listener) = match orders.restored {
            Change::Nft(_) => (&mut self.nft_socket, &mut self.nft_listener),
            _ => (&mut self.socket, &mut self.listener),
        };
        listener.empty()?;
        let began = Instant::now();
        carry_out(orders, by, socket)?;
        Ok(listener.wait(orders.restored)?.duration_since(began))
    }

    /// The same with what takes the objects of all nodes along; also gives the time until all of them are back.
    fn all(&mut self, orders: &Orders, along: Along, by: By) -> Result<(Duration, Duration)> {
        let Self {
            rig,
            socket,
            listener,
            ..
        } = self;
        listener.empty()?;
        let began = Instant::now();
        let mut first = None;
        // So much is told that it is to be taken in meanwhile.
        let all = thread::scope(|scope| -> Result<Instant> {
            let work = scope.spawn(|| carry_out(orders, by, socket));
            let all = listener.wait_for(rig.peers.len(), |change| {
                if change == orders.restored {
                    first.get_or_insert_with(Instant::now);
                }
                (along.is_one)(change)
            });
            work.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            all
        })?;
        let first = first.context("the kernel has not told that it is back")?;
        Ok((first.duration_since(began), all.duration_since(began)))
    }
}

fn carry_out(orders: &Orders, by: By, socket: &mut RawSocket) -> Result<()> {
    orders.harm.carry_out(socket)?;
    match by {
        By::Agent => Ok(()),
        By::RawWriter => orders.repair.carry_out(socket),
    }
}
