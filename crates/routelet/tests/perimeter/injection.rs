//! Tunnel packets from machines that are no nodes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use routelet_lab::{ping, skip, wait};
use routelet_model::{Family, Key, Kind, Link, LinkKind, MacAddr, NftSet, Vxlan, vtep_mac};
use routelet_netlink::Netns;

use crate::packets::{send_in_pieces, vxlan};
use crate::stage::*;

const VNI: u32 = 4096;
const PORT: u16 = 4789;

/// A packet for pod a as node-2 would send it, with pod c's address.
fn tunnel_packet(stage: &Stage, family: Family, listener: &Listener, text: &str) -> Vec<u8> {
    packet_of_vni(stage, VNI, family, listener, text)
}

fn packet_of_vni(stage: &Stage, vni: u32, family: Family, listener: &Listener, text: &str) -> Vec<u8> {
    let mac = vtep_mac("node-1", family);
    let to = listener.address(stage.pod(A, family));
    vxlan(vni, mac, stage.pod(C, family), to, text)
}

fn send_bytes(netns: &Netns, to: SocketAddr, bytes: &[u8]) {
    netns
        .run(|| {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = std::net::UdpSocket::bind((any, 0)).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(bytes, to).unwrap();
        })
        .unwrap();
}

/// Sends `stranger` from outside of the cluster and then a true one from node-2, and returns what arrives first.
fn first_to_arrive(stage: &Stage, family: Family, listener: &Listener, send: impl FnOnce(&[u8])) -> String {
    send(&tunnel_packet(stage, family, listener, "stranger"));
    let to = SocketAddr::new(stage.node(ONE, family), PORT);
    let packet = tunnel_packet(stage, family, listener, "node");
    send_bytes(stage.node_netns(TWO), to, &packet);
    let first = listener.next().0;
    if first != "node" {
        assert_eq!(listener.next().0, "node");
    }
    first
}

#[test]
fn a_machine_that_is_no_node_reaches_no_pod_through_the_tunnel() {
    for arguments in [&[][..], &["--masquerade=false"]] {
        let mut stage = Stage::new(arguments);
        let listeners = Family::ALL.map(|family| Listener::at(stage.pods[A].netns(), family));
        let each = |stage: &Stage, expected: &str| {
            for (family, listener) in Family::ALL.into_iter().zip(&listeners) {
                let outside = stage.outside_netns();
                let to = SocketAddr::new(stage.node(ONE, family), PORT);
                let first =
                    first_to_arrive(stage, family, listener, |packet| send_bytes(outside, to, packet));
                assert_eq!(first, expected, "{family}, {arguments:?}");
            }
            // To all on the LAN, and in pieces that don't show whose they are.
            let (family, listener) = (Family::V4, &listeners[0]);
            let outside = stage.outside_netns();
            let all = SocketAddr::from(([172, 30, 255, 255], PORT));
            let first = first_to_arrive(stage, family, listener, |packet| send_bytes(outside, all, packet));
            assert_eq!(first, expected, "by broadcast, {arguments:?}");
            let IpAddr::V4(from) = stage.outside(family) else {
                unreachable!()
            };
            let to = SocketAddr::new(stage.node(ONE, family), PORT);
            let first = first_to_arrive(stage, family, listener, |packet| {
                send_in_pieces(outside, from, to, packet);
            });
            assert_eq!(first, expected, "in pieces, {arguments:?}");
        };
        each(&stage, "node");
        stage.without_table(ONE, |stage| each(stage, "stranger"));
        each(&stage, "node");
    }
}

/// Where the nodes have addresses of one family, the tunnel for pods of the other one has the next VNI.
#[test]
fn a_machine_that_is_no_node_reaches_no_pod_through_the_second_tunnel() {
    for underlay in Family::ALL {
        let pods = underlay.other();
        let mut stage = Stage::on(&[underlay], &[]);
        let listener = Listener::at(stage.pods[A].netns(), pods);
        let first = |stage: &Stage| {
            let to = SocketAddr::new(stage.node(ONE, underlay), PORT);
            for (netns, text) in [
                (stage.outside_netns(), "stranger"),
                (stage.node_netns(TWO), "node"),
            ] {
                send_bytes(netns, to, &packet_of_vni(stage, VNI + 1, pods, &listener, text));
            }
            let first = listener.next().0;
            if first != "node" {
                assert_eq!(listener.next().0, "node");
            }
            first
        };
        assert_eq!(first(&stage), "node", "{pods} over {underlay}");
        stage.without_table(ONE, |stage| assert_eq!(first(stage), "stranger"));
        assert_eq!(first(&stage), "node", "{pods} over {underlay}");
    }
}

