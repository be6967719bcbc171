//! Each kind of object, in both families: made, read back the same, replaced, deleted, and deleted again.

#![allow(clippy::unwrap_used, reason = "clippy does not take the helpers for tests")]

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;

use common::*;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoVxlan, VxlanDf};
use routelet_model::{Family, Key, Kind, Link, LinkKind, Object, RouteTarget, Sysctl, SysctlName};
use routelet_netlink::setup::RouteSpec;
use routelet_netlink::{Error, Kernel, Setup, Socket, Verb};
use rtnetlink::LinkVxlan;

/// What the kernel holds is what was written: nothing more, nothing less, nothing different.
fn assert_holds(kernel: &mut Kernel, wanted: &[(Key, Object)]) {
    let actual = dump_all(kernel);
    let wanted: BTreeMap<_, _> = wanted.iter().cloned().collect();
    for (key, object) in &wanted {
        let found = actual.get(key);
        assert!(
            found.is_some_and(|found| object.satisfied_by(found)),
            "{key}: {object:?}, found {found:?}"
        );
    }
    let surplus: Vec<_> = actual.keys().filter(|key| !wanted.contains_key(key)).collect();
    assert!(surplus.is_empty(), "{surplus:?}");
}

#[test]
fn what_is_written_is_read_back() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        assert!(kernel.features().nexthop_objects && kernel.features().strict_dump);
        let mut objects = all_objects();
        all(&mut kernel, Verb::Create, &objects);
        assert_holds(&mut kernel, &objects);
        // One that starts anew learns the same, nexthop ids included.
        assert_holds(&mut open(), &objects);
        all(&mut kernel, Verb::Replace, &objects);
        assert_holds(&mut kernel, &objects);
        objects.reverse();
        all(&mut kernel, Verb::Delete, &objects);
        assert_holds(&mut kernel, &[]);
        all(&mut kernel, Verb::Delete, &objects);
    });
}

#[test]
fn a_dump_of_one_link_tells_what_is_on_it() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        all(&mut kernel, Verb::Create, &all_objects());
        for family in Family::ALL {
            for kind in [
                Kind::Address,
                Kind::Fdb,
                Kind::Neighbour,
                Kind::Nexthop,
                Kind::Route,
            ] {
                let found = dump(&mut kernel, kind, Some(device(family)));
                assert_eq!(found.len(), 1, "{kind} {family}: {found:?}");
            }
        }
        assert_eq!(dump(&mut kernel, Kind::Route, Some(name("eth0"))).len(), 2);
        assert_eq!(dump(&mut kernel, Kind::Route, Some(name(POD))).len(), 2);
        assert_eq!(dump(&mut kernel, Kind::Route, Some(name("absent"))).len(), 0);
        assert_eq!(dump(&mut kernel, Kind::Link, Some(name("absent"))).len(), 0);
        assert_eq!(dump(&mut kernel, Kind::Link, Some(device(Family::V4))).len(), 1);
    });
}

#[test]
fn a_link_is_brought_to_what_it_shall_be() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        all(&mut kernel, Verb::Create, &[vxlan(Family::V4)]);
        let (key, Object::Link(wanted)) = vxlan(Family::V4) else {
            unreachable!()
        };
        let changed = Link {
            mac: Some(mac(77)),
            mtu: Some(1300),
            up: false,
            ..(*wanted).clone()
        };
        let changed = Object::Link(Box::new(changed));
        all(&mut kernel, Verb::Replace, &[(key, changed.clone())]);
        let found = dump(&mut kernel, Kind::Link, Some(device(Family::V4)));
        assert!(changed.satisfied_by(&found[&key]), "{found:?}");

        let veth = Link {
            kind: LinkKind::Veth,
            mac: Some(mac(5)),
            mtu: None,
            up: true,
            running: true,
            enslaved: false,
            given: Vec::new(),
            index: 0,
        };
        let veth = (Key::Link(name(POD)), Object::Link(Box::new(veth)));
        all(&mut kernel, Verb::Replace, std::slice::from_ref(&veth));
        assert!(veth.1.satisfied_by(&dump(&mut kernel, Kind::Link, None)[&veth.0]));
        let failures = apply(&mut kernel, &[operation(Verb::Create, &veth)]);
        assert!(matches!(failures[0].error, Error::Unsupported(_)));
    });
}

