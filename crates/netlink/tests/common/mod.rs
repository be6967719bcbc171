//! A node in a network namespace of its own: an underlay link, VXLAN devices of both families and a pod's veth.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use routelet_model::{Family, IfName, Key, Kind, Link, LinkKind, MacAddr, Object, RouteTarget, Vxlan};
use routelet_netlink::{Config, Failure, Kernel, Netns, Operation, Setup, Verb};

/// The protocol of the routes that are ours.
pub const PROTOCOL: u8 = 80;

/// Runs a test on a thread in a fresh network namespace; says so and does not run it where that is not allowed.
pub fn in_netns(test: impl FnOnce() + Send) {
    match Netns::new() {
        Ok(netns) => netns.run(test).unwrap(),
        Err(error) if error.errno() == Some(1) => routelet_lab::skip!("needs root: {error}"),
        Err(error) => panic!("{error}"),
    }
}

pub fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn mac(last: u8) -> MacAddr {
    MacAddr([0x66, 0, 0, 0, 0, last])
}

/// The VXLAN device of a family.
pub fn device(family: Family) -> IfName {
    match family {
        Family::V4 => name("vxlan.calico"),
        Family::V6 => name("vxlan-v6.calico"),
    }
}

pub const POD: &str = "cali0123456789a";

pub fn config() -> Config {
    Config {
        protocol: PROTOCOL,
        devices: Family::ALL.map(device).to_vec(),
        interface_prefix: "cali".to_owned(),
        nft_table: "routelet".to_owned(),
        receive_buffer: 4 << 20,
    }
}

pub fn open() -> Kernel {
    Kernel::open(config()).unwrap()
}

/// Makes the underlay link eth0 and the pod's host veth, both with carrier.
pub fn make_links() -> Setup {
    let mut setup = Setup::open().unwrap();
    make_veth(&mut setup, "eth0");
    make_veth(&mut setup, POD);
    setup.add_address("eth0", net("192.0.2.1/24")).unwrap();
    setup.add_address("eth0", net("2001:db8::1/64")).unwrap();
    setup
}

pub fn make_veth(setup: &mut Setup, near: &str) {
    use routelet_netlink::setup::VethEnd;
    let far = format!("far{}", &near[near.len().saturating_sub(8)..]);
    let here = Netns::current().unwrap();
    let near = VethEnd {
        name: near,
        up: true,
        ..VethEnd::default()
    };
    setup
        .add_veth(
            near,
            VethEnd {
                name: &far,
                ..VethEnd::default()
            },
            &here,
        )
        .unwrap();
    setup.set_up(&far).unwrap();
}

/// The VXLAN device of the family as it is wanted.
pub fn vxlan(family: Family) -> (Key, Object) {
    let (local, mac, mtu) = match family {
        Family::V4 => (ip("192.0.2.1"), mac(4), 1450),
        Family::V6 => (ip("2001:db8::1"), mac(6), 1430),
    };
    let vxlan = Vxlan {
        vni: 4096,
        port: 4789,
        local,
        parent: Some(name("eth0")),
        learning: false,
        odd: false,
    };
    let link = Link {
        kind: LinkKind::Vxlan(vxlan),
        mac: Some(mac),
        mtu: Some(mtu),
        up: true,
        running: true,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    };
    (Key::Link(device(family)), Object::Link(Box::new(link)))
}

/// One of each that can stand on the VXLAN device, and the routes, in the order in which they are made.
pub fn objects(family: Family) -> Vec<(Key, Object)> {
    let link = device(family);
    let [own, remote, far, gateway, subnet, direct, hole, pod] = match family {
        Family::V4 => [
            "10.0.0.0",
            "10.0.1.0",
            "192.0.2.2",
            "192.0.2.9",
            "10.0.1.0/24",
            "10.0.2.0/24",
            "10.0.0.0/24",
            "10.0.0.7/32",
        ],
        Family::V6 => [
            "fd00::",
            "fd00:1::",
            "2001:db8::2",
            "2001:db8::9",
            "fd00:1::/64",
            "fd00:2::/64",
            "fd00::/64",
            "fd00::7/128",
        ],
    };
    let nexthop = RouteTarget::Nexthop {
        link,
        gateway: ip(remote),
    };
    let eth0 = name("eth0");
    vec![
        vxlan(family),
        (
            Key::Address {
                link,
                address: ip(own).into(),
            },
            Object::Address,
        ),
        (Key::Fdb { link, mac: mac(9) }, Object::Fdb(ip(far))),
        (
            Key::Neighbour {
                link,
                address: ip(remote),
            },
            Object::Neighbour(mac(9)),
        ),
        (
            Key::Nexthop {
                link,
                gateway: ip(remote),
            },
            Object::Nexthop,
        ),
        (Key::route(net(subnet)), Object::Route(nexthop)),
        (
            Key::route(net(direct)),
            Object::Route(RouteTarget::Gateway {
                link: eth0,
                gateway: ip(gateway),
            }),
        ),
        (Key::route(net(hole)), Object::Route(RouteTarget::Blackhole)),
        (Key::route(net(pod)), Object::Route(RouteTarget::Link(name(POD)))),
    ]
}

pub fn all_objects() -> Vec<(Key, Object)> {
    Family::ALL.into_iter().flat_map(objects).collect()
}

pub fn operation(verb: Verb, (key, object): &(Key, Object)) -> Operation {
    Operation {
        verb,
        key: *key,
        object: object.clone(),
    }
}

pub fn apply(kernel: &mut Kernel, operations: &[Operation]) -> Vec<Failure> {
    let mut failures = Vec::new();
    kernel.apply(operations, &mut failures);
    failures
}

/// Does the same to all of them, and none may fail.
pub fn all(kernel: &mut Kernel, verb: Verb, objects: &[(Key, Object)]) {
    let operations: Vec<_> = objects.iter().map(|object| operation(verb, object)).collect();
    let failures = apply(kernel, &operations);
    let failed: Vec<_> = failures
        .iter()
        .map(|f| (operations[f.index].key, f.error.to_string()))
        .collect();
    assert!(failed.is_empty(), "{verb:?}: {failed:?}");
}

pub fn dump(kernel: &mut Kernel, kind: Kind, link: Option<IfName>) -> BTreeMap<Key, Object> {
    let mut found = BTreeMap::new();
    kernel
        .dump(kind, link, &mut |key, object| {
            assert_eq!(found.insert(key, object), None, "{key} twice");
        })
        .unwrap();
    found
}

/// Everything but links that are not VXLAN devices.
pub fn dump_all(kernel: &mut Kernel) -> BTreeMap<Key, Object> {
    let mut found: BTreeMap<_, _> = Kind::ALL
        .into_iter()
        .flat_map(|kind| dump(kernel, kind, None))
        .collect();
    found.retain(|key, _| !matches!(key, Key::Link(name) if name.as_str().starts_with("cali")));
    found
}
