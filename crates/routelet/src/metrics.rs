//! What the agent counts and measures, for Prometheus. docs/metrics.md lists it all.
//!
//! The rest of the agent calls the methods here and knows nothing of registries and label sets.

mod families;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;
use routelet_model::{Family, Kind, Resource};
use routelet_netlink::forward::Firewall;
use routelet_planner::Way;
use routelet_watcher::WatchStatus;

use crate::cni::Leak;
use families::{Families, Labelled};

type Seconds = Gauge<f64, AtomicU64>;

/// All metrics of the agent. Every method can be called from any thread.
#[derive(Debug)]
pub(crate) struct Metrics {
    families: Families,
    objects_wanted: Labelled<1, Gauge>,
    objects_actual: Labelled<1, Gauge>,
    objects_out_of_sync: Labelled<1, Gauge>,
    repairs: Labelled<2, Counter>,
    operations: Labelled<2, Counter>,
    operation_errors: Labelled<2, Counter>,
    batch_operations: Histogram,
    event_to_kernel: Histogram,
    repair: Histogram,
    resync: Histogram,
    notifications_lost: Counter,
    flows_flushed: Counter,
    cni_swept: Labelled<1, Counter>,
    watch_streaming_list: Labelled<1, Gauge>,
    watch_relists: Labelled<1, Counter>,
    watch_errors: Labelled<1, Counter>,
    watch_objects: Labelled<1, Gauge>,
    watch_last_contact: Labelled<1, Seconds>,
    refused: Labelled<1, Gauge>,
    peers: Gauge,
    peer_ways: Labelled<2, Gauge>,
    overlay_peers: Labelled<2, Gauge>,
    overlay_probes: Labelled<2, Counter>,
    overlay_rtt: Histogram,
    pods: Gauge,
    nexthop_objects: Gauge,
    forward_drop_chains: Labelled<2, Gauge>,
}

impl Metrics {
    /// Media type of what [`Metrics::encode`] gives.
    pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All metrics, at zero.
    pub(crate) fn new() -> Self {
        let mut f = Families::new();
        let build_info = f.gauges::<1, Gauge>(
            "build_info",
            "Always 1; the label tells the version",
            ["version"],
            None,
        );
        build_info.with([env!("CARGO_PKG_VERSION")]).set(1);

        let metrics = Self {
            objects_wanted: f.gauges("objects_wanted", "Kernel objects that the cluster asks for", ["kind"], None),
            objects_actual: f.gauges(
                "objects_actual",
                "Kernel objects that are wanted or carry the agent's mark, and that the kernel has",
                ["kind"],
                None,
            ),
            objects_out_of_sync: f.gauges(
                "objects_out_of_sync",
                "Kernel objects that are missing, differ from the wanted ones, or are to be removed",
                ["kind"],
                None,
            ),
            repairs: f.counters(
                "repairs",
                "Kernel objects that someone else had deleted, changed or added (surplus), and that were put right",
                ["kind", "cause"],
            ),
            operations: f.counters("operations", "Operations that the kernel carried out", ["kind", "verb"]),
            operation_errors: f.counters(
                "operation_errors",
                "Operations that the kernel refused, by the name of the error number",
                ["kind", "errno"],
            ),
            batch_operations: f.histogram(
                "batch_operations",
                "Operations in one batch to the kernel",
                None,
                exponential_buckets(1.0, 2.0, 9),
            ),
            event_to_kernel: f.histogram(
                "event_to_kernel",
                "Time from the arrival of events of the Kubernetes API at the dataplane to the kernel's answer to what followed",
                Some(Unit::Seconds),
                short_times(),
            ),
            repair: f.histogram(
                "repair",
                "Time from the arrival of the kernel's notification of someone else's change to its repair",
                Some(Unit::Seconds),
                short_times(),
            ),
            resync: f.histogram(
                "resync",
                "Time to read all kernel objects and compare them with the wanted ones",
                Some(Unit::Seconds),
                short_times(),
            ),
            notifications_lost: f.counter(
                "notifications_lost",
                "Times that the kernel dropped notifications because the receive buffer was full",
            ),
            flows_flushed: f.counter(
                "flows_flushed",
                "Tracked flows (conntrack entries) that were deleted because their pod's address moved or went",
            ),
            cni_swept: f.counters(
                "cni_swept",
                "Leases of host-local and host veths that no pod had any more, and that were taken away",
                ["what"],
            ),
            watch_streaming_list: f.gauges(
                "watch_streaming_list",
                "1 where the API server streams lists, 0 where they are read at once",
                ["resource"],
                None,
            ),
            watch_relists: f.counters("watch_relists", "Full lists after the first one", ["resource"]),
            watch_errors: f.counters("watch_errors", "Failed lists and watches", ["resource"]),
            watch_objects: f.gauges("watch_objects", "Objects that the API server has told of", ["resource"], None),
            watch_last_contact: f.gauges(
                "watch_last_contact_timestamp",
                "When the API server last sent anything, as Unix time",
                ["resource"],
                Some(Unit::Seconds),
            ),
            refused: f.gauges(
                "refused",
                "Claims of Pods and Nodes that are not granted at present, as an address outside the pod subnets",
                ["reason"],
                None,
            ),
            peers: f.gauge("peers", "Other nodes that this one reaches"),
            peer_ways: f.gauges(
                "peer_ways",
                "Other nodes by the way to their pods: vxlan, ipip, direct, others where the route is not this agent's to make, \
                 or none where the tunnel does not carry the family",
                ["family", "way"],
                None,
            ),
            overlay_peers: f.gauges(
                "overlay_peers",
                "Other nodes by what the overlay check holds of the way to them: unknown, reachable, large_lost, unreachable",
                ["family", "state"],
                None,
            ),
            overlay_probes: f.counters(
                "overlay_probes",
                "Probes of the overlay check that have come to their end, by size and outcome",
                ["size", "outcome"],
            ),
            overlay_rtt: f.histogram(
                "overlay_rtt",
                "Time from a small probe of the overlay check to its answer",
                Some(Unit::Seconds),
                short_times(),
            ),
            pods: f.gauge("pods", "Pods of this node that have a route"),
            nexthop_objects: f.gauge(
                "nexthop_objects",
                "1 where routes use nexthop objects, 0 where each names its gateway",
            ),
            forward_drop_chains: f.gauges(
                "forward_drop_chains",
                "Firewall chains that drop by policy what the host forwards; opened says whether the agent lets its pods' \
                 packets through",
                ["firewall", "opened"],
                None,
            ),
            families: f,
        };
        metrics.show_zeros();
        metrics
    }

