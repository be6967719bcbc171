//! Whether the dataplane's thread gets on with its work, or hangs in the kernel.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long one piece of work may take. The slowest that was ever seen, 15,000 nexthops replaced under their routes, took
/// five seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Since when the dataplane's thread has been at its present piece of work. Clones tell of the same thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Liveness {
    since: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// Waiting for something to do.
    #[default]
    Idle,
    Busy(Instant),
    /// The thread has ended.
    Ended,
}

/// Why a restart is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotLive {
    /// One piece of work takes for ever.
    #[error("the dataplane has hung in one piece of work for {} s", .0.as_secs())]
    Hangs(Duration),
    /// There is no one to do any work.
    #[error("the dataplane's thread has ended")]
    Ended,
}

impl Liveness {
    /// The thread begins a piece of work.
    pub(crate) fn busy(&self, now: Instant) {
        *self.state() = State::Busy(now);
    }

    /// The thread waits for something to do.
    pub(crate) fn idle(&self) {
        *self.state() = State::Idle;
    }

    /// The thread ends.
    pub(crate) fn ended(&self) {
        *self.state() = State::Ended;
    }

    /// Whether the agent works; if not, why a restart is due.
    pub(crate) fn check(&self, now: Instant) -> Result<(), NotLive> {
        match *self.state() {
            State::Busy(since) if now.saturating_duration_since(since) > LIMIT => {
                Err(NotLive::Hangs(now.saturating_duration_since(since)))
            }
            State::Idle | State::Busy(_) => Ok(()),
            State::Ended => Err(NotLive::Ended),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_takes_too_long_and_no_other_is_told() {
        let (liveness, start) = (Liveness::default(), Instant::now());
        let later = start + LIMIT + Duration::from_secs(1);
        assert_eq!(
            liveness.check(later),
            Ok(()),
            "a thread that waits may wait for ever"
        );
        liveness.busy(start);
        assert_eq!(liveness.check(start + LIMIT), Ok(()));
        let error = liveness.check(later).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the dataplane has hung in one piece of work for 61 s"
        );
        liveness.busy(later);
        assert_eq!(
            liveness.check(later),
            Ok(()),
            "the next piece has a time of its own"
        );
        liveness.idle();
        assert_eq!(liveness.check(later + LIMIT * 2), Ok(()));
        liveness.ended();
        assert_eq!(liveness.check(start), Err(NotLive::Ended));
    }
}
