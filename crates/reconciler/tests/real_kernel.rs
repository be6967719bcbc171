//! What a fake kernel can't show: one object, one write; many objects; links that come and go; lost notifications.

mod node;

use std::collections::BTreeMap;
use std::time::Duration;

use node::{
    Agent, By, Meddle, Node, Peer, Pod, UNDERLAY, device, dump, in_netns, ip, name, net, own_node, veth,
};
use routelet_model::{
    ClusterEvent, Family, Key, Kind, MacAddr, NodeAddress, NodeAddressKind, Object, RouteTarget,
};
use routelet_netlink::setup::RouteSpec;
use routelet_netlink::{Operation, Verb};
use routelet_reconciler::{Cause, Report};

const BUFFER: usize = 8 << 20;

const PEER: Peer = Peer {
    underlay: 2,
    subnet: 1,
    v6: true,
};

/// An agent that is at rest, with a peer and a pod.
fn with_peer_and_pod(node: &mut Node) -> Agent {
    node.meddle(&Meddle::MakeVeth(1, true));
    let mut agent = Agent::start(true, BUFFER);
    agent.tell(Peer::event(1, Some(PEER)));
    agent.tell(Pod::event(1, Some(Pod { address: 5, v6: true })));
    agent.tell_synced();
    agent.converge(|_| false);
    agent.take_operations();
    agent
}

/// How often each verb was used on each kind, and how many operations failed.
fn tally(reports: &[Report]) -> (BTreeMap<(Kind, &'static str), u64>, usize) {
    let mut counts = BTreeMap::new();
    for (kind, verb) in Kind::ALL
        .into_iter()
        .flat_map(|kind| [(kind, Verb::Create), (kind, Verb::Replace), (kind, Verb::Delete)])
    {
        let count: u64 = reports
            .iter()
            .map(|report| report.operations.get(kind, verb))
            .sum();
        let verb = match verb {
            Verb::Create => "create",
            Verb::Replace | Verb::Supplant => "replace",
            Verb::Delete => "delete",
        };
        if count > 0 {
            counts.insert((kind, verb), count);
        }
    }
    (counts, reports.iter().map(|report| report.errors.len()).sum())
}

fn repairs(agent: &Agent) -> BTreeMap<Key, Cause> {
    let repairs = agent.reports.iter().flat_map(|report| &report.repairs);
    repairs.map(|repair| (repair.key, repair.cause)).collect()
}

/// Many peers with one pod subnet of the family each.
fn many_peers(count: u16, family: Family) -> impl Iterator<Item = ClusterEvent> {
    (0..count).map(move |number| {
        let [high, low] = number.to_be_bytes();
        let mut node = own_node(0);
        node.name = format!("peer-{family}-{number}");
        node.addresses = vec![
            NodeAddress {
                kind: NodeAddressKind::Internal,
                address: ip(&format!("192.0.{}.{low}", high + 10)),
            },
            NodeAddress {
                kind: NodeAddressKind::Internal,
                address: ip(&format!("2001:db8::{:x}", u32::from(number) + 16)),
            },
        ];
        node.pod_subnets = vec![match family {
            Family::V4 => net(&format!("10.{}.{low}.0/24", high + 1)),
            Family::V6 => net(&format!("fd01:{number:x}::/64")),
        }];
        ClusterEvent::NodeApplied(node)
    })
}

#[test]
fn each_object_is_written_once_and_no_echo_brings_more() {
    in_netns(|| {
        let mut node = Node::new();
        node.meddle(&Meddle::MakeVeth(1, true));
        let mut agent = Agent::start(true, BUFFER);
        agent.tell(Pod::event(1, Some(Pod { address: 5, v6: true })));
        for family in Family::ALL {
            many_peers(100, family).for_each(|event| agent.tell(event));
        }
        agent.tell_synced();
        agent.converge(|_| false);
        let (mut counts, errors) = tally(&agent.reports);
        // Settings are written only where they differ from what the kernel begins with.
        counts.retain(|(kind, _), _| *kind != Kind::Sysctl);
        let mut expected: BTreeMap<_, u64> = BTreeMap::new();
        for key in agent.wanted.keys() {
            let made_by_another = matches!(key, Key::Link(link) if *link == veth(1));
            if key.kind() != Kind::Sysctl && !made_by_another {
                let verb = match key.kind() {
                    Kind::ChecksumOffload => "replace",
                    _ => "create",
                };
                *expected.entry((key.kind(), verb)).or_default() += 1;
            }
        }
        assert_eq!((counts, errors), (expected, 0));
        assert_eq!(repairs(&agent), BTreeMap::new());
    });
}

#[test]
fn nothing_is_remembered_of_what_is_gone() {
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = with_peer_and_pod(&mut node);
        // This pod's veth never comes.
        agent.tell(Pod::event(2, Some(Pod { address: 6, v6: true })));
        agent.settle();
        for pod in [1, 2] {
            agent.tell(Pod::event(pod, None));
        }
        node.meddle(&Meddle::DeleteVeth(1));
        agent.tell(Peer::event(1, None));
        agent.settle();
        agent.audit();
        let memory = format!("{:?}", agent.reconciler);
        for gone in [
            veth(1).to_string(),
            veth(2).to_string(),
            "10.0.1.0".to_owned(),
            "fd00:1::".to_owned(),
        ] {
            assert!(!memory.contains(&gone), "{gone} is still in {memory}");
        }
    });
}

