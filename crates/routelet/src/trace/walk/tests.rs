//! What is judged from what was observed alone: what the agent knows against what the kernel holds. What the kernel alone
//! shows is tested on real ones, in tests/trace.

mod tunnels;

use std::collections::BTreeMap;

use routelet_model::{
    HOST_VETH_MAC, Key, Link, LinkKind, MacAddr, NftRules, NftSet, Object, PerFamily, PodId, RouteTarget,
    Vxlan,
};
use routelet_netlink::fib::FibRoute;
use routelet_netlink::setup::LinkState;

use super::super::hop::Verdict;
use super::super::observed::{From, Known, KnownPeer, KnownPod, To};
use super::*;

const VETH: &str = "cali0123456789a";
const DEVICE: &str = "vxlan.calico";
const PEER_MAC: MacAddr = MacAddr([0x66, 0, 0, 0, 0, 2]);

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn link(index: u32, text: &str, mtu: u32) -> LinkState {
    LinkState {
        index,
        name: Some(name(text)),
        mac: Some(HOST_VETH_MAC),
        mtu,
        up: true,
        running: true,
        master: None,
        alias: None,
    }
}

fn route(destination: &str, gateway: Option<&str>, link: &str) -> FibRoute {
    FibRoute {
        destination: destination.parse().unwrap(),
        table: MAIN_TABLE,
        protocol: 80,
        local: false,
        link: Some(name(link)),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        nexthop: None,
    }
}

fn web() -> PodId {
    PodId {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
    }
}

/// What the agent knows: the pod default/web with 10.244.1.2, and node-2 with 10.244.2.0/24.
fn known() -> Known {
    Known {
        own_subnets: vec!["10.244.1.0/24".parse().unwrap()],
        pods: vec![KnownPod {
            id: web(),
            veth: Some(name(VETH)),
            addresses: vec![("10.244.1.2".parse().unwrap(), None)],
        }],
        peers: vec![KnownPeer {
            name: "node-2".to_owned(),
            subnets: vec!["10.244.2.0/24".parse().unwrap()],
            underlay: Some("172.30.0.3".parse().unwrap()),
            vtep_mac: Some(PEER_MAC),
            way: "vxlan".to_owned(),
            device: Some(name(DEVICE)),
            refusals: Vec::new(),
        }],
    }
}

/// A whole way from default/web to 10.244.2.9 on node-2.
fn observed() -> Observed {
    let device = Link {
        kind: LinkKind::Vxlan(Vxlan {
            vni: 4096,
            port: 4789,
            local: "172.30.0.2".parse().unwrap(),
            parent: Some(name("eth0")),
            learning: false,
            odd: false,
        }),
        mac: None,
        mtu: Some(1450),
        up: true,
        running: true,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    };
    let rules = NftRules {
        interface_prefix: name("cali"),
        vnis: PerFamily { v4: 4096, v6: 4096 },
        port: 4789,
        vxlan: true,
        masquerade: true,
        ipip: false,
        pod_prefix_lens: PerFamily {
            v4: [24].into_iter().collect(),
            ..PerFamily::default()
        },
    };
    let (link_name, gateway) = (name(DEVICE), "10.244.2.0".parse().unwrap());
    let target = RouteTarget::Nexthop {
        link: link_name,
        gateway,
    };
    let host = |name| Key::Sysctl(Sysctl::host(name));
    let tables = BTreeMap::from([
        (host(SysctlName::Ipv4IpForward), Object::Sysctl(1)),
        (Key::Link(link_name), Object::Link(Box::new(device))),
        (
            Key::Neighbour {
                link: link_name,
                address: gateway,
            },
            Object::Neighbour(PEER_MAC),
        ),
        (
            Key::Fdb {
                link: link_name,
                mac: PEER_MAC,
            },
            Object::Fdb("172.30.0.3".parse().unwrap()),
        ),
        (
            Key::Nexthop {
                link: link_name,
                gateway,
            },
            Object::Nexthop,
        ),
        (
            Key::route("10.244.2.0/24".parse().unwrap()),
            Object::Route(target),
        ),
        (Key::NftTable, Object::NftTable),
        (Key::NftRules, Object::NftRules(rules)),
        element(NftSet::Nodes, "172.30.0.3/32"),
        element(NftSet::Pods, "10.244.0.0/16"),
        element(NftSet::OwnPods, "10.244.1.0/24"),
    ]);
    Observed {
        from: From {
            pod: Some(web()),
            address: Some("10.244.1.2".parse().unwrap()),
            veth: Some(name(VETH)),
        },
        to: To {
            pod: None,
            node: None,
            address: "10.244.2.9".parse().unwrap(),
            veth: None,
        },
        known: Some(known()),
        protocol: 80,
        devices: vec![name(DEVICE)],
        vxlan_device: name(DEVICE),
        masquerade: true,
        tables,
        links: vec![link(2, "eth0", 1500), link(3, DEVICE, 1450), link(4, VETH, 1450)],
        addresses: Vec::new(),
        neighbours: Vec::new(),
        filters: BTreeMap::new(),
        to_pod: Some(Decision::Route(route("10.244.1.2/32", None, VETH))),
        there: Some(Decision::Route(route(
            "10.244.2.0/24",
            Some("10.244.2.0"),
            DEVICE,
        ))),
        underlay: Some(Decision::Route(route("172.30.0.0/16", None, "eth0"))),
        back: Some((link_name, Decision::Route(route("10.244.1.2/32", None, VETH)))),
        dropping: Vec::new(),
        against: Vec::new(),
    }
}

