//! How full the kernel's neighbour tables are.

mod common;

use common::{POD, in_netns, ip, mac, make_links, open};
use routelet_model::Family;

/// What is added of each family. All network namespaces share a table, so that others may add and remove some meanwhile.
const COUNT: u32 = 400;

#[test]
fn entries_and_limit_are_those_of_the_kernel() {
    // Only the first namespace shows the limits.
    let limit = |family: &str| {
        let path = format!("/proc/sys/net/{family}/neigh/default/gc_thresh3");
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().parse::<u32>().unwrap())
    };
    let limits = [limit("ipv4"), limit("ipv6")];
    in_netns(|| {
        let (mut setup, mut kernel) = (make_links(), open());
        let before = kernel.neighbour_tables().unwrap();
        for number in 0..COUNT {
            let [high, low] = [number / 256, number % 256];
            for address in [format!("10.9.{high}.{low}"), format!("fd09::{high}:{low}")] {
                setup.replace_neighbour(POD, ip(&address), mac(1)).unwrap();
            }
        }
        let after = kernel.neighbour_tables().unwrap();
        assert_eq!(
            after.iter().map(|table| table.family).collect::<Vec<_>>(),
            Family::ALL
        );
        for ((before, after), limit) in before.iter().zip(&after).zip(limits) {
            let more = after.entries - before.entries;
            assert!((COUNT / 2..2 * COUNT).contains(&more), "{before:?} {after:?}");
            assert!(limit.is_none_or(|limit| limit == after.limit), "{after:?}");
        }
    });
}
