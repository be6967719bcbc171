//! Whatever the events and their order: the wanted objects follow from the facts alone.
//!
//! The facts of this node change here but never vanish: that they stay in force then is a memory on purpose.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use routelet_model::{
    ClusterEvent, Family, Flannel, FlannelLease, Host, Key, NftSet, Node, PerFamily, Pod, PodId,
};
use routelet_planner::{Encapsulation, Settings, Way};

use crate::support::*;

const NODES: [&str; 5] = [OWN, "node-b", "node-c", "node-d", "node-e"];
const SUBNETS: [&str; 12] = [
    "10.1.0.0/24",
    "10.1.0.128/25",
    "10.2.0.0/24",
    "10.2.0.0/16",
    "10.2.0.7/32",
    "10.3.0.0/24",
    "10.0.0.0/8",
    "192.168.0.0/24",
    "224.0.0.0/8",
    "fd10:1::/64",
    "fd10:2::/64",
    "fd10::/16",
];
const UNDERLAYS: [&str; 5] = ["192.168.0.1", "192.168.0.2", "192.168.0.3", "fd00::1", "fd00::2"];
const POD_ADDRESSES: [&str; 6] = [
    "10.1.0.0",
    "10.1.0.7",
    "10.1.0.200",
    "10.2.0.7",
    "fd10:1::7",
    "fd10:2::7",
];

#[derive(Debug, Clone)]
enum Fact {
    Cluster(ClusterEvent),
    Host(Host),
}

fn any_node() -> impl Strategy<Value = Node> {
    let overrides = (
        prop::option::weighted(
            0.1,
            select(&["10.1.0.0", "10.2.0.0", "10.9.0.9", "fd10:2::", "224.0.0.1"][..]),
        ),
        prop::option::weighted(
            0.1,
            select(&["66:00:00:00:00:01", "66:07:02:c1:cc:60", "ff:ff:ff:ff:ff:ff"][..]),
        ),
        prop::option::weighted(
            0.1,
            select(&["192.168.0.2/24", "192.168.0.9/24", "fd00::9/64"][..]),
        ),
        prop::option::weighted(0.1, any_flannel()),
    );
    let lists = (
        subsequence(&UNDERLAYS[..], 0..3),
        subsequence(&SUBNETS[..], 0..4).prop_shuffle(),
    );
    (select(&NODES[..]), 0..4i64, lists, overrides).prop_map(|(name, created, lists, overrides)| {
        let (mut addresses, mut subnets) = lists;
        if name == OWN {
            addresses = vec![
                if created % 2 == 0 {
                    "192.168.0.1"
                } else {
                    "192.168.0.3"
                },
                "fd00::1",
            ];
            subnets.retain(|subnet| !subnet.starts_with("224"));
            subnets.extend(["10.1.0.0/24", "fd10:1::/64"]);
        }
        let mut node = mk_node(name, created, &addresses, &subnets);
        let (tunnel, mac, underlay, flannel) = overrides;
        node.overrides.v4.tunnel_address = tunnel.map(|address| address.parse().unwrap());
        node.overrides.v4.vtep_mac = mac.map(|mac| mac.parse().unwrap());
        if name != OWN {
            node.overrides.v4.underlay = underlay.map(|net| net.parse().unwrap());
            node.flannel = flannel.map(Box::new);
        }
        node
    })
}

fn any_flannel() -> impl Strategy<Value = Flannel> {
    let macs = ["66:00:00:00:00:01", "66:07:02:c1:cc:60", "ff:ff:ff:ff:ff:ff"];
    let values = (
        select(&["vxlan", "vxlan", "vxlan", "host-gw", "udp"][..]),
        select(&UNDERLAYS[..]),
        select(&[4096, 4096, 1][..]),
        select(macs.to_vec()),
    );
    values.prop_map(|(backend, underlay, vni, mac)| Flannel {
        backend: backend.to_owned(),
        lease: PerFamily {
            v4: FlannelLease {
                underlay: Some(underlay.parse().unwrap()),
                vni: Some(vni),
                vtep_mac: Some(mac.parse().unwrap()),
            },
            v6: FlannelLease::default(),
        },
    })
}

fn any_pod() -> impl Strategy<Value = Pod> {
    let state = (prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    let addresses = subsequence(&POD_ADDRESSES[..], 0..3);
    ("[p-s]", 0..4i64, addresses, state).prop_map(|(name, created, addresses, (terminal, host_network))| {
        Pod {
            terminal,
            host_network,
            ..mk_pod(&name, created, &addresses)
        }
    })
}

/// Both addresses that this node may have are on the host, on one link or the other.
fn any_host() -> impl Strategy<Value = Host> {
    let orders = [
        ["192.168.0.1/24", "192.168.0.3/24", "fd00::1/64"],
        ["192.168.0.3/24", "fd00::1/64", "192.168.0.1/24"],
    ];
    (select(vec![1500, 9000]), select(orders.to_vec()), 0..4usize).prop_map(|(mtu, addresses, split)| {
        let (eth, bond) = addresses.split_at(split.min(addresses.len()));
        mk_host(&[("eth0", mtu, eth), ("bond0", 1400, bond)])
    })
}

fn any_fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        6 => any_node().prop_map(|node| Fact::Cluster(ClusterEvent::NodeApplied(node))),
        2 => select(&NODES[1..]).prop_map(|name| Fact::Cluster(ClusterEvent::NodeDeleted(name.to_owned()))),
        4 => any_pod().prop_map(|pod| Fact::Cluster(ClusterEvent::PodApplied(pod))),
        1 => "[p-s]".prop_map(|name| Fact::Cluster(ClusterEvent::PodDeleted(mk_pod_id(&name)))),
        1 => any_host().prop_map(Fact::Host),
    ]
}

