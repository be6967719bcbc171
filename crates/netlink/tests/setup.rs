//! Setting up links, addresses and routes in a namespace, and looking at them.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

use std::time::{Duration, Instant};

use ipnet::IpNet;
use routelet_model::{Family, Link, LinkKind, MacAddr, Vxlan};
use routelet_netlink::Netns;
use routelet_netlink::inspect::Inspector;
use routelet_netlink::setup::{RouteSpec, Setup, VethEnd};

const MAC: MacAddr = MacAddr([0xee; 6]);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A namespace with `a0`, whose other end is `b0` in another.
fn pair() -> (Netns, Setup, Setup) {
    let [near, far] = [Netns::new().unwrap(), Netns::new().unwrap()];
    let mut setup = Setup::open_in(&near).unwrap();
    let a = VethEnd {
        name: "a0",
        mac: Some(MAC),
        mtu: Some(1400),
        up: true,
        alias: Some("whose it is"),
    };
    let b = VethEnd {
        name: "b0",
        mtu: Some(1450),
        ..VethEnd::default()
    };
    setup.add_veth(a, b, &far).unwrap();
    let far = Setup::open_in(&far).unwrap();
    (near, setup, far)
}

#[test]
fn a_veth_pair_over_two_namespaces() {
    let (_near, mut near, mut far) = pair();
    let a = near.link("a0").unwrap().unwrap();
    assert_eq!((a.mac, a.mtu, a.up, a.master), (Some(MAC), 1400, true, None));
    assert_eq!(near.link("b0").unwrap(), None);
    let b = far.link("b0").unwrap().unwrap();
    assert_eq!((b.mtu, b.up), (1450, false));

    far.set_up("b0").unwrap();
    far.set_mtu("b0", 1300).unwrap();
    far.set_mac("b0", MacAddr([2, 0, 0, 0, 0, 1])).unwrap();
    far.rename("b0", "eth0").unwrap();
    let b = far.link("eth0").unwrap().unwrap();
    assert_eq!(
        (b.mtu, b.up, b.mac),
        (1300, true, Some(MacAddr([2, 0, 0, 0, 0, 1])))
    );

    far.delete_link("eth0").unwrap();
    assert_eq!(near.link("a0").unwrap(), None, "a veth goes with its other end");
    near.delete_link("a0").unwrap();
}

#[test]
fn a_bridge_and_its_ports() {
    let (_near, mut near, _far) = pair();
    near.add_bridge("br0").unwrap();
    near.set_master("a0", "br0").unwrap();
    let bridge = near.link("br0").unwrap().unwrap();
    assert!(bridge.up);
    assert_eq!(near.link("a0").unwrap().unwrap().master, Some(bridge.index));
    assert!(near.add_bridge("br0").unwrap_err().is_already_exists());
}

#[test]
fn a_missing_link_is_named() {
    let (_near, mut near, _far) = pair();
    let error = near.add_address("nope0", net("10.0.0.1/24")).unwrap_err();
    assert!(
        error.is_missing_link() && error.to_string().contains("nope0"),
        "{error}"
    );
    assert!(near.set_up("nope0").unwrap_err().is_missing_link());
}

#[test]
fn addresses_can_be_used_at_once() {
    let (netns, mut near, mut far) = pair();
    far.set_up("b0").unwrap();
    for address in ["10.0.0.1/24", "fd00::1/64"] {
        near.add_address("a0", net(address)).unwrap();
        near.add_address("a0", net(address)).unwrap();
        let bind = || std::net::UdpSocket::bind((net(address).addr(), 0));
        netns.run(bind).unwrap().unwrap();
        near.delete_address("a0", net(address)).unwrap();
        near.delete_address("a0", net(address)).unwrap();
        assert!(netns.run(bind).unwrap().is_err());
    }
}

/// Routes as a reader of `ip route` sees them, but for those that the kernel makes by itself.
fn routes(inspector: &mut Inspector, family: Family) -> Vec<String> {
    let rows = inspector.routes(family).unwrap();
    rows.iter()
        .map(|row| row.to_string())
        .filter(|row| !row.contains("proto kernel"))
        .collect()
}

