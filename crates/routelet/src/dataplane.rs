//! The loop that brings the cluster into the kernel, on a thread of its own: cluster events and kernel
//! notifications in, operations out.
//!
//! No timer stands between an event and its effect. While a batch is in the kernel, what arrives waits and
//! makes up the next one.

mod view;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ipnet::IpNet;
use routelet_model::{ClusterEvent, Host, IfName, Key, Kind};
use routelet_netlink::Kernel;
use routelet_planner::{Plan, Planner};
use routelet_reconciler::{Progress, Reconciler};
use routelet_watcher::Status;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::NotReady;
use crate::args::RunArgs;
use crate::cni::Cni;
use crate::encapsulation;
use crate::firewall::Firewall;
use crate::inquiry::Inquiry;
use crate::liveness::Liveness;
use crate::metrics::Metrics;
use crate::neighbour_tables::NeighbourTables;
use crate::node::{self, Opened};
use crate::overlay_check::OverlayCheck;
use crate::saved_sysctls;
use crate::state::KernelState;
use crate::story::Story;
use view::Answer;

/// Cluster events taken in before the kernel is written to.
const EVENTS_AT_ONCE: usize = 128;

/// Refused objects that are named as reasons why the agent is not ready.
const REASONS_AT_MOST: usize = 10;

/// Why the agent is not ready while `Dataplane::allow_removal` waits.
const WAITS_FOR_STORE: &str =
    "what an agent before this one left waits for a list of the Nodes from the API server's store";

/// What comes to the loop from the rest of the agent.
pub(crate) struct Inputs {
    /// What the watcher tells.
    pub(crate) cluster: mpsc::Receiver<ClusterEvent>,
    /// How the watcher's watches stand.
    pub(crate) watches: Arc<Status>,
    /// Who wants to know how things are.
    pub(crate) inquiries: mpsc::Receiver<Inquiry>,
}

/// The loop's state.
pub(crate) struct Dataplane {
    planner: Planner,
    plan: Plan,
    reconciler: Reconciler<Kernel>,
    firewall: Firewall,
    neighbour_tables: NeighbourTables,
    cni: Cni,
    devices: Vec<IfName>,
    inputs: Inputs,
    answer: Option<Answer>,
    events: Vec<ClusterEvent>,
    features: KernelState,
    audit_interval: Duration,
    health: watch::Sender<NotReady>,
    liveness: Liveness,
    metrics: Arc<Metrics>,
    story: Story,
    /// The test of the way to other nodes, where it is made.
    overlay_check: Option<OverlayCheck>,
    /// Tells the host's addresses, from one of which the API is asked.
    host_addresses: watch::Sender<BTreeSet<IpAddr>>,
    started: Instant,
    ready: bool,
    /// Whether the API server's store has been asked for the Nodes.
    asked_store: bool,
}

impl Dataplane {
    /// Opens the kernel of the calling thread's network namespace.
    pub(crate) fn open(
        args: &RunArgs,
        inputs: Inputs,
        health: watch::Sender<NotReady>,
        liveness: Liveness,
        metrics: Arc<Metrics>,
        story: Story,
        cni: Cni,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let Opened {
            kernel,
            ownership,
            planner,
        } = node::open(args)?;
        saved_sysctls::save(&args.marks.saved_sysctls);
        let features = kernel.features();
        let nexthop_objects = planner.nexthop_objects;
        let checksum_offload = planner.vxlan.checksum_offload;
        tracing::info!(
            release = features.kernel_release,
            nexthop_objects,
            filtered_dumps = features.strict_dump,
            nftables = features.nftables,
            vxlan_checksum_offload = match checksum_offload {
                Some(true) => "on",
                Some(false) => "off",
                None => "as it is",
            },
            "kernel"
        );
        if !features.nftables {
            tracing::warn!(
                "this kernel has no nf_tables: pods reach nothing that does not know the way back to them, and what \
                 they and strangers send is not checked. Load the module nf_tables and start the agent anew"
            );
        }
        let nftables = features.nftables;
        let features = KernelState {
            release: features.kernel_release.clone(),
            nexthop_objects,
            nftables,
        };
        metrics.set_nexthop_objects(nexthop_objects);
        Ok(Self {
            planner: Planner::new(planner),
            plan: Plan::default(),
            devices: ownership.devices.clone(),
            reconciler: Reconciler::new(kernel, ownership, started),
            firewall: Firewall::open(args.kernel.open_forward).context("cannot open netfilter")?,
            neighbour_tables: NeighbourTables::default(),
            cni,
            inputs,
            answer: None,
            events: Vec::new(),
            features,
            audit_interval: args.kernel.audit_interval,
            health,
            liveness,
            metrics,
            story,
            overlay_check: None,
            host_addresses: watch::Sender::default(),
            started,
            ready: false,
            asked_store: false,
        })
    }