    /// Makes known labels appear before anything happens: a rate is right only from a first value on.
    fn show_zeros(&self) {
        for kind in Kind::ALL {
            self.set_objects(kind, 0, 0, 0);
            for cause in ["deleted", "changed", "surplus"] {
                self.repairs.with([kind.as_str(), cause]);
            }
        }
        for firewall in Firewall::ALL {
            self.set_forward_drop_chains(firewall, false, 0);
        }
        for what in [Leak::LEASE, Leak::VETH] {
            self.cni_swept.with([what]);
        }
        for resource in [Resource::Pods, Resource::Nodes] {
            let label = [resource_label(resource)];
            self.watch_relists.with(label);
            self.watch_errors.with(label);
            self.watch_objects.with(label);
        }
    }

    /// Everything in the text format of OpenMetrics. Fails only where memory does.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        self.families.encode()
    }

    /// How many objects of a kind are wanted, are there, and differ.
    pub(crate) fn set_objects(&self, kind: Kind, wanted: usize, actual: usize, out_of_sync: usize) {
        let label = [kind.as_str()];
        set(&self.objects_wanted.with(label), wanted);
        set(&self.objects_actual.with(label), actual);
        set(&self.objects_out_of_sync.with(label), out_of_sync);
    }

    /// An object was put right; `cause` is `deleted`, `changed` or `surplus`.
    pub(crate) fn repaired(&self, kind: Kind, cause: &'static str) {
        self.repairs.with([kind.as_str(), cause]).inc();
    }

    /// The kernel carried out `count` operations.
    pub(crate) fn operations(&self, kind: Kind, verb: &'static str, count: u64) {
        self.operations.with([kind.as_str(), verb]).inc_by(count);
    }

    /// The kernel refused an operation; `errno` is 0 where the failure has no number.
    pub(crate) fn operation_failed(&self, kind: Kind, errno: i32) {
        let name = match Errno::from_raw(errno) {
            Errno::UnknownErrno => errno.to_string(),
            known => format!("{known:?}"),
        };
        self.operation_errors
            .with([kind.as_str().into(), std::borrow::Cow::from(name)])
            .inc();
    }

    /// A batch of so many operations went to the kernel.
    pub(crate) fn batch(&self, operations: usize) {
        self.batch_operations.observe(operations as f64);
    }

    /// So much time passed from an API event to its effect.
    pub(crate) fn event_reached_kernel(&self, took: Duration) {
        self.event_to_kernel.observe(took.as_secs_f64());
    }

    /// So much time passed from a notification of drift to the repair.
    pub(crate) fn repair_took(&self, took: Duration) {
        self.repair.observe(took.as_secs_f64());
    }

    /// So much time a full reading and comparison took.
    pub(crate) fn resync_took(&self, took: Duration) {
        self.resync.observe(took.as_secs_f64());
    }

    /// Notifications were dropped, so many times.
    pub(crate) fn notifications_lost(&self, times: u64) {
        self.notifications_lost.inc_by(times);
    }

    /// So many flows were forgotten.
    pub(crate) fn flows_flushed(&self, flows: usize) {
        self.flows_flushed.inc_by(flows as u64);
    }

    /// A leak of the CNI plugin's was taken away.
    pub(crate) fn swept(&self, leak: &Leak) {
        self.cni_swept.with([leak.what()]).inc();
    }

    /// How a watch stands.
    pub(crate) fn set_watch(&self, resource: Resource, status: &WatchStatus) {
        let label = [resource_label(resource)];
        self.watch_streaming_list
            .with(label)
            .set(i64::from(status.streaming_list));
        self.watch_relists
            .with(label)
            .inner()
            .store(status.relists, Ordering::Relaxed);
        self.watch_errors
            .with(label)
            .inner()
            .store(status.errors.values().sum(), Ordering::Relaxed);
        set(&self.watch_objects.with(label), status.objects);
        if let Some(contact) = status.last_contact {
            let time = SystemTime::now() - contact.elapsed();
            let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.watch_last_contact.with(label).set(time.as_secs_f64());
        }
    }

    /// How many claims are refused for a reason.
    pub(crate) fn set_refused(&self, reason: &'static str, claims: usize) {
        set(&self.refused.with([reason]), claims);
    }

    /// How many other nodes are reached.
    pub(crate) fn set_peers(&self, peers: usize) {
        set(&self.peers, peers);
    }

    /// How many other nodes' pods of a family are reached in this way.
    pub(crate) fn set_peers_by(&self, family: Family, way: Way, peers: usize) {
        set(&self.peer_ways.with([family_label(family), way.as_str()]), peers);
    }

    /// How many other nodes are held for so by the overlay check.
    pub(crate) fn set_overlay_peers(&self, family: Family, state: &'static str, peers: usize) {
        set(&self.overlay_peers.with([family_label(family), state]), peers);
    }

    /// A probe of the overlay check was `answered` or `lost`.
    pub(crate) fn overlay_probe(&self, size: &'static str, outcome: &'static str) {
        self.overlay_probes.with([size, outcome]).inc();
    }

    /// So much time passed from a small probe to its answer.
    pub(crate) fn overlay_answer_took(&self, took: Duration) {
        self.overlay_rtt.observe(took.as_secs_f64());
    }

    /// How many pods of this node have a route.
    pub(crate) fn set_pods(&self, pods: usize) {
        set(&self.pods, pods);
    }

    /// How many chains of a firewall drop what is forwarded, of those that the agent has opened or of the others.
    pub(crate) fn set_forward_drop_chains(&self, firewall: Firewall, opened: bool, chains: usize) {
        let opened = if opened { "true" } else { "false" };
        set(
            &self.forward_drop_chains.with([firewall.as_str(), opened]),
            chains,
        );
    }

    /// Whether routes use nexthop objects.
    pub(crate) fn set_nexthop_objects(&self, used: bool) {
        self.nexthop_objects.set(i64::from(used));
    }
}

fn set(gauge: &Gauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn family_label(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn resource_label(resource: Resource) -> &'static str {
    match resource {
        Resource::Pods => "pods",
        Resource::Nodes => "nodes",
    }
}

/// Buckets from 50 µs to 13 s, each twice the one before.
fn short_times() -> impl Iterator<Item = f64> {
    exponential_buckets(50e-6, 2.0, 19)
}

#[cfg(test)]
mod tests;
