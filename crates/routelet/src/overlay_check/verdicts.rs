//! What is held of each way, for those who ask the agent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use routelet_model::{Family, PerFamily};

use super::table::PeerId;
use super::verdict::Verdict;

type ByName = BTreeMap<Arc<str>, PerFamily<Option<Verdict>>>;

/// Shared between the check and the dataplane.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdicts(Arc<Mutex<ByName>>);

impl Verdicts {
    /// What is held of the way to a peer's pods of a family; `None` where it is not tested.
    pub(crate) fn get(&self, peer: &str, family: Family) -> Option<Verdict> {
        let verdicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *verdicts.get(peer)?.get(family)
    }

    pub(super) fn set(&self, (peer, family): &PeerId, verdict: Option<Verdict>) {
        let mut verdicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = verdicts.entry(peer.clone()).or_default();
        *of_peer.get_mut(*family) = verdict;
        if of_peer.v4.is_none() && of_peer.v6.is_none() {
            verdicts.remove(peer);
        }
    }
}
