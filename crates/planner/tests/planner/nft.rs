//! What the nft table holds, whoever overlaps with whom.

use routelet_model::{ClusterEvent, Key, NftSet, Object, PerFamily, Resource, Source};

use crate::support::*;

impl World {
    /// The elements of a set, as its owners write them.
    fn elements(&self, of: NftSet) -> Vec<String> {
        let suffix = format!(" of {of}");
        let keys = self
            .wanted
            .keys()
            .filter(|key| matches!(key, Key::NftElement { set, .. } if *set == of));
        keys.map(|key| {
            let text = key.to_string();
            let text = text
                .strip_prefix("nft element ")
                .and_then(|text| text.strip_suffix(&suffix));
            text.unwrap().to_owned()
        })
        .collect()
    }

    fn pods_v4(&self) -> Vec<String> {
        let mut elements = self.elements(NftSet::Pods);
        elements.retain(|element| !element.contains(':'));
        elements
    }
}

fn with_table() -> World {
    World::ready_with(mk_nft_settings(true))
}

/// A device whose pods are of the other family than its underlay has the next VNI.
#[test]
fn the_vnis_of_both_devices_are_guarded() {
    let mut world = with_table();
    let mut vnis = |addresses: &[&str], subnets: &[&str]| {
        world.node(mk_node(OWN, 100, addresses, subnets));
        match world.wanted.get(&Key::NftRules) {
            Some(Object::NftRules(rules)) => rules.vnis,
            other => panic!("{other:?} for rules"),
        }
    };
    let both = ["10.1.0.0/24", "fd10:1::/64"];
    let on_one = |v4, v6| PerFamily { v4, v6 };
    assert_eq!(vnis(&["192.168.0.1", "fd00::1"], &both), on_one(4096, 4096));
    assert_eq!(vnis(&["192.168.0.1"], &both), on_one(4096, 4097));
    assert_eq!(vnis(&["fd00::1"], &both), on_one(4097, 4096));
}

#[test]
fn the_table_knows_this_node_and_the_others() {
    let mut world = with_table();
    world.node(mk_node(
        "node-b",
        200,
        &["192.168.0.2", "fd00::2"],
        &["10.2.0.0/24", "fd10:2::/64"],
    ));
    world.node(mk_node("node-without-pods", 200, &["192.168.0.3"], &[]));
    let Some(Object::NftRules(rules)) = world.wanted.get(&Key::NftRules) else {
        panic!("no rules");
    };
    assert_eq!(
        rules.to_string(),
        "interface-prefix cali vni 4096 port 4789 masquerade true vxlan true ipip false IPv4 pods in /24 IPv6 pods in \
         /64"
    );
    assert!(world.wanted.contains_key(&Key::NftTable));
    assert_eq!(
        world.elements(NftSet::Pods),
        ["10.1.0.0/24", "10.2.0.0/24", "fd10:1::/64", "fd10:2::/64"]
    );
    assert_eq!(world.elements(NftSet::OwnPods), ["10.1.0.0/24", "fd10:1::/64"]);
    assert_eq!(
        world.elements(NftSet::Nodes),
        ["192.168.0.2", "192.168.0.3", "fd00::2"]
    );
    // Overlaps are merged, and what can't be masqueraded with sense is there.
    assert_eq!(
        world.elements(NftSet::Except),
        [
            "100.64.0.0/10",
            "224.0.0.0/4",
            "255.255.255.255",
            "fe80::/10",
            "ff00::/8"
        ]
    );
}

/// As where the cluster's pod network is excepted as a whole.
#[test]
fn pod_subnets_within_what_is_excepted_are_not_held_once_more() {
    let mut settings = mk_nft_settings(true);
    let nft = settings.nft.as_mut().unwrap();
    nft.masquerade_except = vec!["10.0.0.0/8".parse().unwrap()];
    let mut world = World::ready_with(settings);
    world.node(mk_node(
        "node-b",
        200,
        &["192.168.0.2"],
        &["10.2.0.0/24", "fd10:2::/64"],
    ));
    assert_eq!(world.elements(NftSet::Pods), ["fd10:1::/64", "fd10:2::/64"]);
    assert_eq!(world.elements(NftSet::OwnPods), ["10.1.0.0/24", "fd10:1::/64"]);
    assert_eq!(world.elements(NftSet::Nodes), ["192.168.0.2"]);
}

#[test]
fn without_masquerade_the_table_guards_alone() {
    let mut world = World::ready_with(mk_nft_settings(false));
    world.node(mk_node("node-b", 200, &["192.168.0.2"], &["10.2.0.0/24"]));
    for set in [NftSet::Pods, NftSet::OwnPods, NftSet::Except] {
        assert_eq!(world.elements(set), Vec::<String>::new());
    }
    assert_eq!(world.elements(NftSet::Nodes), ["192.168.0.2"]);
}

#[test]
fn without_nf_tables_nothing_of_it_is_wanted() {
    let mut world = World::ready();
    world.node(mk_node("node-b", 200, &["192.168.0.2"], &["10.2.0.0/24"]));
    let is_nft = |key: &&Key| key.to_string().starts_with("nft");
    assert_eq!(world.wanted.keys().find(is_nft), None);
}