fn element(set: NftSet, net: &str) -> (Key, Object) {
    (Key::nft_element(set, net.parse().unwrap()), Object::NftElement)
}

fn peer(observed: &mut Observed) -> &mut KnownPeer {
    &mut observed.known.as_mut().unwrap().peers[0]
}

/// Asserts that what `change` does breaks the way at the place first, with these parts of finding and remedy.
fn breaks(change: impl FnOnce(&mut Observed), place: Place, finding: &str, remedy: &str) {
    let mut observed = observed();
    change(&mut observed);
    let hops = walk(&observed);
    let first = hops.iter().find(|hop| hop.is_broken());
    let first = first.unwrap_or_else(|| panic!("not broken: {hops:#?}"));
    assert_eq!(first.place, place, "{hops:#?}");
    assert!(
        first.finding.contains(finding),
        "{finding:?} is not in {first:#?}"
    );
    let told = first.remedy.as_deref().unwrap();
    assert!(told.contains(remedy), "{remedy:?} is not in {first:#?}");
}

/// Asserts that the way is whole after `change`, and in doubt at the place alone.
fn doubts(change: impl FnOnce(&mut Observed), place: Place, finding: &str) {
    let mut observed = observed();
    change(&mut observed);
    let hops = walk(&observed);
    let doubtful: Vec<_> = hops.iter().filter(|hop| hop.verdict != Verdict::Ok).collect();
    let [doubt] = doubtful[..] else {
        panic!("{hops:#?}")
    };
    assert_eq!((doubt.place, doubt.verdict), (place, Verdict::Doubt));
    assert!(doubt.finding.contains(finding), "{doubt:#?}");
}

#[test]
fn a_whole_way_has_all_hops_in_order() {
    let hops = walk(&observed());
    let places: Vec<_> = hops.iter().map(|hop| hop.place).collect();
    let wanted = [
        Place::Pod,
        Place::HostVeth,
        Place::HostRoute,
        Place::Gateway,
        Place::Forwarding,
        Place::Route,
        Place::Firewall,
        Place::Nexthop,
        Place::TunnelDevice,
        Place::Neighbour,
        Place::Fdb,
        Place::Underlay,
        Place::TunnelFirewall,
        Place::WayBack,
    ];
    assert_eq!(places, wanted);
    assert!(
        hops.iter()
            .all(|hop| hop.verdict == Verdict::Ok && hop.remedy.is_none()),
        "{hops:#?}"
    );
}

#[test]
fn a_pod_that_the_agent_does_not_route() {
    breaks(
        |observed| observed.known.as_mut().unwrap().pods.clear(),
        Place::Pod,
        "the agent knows no such pod on this node",
        "kubectl get pod",
    );
    breaks(
        |observed| {
            observed.known.as_mut().unwrap().pods[0].addresses[0].1 = Some("it is the newer pod's".to_owned())
        },
        Place::Pod,
        "the agent has no route for 10.244.1.2: it is the newer pod's",
        "routelet status",
    );
    breaks(
        |observed| observed.known.as_mut().unwrap().pods[0].addresses[0].0 = "10.244.1.3".parse().unwrap(),
        Place::Pod,
        "the agent knows default/web with other addresses",
        "status.podIPs",
    );
}