    /// The same, telling what there is to test of the way to other nodes.
    pub(crate) fn with_overlay_check(self, overlay_check: Option<OverlayCheck>) -> Self {
        Self {
            overlay_check,
            ..self
        }
    }

    /// The host's addresses as they are at each time.
    pub(crate) fn host_addresses(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.host_addresses.subscribe()
    }

    /// Runs the loop on a thread of its own, until the sender of cluster events is gone. What is returned resolves when
    /// the thread ends.
    pub(crate) fn spawn(self) -> io::Result<oneshot::Receiver<()>> {
        let (running, ended) = oneshot::channel();
        let liveness = self.liveness.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("dataplane".to_owned())
            .spawn(move || {
                runtime.block_on(self.run());
                liveness.ended();
                // Who listens has ended, too, if no one does.
                let _ = running.send(());
            })?;
        Ok(ended)
    }

    async fn run(mut self) {
        let mut audit = Instant::now() + jittered(self.audit_interval);
        loop {
            let wake = self.work();
            let firewall = self
                .firewall
                .follow(self.planner.own_node(), Instant::now(), &mut self.story);
            let [cni, sweep] = match self.ready {
                true => self.follow_cni(Instant::now()),
                false => [None, None],
            };
            let wake = [wake, firewall, cni, sweep]
                .into_iter()
                .flatten()
                .fold(audit, Instant::min);
            self.liveness.idle();
            tokio::select! {
                count = self.inputs.cluster.recv_many(&mut self.events, EVENTS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                }
                Some(inquiry) = self.inputs.inquiries.recv(), if self.answer.is_none() => self.begin_answer(inquiry),
                () = std::future::ready(()), if self.answer.is_some() => {}
                () = self.reconciler.kernel_mut().ready() => {}
                () = self.firewall.ready() => {}
                () = self.cni.installation.changed() => {}
                () = tokio::time::sleep_until(wake.into()) => {
                    let now = Instant::now();
                    if audit <= now {
                        self.audit(now);
                        audit = now + jittered(self.audit_interval);
                    }
                }
            }
        }
    }

    /// Has everything compared that could have changed without a word.
    fn audit(&mut self, now: Instant) {
        self.reconciler.audit(now);
        self.firewall.audit(now);
        self.cni.audit(now);
        let tables = self.reconciler.kernel_mut().neighbour_tables();
        let ours = |family| self.reconciler.neighbours(family);
        self.neighbour_tables.look(tables, ours);
    }

    /// Looks after the CNI plugin; returns when there will be more to do.
    fn follow_cni(&mut self, now: Instant) -> [Option<Instant>; 2] {
        let abandoned = || self.reconciler.abandoned_veths();
        [
            self.cni.installation.follow(&self.planner, now),
            self.cni.sweep.follow(&self.planner, abandoned, now),
        ]
    }

