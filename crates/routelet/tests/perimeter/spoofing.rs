//! Pods that send from addresses that are not theirs, or to the host's loopback.

use std::net::{IpAddr, SocketAddr};

use routelet_lab::{ping, wait};
use routelet_model::{Family, HOST_VETH_MAC, host_prefix};
use routelet_netlink::Netns;
use routelet_netlink::setup::RouteSpec;

use crate::stage::*;

/// Addresses that pod a does not have: another pod's of its node, one of its subnet that no one has, another node's,
/// one outside of the cluster.
fn not_of_a(stage: &Stage, family: Family) -> [IpAddr; 4] {
    let (nobodys, elsewhere) = match family {
        Family::V4 => (
            stage.cluster.pod_address(ONE, 99).unwrap(),
            [172, 30, 9, 9].into(),
        ),
        Family::V6 => ("fd00:10:1::99".parse().unwrap(), "fd00:30::9:9".parse().unwrap()),
    };
    [stage.pod(B, family), nobodys, stage.node(TWO, family), elsewhere]
}

/// What of packets from other addresses than its own that pod a sends arrives at a machine, in the families' order.
fn arriving(stage: &Stage, at: &Netns, to: [IpAddr; 2]) -> Vec<IpAddr> {
    let mut arrived = Vec::new();
    for (family, to) in Family::ALL.into_iter().zip(to) {
        let listener = Listener::at(at, family);
        let netns = stage.pods[A].netns();
        for from in not_of_a(stage, family) {
            send(
                netns,
                Some(SocketAddr::new(from, 0)),
                listener.address(to),
                "spoofed",
            );
        }
        send(
            netns,
            Some(SocketAddr::new(stage.pod(A, family), 0)),
            listener.address(to),
            "honest",
        );
        loop {
            match listener.next() {
                (text, from) if text == "spoofed" => arrived.push(from.ip()),
                (text, _) => break assert_eq!(text, "honest"),
            }
        }
    }
    arrived
}

fn with_addresses_of_others(arguments: &[&str]) -> Stage {
    let stage = Stage::new(arguments);
    let mut pod = stage.pods[A].setup().unwrap();
    for family in Family::ALL {
        for address in not_of_a(&stage, family) {
            pod.add_address("eth0", host_prefix(address)).unwrap();
        }
    }
    stage
}

/// The kernel's own filter (rp_filter) knows IPv4 only, and whoever sets sysctls may have switched it off. Without the
/// rules, packets from other addresses pass then.
#[test]
fn a_pod_gets_nothing_through_under_an_address_that_is_not_its_own() {
    let mut stage = with_addresses_of_others(&["--masquerade=false"]);
    let both = |of: &dyn Fn(Family) -> IpAddr| Family::ALL.map(of);
    for filter in ["0", "2"] {
        write_sysctl(stage.node_netns(ONE), "ipv4/conf/all/rp_filter", filter);
        for (netns, to) in [
            (stage.pods[C].netns(), both(&|family| stage.pod(C, family))),
            (stage.node_netns(ONE), both(&|family| stage.node(ONE, family))),
            (stage.outside_netns(), both(&|family| stage.outside(family))),
        ] {
            assert_eq!(arriving(&stage, netns, to), Vec::<IpAddr>::new(), "at {to:?}");
        }
    }
    stage.without_table(ONE, |stage| {
        for link in ["all", stage.pods[A].host_veth().as_str()] {
            write_sysctl(stage.node_netns(ONE), &format!("ipv4/conf/{link}/rp_filter"), "0");
        }
        let to = both(&|family| stage.outside(family));
        let arrived = arriving(stage, stage.outside_netns(), to);
        let expected: Vec<IpAddr> = Family::ALL
            .into_iter()
            .flat_map(|family| not_of_a(stage, family))
            .collect();
        assert_eq!(arrived, expected);
    });
}