#[test]
fn routes_of_every_shape() {
    let (netns, mut near, mut far) = pair();
    far.set_up("b0").unwrap();
    near.add_address("a0", net("10.0.0.1/24")).unwrap();
    near.add_address("a0", net("fd00::1/64")).unwrap();
    let mut inspector = Inspector::open_in(&netns).unwrap();

    let to = net("10.9.0.0/16");
    let gateway = "10.0.0.2".parse().unwrap();
    for (route, text) in [
        (RouteSpec::to_link(to, "a0"), "10.9.0.0/16 dev a0"),
        (
            RouteSpec::via(to, gateway, None).protocol(80),
            "10.9.0.0/16 via 10.0.0.2 dev a0 proto 80",
        ),
        (
            RouteSpec::via(to, "10.77.0.1".parse().unwrap(), Some("a0")).onlink(),
            "10.9.0.0/16 via 10.77.0.1 dev a0 onlink",
        ),
        (
            RouteSpec::via(to, gateway, Some("a0")).metric(50),
            "10.9.0.0/16 via 10.0.0.2 dev a0 metric 50",
        ),
        (RouteSpec::blackhole(to), "blackhole 10.9.0.0/16"),
    ] {
        near.add_route(route).unwrap();
        near.add_route(route).unwrap();
        assert_eq!(routes(&mut inspector, Family::V4), [text]);
        near.delete_route(to).unwrap();
        near.delete_route(to).unwrap();
        assert!(routes(&mut inspector, Family::V4).is_empty(), "{text}");
    }

    let to = net("fd09::/64");
    for (route, text) in [
        (RouteSpec::to_link(to, "a0"), "fd09::/64 dev a0 metric 1024"),
        (
            RouteSpec::via(to, "fd00::2".parse().unwrap(), None),
            "fd09::/64 via fd00::2 dev a0 metric 1024",
        ),
        (
            RouteSpec::blackhole(to).metric(7),
            "blackhole fd09::/64 dev lo metric 7",
        ),
    ] {
        near.add_route(route).unwrap();
        assert_eq!(routes(&mut inspector, Family::V6), [text]);
        near.delete_route(to).unwrap();
        assert!(routes(&mut inspector, Family::V6).is_empty(), "{text}");
    }

    for to in [
        net("10.9.0.0/16"),
        net("0.0.0.0/0"),
        net("fd09::/64"),
        net("::/0"),
    ] {
        near.add_route(RouteSpec::to_link(to, "a0")).unwrap();
        near.replace_route(RouteSpec::blackhole(to)).unwrap();
        let rows = inspector.routes(Family::of_net(to)).unwrap();
        let rows: Vec<_> = rows.iter().filter(|row| row.destination == to).collect();
        assert!(matches!(rows.as_slice(), [row] if row.blackhole), "{rows:?}");
    }
}

#[test]
fn links_and_addresses_are_listed() {
    let (netns, mut near, _far) = pair();
    near.add_address("a0", net("10.0.0.1/24")).unwrap();
    let mut inspector = Inspector::open_in(&netns).unwrap();
    let links = inspector.links().unwrap();
    let a = links.iter().find(|row| row.name.as_str() == "a0").unwrap();
    let index = near.link("a0").unwrap().unwrap().index;
    assert_eq!(
        a.to_string(),
        format!("{index}: a0 mtu 1400 up ee:ee:ee:ee:ee:ee veth")
    );
    let addresses = inspector.addresses().unwrap();
    assert!(
        addresses
            .iter()
            .any(|row| row.to_string() == "10.0.0.1/24 dev a0"),
        "{addresses:?}"
    );
}

