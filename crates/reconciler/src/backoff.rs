//! When a key is tried again: after a failure, and after a repair in a fight with someone else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use routelet_model::Key;
use rustc_hash::FxHashMap;

/// Delay after the first failure of a key.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest delay between two tries, and between two repairs in a fight.
const LONGEST: Duration = Duration::from_secs(30);
/// Repairs of one key within `FIGHT_WINDOW` that are nothing unusual.
const FIGHT_FREE: u32 = 10;
/// A key that was left alone for so long is in no fight.
const FIGHT_WINDOW: Duration = Duration::from_secs(10);
/// First delay of a repair in a fight.
const FIGHT_FIRST: Duration = Duration::from_millis(100);

/// A key that the kernel refused, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Tries that failed in a row.
    pub attempts: u32,
    /// The latest error's text.
    pub error: String,
    /// When the first of them failed.
    pub since: Instant,
    /// Whether it was news at some time.
    pub(crate) told: bool,
}

/// Repairs of one key that follow each other closely.
#[derive(Debug)]
struct Fight {
    repairs: u32,
    latest: Instant,
    told: bool,
}

/// What is to be tried again, and when: each key at one time at most, however often it fails.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    due: BTreeSet<(Instant, Key)>,
    times: FxHashMap<Key, Instant>,
    troubles: FxHashMap<Key, Trouble>,
    fights: FxHashMap<Key, Fight>,
}

/// What to do about an object that someone else has changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Repair it now.
    Now,
    /// Someone keeps changing it: wait. `first` is true when this fight has just become one.
    Later { first: bool },
}

impl Backoff {
    /// Notes that a try failed and plans the next. The trouble, where it is news: a new one, or one with another
    /// error. One that is `passing`, as when a link goes while it is written to, is none before it has come twice.
    pub(crate) fn failed(
        &mut self,
        key: Key,
        error: String,
        passing: bool,
        now: Instant,
    ) -> Option<&Trouble> {
        // A repair that failed is none.
        if let Some(fight) = self.fights.get_mut(&key) {
            fight.repairs = fight.repairs.saturating_sub(1);
        }
        let new = || Trouble {
            attempts: 0,
            error: String::new(),
            since: now,
            told: false,
        };
        let trouble = self.troubles.entry(key).or_insert_with(new);
        trouble.attempts = trouble.attempts.saturating_add(1);
        let delay = doubled(RETRY_FIRST, trouble.attempts - 1);
        let known = trouble.told && trouble.error == error;
        let news = !known && (trouble.attempts > 1 || !passing);
        trouble.told |= news;
        trouble.error = error;
        self.schedule(key, now + jittered(delay, &key));
        self.troubles.get(&key).filter(|_| news)
    }

    /// Forgets a key's trouble, as it went well or is wanted no more.
    pub(crate) fn clear(&mut self, key: &Key) -> Option<Trouble> {
        self.hurry(key);
        if self.troubles.is_empty() {
            None
        } else {
            self.troubles.remove(key)
        }
    }

    /// Whether any key is in trouble.
    pub(crate) fn in_trouble(&self) -> bool {
        !self.troubles.is_empty()
    }

    /// The keys that are in trouble.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = (&Key, &Trouble)> {
        self.troubles.iter()
    }

    /// How often in a row a key has failed.
    pub(crate) fn attempts(&self, key: &Key) -> u32 {
        self.troubles.get(key).map_or(0, |trouble| trouble.attempts)
    }

    /// Whether an object that someone changed is repaired now. After many repairs in a short time it is
    /// repaired ever more rarely, and planned here.
    pub(crate) fn repair(&mut self, key: Key, now: Instant) -> Repair {
        let fight = self.fights.entry(key).or_insert(Fight {
            repairs: 0,
            latest: now,
            told: false,
        });
        let excess = fight.repairs.saturating_sub(FIGHT_FREE);
        let pause = if excess == 0 {
            Duration::ZERO
        } else {
            doubled(FIGHT_FIRST, excess - 1)
        };
        let quiet = now.saturating_duration_since(fight.latest);
        if quiet > FIGHT_WINDOW.max(2 * pause) {
            (fight.repairs, fight.told) = (0, false);
        } else if quiet < pause {
            let due = fight.latest + pause;
            let first = !std::mem::replace(&mut fight.told, true);
            self.schedule(key, due);
            return Repair::Later { first };
        }
        fight.repairs += 1;
        fight.latest = now;
        Repair::Now
    }

    fn schedule(&mut self, key: Key, at: Instant) {
        self.hurry(&key);
        self.times.insert(key, at);
        self.due.insert((at, key));
    }

    /// Lets a key be tried before its time.
    pub(crate) fn hurry(&mut self, key: &Key) {
        if !self.times.is_empty()
            && let Some(at) = self.times.remove(key)
        {
            self.due.remove(&(at, *key));
        }
    }

    /// Whether the key's time is yet to come.
    pub(crate) fn must_wait(&self, key: &Key, now: Instant) -> bool {
        self.times.get(key).is_some_and(|at| *at > now)
    }

    /// Takes the keys whose time has come.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Key> {
        let mut keys = Vec::new();
        while let Some((at, key)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            self.times.remove(&key);
            keys.push(key);
        }
        keys
    }

    /// When the next key's time comes.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Forgets fights that are over.
    pub(crate) fn prune(&mut self, now: Instant) {
        self.fights
            .retain(|_, fight| now.saturating_duration_since(fight.latest) < 2 * LONGEST);
    }
}

