//! The lab's network: who reaches whom, before any agent has done its work, and after it has been done by hand.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

use std::net::IpAddr;
use std::time::Duration;

use routelet_lab::{KernelView, Lab, Node, Ping, ping, wait};
use routelet_model::{Family, HOST_VETH_MAC, host_prefix, host_veth_name};

const INTERVAL: Duration = Duration::from_millis(1);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the agent does for a node whose pods are connected.
fn forward(node: &Node) {
    node.netns()
        .run(|| {
            for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{path}"), "1").unwrap();
            }
        })
        .unwrap();
}

#[test]
fn nodes_reach_each_other_and_the_lan() {
    let lab = Lab::new().unwrap();
    let nodes = lab.nodes(3).unwrap();
    assert_eq!(nodes[2].name(), "node-3");
    for family in Family::ALL {
        for to in [
            lab.address(family),
            nodes[1].address(family),
            nodes[2].address(family),
        ] {
            let report = ping(nodes[0].netns(), to, 3, INTERVAL).unwrap();
            assert!(report.lost.is_empty() && report.ttl == Some(64), "{to}: {report}");
        }
    }
}

#[test]
fn pods_are_what_the_cni_plugin_makes() {
    let lab = Lab::new().unwrap();
    let node = lab.node("node-1").unwrap();
    let pod = node
        .pod_in(
            "default",
            "web",
            &[address("10.244.1.2"), address("fd00:244:1::2")],
        )
        .unwrap();
    let veth = host_veth_name("cali", "default", "web").unwrap();
    assert_eq!(pod.host_veth(), veth);
    let host_end = node.setup().unwrap().link(veth.as_str()).unwrap().unwrap();
    assert_eq!(
        (host_end.mac, host_end.up, host_end.mtu),
        (Some(HOST_VETH_MAC), true, 1430)
    );
    assert_eq!(pod.setup().unwrap().link("eth0").unwrap().unwrap().mtu, 1430);

    let inside = KernelView::of(pod.netns()).unwrap().to_string();
    for row in [
        "10.244.1.2/32 dev eth0",
        "fd00:244:1::2/128 dev eth0",
        "default via 169.254.1.1 dev eth0",
        "169.254.1.1 dev eth0",
        "default via fe80::ecee:eeff:feee:eeee dev eth0 metric 1024",
    ] {
        assert!(
            inside.lines().any(|line| line.trim() == row),
            "{row} in:\n{inside}"
        );
    }
    let outside = KernelView::of(node.netns()).unwrap();
    assert!(outside.has_address("eth0", node.address_with_prefix(Family::V4)));
    for address in pod.addresses() {
        let route = outside.route(host_prefix(*address)).unwrap();
        assert_eq!((route.link, route.protocol), (Some(veth), 80));
    }

    // The node and its pod reach each other; without the agent, nothing goes further.
    let impatient = |to| {
        Ping::to(to)
            .patience(Duration::from_millis(50))
            .run(pod.netns())
            .unwrap()
    };
    for family in Family::ALL {
        assert!(
            ping(pod.netns(), node.address(family), 3, INTERVAL)
                .unwrap()
                .lost
                .is_empty()
        );
        assert_eq!(impatient(lab.address(family)).received(), 0);
    }

    pod.delete().unwrap();
    assert_eq!(node.setup().unwrap().link(veth.as_str()).unwrap(), None);
}