/// Where route_localnet is on, as kube-proxy sets it, nothing else keeps pods out.
#[test]
fn a_pod_does_not_reach_the_loopback_of_its_host() {
    let mut stage = Stage::new(&[]);
    let loopback: IpAddr = [127, 0, 0, 1].into();
    stage.cluster.nodes()[ONE]
        .node
        .setup()
        .unwrap()
        .set_up("lo")
        .unwrap();
    // What the pod sends there is to leave it.
    let mut setup = stage.pods[A].setup().unwrap();
    setup
        .delete_address("lo", "127.0.0.1/8".parse().unwrap())
        .unwrap();
    for netns in [stage.node_netns(ONE), stage.pods[A].netns()] {
        write_sysctl(netns, "ipv4/conf/all/route_localnet", "1");
    }
    let listener = Listener::at(stage.node_netns(ONE), Family::V4);
    let own = Some(SocketAddr::new(stage.pod(A, Family::V4), 0));
    let pod = stage.pods[A].netns().clone();
    let honest = listener.address(stage.node(ONE, Family::V4));
    send(&pod, own, listener.address(loopback), "to the loopback");
    send(&pod, own, honest, "to the host");
    assert_eq!(listener.next().0, "to the host");
    stage.without_table(ONE, |_| {
        send(&pod, own, listener.address(loopback), "to the loopback");
        assert_eq!(listener.next().0, "to the loopback");
    });
}

/// Whoever tries an address asks for it from none ("::"). A pod with the host's MAC address tries the one that its
/// gateway has, and hears of it.
#[test]
fn a_pods_duplicate_address_detection_reaches_the_host() {
    let stage = Stage::new(&[]);
    let pod = &stage.pods[A];
    let mut setup = pod.setup().unwrap();
    setup.set_down("eth0").unwrap();
    for conf in ["all", "eth0"] {
        write_sysctl(pod.netns(), &format!("ipv6/conf/{conf}/accept_dad"), "1");
    }
    setup.set_mac("eth0", HOST_VETH_MAC).unwrap();
    setup.set_up("eth0").unwrap();
    let is_duplicate = || {
        const IFA_F_DADFAILED: u32 = 0x08;
        let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let mut lines = addresses.lines();
        let line = lines.find(|line| line.starts_with("fe80000000000000eceeeefffeeeeeee"));
        line.is_some_and(|line| {
            let flags = line.split_whitespace().nth(4).unwrap();
            u32::from_str_radix(flags, 16).unwrap() & IFA_F_DADFAILED != 0
        })
    };
    let wait = || wait::until(wait::LONG, "the host to object to the address", is_duplicate);
    pod.netns().run(wait).unwrap().unwrap();
}

/// Neighbour discovery and ARP, of host and pod, after a restart of the pod's link with duplicate detection on.
#[test]
fn a_pod_whose_link_was_bounced_is_reached_in_both_families() {
    let stage = Stage::new(&[]);
    let pod = &stage.pods[A];
    for conf in ["all", "eth0"] {
        write_sysctl(pod.netns(), &format!("ipv6/conf/{conf}/accept_dad"), "1");
        write_sysctl(pod.netns(), &format!("ipv6/conf/{conf}/keep_addr_on_down"), "1");
    }
    let mut setup = pod.setup().unwrap();
    setup.set_down("eth0").unwrap();
    setup.set_up("eth0").unwrap();
    for (destination, gateway) in [
        ("0.0.0.0/0", "169.254.1.1"),
        ("::/0", "fe80::ecee:eeff:feee:eeee"),
    ] {
        let (destination, gateway) = (destination.parse().unwrap(), gateway.parse().unwrap());
        if IpAddr::is_ipv4(&gateway) {
            setup
                .add_route(RouteSpec::to_link(host_prefix(gateway), "eth0"))
                .unwrap();
        }
        setup
            .replace_route(RouteSpec::via(destination, gateway, Some("eth0")))
            .unwrap();
    }
    for family in Family::ALL {
        stage.wait_reply(A, stage.outside(family));
    }
    for family in Family::ALL {
        let interval = std::time::Duration::from_millis(1);
        let report = ping(stage.node_netns(ONE), stage.pod(A, family), 5, interval).unwrap();
        assert_eq!(report.received(), 5, "{report}");
    }
}