#[test]
fn subnets_one_within_the_other_are_both_held() {
    let mut world = with_table();
    world.node(mk_node("node-b", 200, &["192.168.0.2"], &["10.2.0.0/24"]));
    world.node(mk_node(
        "node-c",
        300,
        &["192.168.0.3"],
        &["10.2.0.0/16", "10.2.1.0/24"],
    ));
    assert_eq!(
        world.pods_v4(),
        ["10.1.0.0/24", "10.2.0.0/24", "10.2.0.0/16", "10.2.1.0/24"]
    );
    world.node_gone("node-c");
    assert_eq!(world.pods_v4(), ["10.1.0.0/24", "10.2.0.0/24"]);
}

/// A rule looks where subnets of the length can be, and nowhere else.
#[test]
fn the_rules_know_the_lengths_of_all_subnets() {
    let mut world = with_table();
    let lens = |world: &World| match world.wanted.get(&Key::NftRules) {
        Some(Object::NftRules(rules)) => {
            let PerFamily { v4, v6 } = rules.pod_prefix_lens;
            [v4.iter().collect::<Vec<_>>(), v6.iter().collect()]
        }
        other => panic!("{other:?} for rules"),
    };
    assert_eq!(lens(&world), [vec![24], vec![64]]);
    let changes = world.node(mk_node("node-b", 200, &["192.168.0.2"], &["10.2.0.0/26"]));
    assert!(changes.changes.iter().any(|(key, _)| *key == Key::NftRules));
    world.node(mk_node("node-c", 200, &["192.168.0.3"], &["10.2.0.64/26"]));
    assert_eq!(lens(&world), [vec![24, 26], vec![64]]);
    world.node_gone("node-b");
    assert_eq!(lens(&world), [vec![24, 26], vec![64]]);
    world.node(mk_node("node-c", 200, &["192.168.0.3"], &["fd10:3::/80"]));
    assert_eq!(lens(&world), [vec![24], vec![64, 80]]);
    world.node_gone("node-c");
    assert_eq!(lens(&world), [vec![24], vec![64]]);
    // Everything is no one's, also where it lies around no node's address.
    world.node(mk_node(OWN, 100, &["fd00::1"], &["10.1.0.0/24"]));
    world.node(mk_node(
        "node-b",
        200,
        &["fd00::2"],
        &["0.0.0.0/0", "10.2.0.0/26"],
    ));
    assert_eq!(lens(&world)[0], [24, 26]);
    assert_eq!(world.pods_v4(), ["10.1.0.0/24", "10.2.0.0/26"]);
}

/// Else a wrong Node could keep all the world from being masqueraded.
#[test]
fn a_subnet_around_nodes_addresses_holds_no_pods() {
    let mut world = with_table();
    world.node(mk_node(
        "node-b",
        200,
        &["192.168.0.2"],
        &["0.0.0.0/0", "192.168.0.0/16"],
    ));
    world.node(mk_node(
        "node-c",
        200,
        &["172.16.0.3"],
        &["172.16.0.0/12", "10.3.0.0/24"],
    ));
    assert_eq!(world.pods_v4(), ["10.1.0.0/24", "10.3.0.0/24"]);
    world.node(mk_node(
        "node-c",
        200,
        &["192.168.0.3"],
        &["172.16.0.0/12", "10.3.0.0/24"],
    ));
    assert_eq!(world.pods_v4(), ["10.1.0.0/24", "10.3.0.0/24", "172.16.0.0/12"]);
}

/// Its own pods must not be masqueraded towards each other.
#[test]
fn this_node_holds_its_subnets_though_an_older_one_claims_them() {
    let mut world = with_table();
    world.node(mk_node("node-b", 1, &["192.168.0.2"], &["10.1.0.0/24"]));
    assert_eq!(world.pods_v4(), ["10.1.0.0/24"]);
    world.node_gone("node-b");
    assert_eq!(world.pods_v4(), ["10.1.0.0/24"]);
    // Of what lies within them, another node's is none.
    world.node(mk_node("node-b", 1, &["192.168.0.2"], &["10.1.0.0/25"]));
    assert_eq!(world.pods_v4(), ["10.1.0.0/24"]);
}

/// A node that was made anew under another name has the address of its former self, which is deleted later.
#[test]
fn an_address_of_two_nodes_stays_as_long_as_one_of_them() {
    let mut world = with_table();
    world.node(mk_node("node-b", 200, &["192.168.0.2"], &["10.2.0.0/24"]));
    world.node(mk_node("node-b-2", 300, &["192.168.0.2"], &["10.3.0.0/24"]));
    world.node_gone("node-b");
    assert!(world.elements(NftSet::Nodes).contains(&"192.168.0.2".to_owned()));
    world.node_gone("node-b-2");
    assert!(!world.elements(NftSet::Nodes).contains(&"192.168.0.2".to_owned()));
}

/// Rules that came before the Nodes would drop what these send, and masquerade what goes to their pods.
#[test]
fn rules_wait_until_all_nodes_are_told() {
    let mut world = World::empty(mk_nft_settings(true));
    world.host(&own_host());
    world.node(own_node());
    assert!(world.wanted.contains_key(&Key::NftTable));
    world.node(mk_node("node-b", 1, &["192.168.0.2"], &["10.2.0.0/24"]));
    assert!(!world.wanted.contains_key(&Key::NftRules));
    world.cluster(ClusterEvent::Synced(Resource::Nodes, Source::Store));
    assert!(world.wanted.contains_key(&Key::NftRules));
    let again = world.cluster(ClusterEvent::Synced(Resource::Nodes, Source::Store));
    assert!(again.changes.is_empty());
}
