//! What the agent tells of its work: one log line for each thing that an operator wants to know of, the
//! metrics beside it, and a Kubernetes Event where it concerns the cluster's owner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use routelet_model::{Family, Key, Kind, Node};
use routelet_netlink::Verb;
use routelet_netlink::forward::{DroppingChain, Firewall};
use routelet_planner::{Notice, Refusal};
use routelet_reconciler::{Cause, Repaired, Report, Trouble};
use routelet_watcher::events::{self, Publisher, Severity};

use crate::firewall::Standing;
use crate::metrics::Metrics;

/// Turns reports and notices into log lines, metrics and Events.
pub(crate) struct Story {
    metrics: Arc<Metrics>,
    events: Publisher,
    /// Numbers of refusals by reason, as last published.
    refused: BTreeMap<&'static str, usize>,
    written: u64,
    removed: u64,
    repairs: u64,
    last_repair: Option<(Instant, Repaired)>,
    last_resync: Option<(Instant, Duration)>,
}

impl Story {
    pub(crate) fn new(metrics: Arc<Metrics>, events: Publisher) -> Self {
        Self {
            metrics,
            events,
            refused: BTreeMap::new(),
            written: 0,
            removed: 0,
            repairs: 0,
            last_repair: None,
            last_resync: None,
        }
    }

    /// How many repairs there have been, and when the last one was and of what.
    pub(crate) fn repairs(&self) -> (u64, Option<&(Instant, Repaired)>) {
        (self.repairs, self.last_repair.as_ref())
    }

    /// When everything was last compared with the kernel, and how long that took.
    pub(crate) fn last_resync(&self) -> Option<(Instant, Duration)> {
        self.last_resync
    }

    /// What the reconciler did.
    pub(crate) fn reconciled(&mut self, report: Report) {
        // Who sees a repair counted finds its operations counted as well.
        self.count(&report);
        let now = Instant::now();
        self.repairs += report.repairs.len() as u64;
        if let Some(repair) = report.repairs.last() {
            self.last_repair = Some((now, repair.clone()));
        }
        if let Some(took) = report.resyncs.last() {
            self.last_resync = Some((now, *took));
        }
        self.repaired(&report.repairs);
        tell_refused(&report.refused);
        let by_kind = report
            .recovered
            .iter()
            .map(|(key, trouble)| (key.kind(), (key, trouble)));
        for (_, (count, (key, trouble))) in grouped(by_kind) {
            let seconds = trouble.since.elapsed().as_secs_f64();
            tracing::info!(
                count, object = %key, attempts = trouble.attempts, seconds,
                "the kernel has taken it after all"
            );
        }
        for (_, (count, key)) in grouped(report.fights.iter().map(|key| (key.kind(), key))) {
            tracing::warn!(
                count, object = %key,
                "someone keeps changing it; it is repaired ever more rarely. Look for a daemon that manages the \
                 same: systemd-networkd (ManageForeignRoutes=no), NetworkManager (unmanaged-devices), a firewall \
                 that flushes all nft rules, another network plugin"
            );
        }
        for (_, (count, key)) in grouped(report.replaced.iter().map(|(key, _)| (key.kind(), key))) {
            tracing::warn!(
                count, object = %key,
                "replaced one that was not ours: it stood where a pod's or a peer's belongs"
            );
        }
        for (_, (count, key)) in grouped(report.yielded.iter().map(|(key, _)| (key.kind(), key))) {
            tracing::info!(
                count, object = %key,
                "left someone else's in place: it is to this node's own pod subnet, where a blackhole would stand"
            );
        }
        for (kind, error) in &report.failed_reads {
            tracing::warn!(%kind, error, "cannot read the kernel's state; nothing is removed, trying again");
        }
        if report.lost > 0 {
            tracing::warn!(
                times = report.lost,
                "notifications of the kernel were lost; everything is read again (--receive-buffer makes room \
                 for more)"
            );
        }
        if let Some(error) = &report.no_thread {
            tracing::warn!(
                error,
                "no thread can be had for long batches: each is waited for, and nothing is planned meanwhile. Raise the limit of \
                 processes (kubelet: podPidsLimit; systemd: TasksMax) and start the agent anew"
            );
        }
        if report.flushed.flows > 0 {
            let addresses: Vec<String> = report.flushed.addresses.iter().map(ToString::to_string).collect();
            tracing::debug!(
                flows = report.flushed.flows,
                addresses = addresses.join(" "),
                "forgot the tracked flows of addresses that moved or went"
            );
        }
        if let Some(error) = &report.flushed.failed {
            tracing::warn!(
                error,
                "cannot forget the tracked flows of addresses that moved or went, trying again; flows of old pods \
                 may lead to new ones until they time out"
            );
        }
    }