#[test]
fn connected_pods_reach_each_other_their_node_and_the_world() {
    let lab = Lab::new().unwrap();
    let node = lab.node("node-1").unwrap();
    let pods = [2, 3].map(|number| {
        let addresses = [
            address(&format!("10.244.1.{number}")),
            address(&format!("fd00:244:1::{number}")),
        ];
        node.pod(&format!("web-{number}"), &addresses).unwrap()
    });
    forward(&node);
    for subnet in ["10.244.1.0/24", "fd00:244:1::/64"] {
        lab.route_to(&node, subnet.parse().unwrap()).unwrap();
    }
    for family in Family::ALL {
        let [from, to] = pods.each_ref().map(|pod| pod.address(family).unwrap());
        for (netns, to, ttl) in [
            (pods[0].netns(), to, 63),
            (pods[1].netns(), from, 63),
            (pods[0].netns(), node.address(family), 64),
            (pods[0].netns(), lab.address(family), 63),
            (lab.netns(), to, 63),
        ] {
            let report = ping(netns, to, 3, INTERVAL).unwrap();
            assert!(report.lost.is_empty(), "{to}: {report}");
            assert_eq!(report.ttl, Some(ttl), "{to}");
        }
        let large = Ping::to(to).payload(4000).run(pods[0].netns()).unwrap();
        assert!(large.lost.is_empty(), "in fragments: {large}");
    }
}

#[test]
fn a_pinger_tells_exactly_what_was_lost() {
    let lab = Lab::new().unwrap();
    let nodes = lab.nodes(2).unwrap();
    let to = nodes[1].address(Family::V4);
    let answer = |yes| {
        let ignore = if yes { "0" } else { "1" };
        let write = || std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", ignore).unwrap();
        nodes[1].netns().run(write).unwrap();
    };
    let ping = Ping::to(to)
        .interval(INTERVAL)
        .patience(Duration::from_millis(200));
    let pinger = ping.start(nodes[0].netns()).unwrap();
    pinger.wait_replies(20, wait::LONG).unwrap();
    answer(false);
    let before = pinger.sent();
    wait::until(wait::LONG, "requests without a reply", || {
        pinger.sent() > before + 20
    })
    .unwrap();
    answer(true);
    pinger.wait_replies(20, wait::LONG).unwrap();
    let report = pinger.stop().unwrap();
    assert_eq!(report.sent, report.received() + report.lost.len() as u64);
    let (first, last) = (report.lost[0], report.lost[report.lost.len() - 1]);
    assert_eq!(
        last - first + 1,
        report.lost.len() as u64,
        "one gap: {:?}",
        report.lost
    );
    assert!(
        first >= 20 && last < report.sent - 19 && last > before + 18,
        "{first} to {last} of {report}"
    );
}

#[test]
fn a_cable_is_pulled_out_and_put_in_again() {
    let lab = Lab::new().unwrap();
    let nodes = lab.nodes(2).unwrap();
    let ping = Ping::to(nodes[1].address(Family::V4)).patience(Duration::from_millis(50));
    lab.set_connected(&nodes[1], false).unwrap();
    assert_eq!(ping.clone().run(nodes[0].netns()).unwrap().received(), 0);
    assert!(!nodes[1].setup().unwrap().link("eth0").unwrap().unwrap().running);
    lab.set_connected(&nodes[1], true).unwrap();
    // The neighbour that has been looked for in vain is given up first, which takes the kernel a few seconds.
    wait::until(wait::LONG, "the node to be back", || {
        ping.clone().run(nodes[0].netns()).unwrap().received() == 1
    })
    .unwrap();
}

#[test]
fn the_underlays_mtu_can_be_set() {
    let lab = Lab::with_mtu(9000).unwrap();
    let node = lab.node("node-1").unwrap();
    let mtu = |node: &Node| node.setup().unwrap().link("eth0").unwrap().unwrap().mtu;
    assert_eq!(mtu(&node), 9000);
    lab.set_underlay_mtu(&node, 1400).unwrap();
    assert_eq!(mtu(&node), 1400);
    let pod = node.pod("web", &[address("10.244.1.2")]).unwrap();
    assert_eq!(pod.setup().unwrap().link("eth0").unwrap().unwrap().mtu, 1350);
}

#[test]
fn many_nodes() {
    let lab = Lab::new().unwrap();
    let nodes = lab.nodes(100).unwrap();
    let report = ping(nodes[0].netns(), nodes[99].address(Family::V6), 1, INTERVAL).unwrap();
    assert!(report.lost.is_empty(), "{report}");
}