/// A pod is no node either.
#[test]
fn a_pod_reaches_no_pod_through_the_tunnel() {
    let mut stage = Stage::new(&[]);
    let listener = Listener::at(stage.pods[A].netns(), Family::V4);
    let to = SocketAddr::new(stage.node(ONE, Family::V4), PORT);
    let first = |stage: &Stage| {
        let pod = stage.pods[B].netns();
        first_to_arrive(stage, Family::V4, &listener, |packet| send_bytes(pod, to, packet))
    };
    assert_eq!(first(&stage), "node");
    stage.without_table(ONE, |stage| assert_eq!(first(stage), "stranger"));
}

#[test]
fn a_node_that_left_the_cluster_is_no_node() {
    let mut stage = Stage::new(&[]);
    let listener = Listener::at(stage.pods[A].netns(), Family::V4);
    let to = SocketAddr::new(stage.node(ONE, Family::V4), PORT);
    let address = stage.node(TWO, Family::V4);
    let is_known = |stage: &Stage| {
        let mut known = false;
        in_kernel(stage.node_netns(ONE), |kernel| {
            let key = Key::nft_element(NftSet::Nodes, address.into());
            kernel
                .dump(Kind::NftElement, None, &mut |found, _| known |= found == key)
                .unwrap();
        });
        known
    };
    let object = node_object(&stage.cluster, TWO).build();
    stage.cluster.api().delete(&object).unwrap();
    wait::until(wait::LONG, "the node to be forgotten", || !is_known(&stage)).unwrap();
    let packet = tunnel_packet(&stage, Family::V4, &listener, "no longer");
    send_bytes(stage.node_netns(TWO), to, &packet);
    stage.cluster.api().apply(&object).unwrap();
    wait::until(wait::LONG, "the node to be known again", || is_known(&stage)).unwrap();
    let packet = tunnel_packet(&stage, Family::V4, &listener, "again");
    send_bytes(stage.node_netns(TWO), to, &packet);
    assert_eq!(listener.next().0, "again");
}

/// Two machines may have a VXLAN of their own, on the same port.
#[test]
fn vxlans_of_others_are_left_alone() {
    let stage = Stage::new(&[]);
    let ends = [
        (stage.outside_netns(), "lan0", stage.outside(Family::V4), 1),
        (stage.node_netns(ONE), "eth0", stage.node(ONE, Family::V4), 2),
    ];
    let mac = |number| MacAddr([2, 0, 0, 0, 7, number]);
    let address = |number| IpAddr::from([10, 99, 0, number]);
    for ((netns, parent, local, number), (_, _, remote, other)) in [(ends[0], ends[1]), (ends[1], ends[0])] {
        let vxlan = Vxlan {
            vni: 7,
            port: PORT,
            local,
            parent: Some(parent.parse().unwrap()),
            learning: false,
            odd: false,
        };
        let link = Link {
            kind: LinkKind::Vxlan(vxlan),
            mac: Some(mac(number)),
            mtu: Some(1400),
            up: true,
            running: true,
            enslaved: false,
            given: Vec::new(),
            index: 0,
        };
        let mut setup = routelet_netlink::Setup::open_in(netns).unwrap();
        setup.add_vxlan("vx7".parse().unwrap(), &link).unwrap();
        setup
            .add_address("vx7", ipnet::IpNet::new(address(number), 24).unwrap())
            .unwrap();
        setup
            .replace_neighbour("vx7", address(other), mac(other))
            .unwrap();
        setup.replace_fdb("vx7", mac(other), remote).unwrap();
    }
    let interval = std::time::Duration::from_millis(1);
    let report = ping(stage.outside_netns(), address(2), 5, interval).unwrap();
    assert_eq!(report.received(), 5, "{report}");
}

/// Counted by rules of the test's own, in a table of its own.
#[test]
fn the_tunnels_own_packets_are_not_tracked() {
    let stage = Stage::new(&[]);
    let probe = "table inet probe { \
        chain in { type filter hook input priority 0; udp dport 4789 ct state untracked counter; \
                   udp dport 4789 ct state != untracked counter; }; \
        chain out { type filter hook output priority 0; udp dport 4789 ct state untracked counter; \
                    udp dport 4789 ct state != untracked counter; }; }";
    if run(stage.node_netns(ONE), "nft", &[probe]).is_none() {
        skip!("the program nft (Debian: nftables) does not run");
    }
    for family in Family::ALL {
        let interval = std::time::Duration::from_millis(1);
        let report = ping(stage.pods[A].netns(), stage.pod(C, family), 10, interval).unwrap();
        assert_eq!(report.received(), 10, "{report}");
    }
    let listed = run(stage.node_netns(ONE), "nft", &["list table inet probe"]).unwrap();
    let counts: Vec<u32> = listed
        .split("packets ")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
        .collect();
    let [untracked_in, tracked_in, untracked_out, tracked_out] = counts[..] else {
        panic!("{listed}")
    };
    assert!(untracked_in >= 20 && untracked_out >= 20, "{listed}");
    assert_eq!((tracked_in, tracked_out), (0, 0), "{listed}");
}