    fn count(&mut self, report: &Report) {
        if report.operations.total() > 0 {
            for kind in Kind::ALL {
                for (verb, name) in [
                    (Verb::Create, "create"),
                    (Verb::Replace, "replace"),
                    (Verb::Supplant, "replace"),
                    (Verb::Delete, "delete"),
                ] {
                    let count = report.operations.get(kind, verb);
                    if count > 0 {
                        self.metrics.operations(kind, name, count);
                    }
                    *(if verb == Verb::Delete {
                        &mut self.removed
                    } else {
                        &mut self.written
                    }) += count;
                }
            }
        }
        for (kind, errno) in &report.errors {
            self.metrics.operation_failed(*kind, *errno);
        }
        for size in &report.batches {
            self.metrics.batch(*size);
        }
        for took in &report.resyncs {
            self.metrics.resync_took(*took);
        }
        if report.flushed.flows > 0 {
            self.metrics.flows_flushed(report.flushed.flows);
        }
        if report.lost > 0 {
            self.metrics.notifications_lost(u64::from(report.lost));
        }
    }

    /// One line for each kind and cause, with the first object as an example.
    fn repaired(&self, repairs: &[Repaired]) {
        for repair in repairs {
            self.metrics.repaired(repair.key.kind(), repair.cause.as_str());
        }
        let by_cause = repairs
            .iter()
            .map(|repair| ((repair.key.kind(), repair.cause), repair));
        for ((kind, cause), (count, first)) in grouped(by_cause) {
            let found = first
                .found
                .as_ref()
                .map(|found| format!(", found {found}"))
                .unwrap_or_default();
            let more = if count > 1 {
                format!(" and {} more", count - 1)
            } else {
                String::new()
            };
            tracing::info!(
                %kind, cause = cause.as_str(), count,
                "repaired what someone {}: {}{found}{more}",
                match cause {
                    Cause::Deleted => "deleted",
                    Cause::Changed => "changed",
                    Cause::Surplus => "added",
                },
                first.key,
            );
        }
    }

    /// What the planner has to say.
    pub(crate) fn noticed(&self, notice: Notice) {
        match &notice {
            Notice::Refused(refusal) => {
                tracing::warn!(subject = %refusal.subject, reason = %refusal.reason, "{notice}");
                self.events.publish(events::Notice {
                    subject: refusal.subject.clone(),
                    reason: refusal.reason.event_reason(),
                    note: refusal.message.clone(),
                    severity: Severity::Warning,
                });
            }
            Notice::Vanished(_) => tracing::warn!("{notice}"),
            Notice::Resolved(_) | Notice::Back(_) | Notice::Underlay { .. } | Notice::LeftToOthers { .. } => {
                tracing::info!("{notice}")
            }
        }
    }