/// The VXLAN device of a family, made by someone who has set more than we do; what is seen of it.
fn seen_with(kernel: &mut Kernel, family: Family, options: &[InfoVxlan]) -> LinkKind {
    let (name, Object::Link(link)) = (device(family), vxlan(family).1) else {
        unreachable!()
    };
    let LinkKind::Vxlan(vxlan) = link.kind else {
        unreachable!()
    };
    let mut setup = Setup::open().unwrap();
    let mut device = LinkVxlan::new(name.as_str(), vxlan.vni)
        .port(vxlan.port)
        .dev(setup.link("eth0").unwrap().unwrap().index);
    device = match vxlan.local {
        IpAddr::V4(local) => device.local(local),
        IpAddr::V6(local) => device.local6(local),
    };
    for option in options {
        device = device.append_info_data(option.clone());
    }
    let create = RouteNetlinkMessage::NewLink(device.build());
    let made = Socket::open()
        .unwrap()
        .request(&create, NLM_F_CREATE | NLM_F_EXCL);
    made.unwrap_or_else(|error| panic!("{options:?}: {error}"));
    let mut found = dump(kernel, Kind::Link, Some(name));
    setup.delete_link(name.as_str()).unwrap();
    match found.remove(&Key::Link(name)) {
        Some(Object::Link(link)) => link.kind,
        found => panic!("{options:?}: {found:?}"),
    }
}

#[test]
fn a_vxlan_device_with_options_that_we_never_set_is_told_from_one_of_ours() {
    use InfoVxlan::*;
    // What Calico and flannel say of theirs beyond the address, the parent and the port.
    let calicos = [
        Ttl(0),
        Tos(0),
        Learning(false),
        Proxy(false),
        Rsc(false),
        L2Miss(false),
        L3Miss(false),
        UDPZeroCsumTX(false),
        UDPZeroCsumRX(false),
    ];
    let options = [
        vec![Ttl(1)],
        vec![TtlInheritFlag],
        vec![Tos(1)],
        vec![Limit(1)],
        vec![PortRange((50_000, 50_001))],
        vec![Proxy(true)],
        vec![Rsc(true)],
        vec![L2Miss(true)],
        vec![L3Miss(true)],
        vec![UDPCsum(false)],
        vec![UDPZeroCsumTX(true)],
        vec![RemCsumTX(true)],
        vec![RemCsumRX(true)],
        vec![RemCsumNoPartial],
        vec![Gbp],
        vec![Df(VxlanDf::Set)],
        vec![CollectMetadata(true)],
        vec![CollectMetadata(true), Gpe],
        vec![CollectMetadata(true), Vnifilter(true)],
    ];
    in_netns(|| {
        make_links();
        let mut kernel = open();
        for family in Family::ALL {
            let Object::Link(ours) = vxlan(family).1 else {
                unreachable!()
            };
            assert_eq!(seen_with(&mut kernel, family, &calicos), ours.kind, "{family}");
            let first_versions = [Learning(false), UDPZeroCsumRX(true)];
            assert_eq!(
                seen_with(&mut kernel, family, &first_versions),
                ours.kind,
                "{family}"
            );
            let (label, remote) = match family {
                Family::V4 => (None, Group([192, 0, 2, 9].into())),
                Family::V6 => (Some(vec![Label(7)]), Group6("2001:db8::9".parse().unwrap())),
            };
            for given in options.iter().chain(&label).chain(&[vec![remote]]) {
                let given = [&[Learning(false)], given.as_slice()].concat();
                let LinkKind::Vxlan(seen) = seen_with(&mut kernel, family, &given) else {
                    panic!("{given:?}")
                };
                assert!(seen.odd, "{given:?}: {seen:?}");
            }
        }
    });
}

#[test]
fn a_change_of_mtu_takes_nothing_from_a_link() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        let mut wanted = all_objects();
        all(&mut kernel, Verb::Create, &wanted);
        for (key, object) in &mut wanted {
            if let (Key::Link(_), Object::Link(link)) = (*key, &mut *object)
                && matches!(link.kind, LinkKind::Vxlan(_))
            {
                link.mtu = Some(1300);
                all(&mut kernel, Verb::Replace, &[(*key, object.clone())]);
            }
        }
        assert_holds(&mut kernel, &wanted);
    });
}

#[test]
fn a_link_made_anew_has_another_index_and_is_empty() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        let objects = objects(Family::V4);
        all(&mut kernel, Verb::Create, &objects);
        let Object::Link(before) = &dump(&mut kernel, Kind::Link, Some(device(Family::V4)))[&objects[0].0]
        else {
            unreachable!()
        };
        let before = before.index;
        Setup::open()
            .unwrap()
            .delete_link(device(Family::V4).as_str())
            .unwrap();
        // No notification has been read: the failures alone must lead to the new index.
        let failures = apply(&mut kernel, &[operation(Verb::Create, &objects[2])]);
        assert!(failures[0].error.is_missing_link(), "{}", failures[0].error);
        let failures = apply(&mut kernel, &[operation(Verb::Create, &objects[2])]);
        assert!(
            matches!(failures[0].error, Error::NoSuchLink(_)),
            "{}",
            failures[0].error
        );
        all(&mut kernel, Verb::Create, &objects[..6]);
        assert_holds(&mut kernel, &objects);
        let Object::Link(after) = &dump(&mut kernel, Kind::Link, Some(device(Family::V4)))[&objects[0].0]
        else {
            unreachable!()
        };
        assert_ne!(after.index, before);
    });
}