/// `first`, doubled `times` times, at most `LONGEST`.
fn doubled(first: Duration, times: u32) -> Duration {
    first
        .saturating_mul(1_u32.checked_shl(times.min(20)).unwrap_or(u32::MAX))
        .min(LONGEST)
}

/// A delay made up to a quarter longer, by an amount of the key's own: keys that failed together are not
/// tried together for ever, and a test sees the same delays each time.
fn jittered(delay: Duration, key: &Key) -> Duration {
    use std::hash::BuildHasher;
    let share = rustc_hash::FxBuildHasher.hash_one(key) % 256;
    delay + delay.mul_f64(share as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8) -> Key {
        Key::route(ipnet::IpNet::new(std::net::IpAddr::from([10, 0, 0, last]), 32).unwrap())
    }

    #[test]
    fn failures_are_tried_ever_more_rarely_and_told_once() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut delays = Vec::new();
        for round in 0..20 {
            assert_eq!(
                backoff.failed(key(1), "no".to_owned(), false, now).is_some(),
                round == 0
            );
            let due = backoff.next().unwrap();
            delays.push(due - now);
            now = due;
            assert_eq!(backoff.due(now), [key(1)]);
        }
        assert!(
            delays[0] >= RETRY_FIRST && delays[0] < 2 * RETRY_FIRST,
            "{delays:?}"
        );
        assert!(delays.windows(2).all(|w| w[0] <= w[1]), "{delays:?}");
        assert!(
            *delays.last().unwrap() >= LONGEST && *delays.last().unwrap() < 2 * LONGEST,
            "{delays:?}"
        );
        assert!(
            backoff.failed(key(1), "another".to_owned(), false, now).is_some(),
            "another error is news"
        );
        assert_eq!(backoff.clear(&key(1)).unwrap().attempts, 21);
        assert_eq!(backoff.next(), None, "a trouble that is over is not tried again");
    }

    #[test]
    fn a_key_that_fails_out_of_its_turn_has_one_next_time() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for _ in 0..100 {
            backoff.failed(key(1), "no".to_owned(), false, now);
        }
        assert!(backoff.must_wait(&key(1), now + LONGEST / 2));
        let end = now + 2 * LONGEST;
        assert_eq!(backoff.due(end), [key(1)]);
        assert!(!backoff.must_wait(&key(1), now));
        backoff.failed(key(1), "no".to_owned(), false, now);
        backoff.hurry(&key(1));
        assert!(!backoff.must_wait(&key(1), now) && backoff.next().is_none());
    }

    #[test]
    fn repairs_that_fail_make_no_fight() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(backoff.repair(key(1), now), Repair::Now);
            backoff.failed(key(1), "no link".to_owned(), true, now);
            now += Duration::from_millis(10);
        }
    }

    #[test]
    fn what_passes_by_itself_is_told_when_it_comes_twice() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let told = [(); 3].map(|()| {
            backoff
                .failed(key(1), "no device".to_owned(), true, now)
                .is_some()
        });
        assert_eq!(told, [false, true, false]);
        backoff.clear(&key(1));
        assert!(
            backoff
                .failed(key(1), "no device".to_owned(), true, now)
                .is_none()
        );
    }

    #[test]
    fn a_fight_is_noticed_slowed_down_and_forgotten() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut news = 0;
        let mut repairs = 0;
        for _ in 0..1000 {
            match backoff.repair(key(1), now) {
                Repair::Now => repairs += 1,
                Repair::Later { first } => {
                    news += u32::from(first);
                    backoff.due(now);
                }
            }
            now += Duration::from_millis(10);
        }
        assert_eq!(news, 1, "told once");
        assert!(
            (FIGHT_FREE..30).contains(&repairs),
            "{repairs} repairs in ten seconds"
        );
        assert_eq!(
            backoff.repair(key(2), now),
            Repair::Now,
            "another key is not held back"
        );
        assert_eq!(backoff.repair(key(1), now + 3 * LONGEST), Repair::Now);
        assert_eq!(
            backoff.repair(key(1), now + 3 * LONGEST),
            Repair::Now,
            "the old fight is forgotten"
        );
    }
}
