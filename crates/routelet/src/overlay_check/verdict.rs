//! What is held of the way to one peer, by the probes that were answered and those that were not.

use std::time::{Duration, Instant};

/// How many probes in a row have to be lost before that is held for the way's fault.
const LOSSES: u32 = 3;
/// For how long a peer that has never answered may be one that is only starting.
const GRACE: Duration = Duration::from_secs(60);

/// What is held of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Nothing so far.
    Unknown,
    /// Small packets arrive, and nothing speaks against large ones.
    Reachable,
    /// Small packets arrive, large ones do not.
    LargeLost,
    /// Nothing arrives.
    Unreachable,
}

impl Verdict {
    /// All of them.
    pub(crate) const ALL: [Verdict; 4] = [Self::Unknown, Self::Reachable, Self::LargeLost, Self::Unreachable];

    /// The word for it in metrics and answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Reachable => "reachable",
            Self::LargeLost => "large_lost",
            Self::Unreachable => "unreachable",
        }
    }

    /// Whether something is wrong with the way.
    pub(crate) fn is_bad(self) -> bool {
        matches!(self, Self::LargeLost | Self::Unreachable)
    }
}

/// How large a probe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// As small as can be.
    Small,
    /// As large as the tunnel shall carry.
    Large,
}

impl Size {
    /// The word for it in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }
}

/// The account of one way.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    verdict: Verdict,
    since: Instant,
    has_answered: bool,
    /// In a row.
    small_losses: u32,
    /// In a row, small ones between them answered.
    large_losses: u32,
    last: Option<Size>,
}

impl Account {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            verdict: Verdict::Unknown,
            since: now,
            has_answered: false,
            small_losses: 0,
            large_losses: 0,
            last: None,
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether something was lost since it was last answered: to be looked at before others.
    pub(crate) fn is_suspect(&self) -> bool {
        self.small_losses > 0 || self.large_losses > 0
    }

    /// How large the next probe is to be. A large one says something only after a small one has been answered.
    pub(crate) fn next(&self) -> Size {
        match self.last {
            Some(Size::Small) if self.small_losses == 0 => Size::Large,
            _ => Size::Small,
        }
    }

    pub(crate) fn answered(&mut self, size: Size) {
        self.last = Some(size);
        self.has_answered = true;
        self.small_losses = 0;
        match (size, self.verdict) {
            (Size::Large, _) => {
                self.large_losses = 0;
                self.verdict = Verdict::Reachable;
            }
            (Size::Small, Verdict::Unknown | Verdict::Unreachable) => {
                self.large_losses = 0;
                self.verdict = Verdict::Reachable;
            }
            (Size::Small, Verdict::Reachable | Verdict::LargeLost) => {}
        }
    }

    pub(crate) fn lost(&mut self, size: Size, now: Instant) {
        self.last = Some(size);
        match size {
            Size::Small => {
                self.small_losses = self.small_losses.saturating_add(1);
                let may_be_starting = !self.has_answered && now < self.since + GRACE;
                if self.small_losses >= LOSSES && !may_be_starting {
                    self.verdict = Verdict::Unreachable;
                }
            }
            Size::Large => {
                self.large_losses = self.large_losses.saturating_add(1);
                if self.large_losses >= LOSSES {
                    self.verdict = Verdict::LargeLost;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes as the account asks for them; `arrives` says which are answered. Returns the verdicts on the way, without
    /// repetitions.
    fn probe(
        account: &mut Account,
        now: Instant,
        count: u32,
        arrives: impl Fn(Size) -> bool,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for _ in 0..count {
            let size = account.next();
            match arrives(size) {
                true => account.answered(size),
                false => account.lost(size, now),
            }
            verdicts.push(account.verdict());
        }
        verdicts.dedup();
        verdicts
    }

    fn reachable(now: Instant) -> Account {
        let mut account = Account::new(now);
        assert_eq!(probe(&mut account, now, 4, |_| true), [Verdict::Reachable]);
        account
    }

    #[test]
    fn small_and_large_ones_take_turns() {
        let now = Instant::now();
        let mut account = Account::new(now);
        for size in [Size::Small, Size::Large, Size::Small, Size::Large] {
            assert_eq!(account.next(), size);
            account.answered(size);
        }
        account.lost(Size::Small, now);
        assert_eq!(
            account.next(),
            Size::Small,
            "after a loss, whether anything arrives"
        );
    }

    #[test]
    fn two_losses_are_none_and_three_are() {
        let now = Instant::now();
        let mut account = reachable(now);
        assert_eq!(probe(&mut account, now, 2, |_| false), [Verdict::Reachable]);
        assert!(account.is_suspect());
        assert_eq!(probe(&mut account, now, 2, |_| true), [Verdict::Reachable]);
        assert!(!account.is_suspect());
        assert_eq!(
            probe(&mut account, now, 3, |_| false),
            [Verdict::Reachable, Verdict::Unreachable]
        );
        assert_eq!(probe(&mut account, now, 9, |_| false), [Verdict::Unreachable]);
        assert_eq!(probe(&mut account, now, 1, |_| true), [Verdict::Reachable]);
    }

    #[test]
    fn large_packets_that_are_lost_are_told_from_all() {
        let now = Instant::now();
        let mut account = reachable(now);
        let small = |size| size == Size::Small;
        assert_eq!(
            probe(&mut account, now, 6, small),
            [Verdict::Reachable, Verdict::LargeLost]
        );
        assert_eq!(
            probe(&mut account, now, 10, |_| false),
            [Verdict::LargeLost, Verdict::Unreachable]
        );
        assert_eq!(
            probe(&mut account, now, 6, small),
            [Verdict::Reachable, Verdict::LargeLost]
        );
        assert_eq!(
            probe(&mut account, now, 2, |_| true).last(),
            Some(&Verdict::Reachable)
        );
    }

    #[test]
    fn who_has_never_answered_is_given_time_to_start() {
        let now = Instant::now();
        let mut account = Account::new(now);
        assert_eq!(probe(&mut account, now, 20, |_| false), [Verdict::Unknown]);
        assert_eq!(
            probe(&mut account, now + GRACE, 1, |_| false),
            [Verdict::Unreachable]
        );
    }
}
