//! From any state of a real kernel to any wanted one, and back to rest, whoever does what meanwhile.
//!
//! PROPTEST_CASES says how many cases are tried.

mod node;

use node::cluster::underlay_address;
use node::meddle::Flaws;
use node::{
    Agent, By, Meddle, Node, Peer, Pod, device, ip, name, net, own_node, settings, veth, with_programs,
};
use proptest::prelude::*;
use routelet_model::{
    ClusterEvent, Family, Key, Kind, MacAddr, NftRules, NftSet, Object, PerFamily, RouteTarget, Sysctl,
    SysctlName, host_prefix, vtep_mac,
};
use routelet_planner::{Encapsulation, Settings};

/// Size of the receive buffer: enough for any burst here.
const BUFFER: usize = 4 << 20;

/// What may happen while the agent runs.
#[derive(Debug, Clone)]
enum Event {
    Peer(u8, Option<Peer>),
    Pod(u8, Option<Pod>),
    /// This node gets other pod subnets.
    OwnSubnet(u8),
    Meddle(Meddle),
    /// The agent does a part of its work.
    Steps(u8),
    /// The agent does all of its work.
    Settle,
    /// The agent compares everything.
    Audit,
}

fn peer() -> impl Strategy<Value = Peer> {
    (2u8..5, 0u8..4, any::<bool>()).prop_map(|(underlay, subnet, v6)| Peer { underlay, subnet, v6 })
}

fn pod() -> impl Strategy<Value = Pod> {
    (5u8..8, any::<bool>()).prop_map(|(address, v6)| Pod { address, v6 })
}

fn cluster_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1u8..4, proptest::option::weighted(0.8, peer())).prop_map(|(n, peer)| Event::Peer(n, peer)),
        (1u8..4, proptest::option::weighted(0.8, pod())).prop_map(|(n, pod)| Event::Pod(n, pod)),
        (0u8..2).prop_map(Event::OwnSubnet),
    ]
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn flaws() -> impl Strategy<Value = Flaws> {
    let flaw = || proptest::bool::weighted(0.15);
    (flaw(), flaw(), flaw(), flaw(), flaw(), flaw(), flaw(), flaw()).prop_map(
        |(vni, port, local, parent, learning, mac, mtu, down)| Flaws {
            vni,
            port,
            local,
            parent,
            learning,
            mac,
            mtu,
            down,
        },
    )
}

/// Of a VXLAN device. Not all can be given to one that is there.
fn option() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("ttl 3"), Just("tos 4"), Just("df set"), Just("maxaddress 1")]
}

fn mac() -> impl Strategy<Value = (u8, Family, MacAddr)> {
    (0u8..4, family()).prop_map(|(n, family)| (n, family, vtep_mac(&format!("node-{n}"), family)))
}

/// Tunnel address of the subnet of a number; what is a peer's now may be this node's later.
fn gateway(family: Family, subnet: u8) -> std::net::IpAddr {
    match family {
        Family::V4 => ip(&format!("10.0.{subnet}.0")),
        Family::V6 => ip(&format!("fd00:{subnet}::")),
    }
}

fn address() -> impl Strategy<Value = (Key, Object)> {
    (family(), 0u8..3, any::<bool>()).prop_map(|(family, subnet, alone)| {
        let address = host_prefix(gateway(family, subnet));
        let address = match (alone, family) {
            (true, _) => address,
            (false, Family::V4) => net(&format!("{}/24", address.addr())),
            (false, Family::V6) => net(&format!("{}/64", address.addr())),
        };
        let link = device(family);
        (Key::Address { link, address }, Object::Address)
    })
}

fn fdb() -> impl Strategy<Value = (Key, Object)> {
    (mac(), 2u8..5).prop_map(|((_, family, mac), last)| {
        let link = device(family);
        (
            Key::Fdb { link, mac },
            Object::Fdb(underlay_address(family, last)),
        )
    })
}

fn neighbour() -> impl Strategy<Value = (Key, Object)> {
    (mac(), 0u8..4).prop_map(|((_, family, mac), subnet)| {
        let (link, address) = (device(family), gateway(family, subnet));
        (Key::Neighbour { link, address }, Object::Neighbour(mac))
    })
}

fn nexthop() -> impl Strategy<Value = (Key, Object)> {
    (family(), 0u8..4, proptest::bool::weighted(0.8)).prop_map(|(family, subnet, ours)| {
        let link = if ours {
            device(family)
        } else {
            name(node::UNDERLAY)
        };
        let gateway = gateway(family, subnet);
        (Key::Nexthop { link, gateway }, Object::Nexthop)
    })
}

