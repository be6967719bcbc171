//! Tunnels: what stands in their way, and IPIP.

use routelet_netlink::forward::{Against, ChainFamily, DroppingChain, Firewall};
use routelet_netlink::inspect::NeighbourRow;

use super::*;

#[test]
fn firewalls_are_doubts_where_rules_decide() {
    let chain = |name: &str| DroppingChain {
        firewall: Firewall::Nftables,
        family: ChainFamily::Ip,
        table: "filter".to_owned(),
        chain: name.to_owned(),
    };
    doubts(
        |observed| observed.dropping = vec![(chain("FORWARD"), Passage::Undecided)],
        Place::Firewall,
        "unless one of its rules accepts",
    );
    let against = |sure, by_rule| Against {
        chain: chain("INPUT"),
        sure,
        by_rule,
    };
    doubts(
        |observed| observed.against = vec![against(false, false)],
        Place::TunnelFirewall,
        "drops by policy, unless one of its rules accepts VXLAN",
    );
    doubts(
        |observed| observed.against = vec![against(false, true)],
        Place::TunnelFirewall,
        "a rule drops some packets of UDP port 4789",
    );
    breaks(
        |observed| observed.against = vec![against(true, true)],
        Place::TunnelFirewall,
        "a rule drops UDP port 4789",
        "accept UDP port 4789",
    );
}

/// IPIP has neither neighbour nor FDB entry: the route's gateway is the peer's node itself.
#[test]
fn a_way_by_ipip_has_the_nexthop_the_device_and_the_underlay() {
    let by_ipip = |observed: &mut Observed| {
        let (device, gateway) = (name("tunl0"), "172.30.0.3".parse().unwrap());
        let link_of = Link {
            kind: LinkKind::Ipip { ours: true },
            mac: None,
            mtu: Some(1480),
            up: true,
            running: true,
            enslaved: false,
            given: Vec::new(),
            index: 0,
        };
        let target = RouteTarget::Nexthop {
            link: device,
            gateway,
        };
        let subnet = Key::route("10.244.2.0/24".parse().unwrap());
        observed.tables.insert(subnet, Object::Route(target));
        observed
            .tables
            .insert(Key::Link(device), Object::Link(Box::new(link_of)));
        observed.tables.insert(
            Key::Nexthop {
                link: device,
                gateway,
            },
            Object::Nexthop,
        );
        observed.devices.push(device);
        observed.links.push(link(5, "tunl0", 1480));
        observed.there = Some(Decision::Route(route(
            "10.244.2.0/24",
            Some("172.30.0.3"),
            "tunl0",
        )));
        observed.back = Some((device, Decision::Route(route("10.244.1.2/32", None, VETH))));
        peer(observed).way = "ipip".to_owned();
        peer(observed).device = Some(device);
    };
    let mut whole = observed();
    by_ipip(&mut whole);
    let hops = walk(&whole);
    assert!(hops.iter().all(|hop| hop.verdict == Verdict::Ok), "{hops:#?}");
    let places: Vec<_> = hops.iter().skip(7).map(|hop| hop.place).collect();
    assert_eq!(
        places,
        [
            Place::Nexthop,
            Place::TunnelDevice,
            Place::Underlay,
            Place::WayBack
        ]
    );
    breaks(
        |observed| {
            by_ipip(observed);
            observed.links[0].mtu = 1490;
        },
        Place::TunnelDevice,
        "its MTU is 1480, to which the tunnel adds 20 bytes, and that of eth0 below it is 1490",
        "--mtu=1470",
    );
    breaks(
        |observed| {
            by_ipip(observed);
            let (key, _) = element(NftSet::Nodes, "172.30.0.3/32");
            observed.tables.remove(&key);
        },
        Place::TunnelFirewall,
        "the agent's nft table does not know node node-2, so that its IPIP packets are dropped here",
        "the agent runs",
    );
}

/// `NUD_FAILED`: no one answered when the kernel last asked.
const FAILED: u16 = 0x20;

fn silent(link: &str, address: &str) -> NeighbourRow {
    NeighbourRow {
        link: name(link),
        address: address.parse().unwrap(),
        mac: None,
        state: FAILED,
        protocol: 0,
    }
}

#[test]
fn who_did_not_answer_is_a_doubt() {
    doubts(
        |observed| observed.neighbours = vec![silent("eth0", "172.30.0.3")],
        Place::Underlay,
        "172.30.0.3 did not answer when it was last asked for",
    );
    // Another link's, or another address', is of no concern.
    let mut whole = observed();
    whole.neighbours = vec![silent("eth1", "172.30.0.3"), silent("eth0", "172.30.0.4")];
    assert!(walk(&whole).iter().all(|hop| hop.verdict == Verdict::Ok));

    let to_local = |observed: &mut Observed| {
        observed.to.address = "10.244.1.3".parse().unwrap();
        observed.to.veth = Some(name("cali00000000003"));
        observed.links.push(link(9, "cali00000000003", 1450));
        let way = route("10.244.1.3/32", None, "cali00000000003");
        observed.there = Some(Decision::Route(way));
    };
    let mut whole = observed();
    to_local(&mut whole);
    assert!(walk(&whole).iter().all(|hop| hop.verdict == Verdict::Ok));
    doubts(
        |observed| {
            to_local(observed);
            observed.neighbours = vec![silent("cali00000000003", "10.244.1.3")];
        },
        Place::OtherVeth,
        "did not answer when it was last asked for 10.244.1.3",
    );
    doubts(
        |observed| {
            to_local(observed);
            observed.links.last_mut().unwrap().mtu = 1400;
        },
        Place::OtherVeth,
        "its MTU is 1400, and the sender's 1450",
    );
}

#[test]
fn a_host_veth_with_another_mac_address_is_a_doubt() {
    doubts(
        |observed| observed.links[2].mac = Some(MacAddr([2, 0, 0, 0, 0, 1])),
        Place::HostVeth,
        "its MAC address is 02:00:00:00:00:01, and not ee:ee:ee:ee:ee:ee",
    );
}