    /// The refusals that stand.
    pub(crate) fn refusals<'a>(&mut self, refusals: impl Iterator<Item = &'a Refusal>) {
        self.refused.values_mut().for_each(|count| *count = 0);
        for refusal in refusals {
            *self.refused.entry(refusal.reason.as_str()).or_default() += 1;
        }
        for (reason, count) in &self.refused {
            self.metrics.set_refused(reason, *count);
        }
    }

    /// A chain drops what is forwarded, which is news; `node` is this one.
    pub(crate) fn forward_is_dropped(&self, chain: &DroppingChain, standing: &Standing, node: &Node) {
        if *standing == Standing::Open {
            tracing::info!(
                %chain,
                "drops by policy what the host forwards; it is open for this node's pod subnets"
            );
            return;
        }
        let note = format!(
            "{chain} drops by policy what the host forwards: packets of pods get lost there unless a rule accepts them. {}",
            remedy_for_dropping(chain, standing, &node.pod_subnets)
        );
        tracing::warn!("{note}");
        self.events.publish(events::Notice {
            subject: node.into(),
            reason: "ForwardingDropped",
            note,
            severity: Severity::Warning,
        });
    }

    /// A chain that was told of drops what is forwarded no more.
    pub(crate) fn forward_is_dropped_no_more(&self, chain: &DroppingChain) {
        tracing::info!(%chain, "drops by policy no more what the host forwards");
    }

    /// Rules of ours were written to a chain or removed from it.
    pub(crate) fn wrote_forward_rules(&self, chain: &DroppingChain, added: usize, removed: usize) {
        tracing::info!(%chain, added, removed, "rules that let this node's pod subnets through");
    }

    /// The chains that drop what is forwarded, as they are.
    pub(crate) fn dropping_chains(&self, chains: &BTreeMap<DroppingChain, Standing>) {
        for firewall in Firewall::ALL {
            for opened in [false, true]
                .into_iter()
                .filter(|opened| !opened || firewall.is_opened_by_us())
            {
                let counted = chains
                    .iter()
                    .filter(|(chain, standing)| {
                        chain.firewall == firewall && (**standing == Standing::Open) == opened
                    })
                    .count();
                self.metrics.set_forward_drop_chains(firewall, opened, counted);
            }
        }
    }

    /// The kernel is for the first time as it is wanted.
    pub(crate) fn in_sync(&self, took: Duration, peers: usize, pods: usize, counts: &[(Kind, usize)]) {
        let objects: Vec<String> = counts
            .iter()
            .map(|(kind, count)| format!("{kind}={count}"))
            .collect();
        tracing::info!(
            seconds = took.as_secs_f64(),
            peers,
            pods,
            objects = objects.join(" "),
            written = self.written,
            removed = self.removed,
            "in sync"
        );
    }
}

/// One line for each kind and error, with the first object as an example.
fn tell_refused(refused: &[(Key, Trouble)]) {
    let by_error = refused
        .iter()
        .map(|(key, trouble)| ((key.kind(), &trouble.error), key));
    for ((kind, error), (count, key)) in grouped(by_error) {
        let remedy = match kind {
            Kind::Link => {
                "; IPIP takes the module ipip; if another device has its name, or its VNI and port, delete that one or choose others \
                 (--vxlan-device, --vxlan-vni, --vxlan-port)"
            }
            Kind::NftTable | Kind::NftRules => {
                "; it takes Linux 5.2 with the modules nf_tables, nft_fib_inet, nft_masq and nft_ct: load them, or \
                 build them"
            }
            _ => "",
        };
        tracing::warn!(count, object = %key, error, "the kernel refused it, trying again{remedy}");
    }
}

/// How many there are of each group, and the first of them: so that a thousand of a kind make one line.
fn grouped<G: Ord, T>(items: impl Iterator<Item = (G, T)>) -> BTreeMap<G, (usize, T)> {
    let mut groups = BTreeMap::new();
    for (group, item) in items {
        groups.entry(group).or_insert((0, item)).0 += 1;
    }
    groups
}

/// What an operator can do about a chain that drops.
fn remedy_for_dropping(chain: &DroppingChain, standing: &Standing, subnets: &[IpNet]) -> String {
    match (standing, chain.firewall) {
        (Standing::Refused(error), _) => format!(
            "It could not be opened ({error}): have the program that it belongs to accept what comes from and goes to the \
             pod subnets"
        ),
        (_, Firewall::Nftables) => {
            "--open-forward=true opens it for this node's pod subnets; docs/firewall.md says how".to_owned()
        }
        (_, Firewall::IptablesLegacy) => {
            let of_family = subnets
                .iter()
                .filter(|subnet| chain.family.sees(Family::of_net(**subnet)));
            let commands: Vec<String> = of_family
                .flat_map(|subnet| {
                    let program = match Family::of_net(*subnet) {
                        Family::V4 => "iptables-legacy",
                        Family::V6 => "ip6tables-legacy",
                    };
                    ["-s", "-d"].map(|end| format!("{program} -I {} {end} {subnet} -j ACCEPT", chain.chain))
                })
                .collect();
            format!(
                "The agent does not write to it; this opens it: {}",
                commands.join("; ")
            )
        }
    }
}