/// A route that may be ours: anywhere in the pod subnets, to anywhere.
fn route() -> impl Strategy<Value = (Key, Object)> {
    let metric = prop_oneof![3 => Just(None), 1 => Just(Some(50)), 1 => Just(Some(2000))];
    (family(), 0u8..4, 0u8..4, metric, 0u8..5, 0u8..4).prop_map(|(family, subnet, pod, metric, hop, to)| {
        let destination = match (subnet, pod, family) {
            (0, 1.., Family::V4) => net(&format!("10.0.0.{}/32", pod + 4)),
            (0, 1.., Family::V6) => net(&format!("fd00:0::{}/128", pod + 4)),
            (_, _, Family::V4) => net(&format!("10.0.{subnet}.0/24")),
            (_, _, Family::V6) => net(&format!("fd00:{subnet}::/64")),
        };
        let (link, gateway) = (device(family), gateway(family, to));
        let target = match hop {
            0 => RouteTarget::Link(veth(to.max(1))),
            1 => RouteTarget::Nexthop { link, gateway },
            2 => RouteTarget::Gateway { link, gateway },
            3 => RouteTarget::Gateway {
                link: name(node::UNDERLAY),
                gateway: underlay_address(family, to + 2),
            },
            _ => RouteTarget::Blackhole,
        };
        let key = match (Key::route(destination), metric) {
            (Key::Route { destination, .. }, Some(metric)) => Key::Route { destination, metric },
            (key, _) => key,
        };
        (key, Object::Route(target))
    })
}

/// A route as the CNI plugin makes it, be it before the API tells of the pod or instead.
fn plugins_route() -> impl Strategy<Value = (Key, Object)> {
    (family(), 5u8..8, 1u8..4).prop_map(|(family, address, pod)| {
        let destination = match family {
            Family::V4 => net(&format!("10.0.0.{address}/32")),
            Family::V6 => net(&format!("fd00:0::{address}/128")),
        };
        (
            Key::route(destination),
            Object::Route(RouteTarget::Link(veth(pod))),
        )
    })
}

/// A route of someone else, on what is not ours.
fn foreign_route() -> impl Strategy<Value = (Key, Object)> {
    (route(), 2u8..5).prop_map(|((key, object), last)| {
        let Key::Route { destination, .. } = key else {
            return (key, object);
        };
        let target = match object {
            Object::Route(RouteTarget::Blackhole) => RouteTarget::Blackhole,
            _ => RouteTarget::Gateway {
                link: name(node::UNDERLAY),
                gateway: underlay_address(
                    if destination.addr().is_ipv4() {
                        Family::V4
                    } else {
                        Family::V6
                    },
                    last,
                ),
            },
        };
        (key, Object::Route(target))
    })
}

fn foreign_nexthop() -> impl Strategy<Value = (Key, Object)> {
    (family(), 2u8..5).prop_map(|(family, last)| {
        let (link, gateway) = (name(node::UNDERLAY), underlay_address(family, last));
        (Key::Nexthop { link, gateway }, Object::Nexthop)
    })
}

fn setting() -> impl Strategy<Value = Meddle> {
    let host = prop_oneof![
        Just(SysctlName::Ipv4IpForward),
        Just(SysctlName::Ipv6AllForwarding)
    ];
    let link = prop_oneof![
        Just(SysctlName::Ipv4Forwarding),
        Just(SysctlName::Ipv4ProxyArp),
        Just(SysctlName::Ipv4RpFilter),
        Just(SysctlName::Ipv4ProxyDelay),
        Just(SysctlName::Ipv6Forwarding),
        Just(SysctlName::Ipv6ProxyNdp),
        Just(SysctlName::Ipv6AcceptRa),
    ];
    prop_oneof![
        1 => (host, 0u32..2).prop_map(|(name, value)| Meddle::WriteSetting(Sysctl::host(name), value)),
        3 => (link, 1u8..4, 0u32..2)
            .prop_map(|(name, pod, value)| Meddle::WriteSetting(Sysctl::link(name, veth(pod)), value)),
    ]
}

