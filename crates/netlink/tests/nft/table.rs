//! The table as a whole: made, read back, told of, and nothing else touched.

use routelet_netlink::Config;

use super::*;

#[test]
fn what_is_made_is_read_back_and_taken_away_in_the_reverse_order() {
    in_netns(|| {
        let mut kernel = open();
        assert_eq!(dump_table(&mut kernel), []);
        let mut objects = table();
        for count in 1..=objects.len() {
            all(&mut kernel, Verb::Create, &objects[count - 1..count]);
            assert_eq!(dump_table(&mut kernel), sorted(objects[..count].to_vec()));
        }
        while let Some(last) = objects.pop() {
            all(&mut kernel, Verb::Delete, std::slice::from_ref(&last));
            assert_eq!(dump_table(&mut kernel), sorted(objects.clone()));
            all(&mut kernel, Verb::Delete, &[last]);
        }
    });
}

#[test]
fn making_what_is_there_changes_nothing() {
    in_netns(|| {
        let mut kernel = made();
        all(&mut kernel, Verb::Create, &table());
        all(&mut kernel, Verb::Replace, &table()[1..]);
        assert_eq!(dump_table(&mut kernel), sorted(table()));
    });
}

#[test]
fn a_table_that_others_deleted_or_made_otherwise_is_seen() {
    with_nft(|| {
        let mut kernel = made();
        nft("flush ruleset");
        assert_eq!(dump_table(&mut kernel), []);
        for deed in [
            "table inet routelet { }",
            "table inet routelet { set own_pods_v4 { type ipv4_addr; }; }",
            "table inet routelet { flags dormant; }",
        ] {
            nft("table inet routelet; delete table inet routelet");
            nft(deed);
            assert_eq!(
                dump(&mut kernel, Kind::NftTable, None)[&Key::NftTable],
                FOREIGN,
                "{deed}"
            );
            all(&mut kernel, Verb::Replace, &[(Key::NftTable, Object::NftTable)]);
            assert_eq!(dump_table(&mut kernel), [(Key::NftTable, Object::NftTable)]);
        }
    });
}

/// A range that is no prefix has its key, too, so that it can be taken away.
#[test]
fn others_deeds_are_told_and_our_own_are_not() {
    with_nft(|| {
        let mut kernel = made();
        let mut objects = table();
        objects.reverse();
        all(&mut kernel, Verb::Delete, &objects);
        objects.reverse();
        all(&mut kernel, Verb::Create, &objects);
        assert_eq!(hints(&mut kernel), []);
        for deed in [
            "delete element inet routelet nodes_v4 { 192.0.2.1 }",
            "add element inet routelet nodes_v4 { 192.0.2.1 }",
            "flush set inet routelet pods_v4_24",
            "add rule inet routelet guard accept",
            "flush table inet routelet",
            "flush ruleset",
            "table inet routelet { }",
        ] {
            nft(deed);
            assert_eq!(hints(&mut kernel), [Hint::NftTouched], "{deed}");
        }
        for deed in [
            "table inet other { chain guard { accept; }; }",
            "table ip routelet { chain guard { accept; }; }",
            "add table inet routelet2",
        ] {
            nft(deed);
            assert_eq!(hints(&mut kernel), [], "{deed}");
        }
    });
}

#[test]
fn tables_of_others_are_neither_seen_nor_touched() {
    with_nft(|| {
        nft(
            "table inet other { set pods_v4 { type ipv4_addr; elements = { 10.1.1.1 }; }; \
             chain prerouting { type filter hook prerouting priority 0; tcp dport 1 drop; }; }; \
             table ip routelet { chain guard { tcp dport 2 drop; }; }; \
             table ip6 nat { chain POSTROUTING { type nat hook postrouting priority 100; masquerade; }; }",
        );
        let before = nft("list ruleset");
        let mut kernel = made();
        all(
            &mut kernel,
            Verb::Replace,
            &[(Key::NftRules, Object::NftRules(rules()))],
        );
        all(
            &mut kernel,
            Verb::Delete,
            &[(Key::NftRules, FOREIGN), (Key::NftTable, FOREIGN)],
        );
        assert_eq!(nft("list ruleset"), before);
    });
}

#[test]
fn the_table_has_the_name_that_it_is_given() {
    with_nft(|| {
        let other = Config {
            nft_table: "another".to_owned(),
            ..config()
        };
        let mut kernel = Kernel::open(other).unwrap();
        assert!(kernel.features().nftables);
        all(&mut kernel, Verb::Create, &table());
        assert_eq!(dump_table(&mut open()), []);
        assert_eq!(nft("list tables").trim(), "table inet another");
    });
}

/// As left behind by a version that had all pod subnets of a family in one set of ranges.
#[test]
fn an_older_versions_set_of_pod_subnets_goes_and_the_rest_stays() {
    with_nft(|| {
        let mut kernel = made();
        nft(
            "add set inet routelet pods_v4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/24 }; }; \
             add rule inet routelet postrouting ip daddr @pods_v4 accept",
        );
        let mut seen = table();
        seen.pop();
        seen.push((Key::NftRules, FOREIGN));
        assert_eq!(dump_table(&mut kernel), sorted(seen));
        all(
            &mut kernel,
            Verb::Replace,
            &[(Key::NftRules, Object::NftRules(rules()))],
        );
        assert_eq!(dump_table(&mut kernel), sorted(table()));
        assert!(!nft("list sets").contains("set pods_v4 {"));
    });
}
