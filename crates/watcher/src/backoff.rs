//! How long to wait before the next try.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// First wait after a trouble.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait that is not asked for by the server.
const LONGEST: Duration = Duration::from_secs(30);
/// Longest wait that a server is granted.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// Waits that double from 0.1 s to 30 s, each cut at random to between a half and the whole of it, so that the
/// nodes of a cluster do not come back all at once.
#[derive(Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait. `asked`: what the server wants at least; the random part comes on top.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        let wait = whole.mul_f64(0.5 + 0.5 * random());
        asked.unwrap_or_default().min(LONGEST_ASKED) + wait
    }

    /// All is well: begin anew after the next trouble.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// At random from 0 to 1, good enough to spread load.
pub(crate) fn random() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_with_jitter() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next(None)).collect();
        for (tries, wait) in waits.iter().enumerate() {
            let whole = FIRST.saturating_mul(1 << tries.min(16)).min(LONGEST);
            assert!(*wait >= whole / 2 && *wait <= whole, "{tries}: {wait:?}");
        }
        let distinct: std::collections::HashSet<_> = waits[20..].iter().collect();
        assert!(distinct.len() > 10, "no jitter: {waits:?}");
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
    }

    #[test]
    fn what_the_server_asks_is_the_least() {
        let asked = Duration::from_secs(7);
        let wait = Backoff::default().next(Some(asked));
        assert!(wait > asked && wait <= asked + FIRST);
        assert!(Backoff::default().next(Some(Duration::from_secs(86_400))) <= LONGEST_ASKED + FIRST);
    }
}
