//! The kernel's own routing decision about a packet.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};
use std::{fs, thread};

use common::{in_netns, ip, name, net};
use routelet_netlink::fib::{Decision, DropReason, Fib, FibRoute, Packet, protocol_name};
use routelet_netlink::setup::{RouteSpec, Setup, VethEnd};
use routelet_netlink::{Error, Netns};

fn write(path: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

/// A router: `pod0`, behind which 10.0.1.2 and fd00:1::2 are, and `up0` with 192.0.2.1/24 and 2001:db8::1/64.
fn router() -> (Setup, Netns) {
    let far = Netns::new().unwrap();
    write("ipv6/conf/default/accept_dad", "0");
    write("ipv4/conf/all/rp_filter", "0");
    write("ipv4/ip_forward", "1");
    write("ipv6/conf/all/forwarding", "1");
    let mut setup = Setup::open().unwrap();
    for (near, far_name) in [("pod0", "a"), ("up0", "b")] {
        let end = |name| VethEnd {
            name,
            up: true,
            ..VethEnd::default()
        };
        setup.add_veth(end(near), end(far_name), &far).unwrap();
    }
    setup.add_address("up0", net("192.0.2.1/24")).unwrap();
    setup.add_address("up0", net("2001:db8::1/64")).unwrap();
    for address in ["10.0.1.2/32", "fd00:1::2/128"] {
        setup
            .add_route(RouteSpec::to_link(net(address), "pod0").protocol(80))
            .unwrap();
    }
    (setup, far)
}

fn from_pod(to: &str) -> Packet {
    let to = ip(to);
    Packet {
        from: Some(ip(if to.is_ipv4() { "10.0.1.2" } else { "fd00:1::2" })),
        to,
        incoming: Some(name("pod0")),
    }
}

fn route(decision: Decision) -> FibRoute {
    match decision {
        Decision::Route(route) => route,
        Decision::Dropped(refusal) => panic!("{refusal}"),
    }
}

#[test]
fn the_route_that_decides_is_told_with_its_maker_and_its_way() {
    in_netns(|| {
        let (mut setup, _far) = router();
        let mut fib = Fib::open().unwrap();
        for (wide, narrow, gateway, to) in [
            ("10.0.0.0/8", "10.0.2.0/24", "192.0.2.7", "10.0.2.9"),
            ("fd00::/16", "fd00:2::/64", "2001:db8::7", "fd00:2::9"),
        ] {
            let via = |destination| RouteSpec::via(net(destination), ip(gateway), Some("up0"));
            setup.add_route(via(wide).protocol(80)).unwrap();
            let first = route(fib.decide(from_pod(to)).unwrap());
            let wanted = FibRoute {
                destination: net(wide),
                table: 254,
                protocol: 80,
                local: false,
                link: Some(name("up0")),
                gateway: Some(ip(gateway)),
                nexthop: None,
            };
            assert_eq!(first, wanted);
            setup.add_route(via(narrow).protocol(12)).unwrap();
            let second = route(fib.decide(from_pod(to)).unwrap());
            assert_eq!((second.destination, second.protocol), (net(narrow), 12));
        }
        assert_eq!(
            [12, 4, 80].map(protocol_name),
            [Some("bird"), Some("static"), None]
        );
    });
}

#[test]
fn what_is_for_the_host_itself_is_local() {
    in_netns(|| {
        let (mut setup, _far) = router();
        let mut fib = Fib::open().unwrap();
        // The kernel makes the local route of an IPv6 address in its own time.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !setup.is_local("up0", ip("2001:db8::1")).unwrap() {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert!(route(fib.decide(from_pod(address)).unwrap()).local, "{address}");
        }
        let own = Packet {
            from: None,
            to: ip("10.0.1.2"),
            incoming: None,
        };
        let found = route(fib.decide(own).unwrap());
        assert_eq!((found.local, found.link), (false, Some(name("pod0"))));
    });
}

#[test]
fn each_reason_to_drop_is_told_apart() {
    in_netns(|| {
        let (mut setup, _far) = router();
        let mut fib = Fib::open().unwrap();
        let mut decide = |packet| fib.decide(packet).unwrap();
        for to in ["10.9.9.9", "fd09::9"] {
            assert_eq!(decide(from_pod(to)), Decision::Dropped(DropReason::NoRoute));
        }
        for (subnet, to) in [("10.0.3.0/24", "10.0.3.3"), ("fd00:3::/64", "fd00:3::3")] {
            setup.add_route(RouteSpec::blackhole(net(subnet))).unwrap();
            assert_eq!(decide(from_pod(to)), Decision::Dropped(DropReason::Blackhole));
        }
        // A source that is not reached by the link that it comes in by.
        let spoofed = Packet {
            from: Some(ip("192.0.2.9")),
            ..from_pod("192.0.2.7")
        };
        assert!(matches!(decide(spoofed), Decision::Route(_)));
        write("ipv4/conf/pod0/rp_filter", "1");
        assert_eq!(decide(spoofed), Decision::Dropped(DropReason::Source));
        assert!(matches!(decide(from_pod("192.0.2.7")), Decision::Route(_)));
        write("ipv4/ip_forward", "0");
        assert_eq!(
            decide(from_pod("10.9.9.9")),
            Decision::Dropped(DropReason::Unreachable)
        );
        let from_nowhere = Packet {
            incoming: Some(name("gone0")),
            ..from_pod("192.0.2.7")
        };
        assert!(matches!(fib.decide(from_nowhere), Err(Error::NoSuchLink(_))));
    });
}