#[test]
fn a_device_that_someone_bounces_is_filled_again() {
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = with_peer_and_pod(&mut node);
        for family in Family::ALL {
            for steps in 0..4 {
                node.meddle(&Meddle::BounceDevice(family));
                for _ in 0..steps {
                    agent.step();
                }
                node.meddle(&Meddle::SetDevice(family, false));
                agent.step();
                node.meddle(&Meddle::SetDevice(family, true));
                agent.converge(|_| false);
            }
        }
    });
}

#[test]
fn a_device_that_someone_makes_anew_with_other_parameters_is_put_right() {
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = with_peer_and_pod(&mut node);
        let Object::Link(wanted) = agent.wanted[&Key::Link(device(Family::V4))].clone() else {
            panic!("no device is wanted")
        };
        for change in 0..3 {
            let mut link = wanted.clone();
            match (&mut link.kind, change) {
                (routelet_model::LinkKind::Vxlan(vxlan), 0) => vxlan.vni = 7,
                (routelet_model::LinkKind::Vxlan(vxlan), 1) => vxlan.port = 8472,
                _ => link.mtu = Some(1300),
            }
            node.meddle(&Meddle::DeleteDevice(Family::V4));
            let create = Operation {
                verb: Verb::Create,
                key: Key::Link(device(Family::V4)),
                object: Object::Link(link),
            };
            node.by(By::Twin, &[create]);
            agent.converge(|_| false);
            let repaired = repairs(&agent);
            assert!(
                repaired.contains_key(&Key::route(net("10.0.1.0/24"))),
                "{repaired:?}"
            );
            agent.take_operations();
        }
    });
}

#[test]
fn nexthops_of_5000_peers_are_flushed_and_all_is_put_back_with_one_write_each() {
    const PEERS: u16 = 5000;
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = Agent::start(true, BUFFER);
        for family in Family::ALL {
            many_peers(PEERS / 2, family).for_each(|event| agent.tell(event));
        }
        agent.tell_synced();
        agent.converge(|_| false);
        agent.take_operations();
        let nexthops: Vec<Operation> = dump(&mut node.twin)
            .into_iter()
            .filter(|(key, _)| key.kind() == Kind::Nexthop)
            .map(|(key, object)| Operation {
                verb: Verb::Delete,
                key,
                object,
            })
            .collect();
        assert_eq!(nexthops.len(), usize::from(PEERS));
        node.by(By::Twin, &nexthops);
        agent.converge(|_| false);
        let expected = [(Kind::Nexthop, "create"), (Kind::Route, "create")].map(|of| (of, u64::from(PEERS)));
        assert_eq!(tally(&agent.reports), (BTreeMap::from(expected), 0));
        let lost: u32 = agent.reports.iter().map(|report| report.lost).sum();
        assert_eq!(lost, 0, "notifications fit the buffer");
    });
}

#[test]
fn an_overrun_of_the_buffer_ends_well() {
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = Agent::start(true, 4096);
        many_peers(300, Family::V4).for_each(|event| agent.tell(event));
        agent.tell_synced();
        agent.converge(|_| false);
        agent.take_operations();
        let routes: Vec<Operation> = dump(&mut node.twin)
            .into_iter()
            .filter(|(key, _)| matches!(key.kind(), Kind::Route | Kind::Fdb | Kind::Neighbour))
            .map(|(key, object)| Operation {
                verb: Verb::Delete,
                key,
                object,
            })
            .collect();
        node.by(By::Twin, &routes);
        agent.settle();
        let lost: u32 = agent.reports.iter().map(|report| report.lost).sum();
        assert!(lost > 0, "the buffer holds them all");
        agent.converge(|_| false);
    });
}