#[test]
fn what_the_kernel_has_and_the_agent_wants_otherwise() {
    let why = "the agent runs and has not put it right: its log and routelet status say why";
    breaks(
        |observed| peer(observed).vtep_mac = Some(MacAddr([0x66, 0, 0, 0, 0, 9])),
        Place::Neighbour,
        "lladdr 66:00:00:00:00:02 on vxlan.calico, and the peer's device has 66:00:00:00:00:09",
        why,
    );
    breaks(
        |observed| peer(observed).underlay = Some("172.30.0.9".parse().unwrap()),
        Place::Fdb,
        "it leads to 172.30.0.3, and the peer's node has 172.30.0.9",
        "bridge fdb replace 66:00:00:00:00:02 dev vxlan.calico dst 172.30.0.9",
    );
    breaks(
        |observed| peer(observed).device = Some(name("eth0")),
        Place::Route,
        "10.244.2.0/24 via 10.244.2.0 dev vxlan.calico proto 80, and the agent wants it over eth0",
        why,
    );
    breaks(
        |observed| {
            let (key, _) = element(NftSet::Nodes, "172.30.0.3/32");
            observed.tables.remove(&key);
            peer(observed).underlay = None;
            observed.against.clear();
            observed.underlay = Some(Decision::Route(route("172.30.0.0/16", None, "eth0")));
        },
        Place::Fdb,
        "which is no node's address by the agent's nft table",
        why,
    );
}

#[test]
fn a_peer_that_is_refused_says_why() {
    breaks(
        |observed| {
            peer(observed).refusals = vec!["node node-2 has this node's own address".to_owned()];
            peer(observed).device = None;
            observed
                .tables
                .remove(&Key::route("10.244.2.0/24".parse().unwrap()));
            observed.there = Some(Decision::Route(route("0.0.0.0/0", Some("172.30.0.1"), "eth0")));
        },
        Place::Route,
        "the agent's route is missing, so that 0.0.0.0/0 via 172.30.0.1 dev eth0",
        "node node-2 has this node's own address",
    );
}

#[test]
fn routes_of_others_are_right_where_the_agent_leaves_them_to_others() {
    let bird = FibRoute {
        protocol: 12,
        ..route("10.244.2.0/24", Some("172.30.0.3"), "eth0")
    };
    let by_bird = |observed: &mut Observed| {
        observed
            .tables
            .remove(&Key::route("10.244.2.0/24".parse().unwrap()));
        observed.there = Some(Decision::Route(bird));
    };
    let mut observed = observed();
    by_bird(&mut observed);
    peer(&mut observed).way = "others".to_owned();
    peer(&mut observed).device = None;
    let hops = walk(&observed);
    assert!(hops.iter().all(|hop| hop.verdict == Verdict::Ok), "{hops:#?}");
    doubts(
        |observed| {
            by_bird(observed);
            observed.known = None;
            observed.tables.remove(&Key::Link(name(DEVICE)));
        },
        Place::Route,
        "proto 12 (bird), which is not the agent's",
    );
}

#[test]
fn an_address_of_the_pod_networks_that_no_node_has() {
    breaks(
        |observed| {
            observed.to.address = "10.244.7.7".parse().unwrap();
            observed.there = Some(Decision::Route(route("0.0.0.0/0", Some("172.30.0.1"), "eth0")));
        },
        Place::Route,
        "in the cluster's pod networks, but in no node's pod subnet",
        "spec.podCIDRs",
    );
}

#[test]
fn what_leads_into_the_tunnel_though_no_pod_is_there() {
    breaks(
        |observed| {
            observed.to.address = "203.0.113.1".parse().unwrap();
            observed.there = Some(Decision::Route(route("203.0.113.0/24", None, DEVICE)));
        },
        Place::Route,
        "it would go into the tunnel, where no node takes it",
        "protocol 80",
    );
    breaks(
        |observed| observed.underlay = Some(Decision::Route(route("172.30.0.0/16", None, DEVICE))),
        Place::Underlay,
        "the tunnel's packets would go into the tunnel",
        "must not overlap",
    );
}

#[test]
fn the_filter_of_sources_is_named_with_its_value() {
    breaks(
        |observed| {
            observed.there = Some(Decision::Dropped(DropReason::Source));
            observed.filters.insert(name(VETH), 1);
        },
        Place::Route,
        "rp_filter of cali0123456789a (or of all) is 1",
        "host route",
    );
}

#[test]
fn a_policy_route_is_told_with_its_table() {
    breaks(
        |observed| {
            observed.there = Some(Decision::Route(FibRoute {
                table: 100,
                protocol: 4,
                ..route("0.0.0.0/0", Some("172.30.0.1"), "eth0")
            }));
        },
        Place::Route,
        "0.0.0.0/0 via 172.30.0.1 dev eth0 proto 4 (static) table 100 decides",
        "ip route del",
    );
}