#[test]
fn a_foreign_route_of_another_metric_is_left_alone() {
    in_netns(|| {
        let mut setup = make_links();
        let mut kernel = open();
        let other = RouteSpec::to_link(net("10.0.0.7/32"), POD).protocol(4).metric(50);
        setup.add_route(other).unwrap();
        let pod = (
            Key::route(net("10.0.0.7/32")),
            Object::Route(RouteTarget::Link(name(POD))),
        );
        // Ours is not there: the kernel takes metric 0 for "any", and must not take the other's.
        all(&mut kernel, Verb::Delete, std::slice::from_ref(&pod));
        let mut theirs = Kernel::open(routelet_netlink::Config {
            protocol: 4,
            ..config()
        })
        .unwrap();
        assert_eq!(dump(&mut theirs, Kind::Route, None).len(), 1);
        all(&mut kernel, Verb::Create, std::slice::from_ref(&pod));
        all(&mut kernel, Verb::Delete, std::slice::from_ref(&pod));
        assert_eq!(dump(&mut theirs, Kind::Route, None).len(), 1);
        assert_eq!(dump(&mut kernel, Kind::Route, None).len(), 0);
    });
}

#[test]
fn a_route_of_ours_in_another_shape_is_odd_and_can_be_deleted() {
    in_netns(|| {
        let mut setup = make_links();
        let mut kernel = open();
        // Over the parent we make none of these.
        let onlink = |to, gateway| {
            let route = RouteSpec::via(net(to), ip(gateway), Some("eth0"));
            route.onlink().protocol(PROTOCOL)
        };
        setup.add_route(onlink("10.0.1.0/24", "192.0.2.9")).unwrap();
        setup.add_route(onlink("fd00:1::/64", "2001:db8::9")).unwrap();
        let found = dump(&mut kernel, Kind::Route, None);
        assert_eq!(found.len(), 2);
        for object in found.values() {
            assert_eq!(*object, Object::OddRoutes);
        }
        let found: Vec<_> = found.into_iter().collect();
        all(&mut kernel, Verb::Delete, &found);
        assert_eq!(dump(&mut kernel, Kind::Route, None).len(), 0);
    });
}

#[test]
fn a_nexthop_id_that_someone_has_is_passed_over() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        let objects = objects(Family::V4);
        all(&mut kernel, Verb::Create, &objects[..1]);
        // Another makes the same nexthop under the same id, but with its own protocol.
        let mut other = Kernel::open(routelet_netlink::Config {
            protocol: 4,
            ..config()
        })
        .unwrap();
        all(&mut other, Verb::Create, &objects[4..5]);
        let failures = apply(&mut kernel, &[operation(Verb::Create, &objects[4])]);
        assert!(failures[0].error.is_already_exists(), "{}", failures[0].error);
        all(&mut kernel, Verb::Create, &objects[4..6]);
        assert_holds(
            &mut kernel,
            &[objects[0].clone(), objects[4].clone(), objects[5].clone()],
        );
        assert_eq!(dump(&mut other, Kind::Nexthop, None).len(), 1);
    });
}

#[test]
fn two_that_want_the_same_nexthop_share_it() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        let objects = objects(Family::V6);
        all(&mut kernel, Verb::Create, &objects[..1]);
        // As after a restart: the second finds the first's id taken, by just what it wants.
        let mut second = open();
        all(&mut kernel, Verb::Create, &objects[4..5]);
        all(&mut second, Verb::Create, &objects[4..6]);
        assert_holds(
            &mut kernel,
            &[objects[0].clone(), objects[4].clone(), objects[5].clone()],
        );
    });
}