#[test]
fn a_peer_that_was_reached_over_the_underlay_moves_into_the_tunnel() {
    in_netns(|| {
        let mut node = Node::new();
        for (destination, gateway) in [
            ("10.0.1.0/24", "192.0.2.2"),
            ("fd00:1::/64", "2001:db8::2"),
            // All pods of the cluster, for whom this node knows no better road.
            ("10.0.0.0/8", "192.0.2.3"),
            ("fd00::/16", "2001:db8::3"),
        ] {
            let route = RouteSpec::via(net(destination), ip(gateway), Some(UNDERLAY));
            node.setup.add_route(route.protocol(node::FOREIGN)).unwrap();
        }
        let mut agent = Agent::start(true, BUFFER);
        agent.tell(Peer::event(1, Some(PEER)));
        agent.tell_synced();
        agent.converge(|_| false);
        let refused: Vec<_> = agent.reports.iter().flat_map(|report| &report.refused).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let others = node.others();
        assert!(
            others.contains_key(&Key::route(net("10.0.0.0/8"))),
            "what is not ours stays"
        );
    });
}

#[test]
fn what_depends_on_the_last_address_of_a_device_comes_back_with_it() {
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = Agent::start(false, BUFFER);
        agent.tell(Peer::event(1, Some(PEER)));
        agent.tell_synced();
        agent.converge(|_| false);
        let link = device(Family::V4);
        let address = net("10.0.0.0/32");
        node.setup.delete_address(link.as_str(), address).unwrap();
        agent.converge(|_| false);
        // The MAC address of a device takes its neighbours along.
        node.setup.set_mac(link.as_str(), MacAddr([2; 6])).unwrap();
        agent.converge(|_| false);
        assert!(repairs(&agent).contains_key(&Key::Address { link, address }));
    });
}

#[test]
fn devices_whose_parent_was_deleted_are_back_as_soon_as_it_is() {
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = with_peer_and_pod(&mut node);
        node.meddle(&Meddle::DeleteUnderlay);
        agent.pass(Duration::from_secs(600));
        let tries: usize = agent.reports.iter().map(|report| report.errors.len()).sum();
        assert!(tries < 120, "{tries} tries of two devices in ten minutes");
        assert!(agent.reports.iter().all(|report| report.fights.is_empty()));
        node.meddle(&Meddle::MakeUnderlay);
        // No time passes.
        agent.pass(Duration::ZERO);
        assert_eq!(agent.faults(|_| false), [""; 0]);
    });
}

#[test]
fn a_parent_with_another_name_costs_its_devices_nothing() {
    in_netns(|| {
        // Kernels before 6.2 rename only what is down, and that alone must not take the underlay's addresses.
        std::fs::write("/proc/sys/net/ipv6/conf/all/keep_addr_on_down", "1").unwrap();
        let mut node = Node::new();
        let mut agent = with_peer_and_pod(&mut node);
        agent.take_operations();
        let before = Family::ALL.map(|family| node.setup.link(device(family).as_str()).unwrap());
        node.meddle(&Meddle::RenameUnderlay(UNDERLAY, "lan0"));
        agent.settle();
        assert_eq!(agent.faults(|_| false), [""; 0]);
        let after = Family::ALL.map(|family| node.setup.link(device(family).as_str()).unwrap());
        assert_eq!(before, after, "the devices are the same ones");
        assert_eq!(agent.take_operations(), 0);
    });
}

#[test]
fn what_cannot_be_on_a_small_underlay_is_not_tried_in_a_loop() {
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = with_peer_and_pod(&mut node);
        node.meddle(&Meddle::UnderlayMtu(1300));
        agent.pass(Duration::from_secs(600));
        let tries = agent.take_operations();
        assert!(tries < 120, "{tries} operations in ten minutes");
        assert!(!agent.reconciler.is_in_doubt());
        assert!(
            node.setup.link(device(Family::V4).as_str()).unwrap().is_some(),
            "the other family goes on"
        );
        node.meddle(&Meddle::UnderlayMtu(1500));
        agent.pass(Duration::ZERO);
        assert_eq!(agent.faults(|_| false), [""; 0]);
    });
}

