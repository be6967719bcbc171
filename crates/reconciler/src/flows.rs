//! Addresses that leave their pod: what connection tracking remembers of them holds no more.
//!
//! An address may leave without a write of ours: its veth takes the route along, and the CNI plugin leads it to the
//! next pod. So it is not the operations that count but what the kernel has, at the end of each step.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use routelet_model::{IfName, Key};
use routelet_netlink::Flushed;
use rustc_hash::FxHashMap;

use crate::ownership::pod_route_link;
use crate::{Kernel, Reconciler};

/// How long after a failure flows are tried to be forgotten again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the pods' addresses are, and which have left.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    /// The host veth that each address was last seen behind.
    veths: FxHashMap<Key, IfName>,
    /// Addresses that have left, and whose flows are to be forgotten.
    stale: Vec<IpAddr>,
    /// When that is tried again, after a failure.
    pub(crate) again_at: Option<Instant>,
    /// Whether it failed the last time.
    failing: bool,
}

impl<K: Kernel> Reconciler<K> {
    /// Has the flows of the addresses forgotten that have left their veth since the last call, be it for another or
    /// for good. The kernel has their new routes already, so that no flow comes into being by the old ones.
    pub(crate) fn flush_flows(&mut self, now: Instant) {
        self.find_departed();
        let flows = &mut self.flows;
        if !flows.stale.is_empty() && flows.again_at.is_none_or(|at| at <= now) {
            flows.again_at = None;
            self.kernel
                .at_hand()
                .flush_flows(std::mem::take(&mut flows.stale));
        }
    }

    /// Takes in what came of it.
    pub(crate) fn take_flushed(&mut self, flushed: Flushed, now: Instant) {
        let Flushed {
            mut addresses,
            result,
        } = flushed;
        let (flows, report) = (&mut self.flows, &mut self.report.flushed);
        let was_failing = std::mem::replace(&mut flows.failing, result.is_err());
        match result {
            Ok(count) => {
                report.flows += count;
                report.addresses.append(&mut addresses);
            }
            Err(error) => {
                flows.stale.append(&mut addresses);
                flows.again_at = Some(now + AGAIN);
                if !was_failing {
                    report.failed = Some(error);
                }
            }
        }
    }

    fn find_departed(&mut self) {
        let edits = self.table.take_address_edits();
        let Flows { veths, stale, .. } = &mut self.flows;
        for edit in &edits {
            // What was seen and replaced within the step.
            if let Some(before) = edit.before.filter(|link| self.ownership.is_host_veth(*link)) {
                veths.entry(edit.key).or_insert(before);
            }
        }
        for edit in edits {
            let slot = self.table.get(&edit.key);
            let actual = slot.and_then(|slot| slot.actual.as_ref());
            let veth = actual
                .and_then(|actual| pod_route_link(&edit.key, actual))
                .filter(|link| self.ownership.is_host_veth(*link));
            let has_left = match veth {
                Some(veth) => veths.insert(edit.key, veth).is_some_and(|before| before != veth),
                // Where it is wanted still, it comes back, to the same veth or to another.
                None if actual.is_some() || slot.is_some_and(|slot| slot.wanted.is_some()) => false,
                None => veths.remove(&edit.key).is_some(),
            };
            if has_left {
                stale.push(edit.address);
            }
        }
    }
}
