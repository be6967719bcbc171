//! What the agent tells of its work: one log line for each thing that an operator wants to know of, the
//! metrics beside it, and a Kubernetes Event where it concerns the cluster's owner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use routelet_model::{Key, Kind};
use routelet_netlink::Verb;
use routelet_planner::{Notice, Refusal};
use routelet_reconciler::{Cause, Repaired, Report, Trouble};
use routelet_watcher::events::{self, Publisher, Severity};

use crate::metrics::Metrics;

/// Turns reports and notices into log lines, metrics and Events.
pub(crate) struct Story {
    metrics: Arc<Metrics>,
    events: Publisher,
    /// Numbers of refusals by reason, as last published.
    refused: BTreeMap<&'static str, usize>,
    written: u64,
    removed: u64,
}

impl Story {
    pub(crate) fn new(metrics: Arc<Metrics>, events: Publisher) -> Self {
        Self {
            metrics,
            events,
            refused: BTreeMap::new(),
            written: 0,
            removed: 0,
        }
    }

    /// What the reconciler did.
    pub(crate) fn reconciled(&mut self, report: Report) {
        self.repaired(&report.repairs);
        for (key, trouble) in &report.refused {
            tell_refused(key, trouble);
        }
        for (key, trouble) in &report.recovered {
            let seconds = trouble.since.elapsed().as_secs_f64();
            tracing::info!(object = %key, attempts = trouble.attempts, seconds, "the kernel has taken it after all");
        }
        for key in &report.fights {
            tracing::warn!(
                object = %key,
                "someone keeps changing it; it is repaired ever more rarely. Look for a daemon that manages the \
                 same: systemd-networkd (ManageForeignRoutes=no), NetworkManager (unmanaged-devices), a firewall \
                 that flushes all nft rules, another network plugin"
            );
        }
        for (key, _) in &report.replaced {
            tracing::warn!(object = %key, "replaced one that was not ours: it stood where a pod's or a peer's belongs");
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
        self.count(&report);
    }

    fn count(&mut self, report: &Report) {
        if report.operations.total() > 0 {
            for kind in Kind::ALL {
                for (verb, name) in [
                    (Verb::Create, "create"),
                    (Verb::Replace, "replace"),
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
        if report.lost > 0 {
            self.metrics.notifications_lost(u64::from(report.lost));
        }
    }

    /// One line for each kind and cause, with the first object as an example.
    fn repaired(&self, repairs: &[Repaired]) {
        let mut groups: BTreeMap<(Kind, Cause), (usize, &Repaired)> = BTreeMap::new();
        for repair in repairs {
            self.metrics.repaired(repair.key.kind(), repair.cause.as_str());
            groups
                .entry((repair.key.kind(), repair.cause))
                .or_insert((0, repair))
                .0 += 1;
        }
        for ((kind, cause), (count, first)) in groups {
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
            Notice::Resolved(_) | Notice::Back(_) | Notice::Underlay { .. } => tracing::info!("{notice}"),
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

fn tell_refused(key: &Key, trouble: &Trouble) {
    let remedy = match key {
        Key::Link(_) => {
            "; if another device has its name, or its VNI and port, delete that one or choose others \
             (--vxlan-device, --vxlan-vni, --vxlan-port)"
        }
        Key::NftTable | Key::NftRules => {
            "; it takes Linux 5.2 with the modules nf_tables, nft_fib_inet, nft_masq and nft_ct: load them, or build \
             them"
        }
        _ => "",
    };
    tracing::warn!(object = %key, error = trouble.error, "the kernel refused it, trying again{remedy}");
}
