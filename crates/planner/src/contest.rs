//! Who holds what only one may hold.

use std::collections::hash_map::Entry;
use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Resources and those who claim them. The least claimant by `Ord` comes first: the order is the ranking.
#[derive(Debug)]
pub(crate) struct Contest<R, C> {
    // Nearly every resource has one claimant: the vectors are made to measure.
    claimants: FxHashMap<R, Vec<C>>,
}

impl<R: Hash + Eq + Copy, C: Ord> Contest<R, C> {
    pub(crate) fn new() -> Self {
        Self {
            claimants: FxHashMap::default(),
        }
    }

    /// Enters a claim; a claim counts once.
    pub(crate) fn enter(&mut self, resource: R, claimant: C) {
        match self.claimants.entry(resource) {
            Entry::Vacant(place) => {
                place.insert(vec![claimant]);
            }
            Entry::Occupied(mut claimants) => {
                if let Err(place) = claimants.get().binary_search(&claimant) {
                    claimants.get_mut().insert(place, claimant);
                }
            }
        }
    }

    /// Takes a claim back.
    pub(crate) fn leave(&mut self, resource: R, claimant: &C) {
        if let Some(claimants) = self.claimants.get_mut(&resource) {
            claimants.retain(|other| other != claimant);
            if claimants.is_empty() {
                self.claimants.remove(&resource);
            }
        }
    }

    /// The claimant that ranks first.
    pub(crate) fn first(&self, resource: R) -> Option<&C> {
        self.claimants.get(&resource)?.first()
    }

    /// All claimants of one resource, first to last.
    pub(crate) fn claimants(&self, resource: R) -> impl Iterator<Item = &C> {
        self.claimants.get(&resource).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_forgets() {
        let mut contest = Contest::new();
        contest.enter("x", 2);
        contest.enter("x", 1);
        contest.enter("x", 1);
        assert_eq!(contest.first("x"), Some(&1));
        assert_eq!(
            contest.claimants("x").collect::<Vec<_>>(),
            [&1, &2],
            "a claim counts once"
        );
        contest.leave("x", &1);
        assert_eq!(contest.first("x"), Some(&2));
        contest.leave("x", &7);
        contest.leave("x", &2);
        contest.leave("x", &2);
        assert!(contest.claimants.is_empty());
    }
}