/// Anything in the nft table: elements that may be wanted, around wanted ones or neither; other rules; a table that
/// is empty again.
fn nft() -> impl Strategy<Value = (Key, Object)> {
    let prefix = prop_oneof![3 => Just((24, 64)), 1 => Just((20, 32)), 1 => Just((26, 80))];
    let set = prop_oneof![Just(NftSet::Pods), Just(NftSet::OwnPods), Just(NftSet::Except)];
    let range = (set, family(), 0u8..5, prefix).prop_map(|(set, family, subnet, (v4, v6))| {
        let length = if family == Family::V4 { v4 } else { v6 };
        let net = net(&format!("{}/{length}", gateway(family, subnet)));
        (Key::nft_element(set, net.trunc()), Object::NftElement)
    });
    let node = (family(), 1u8..6).prop_map(|(family, last)| {
        let address = host_prefix(underlay_address(family, last));
        (Key::nft_element(NftSet::Nodes, address), Object::NftElement)
    });
    let rules = (any::<bool>(), any::<bool>()).prop_map(|(masquerade, ipip)| {
        let rules = NftRules {
            interface_prefix: name("cali"),
            vnis: PerFamily { v4: 4096, v6: 4096 },
            port: 4789,
            masquerade,
            vxlan: !ipip,
            ipip,
            pod_prefix_lens: PerFamily {
                v4: [20, 24, 26].into_iter().collect(),
                v6: [32, 64, 80].into_iter().collect(),
            },
        };
        (Key::NftRules, Object::NftRules(rules))
    });
    let table = Just((Key::NftTable, Object::NftTable));
    prop_oneof![4 => range, 3 => node, 2 => rules, 1 => table]
}