    /// Does all that there is to do at present; returns when there will be more, if that is known.
    fn work(&mut self) -> Option<Instant> {
        let woken = Instant::now();
        let (mut told, mut repaired) = (false, false);
        let wake = loop {
            told |= !self.events.is_empty();
            for event in self.events.drain(..) {
                self.planner.cluster(event, &mut self.plan);
            }
            let mut more = self.hand_over();
            let now = Instant::now();
            self.liveness.busy(now);
            let progress = self.reconciler.step(now);
            match self.reconciler.host_if_changed(now) {
                Ok(Some(host)) => {
                    self.tell_addresses(&host);
                    self.planner.host(&host, &mut self.plan);
                    more = self.hand_over();
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot read the host's links and addresses"),
            }
            more |= self.allow_removal();
            let report = self.reconciler.take_report();
            repaired |= !report.repairs.is_empty();
            self.story.reconciled(report);
            self.go_on_answering();
            while self.events.len() < EVENTS_AT_ONCE
                && let Ok(event) = self.inputs.cluster.try_recv()
            {
                self.events.push(event);
            }
            match progress {
                Progress::Idle(wake) if !more && self.events.is_empty() => break wake,
                _ => {}
            }
        };
        let took = woken.elapsed();
        if told {
            self.metrics.event_reached_kernel(took);
        }
        if repaired {
            self.metrics.repair_took(took);
        }
        self.publish();
        wake
    }

    /// Lets the reconciler take away what is left over, once all that is wanted is known. True where that is new. An agent
    /// before this one may have known of more Nodes: where something is left over, the API server's store is asked first.
    fn allow_removal(&mut self) -> bool {
        if self.reconciler.may_remove() || !self.planner.missing().is_empty() {
            return false;
        }
        if !self.planner.knows_all_nodes() {
            if self.reconciler.is_in_doubt() {
                return false;
            }
            if self.reconciler.is_anything_left() {
                if !std::mem::replace(&mut self.asked_store, true) {
                    self.inputs.watches.ask_store_for_nodes();
                }
                return false;
            }
        }
        self.reconciler.allow_removal();
        true
    }

    /// Tells the host's addresses where they are others than before.
    fn tell_addresses(&self, host: &Host) {
        let links = host.links.iter();
        let now: BTreeSet<IpAddr> = links
            .flat_map(|link| link.addresses.iter().map(IpNet::addr))
            .collect();
        self.host_addresses.send_if_modified(|told| {
            let changed = *told != now;
            *told = now;
            changed
        });
    }

    /// Hands the planner's changes to the reconciler. True where there were any.
    fn hand_over(&mut self) -> bool {
        let changed = !self.plan.changes.is_empty();
        for (key, object) in self.plan.changes.drain(..) {
            self.reconciler.want(key, object);
        }
        for notice in self.plan.notices.drain(..) {
            self.story.noticed(notice);
        }
        for change in self.plan.overlay.drain(..) {
            if let Some(check) = &self.overlay_check {
                check.tell(change);
            }
        }
        changed
    }

    /// Publishes numbers and health, as they are when all is done.
    fn publish(&mut self) {
        for kind in Kind::ALL {
            let count = self.reconciler.count(kind);
            self.metrics
                .set_objects(kind, count.wanted, count.actual, count.out_of_sync);
        }
        self.metrics.set_peers(self.planner.peers());
        for (family, way) in encapsulation::ways() {
            self.metrics
                .set_peers_by(family, way, self.planner.peers_by(family, way));
        }
        self.metrics.set_pods(self.planner.pods());
        self.story.refusals(self.planner.refusals());
        if self.ready {
            return;
        }
        let not_ready = self.not_ready();
        if not_ready.is_empty() {
            self.ready = true;
            let counts = Kind::ALL.map(|kind| (kind, self.reconciler.count(kind).wanted));
            self.story.in_sync(
                self.started.elapsed(),
                self.planner.peers(),
                self.planner.pods(),
                &counts,
            );
        }
        self.health.send_if_modified(|health| {
            let changed = *health != not_ready;
            *health = not_ready;
            changed
        });
    }

    /// What is between this node and a network that works, one sentence each. What a single pod or peer lacks is not: a
    /// bad one must not hold up the roll-out on every node, and `routelet_objects_out_of_sync` shows it.
    fn not_ready(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.planner.missing().iter().map(ToString::to_string).collect();
        if self.reconciler.is_in_doubt() {
            reasons.push("the kernel's state could not be read yet".to_owned());
        }
        if reasons.is_empty() && !self.reconciler.may_remove() {
            reasons.push(WAITS_FOR_STORE.to_owned());
        }
        let troubles = self
            .reconciler
            .troubles()
            .filter(|(key, _)| self.is_foundation(key))
            .take(REASONS_AT_MOST);
        reasons.extend(troubles.map(|(key, trouble)| format!("{key}: {}", trouble.error)));
        reasons
    }

    /// Whether all of the node's pods depend on the object: our devices, their addresses, settings of the host, the
    /// nft table and its rules.
    fn is_foundation(&self, key: &Key) -> bool {
        match key {
            Key::Link(link) => self.devices.contains(link),
            Key::Sysctl(sysctl) => sysctl.link.is_none(),
            Key::Address { .. } | Key::NftTable | Key::NftRules => true,
            _ => false,
        }
    }
}

/// An interval, made up to a tenth shorter or longer, so that the nodes of a cluster don't act at once.
fn jittered(interval: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let share = RandomState::new().hash_one(0) % 1024;
    interval.mul_f64(0.9 + 0.2 * (share as f64 / 1023.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audits_of_a_thousand_nodes_are_spread_over_a_fifth_of_the_interval() {
        let interval = Duration::from_secs(1000);
        // In steps of 20 s; 1100 s itself is rare.
        let mut steps: BTreeSet<u64> = (0..1000).map(|_| jittered(interval).as_secs() / 20).collect();
        steps.remove(&55);
        assert_eq!(steps, (45..55).collect());
    }
}
