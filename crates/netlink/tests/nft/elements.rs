//! The elements of its sets: many, refused, and those of others.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use routelet_netlink::Error;

use super::*;

fn subnet(number: u32) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::from(0x6400_0000 + (number << 8)), 24).into()
}

#[test]
fn many_elements_are_made_and_taken_away_at_once() {
    in_netns(|| {
        let mut kernel = made();
        let many: Vec<_> = (0..15_000)
            .flat_map(|number| {
                let node = IpNet::from(subnet(number).broadcast());
                [(NftSet::Pods, subnet(number)), (NftSet::Nodes, node)]
            })
            .map(|(set, net)| (Key::nft_element(set, net), Object::NftElement))
            .collect();
        for part in many.chunks(1024) {
            all(&mut kernel, Verb::Create, part);
        }
        let found = dump(&mut kernel, Kind::NftElement, None);
        assert_eq!(found.len(), many.len() + elements().len());
        assert!(many.iter().all(|(key, _)| found.contains_key(key)));
        all(&mut kernel, Verb::Delete, &many);
        assert_eq!(dump_table(&mut kernel), sorted(table()));
    });
}

#[test]
fn an_element_that_is_refused_keeps_no_other_from_being_made() {
    in_netns(|| {
        let mut kernel = made();
        let mut many: Vec<_> = (0..600)
            .map(|number| (Key::nft_element(NftSet::Pods, subnet(number)), Object::NftElement))
            .collect();
        // Around what is in their sets already.
        many[300] = element(NftSet::OwnPods, "10.0.0.0/20");
        many[599] = element(NftSet::OwnPods, "fd00::/32");
        let operations: Vec<_> = many
            .iter()
            .map(|object| operation(Verb::Create, object))
            .collect();
        let failed: Vec<_> = apply(&mut kernel, &operations)
            .iter()
            .map(|failure| failure.index)
            .collect();
        assert_eq!(failed, [300, 599]);
        assert_eq!(
            dump(&mut kernel, Kind::NftElement, None).len(),
            598 + elements().len()
        );
        // Gone already is as good as taken away.
        all(&mut kernel, Verb::Delete, &many[10..20]);
        many.retain(
            |(key, _)| !matches!(key, Key::NftElement { last, .. } if last.to_string() == "10.0.15.255"),
        );
        all(&mut kernel, Verb::Delete, &many);
        assert_eq!(dump_table(&mut kernel), sorted(table()));
    });
}

#[test]
fn without_the_table_all_elements_are_refused_for_want_of_it() {
    in_netns(|| {
        let mut kernel = open();
        let operations: Vec<_> = (0..1000)
            .map(|number| (Key::nft_element(NftSet::Pods, subnet(number)), Object::NftElement))
            .map(|object| operation(Verb::Create, &object))
            .collect();
        let failures = apply(&mut kernel, &operations);
        assert_eq!(failures.len(), 1000);
        assert!(
            failures
                .iter()
                .all(|failure| matches!(failure.error, Error::NoNftTable))
        );
    });
}

#[test]
fn elements_that_others_add_can_be_taken_away() {
    with_nft(|| {
        let mut kernel = made();
        nft(
            "add element inet routelet own_pods_v4 { 10.9.0.5-10.9.1.7, 172.16.0.0/12 }; \
             add element inet routelet pods_v4_24 { 10.9.0.0, 10.9.1.7 }; \
             add element inet routelet nodes_v6 { 2001:db8::99 }; \
             add element inet routelet own_pods_v6 { ffff::/16 }",
        );
        let mut found = dump_table(&mut kernel);
        found.retain(|object| !table().contains(object));
        let names: Vec<_> = found.iter().map(|(key, _)| key.to_string()).collect();
        let expected = [
            "nft element 10.9.0.0/24 of pods",
            "nft element 10.9.1.7-10.9.2.6 of pods",
            "nft element 2001:db8::99 of nodes",
            "nft element 10.9.0.5-10.9.1.7 of own_pods",
            "nft element 172.16.0.0/12 of own_pods",
            "nft element ffff::/16 of own_pods",
        ];
        assert_eq!(names, expected);
        all(&mut kernel, Verb::Delete, &found);
        assert_eq!(dump_table(&mut kernel), sorted(table()));
    });
}

/// Of subnets of another length there is no set before the first, and none is left after the rules have forgotten it.
#[test]
fn pod_subnets_of_another_length_have_a_set_of_their_own() {
    with_nft(|| {
        let mut kernel = made();
        let sets = || {
            let listed = nft("list sets");
            let names = listed
                .lines()
                .filter_map(|line| line.trim().strip_prefix("set pods_"));
            let names = names.filter_map(|line| line.strip_suffix(" {"));
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(sets(), ["v4_24", "v6_64"]);
        let other = [
            element(NftSet::Pods, "10.0.0.0/22"),
            element(NftSet::Pods, "10.0.0.0/23"),
        ];
        all(&mut kernel, Verb::Create, &other);
        all(&mut kernel, Verb::Create, &other);
        assert_eq!(sets(), ["v4_24", "v6_64", "v4_22", "v4_23"]);
        let mut wanted = rules();
        wanted.pod_prefix_lens.v4 = [24, 23, 22].into_iter().collect();
        let rules_object = |rules| [(Key::NftRules, Object::NftRules(rules))];
        all(&mut kernel, Verb::Replace, &rules_object(wanted));
        assert_eq!(
            dump(&mut kernel, Kind::NftRules, None)[&Key::NftRules],
            Object::NftRules(wanted)
        );
        assert_eq!(
            wanted.to_string(),
            "interface-prefix cali vni 4096 port 4789 masquerade true vxlan true ipip false IPv4 pods in /22,/23,/24 \
             IPv6 pods in /64"
        );
        all(&mut kernel, Verb::Replace, &rules_object(rules()));
        assert_eq!(sets(), ["v4_24", "v6_64"]);
        all(&mut kernel, Verb::Delete, &other);
        assert_eq!(dump_table(&mut kernel), sorted(table()));
    });
}
