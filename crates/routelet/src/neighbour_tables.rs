//! Whether the kernel's neighbour tables have room left: without it, packets to hosts and pods that the kernel must ask
//! for are lost.

use std::collections::BTreeSet;

use routelet_model::Family;
use routelet_netlink::{Error, NeighbourTable};

/// Told of when so much of the limit is used, in percent; no longer told of below the second.
const FULL: u64 = 80;
const RELIEVED: u64 = 60;

/// What was last told of.
#[derive(Debug, Default)]
pub(crate) struct NeighbourTables {
    nearly_full: BTreeSet<Family>,
    failing: bool,
}

/// What is new about a table.
#[derive(Debug, PartialEq, Eq)]
enum News {
    NearlyFull,
    Relieved,
}

impl NeighbourTables {
    /// Tells what is new. `permanent` is the number of entries of a family that are the agent's and have no limit.
    pub(crate) fn look(
        &mut self,
        tables: Result<Vec<NeighbourTable>, Error>,
        permanent: impl Fn(Family) -> usize,
    ) {
        let tables = match tables {
            Ok(tables) => tables,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "cannot read how full the kernel's neighbour tables are");
                }
                return;
            }
        };
        self.failing = false;
        for table in tables {
            let (family, limit) = (table.family, table.limit);
            let entries = counted(&table, permanent(family));
            match self.news(family, entries, limit) {
                Some(News::NearlyFull) => tracing::warn!(
                    %family, entries, limit,
                    "the neighbour table of this host is nearly full; then packets to pods and hosts are lost. Raise \
                     net.ipv4.neigh.default.gc_thresh1 to gc_thresh3, for IPv6 those of net.ipv6"
                ),
                Some(News::Relieved) => {
                    tracing::info!(%family, entries, limit, "the neighbour table of this host has room again");
                }
                None => {}
            }
        }
    }

    fn news(&mut self, family: Family, entries: u64, limit: u32) -> Option<News> {
        let (entries, limit) = (entries.saturating_mul(100), u64::from(limit));
        if entries >= limit.saturating_mul(FULL) {
            self.nearly_full.insert(family).then_some(News::NearlyFull)
        } else if entries < limit.saturating_mul(RELIEVED) {
            self.nearly_full.remove(&family).then_some(News::Relieved)
        } else {
            None
        }
    }
}

/// Entries that the limit holds for.
fn counted(table: &NeighbourTable, permanent: usize) -> u64 {
    u64::from(table.entries).saturating_sub(permanent as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_told_of_once_until_it_has_room_again() {
        let mut tables = NeighbourTables::default();
        let mut at = |entries| tables.news(Family::V4, entries, 1000);
        assert_eq!(at(799), None);
        assert_eq!(at(800), Some(News::NearlyFull));
        assert_eq!(at(1000), None);
        assert_eq!(at(600), None);
        assert_eq!(at(800), None);
        assert_eq!(at(599), Some(News::Relieved));
        assert_eq!(at(0), None);
        assert_eq!(tables.news(Family::V6, 900, 1000), Some(News::NearlyFull));
    }

    #[test]
    fn the_agents_own_do_not_count() {
        let table = NeighbourTable {
            family: Family::V4,
            entries: 15_010,
            limit: 1024,
        };
        assert_eq!(counted(&table, 15_000), 10);
        assert_eq!(counted(&table, 20_000), 0);
    }
}
