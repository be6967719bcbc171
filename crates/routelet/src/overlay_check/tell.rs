//! What is told of the ways: a log line where one becomes another, and numbers. Where many fail at once, the first of
//! them are named.

use std::collections::BTreeSet;
use std::sync::Arc;

use routelet_model::Family;

use super::table::{Fate, Outcome, PeerId};
use super::verdict::{Size, Verdict};
use crate::metrics::Metrics;

/// How many ways that fail are named.
const NAMED_AT_MOST: usize = 20;

/// Tells of the ways.
pub(super) struct Teller {
    metrics: Arc<Metrics>,
    /// Those that were told to fail, and do.
    named: BTreeSet<PeerId>,
    /// Whether it was told that there are more.
    more: bool,
}

impl Teller {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            named: BTreeSet::new(),
            more: false,
        }
    }

    /// A probe has come to its end.
    pub(super) fn outcome(&mut self, outcome: &Outcome) {
        let fate = match outcome.fate {
            Fate::Answered(took) => {
                if outcome.size == Size::Small {
                    self.metrics.overlay_answer_took(took);
                }
                "answered"
            }
            Fate::Lost => "lost",
        };
        self.metrics.overlay_probe(outcome.size.as_str(), fate);
        let [before, after] = outcome.verdict;
        if before == after {
            return;
        }
        if after.is_bad() && self.may_name(&outcome.peer) {
            warn(outcome, after);
        } else if !after.is_bad() && self.named.remove(&outcome.peer) {
            let (peer, family) = (&outcome.peer.0, outcome.peer.1);
            match before {
                Verdict::LargeLost => {
                    tracing::info!(%peer, %family, bytes = outcome.bytes, "large packets arrive there again");
                }
                _ => tracing::info!(%peer, %family, "answers through the tunnel again"),
            }
            self.note_end();
        }
    }

    /// A peer is no longer tested.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        if self.named.remove(peer) {
            self.note_end();
        }
    }

    fn may_name(&mut self, peer: &PeerId) -> bool {
        if self.named.contains(peer) || self.named.len() < NAMED_AT_MOST {
            self.named.insert(peer.clone());
            return true;
        }
        if !self.more {
            self.more = true;
            tracing::warn!(
                named = NAMED_AT_MOST,
                "still more peers are not reached as they should be through the tunnel, and are not named: \
                 routelet_overlay_peers counts them. Of so many, the cause is likely on this node"
            );
        }
        false
    }

    fn note_end(&mut self) {
        self.more &= !self.named.is_empty();
    }

    /// What is held of all ways.
    pub(super) fn counts<'a>(&self, verdicts: impl Iterator<Item = (&'a PeerId, Verdict)>) {
        let mut counts = [[0; Verdict::ALL.len()]; Family::ALL.len()];
        for ((_, family), verdict) in verdicts {
            counts[*family as usize][verdict as usize] += 1;
        }
        for (family, counts) in Family::ALL.into_iter().zip(counts) {
            for (verdict, count) in Verdict::ALL.into_iter().zip(counts) {
                self.metrics.set_overlay_peers(family, verdict.as_str(), count);
            }
        }
    }
}

fn warn(outcome: &Outcome, verdict: Verdict) {
    let Outcome {
        peer: (peer, family),
        address,
        bytes,
        ..
    } = outcome;
    match verdict {
        Verdict::LargeLost => tracing::warn!(
            %peer, %family, %address, bytes,
            "large packets do not arrive there through the tunnel, small ones do: something on the way carries less \
             than its links say. Raise its MTU, or lower --mtu and make the pods anew"
        ),
        _ => tracing::warn!(
            %peer, %family, %address,
            "does not answer through the tunnel: look whether the node is up, whether a firewall drops the tunnel's \
             packets (VXLAN: UDP, --vxlan-port) or ICMP echo, and at docs/overlay-check.md"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(number: usize, before: Verdict, after: Verdict) -> Outcome {
        Outcome {
            peer: (format!("node-{number}").into(), Family::V4),
            address: [10, 0, 0, 1].into(),
            size: Size::Small,
            bytes: 64,
            fate: Fate::Lost,
            verdict: [before, after],
        }
    }

    #[test]
    fn of_many_that_fail_the_first_are_named() {
        let mut teller = Teller::new(Arc::new(Metrics::new()));
        for number in 0..=NAMED_AT_MOST {
            assert!(!teller.more, "{number}");
            teller.outcome(&outcome(number, Verdict::Reachable, Verdict::Unreachable));
        }
        assert!(teller.more);
        assert_eq!(teller.named.len(), NAMED_AT_MOST);
        // One who was named leaves room for another.
        teller.outcome(&outcome(0, Verdict::Unreachable, Verdict::Reachable));
        teller.outcome(&outcome(77, Verdict::Unknown, Verdict::LargeLost));
        assert!(teller.named.iter().any(|(name, _)| &**name == "node-77"));
        // As long as some fail it is not said again that there are more.
        for number in 1..NAMED_AT_MOST {
            teller.outcome(&outcome(number, Verdict::Unreachable, Verdict::Reachable));
        }
        assert!(teller.more);
        teller.gone(&("node-77".into(), Family::V4));
        assert!(!teller.more && teller.named.is_empty());
    }

    #[test]
    fn each_probe_is_counted_and_each_state_shown() {
        let metrics = Arc::new(Metrics::new());
        let mut teller = Teller::new(metrics.clone());
        teller.outcome(&outcome(1, Verdict::Reachable, Verdict::Reachable));
        let peers: [PeerId; 2] = ["a", "b"].map(|name| (name.into(), Family::V6));
        teller.counts(peers.iter().zip([Verdict::Reachable, Verdict::LargeLost]));
        let text = metrics.encode().unwrap();
        for sample in [
            "routelet_overlay_probes_total{size=\"small\",outcome=\"lost\"} 1",
            "routelet_overlay_peers{family=\"ipv6\",state=\"reachable\"} 1",
            "routelet_overlay_peers{family=\"ipv6\",state=\"large_lost\"} 1",
            "routelet_overlay_peers{family=\"ipv4\",state=\"unreachable\"} 0",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample}: {text}");
        }
    }
}