#[test]
fn a_gateway_may_be_reached_otherwise_so_far() {
    in_netns(|| {
        let mut setup = make_links();
        let mut kernel = open();
        for family in Family::ALL {
            let objects = objects(family);
            let (device, nexthop, route) = (&objects[0], &objects[4], &objects[5]);
            all(&mut kernel, Verb::Create, std::slice::from_ref(device));
            let (destination, wide, direct) = match family {
                Family::V4 => ("10.0.1.0/24", "10.0.0.0/8", "192.0.2.9"),
                Family::V6 => ("fd00:1::/64", "fd00::/16", "2001:db8::9"),
            };
            let over_underlay = |net| RouteSpec::via(net, ip(direct), Some("eth0"));
            setup.add_route(over_underlay(net(wide))).unwrap();
            setup.add_route(over_underlay(net(destination))).unwrap();
            // IPv6 refuses the nexthop as long as the routes that are there lead to it over eth0.
            let operations = [operation(Verb::Create, nexthop), operation(Verb::Replace, route)];
            assert!(apply(&mut kernel, &operations).is_empty());
            let Object::Route(RouteTarget::Nexthop { link, gateway }) = route.1 else {
                panic!("{route:?}")
            };
            let plain = (route.0, Object::Route(RouteTarget::Gateway { link, gateway }));
            setup.replace_route(over_underlay(net(destination))).unwrap();
            let failures = apply(&mut kernel, &[operation(Verb::Create, &plain)]);
            assert!(failures[0].error.is_already_exists(), "{}", failures[0].error);
            all(&mut kernel, Verb::Replace, std::slice::from_ref(&plain));
            assert_eq!(
                dump(&mut kernel, Kind::Route, Some(link)),
                [plain].into(),
                "and nothing besides"
            );
        }
    });
}

#[test]
fn an_address_with_another_prefix_length_is_in_the_way_in_ipv6() {
    in_netns(|| {
        let mut setup = make_links();
        let mut kernel = open();
        for (family, expected) in [(Family::V4, 0), (Family::V6, 1)] {
            let objects = objects(family);
            all(&mut kernel, Verb::Create, &objects[..1]);
            let (key, link) = (objects[1].0, device(family));
            let Key::Address { address, .. } = key else {
                panic!("{key}")
            };
            let wide = IpNet::new(address.addr(), address.prefix_len() - 8).unwrap();
            setup.add_address(link.as_str(), wide).unwrap();
            let create = [operation(Verb::Create, &objects[1])];
            assert_eq!(apply(&mut kernel, &create).len(), expected);
            setup.delete_address(link.as_str(), wide).unwrap();
            assert!(apply(&mut kernel, &create).is_empty());
            assert!(
                apply(&mut kernel, &create).is_empty(),
                "that it is there already is no failure"
            );
        }
    });
}

#[test]
fn settings_are_written_in_order_and_read() {
    in_netns(|| {
        let mut setup = make_links();
        let mut kernel = open();
        let host = [SysctlName::Ipv4IpForward, SysctlName::Ipv6AllForwarding].map(Sysctl::host);
        let pod = [
            (SysctlName::Ipv4ProxyArp, 1),
            (SysctlName::Ipv4RpFilter, 1),
            (SysctlName::Ipv4ProxyDelay, 0),
            (SysctlName::Ipv4Forwarding, 1),
            (SysctlName::Ipv6Forwarding, 1),
            (SysctlName::Ipv6ProxyNdp, 1),
            (SysctlName::Ipv6AcceptRa, 0),
        ]
        .map(|(setting, value)| (Sysctl::link(setting, name(POD)), value));
        let settings: Vec<_> = host.into_iter().map(|sysctl| (sysctl, 1)).chain(pod).collect();
        let objects: Vec<_> = settings
            .iter()
            .map(|(sysctl, value)| (Key::Sysctl(*sysctl), Object::Sysctl(*value)))
            .collect();
        all(&mut kernel, Verb::Create, &objects);
        all(&mut kernel, Verb::Replace, &objects);
        all(&mut kernel, Verb::Delete, &objects);
        for (sysctl, value) in &settings {
            assert_eq!(kernel.sysctl(*sysctl).unwrap(), Some(*value), "{sysctl}");
        }
        setup.delete_link(POD).unwrap();
        assert_eq!(kernel.sysctl(pod[0].0).unwrap(), None);
        let failures = apply(&mut kernel, &[operation(Verb::Replace, &objects[2])]);
        assert!(failures[0].error.is_missing_link());
    });
}

#[test]
fn the_host_is_told_without_what_is_ours() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        all(&mut kernel, Verb::Create, &all_objects());
        let host = kernel.host().unwrap();
        let mut names: Vec<_> = host.links.iter().map(|link| link.name.to_string()).collect();
        // Where its module is loaded, IPIP has a device in each namespace.
        names.retain(|name| name != "tunl0");
        names.sort();
        assert_eq!(names, ["eth0", "far3456789a", "fareth0", "lo"]);
        let (eth0, address) = host.holder(ip("192.0.2.1")).unwrap();
        assert_eq!(
            (eth0.name.as_str(), eth0.mtu, eth0.up, address),
            ("eth0", 1500, true, net("192.0.2.1/24"))
        );
        assert_eq!(eth0.addresses, [net("192.0.2.1/24"), net("2001:db8::1/64")]);
    });
}