#[test]
fn neighbours_and_forwarding_entries_come_and_go() {
    let (netns, mut near, _far) = pair();
    let vxlan = Link {
        kind: LinkKind::Vxlan(Vxlan {
            vni: 7,
            port: 4790,
            local: "10.0.0.1".parse().unwrap(),
            parent: Some("a0".parse().unwrap()),
            learning: true,
            odd: false,
        }),
        mac: Some(MAC),
        mtu: None,
        up: true,
        running: true,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    };
    near.add_vxlan("vx0".parse().unwrap(), &vxlan).unwrap();
    let mac = MacAddr([0x66, 0, 0, 0, 0, 1]);
    let mut inspector = Inspector::open_in(&netns).unwrap();

    for (address, text) in [
        ("10.0.0.2", "10.0.0.2 dev vx0 lladdr 66:00:00:00:00:01 permanent"),
        ("fd00::2", "fd00::2 dev vx0 lladdr 66:00:00:00:00:01 permanent"),
    ] {
        let address = address.parse().unwrap();
        let mut listed = || -> Vec<String> {
            let rows = inspector.neighbours(Family::of(address)).unwrap();
            rows.iter().map(ToString::to_string).collect()
        };
        near.replace_neighbour("vx0", address, mac).unwrap();
        assert_eq!(listed(), [text]);
        near.delete_neighbour("vx0", address).unwrap();
        near.delete_neighbour("vx0", address).unwrap();
        assert!(listed().is_empty(), "{:?}", listed());
    }

    let mut remotes = || -> Vec<_> {
        let rows = inspector.fdb().unwrap();
        rows.iter()
            .filter(|row| row.mac == mac)
            .map(ToString::to_string)
            .collect()
    };
    for remote in ["10.0.0.3", "10.0.0.4"] {
        near.replace_fdb("vx0", mac, remote.parse().unwrap()).unwrap();
        assert_eq!(
            remotes(),
            [format!("66:00:00:00:00:01 dev vx0 dst {remote} permanent")]
        );
    }
    near.delete_fdb("vx0", mac).unwrap();
    near.delete_fdb("vx0", mac).unwrap();
    assert!(remotes().is_empty());
}

#[test]
fn what_is_noted_on_a_link_comes_with_it() {
    let (_near, mut near, _far) = pair();
    let a = near.link("a0").unwrap().unwrap();
    assert_eq!(a.alias.as_deref(), Some("whose it is"));
    near.set_alias("a0", "another's").unwrap();
    let links = near.links().unwrap();
    let a = links
        .iter()
        .find(|link| link.name.is_some_and(|name| name.as_str() == "a0"))
        .unwrap();
    assert_eq!(a.alias.as_deref(), Some("another's"));
    assert_eq!(near.link("lo").unwrap().unwrap().alias, None);
}

#[test]
fn a_link_is_deleted_by_what_it_is_not_by_its_name() {
    let (_near, mut near, mut far) = pair();
    let old = near.link("a0").unwrap().unwrap();
    near.rename("a0", "a1").unwrap();
    near.delete(&old).unwrap();
    assert_eq!(far.link("b0").unwrap(), None);
    near.delete(&old).unwrap();
}

#[test]
fn an_address_is_local_where_it_is_and_soon_after_it_has_come() {
    let (_near, mut near, mut far) = pair();
    far.set_up("b0").unwrap();
    for address in ["10.244.1.2/32", "fd00::2/128", "fe80::2/64"] {
        let address = net(address);
        assert!(!near.is_local("a0", address.addr()).unwrap(), "{address}");
        near.add_address("a0", address).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !near.is_local("a0", address.addr()).unwrap() {
            assert!(Instant::now() < deadline, "{address}");
            std::thread::yield_now();
        }
        near.delete_address("a0", address).unwrap();
        assert!(!near.is_local("a0", address.addr()).unwrap(), "{address}");
    }
}

#[test]
fn what_a_host_would_send_on() {
    let (_near, mut near, _far) = pair();
    for (everywhere, address) in [("0.0.0.0/0", "169.254.1.1"), ("::/0", "2001:db8::1")] {
        let (everywhere, address) = (net(everywhere), address.parse().unwrap());
        assert!(!near.has_route(address).unwrap(), "{address}");
        near.add_route(RouteSpec::to_link(everywhere, "a0")).unwrap();
        assert!(near.has_route(address).unwrap(), "{address}");
        near.delete_route(everywhere).unwrap();
        near.add_route(RouteSpec::blackhole(everywhere)).unwrap();
        assert!(!near.has_route(address).unwrap(), "{address}");
    }
    near.add_address("a0", net("10.0.0.1/32")).unwrap();
    assert!(!near.has_route("10.0.0.1".parse().unwrap()).unwrap(), "its own");
}