#[test]
fn a_device_without_carrier_is_filled_again_when_it_has_one() {
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = with_peer_and_pod(&mut node);
        for family in Family::ALL {
            node.setup.set_protodown(device(family).as_str(), true).unwrap();
            agent.pass(Duration::from_secs(1));
            node.setup.set_protodown(device(family).as_str(), false).unwrap();
            agent.converge(|_| false);
        }
    });
}

/// The kernel takes two VXLAN devices of one VNI and port for one where their underlays are of one family.
#[test]
fn both_families_of_pods_over_an_underlay_of_one() {
    in_netns(|| {
        let mut node = Node::new();
        node.setup
            .delete_address(UNDERLAY, net("2001:db8::1/64"))
            .unwrap();
        let mut agent = Agent::start(true, BUFFER);
        let mut own = own_node(0);
        own.addresses.retain(|address| address.address.is_ipv4());
        agent.tell(ClusterEvent::NodeApplied(own));
        let ClusterEvent::NodeApplied(mut peer) = Peer::event(1, Some(PEER)) else {
            panic!()
        };
        peer.addresses.retain(|address| address.address.is_ipv4());
        agent.tell(ClusterEvent::NodeApplied(peer));
        agent.tell_synced();
        agent.converge(|_| false);
        for family in Family::ALL {
            assert!(
                node.setup.link(device(family).as_str()).unwrap().is_some(),
                "{family}"
            );
        }
    });
}

/// `ip route prepend` and `append`: the first route hides the others, and a replacement hits one of them.
#[test]
fn routes_that_someone_puts_beside_ours_go_at_once() {
    in_netns(|| {
        let mut node = Node::new();
        let mut agent = with_peer_and_pod(&mut node);
        for destination in ["10.0.1.0/24", "10.0.0.5/32", "fd00:1::/64", "fd00:0::5/128"] {
            for before in [true, false] {
                for (by, blackhole) in [
                    (By::Twin, true),
                    (By::Twin, false),
                    (By::Foreign, true),
                    (By::Foreign, false),
                ] {
                    let key = Key::route(net(destination));
                    node.meddle(&Meddle::Beside {
                        by,
                        before,
                        key,
                        blackhole,
                    });
                    agent.settle();
                    assert_eq!(
                        agent.faults(|_| false),
                        [""; 0],
                        "{key} before: {before} {by:?} {blackhole}"
                    );
                }
            }
        }
        agent.take_operations();
        agent.audit();
        assert_eq!(agent.take_operations(), 0);
    });
}

/// The CNI plugin makes a pod's route before the API tells of the pod's address, and someone else may come in between.
#[test]
fn routes_that_someone_puts_beside_a_pods_of_which_the_api_has_not_told_yet_go_as_soon_as_it_does() {
    let start = || {
        let mut agent = Agent::start(true, BUFFER);
        agent.tell_synced();
        agent.settle();
        agent
    };
    for (destination, gateway) in [("10.0.0.5/32", "192.0.2.9"), ("fd00:0::5/128", "2001:db8::9")] {
        let key = Key::route(net(destination));
        let gateway = RouteTarget::Gateway {
            link: name(UNDERLAY),
            gateway: ip(gateway),
        };
        let beside = |before| Meddle::Beside {
            by: By::Foreign,
            before,
            key,
            blackhole: false,
        };
        let replacement = Meddle::Write(By::Foreign, key, Object::Route(gateway));
        for meddle in [beside(true), beside(false), replacement] {
            for is_there_first in [false, true] {
                in_netns(|| {
                    let mut node = Node::new();
                    node.meddle(&Meddle::MakeVeth(1, true));
                    let plugins = Object::Route(RouteTarget::Link(veth(1)));
                    let mut early = (!is_there_first).then(start);
                    node.meddle(&Meddle::Write(By::Twin, key, plugins));
                    early.iter_mut().for_each(Agent::settle);
                    node.meddle(&meddle);
                    let mut agent = early.unwrap_or_else(start);
                    agent.settle();
                    agent.tell(Pod::event(1, Some(Pod { address: 5, v6: true })));
                    agent.settle();
                    assert_eq!(
                        agent.faults(|_| false),
                        [""; 0],
                        "{meddle:?} before the agent: {is_there_first}"
                    );
                    if !is_there_first {
                        assert_eq!(repairs(&agent).get(&key), Some(&Cause::Changed), "{meddle:?}");
                    }
                    agent.take_operations();
                    agent.audit();
                    assert_eq!(agent.take_operations(), 0);
                });
            }
        }
    }
}