fn meddle() -> impl Strategy<Value = Meddle> {
    let ours = prop_oneof![
        2 => address(), 3 => nft(), 2 => fdb(), 2 => neighbour(), 2 => nexthop(), 4 => route()
    ];
    let ours = ours.boxed();
    let foreign = prop_oneof![3 => foreign_route(), 1 => foreign_nexthop()].boxed();
    let odd_mac = Just(MacAddr([2, 0, 0, 0, 0, 9]));
    prop_oneof![
        2 => (family(), flaws()).prop_map(|(family, flaws)| Meddle::MakeDevice(family, flaws)),
        1 => (family(), option()).prop_map(|(family, option)| Meddle::MakeOddDevice(family, option)),
        1 => (family(), option()).prop_map(|(family, option)| Meddle::DeviceOption(family, option)),
        1 => (family(), any::<bool>()).prop_map(|(family, up)| Meddle::SetDevice(family, up)),
        1 => family().prop_map(Meddle::BounceDevice),
        1 => (family(), 1280u32..1500).prop_map(|(family, mtu)| Meddle::DeviceMtu(family, mtu)),
        1 => (family(), odd_mac).prop_map(|(family, mac)| Meddle::DeviceMac(family, mac)),
        1 => family().prop_map(Meddle::DeleteDevice),
        1 => prop_oneof![family().prop_map(device), (1u8..4).prop_map(veth)].prop_map(Meddle::Enslave),
        3 => (1u8..4, proptest::bool::weighted(0.7)).prop_map(|(pod, right)| Meddle::MakeVeth(pod, right)),
        1 => (1u8..4, any::<bool>()).prop_map(|(pod, up)| Meddle::SetVeth(pod, up)),
        1 => (1u8..4, odd_mac).prop_map(|(pod, mac)| Meddle::VethMac(pod, mac)),
        1 => (1u8..4).prop_map(Meddle::DeleteVeth),
        10 => ours.clone().prop_map(|(key, object)| Meddle::Write(By::Twin, key, object)),
        6 => ours.prop_map(|(key, _)| Meddle::Delete(By::Twin, key)),
        4 => foreign.clone().prop_map(|(key, object)| Meddle::Write(By::Foreign, key, object)),
        1 => foreign.prop_map(|(key, _)| Meddle::Delete(By::Foreign, key)),
        3 => (route(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|((key, _), twin, before, blackhole)| {
            let by = if twin { By::Twin } else { By::Foreign };
            Meddle::Beside { by, before, key, blackhole }
        }),
        2 => plugins_route().prop_map(|(key, object)| Meddle::Write(By::Twin, key, object)),
        1 => (plugins_route(), any::<bool>()).prop_map(|((key, _), before)| {
            Meddle::Beside { by: By::Foreign, before, key, blackhole: false }
        }),
        1 => nexthop().prop_map(|(key, _)| Meddle::SecondNexthop(key)),
        1 => fdb().prop_filter_map("an FDB entry", |(key, object)| match object {
            Object::Fdb(remote) => Some(Meddle::FdbToNexthop(key, remote)),
            _ => None,
        }),
        2 => setting(),
        1 => (family(), any::<bool>()).prop_map(|(family, on)| {
            let key = Key::ChecksumOffload(device(family));
            Meddle::Write(By::Twin, key, Object::ChecksumOffload(on))
        }),
        1 => prop_oneof![Just(1400u32), Just(1500)].prop_map(Meddle::UnderlayMtu),
    ]
}

/// In each mode that this kernel is sure to have.
fn agent_settings() -> impl Strategy<Value = Settings> {
    let encapsulation = prop_oneof![
        3 => Just(Encapsulation::Vxlan),
        2 => Just(Encapsulation::VxlanCrossSubnet),
        1 => Just(Encapsulation::None),
    ];
    (encapsulation, proptest::bool::weighted(0.8)).prop_map(|(encapsulation, nexthop_objects)| Settings {
        encapsulation,
        ..settings(nexthop_objects)
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => cluster_event(),
        8 => meddle().prop_map(Event::Meddle),
        2 => (1u8..4).prop_map(Event::Steps),
        2 => Just(Event::Settle),
        1 => Just(Event::Audit),
    ]
}

/// Settings of which the kernel does not tell: only a comparison finds them.
fn is_silent(key: &Key) -> bool {
    let Key::Sysctl(sysctl) = key else { return false };
    matches!(sysctl.name, SysctlName::Ipv4ProxyDelay | SysctlName::Ipv6AcceptRa)
}

/// Lets the agent work undisturbed, to see that it leaves alone what is not ours. What stands in the place of
/// one of ours is replaced, save of a blackhole.
fn undisturbed(node: &mut Node, agent: &mut Agent, work: impl FnOnce(&mut Agent)) {
    let mut before = node.others();
    let replaces = |agent: &Agent, key: &Key| {
        let wanted = agent.wanted.get(key);
        key.kind() != Kind::Nexthop
            && wanted.is_some_and(|wanted| *wanted != Object::Route(RouteTarget::Blackhole))
    };
    before.retain(|key, _| !replaces(agent, key));
    work(agent);
    let after = node.others();
    before.retain(|key, _| !replaces(agent, key));
    for (key, object) in before {
        assert_eq!(after.get(&key), Some(&object), "{key} is not ours");
    }
}

fn happen(node: &mut Node, agent: &mut Agent, event: &Event) {
    match event {
        Event::Peer(number, peer) => agent.tell(Peer::event(*number, *peer)),
        Event::Pod(number, pod) => agent.tell(Pod::event(*number, *pod)),
        Event::OwnSubnet(subnet) => agent.tell(ClusterEvent::NodeApplied(own_node(*subnet))),
        Event::Meddle(meddle) => node.meddle(meddle),
        Event::Steps(count) => undisturbed(node, agent, |agent| {
            for _ in 0..*count {
                agent.step();
            }
        }),
        Event::Settle => undisturbed(node, agent, Agent::settle),
        Event::Audit => undisturbed(node, agent, Agent::audit),
    }
}

/// At rest: an audit finds nothing to do.
fn assert_rest(agent: &mut Agent) {
    agent.take_operations();
    agent.audit();
    let reports = std::mem::take(&mut agent.reports);
    let batches: usize = reports.iter().flat_map(|report| &report.batches).sum();
    assert_eq!(batches, 0, "a second look writes: {reports:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_reconcile_reaches_the_wanted_state(
        found in proptest::collection::vec(meddle(), 0..40),
        cluster in proptest::collection::vec(cluster_event(), 0..12),
        settings in agent_settings(),
    ) {
        with_programs(move || {
            let mut node = Node::new();
            for meddle in &found {
                node.meddle(meddle);
            }
            let mut agent = Agent::start_with(settings.clone(), BUFFER);
            for event in &cluster {
                happen(&mut node, &mut agent, event);
            }
            agent.tell_synced();
            undisturbed(&mut node, &mut agent, |agent| agent.converge(|_| false));
            assert_rest(&mut agent);
        });
    }

    #[test]
    fn whatever_happens_the_wanted_state_is_reached(
        events in proptest::collection::vec(event(), 0..40),
        settings in agent_settings(),
    ) {
        with_programs(move || {
            let mut node = Node::new();
            let mut agent = Agent::start_with(settings.clone(), BUFFER);
            agent.tell_synced();
            for event in &events {
                happen(&mut node, &mut agent, event);
            }
            undisturbed(&mut node, &mut agent, |agent| agent.converge(is_silent));
            agent.audit();
            assert_eq!(agent.faults(|_| false), Vec::<String>::new());
            assert_rest(&mut agent);
        });
    }
}
