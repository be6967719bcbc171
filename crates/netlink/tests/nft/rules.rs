//! Its rules: all that there can be, and whatever others do to them.

use super::*;

#[test]
fn all_rules_there_can_be_are_recognised() {
    in_netns(|| {
        let mut kernel = made();
        let lens = PerFamily {
            v4: [1, 13, 24, 32].into_iter().collect(),
            v6: [1, 64, 67, 128].into_iter().collect(),
        };
        for (masquerade, ipip) in [(false, true), (true, true), (false, false), (true, false)] {
            for (prefix, v4, v6, port) in [
                ("cali", 4096, 4096, 4789),
                ("cali", 4096, 4097, 4789),
                ("x", 0, 0, 1),
                ("a-b.", 0xff_ffff, 0xff_fffe, 65535),
            ] {
                let rules = NftRules {
                    interface_prefix: name(prefix),
                    vnis: PerFamily { v4, v6 },
                    port,
                    masquerade,
                    vxlan: !ipip,
                    ipip,
                    pod_prefix_lens: if masquerade { lens } else { PerFamily::default() },
                };
                let object = (Key::NftRules, Object::NftRules(rules));
                all(&mut kernel, Verb::Replace, std::slice::from_ref(&object));
                assert_eq!(
                    dump(&mut kernel, Kind::NftRules, None)
                        .into_iter()
                        .collect::<Vec<_>>(),
                    [object]
                );
            }
        }
    });
}

/// Each deed of another's, how the rules are seen after it, and that they can be put right.
#[test]
fn whatever_others_do_to_the_rules_is_seen_and_put_right() {
    with_nft(|| {
        let mut kernel = made();
        let right = (Key::NftRules, Object::NftRules(rules()));
        for deed in [
            "flush table inet routelet",
            "flush chain inet routelet guard",
            "add rule inet routelet guard accept",
            "insert rule inet routelet prerouting accept",
            "add chain inet routelet more",
            "add chain inet routelet more { type filter hook input priority 0; policy drop; }",
            "add chain inet routelet more; add rule inet routelet guard jump more",
            "add set inet routelet more { type ipv4_addr; }",
            "add set inet routelet more { type ipv4_addr; }; add rule inet routelet guard ip saddr @more drop",
            "add map inet routelet more { type ipv4_addr : verdict; }; add chain inet routelet far; \
             add element inet routelet more { 10.0.0.1 : jump far }; \
             add rule inet routelet guard ip saddr vmap @more",
            "add rule inet routelet guard ip saddr { 10.0.0.1, 10.0.0.3 } drop",
            "chain inet routelet output { policy drop; }",
            "flush chain inet routelet output; delete chain inet routelet output; \
             add chain inet routelet output { type filter hook input priority -300; }",
        ] {
            nft(deed);
            let seen = dump(&mut kernel, Kind::NftRules, None);
            assert_eq!(
                seen.into_iter().collect::<Vec<_>>(),
                [(Key::NftRules, FOREIGN)],
                "after {deed}"
            );
            all(&mut kernel, Verb::Replace, std::slice::from_ref(&right));
            assert_eq!(dump_table(&mut kernel), sorted(table()), "after {deed}");
        }
        nft("delete chain inet routelet postrouting");
        assert_eq!(dump(&mut kernel, Kind::NftRules, None)[&Key::NftRules], FOREIGN);
    });
}

/// A rule that someone has changed, and left its comment.
#[test]
fn a_changed_rule_is_seen_whatever_its_comment_says() {
    with_nft(|| {
        let mut kernel = made();
        let listed = nft("list chain inet routelet guard");
        nft("flush chain inet routelet guard");
        let script = listed.replace("4096", "4097").replace("0x1000", "0x1001");
        assert_ne!(script, listed);
        nft(&script);
        assert_eq!(dump(&mut kernel, Kind::NftRules, None)[&Key::NftRules], FOREIGN);
        nft("flush chain inet routelet guard");
        nft(&listed);
        assert_eq!(
            dump_table(&mut kernel),
            sorted(table()),
            "nft's own words for it are the same"
        );
    });
}