fn any_encapsulation() -> impl Strategy<Value = Encapsulation> {
    select(vec![
        Encapsulation::Vxlan,
        Encapsulation::VxlanCrossSubnet,
        Encapsulation::Ipip,
        Encapsulation::IpipCrossSubnet,
        Encapsulation::None,
    ])
}

/// What the facts add up to.
#[derive(Default)]
struct Cluster {
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<PodId, Pod>,
    host: Option<Host>,
}

impl Cluster {
    fn follow(&mut self, fact: &Fact) {
        match fact.clone() {
            Fact::Cluster(ClusterEvent::NodeApplied(node)) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Fact::Cluster(ClusterEvent::NodeDeleted(name)) => {
                self.nodes.remove(&name);
            }
            Fact::Cluster(ClusterEvent::PodApplied(pod)) => {
                self.pods.insert(pod.id.clone(), pod);
            }
            Fact::Cluster(ClusterEvent::PodDeleted(id)) => {
                self.pods.remove(&id);
            }
            Fact::Cluster(ClusterEvent::Synced(..)) => {}
            Fact::Host(host) => self.host = Some(host),
        }
    }

    /// Each fact once, in an order of the test's choice.
    fn facts(self, order: &[Index]) -> Vec<Fact> {
        let nodes = self.nodes.into_values().map(ClusterEvent::NodeApplied);
        let pods = self.pods.into_values().map(ClusterEvent::PodApplied);
        let mut facts: Vec<Fact> = nodes.chain(pods).map(Fact::Cluster).collect();
        facts.extend(self.host.map(Fact::Host));
        for (place, index) in order.iter().enumerate().take(facts.len()) {
            let other = index.index(facts.len());
            facts.swap(place, other);
        }
        facts
    }
}

impl World {
    fn tell(&mut self, fact: Fact) {
        match fact {
            Fact::Cluster(event) => self.cluster(event),
            Fact::Host(host) => self.host(&host),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_events_does_not_matter(
        history in prop::collection::vec(any_fact(), 0..40),
        order in prop::collection::vec(any::<Index>(), 12),
        allow_any_pod_address: bool,
        nexthop_objects: bool,
        masquerade: bool,
        encapsulation in any_encapsulation(),
    ) {
        let settings = Settings { allow_any_pod_address, nexthop_objects, encapsulation, ..mk_nft_settings(masquerade) };
        let mut cluster = Cluster::default();
        let mut lived = World::empty(settings.clone());
        for fact in history {
            cluster.follow(&fact);
            lived.tell(fact);
        }
        let mut fresh = World::empty(settings);
        for fact in cluster.facts(&order) {
            fresh.tell(fact);
        }
        prop_assert_eq!(&lived.wanted, &fresh.wanted);
        for set in NftSet::ALL.into_iter().filter(|set| set.has_ranges()) {
            let ranges: Vec<_> = lived.wanted.keys().filter_map(|key| match key {
                Key::NftElement { set: of, first, last } if *of == set => Some((first, last)),
                _ => None,
            }).collect();
            prop_assert!(ranges.is_sorted_by(|(_, last), (first, _)| last < first), "{}: {:?}", set, ranges);
        }
        prop_assert!(lived.planner.refusals().eq(fresh.planner.refusals()));
        prop_assert_eq!(lived.planner.missing(), fresh.planner.missing());
        prop_assert_eq!(lived.planner.peers(), fresh.planner.peers());
        prop_assert_eq!(lived.planner.pods(), fresh.planner.pods());
        for (family, way) in Family::ALL.into_iter().flat_map(|f| Way::ALL.map(|way| (f, way))) {
            let count = |world: &World| world.planner.peers_by(family, way);
            prop_assert_eq!(count(&lived), count(&fresh), "{} {}", family, way);
        }
    }
}

#[test]
fn an_event_costs_its_own_size_among_5000_nodes() {
    let mut world = World::ready_with(mk_nft_settings(true));
    for n in 0..5000u32 {
        world.node(mk_peer(n, "192.168"));
    }
    assert_eq!(world.planner.peers(), 5000);
    assert_eq!(
        world.node(mk_peer(4999, "192.168")).changes.len(),
        0,
        "nothing new"
    );
    assert_eq!(
        world.node(mk_peer(4999, "172.16")).changes.len(),
        3,
        "the FDB entry and the address of a node"
    );
    assert_eq!(
        world.node(mk_peer(5000, "192.168")).changes.len(),
        6,
        "a new peer"
    );
    assert_eq!(world.node_gone("node-5000").changes.len(), 6);
    assert_eq!(world.pod(mk_pod("web", 1, &["10.1.0.7"])).changes.len(), 6);
    let host = mk_host(&[("eth0", 9000, &["192.168.0.1/24", "fd00::1/64"])]);
    assert_eq!(world.host(&host).changes.len(), 2, "the MTU of the devices");
}

fn mk_peer(n: u32, underlay: &str) -> Node {
    let [_, _, high, low] = (n + 1000).to_be_bytes();
    let subnet = format!("100.{high}.{low}.0/24");
    mk_node(
        &format!("node-{n}"),
        200,
        &[&format!("{underlay}.{high}.{low}")],
        &[&subnet],
    )
}
