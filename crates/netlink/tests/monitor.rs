//! What others change is told, what we change ourselves is not. The kernel has queued its notifications when a
//! request returns, but for IPv6 addresses.

#![allow(clippy::unwrap_used, reason = "clippy does not take the helpers for tests")]

mod common;

use std::time::Duration;

use common::*;
use routelet_model::{Family, Key, Kind, Object, RouteTarget, Sysctl, SysctlName};
use routelet_netlink::setup::RouteSpec;
use routelet_netlink::{Config, Flushed, Hint, Kernel, Setup, Verb};

/// How long something may take that must happen.
const LIMIT: Duration = Duration::from_secs(10);

fn hints(kernel: &mut Kernel) -> Vec<Hint> {
    let mut hints = Vec::new();
    kernel.drain(&mut hints);
    hints
}

thread_local! {
    /// A kernel is waited for in one runtime all its life, and each test has a thread of its own.
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
}

/// Waits for a hint: of IPv6 addresses the kernel tells from a worker.
fn expect(kernel: &mut Kernel, expected: &Hint) {
    let mut told = hints(kernel);
    while !told.contains(expected) {
        let more = RUNTIME
            .with(|runtime| runtime.block_on(async { tokio::time::timeout(LIMIT, kernel.ready()).await }));
        assert!(more.is_ok(), "{expected:?} is missing among {told:?}");
        told.extend(hints(kernel));
    }
}

/// A kernel with all objects of both families in it, and its notifications read.
fn with_all() -> (Setup, Kernel) {
    let setup = make_links();
    let mut kernel = open();
    all(&mut kernel, Verb::Create, &all_objects());
    kernel.host().unwrap();
    hints(&mut kernel);
    (setup, kernel)
}

#[test]
fn our_own_writes_are_not_told_and_those_of_others_are() {
    in_netns(|| {
        let (_, mut kernel) = with_all();
        let mut other = open();
        let silent = |object: &&(Key, Object)| {
            let kind = object.0.kind();
            // The kernel tells of these by itself, some time after the fact.
            !matches!(kind, Kind::Link | Kind::Address | Kind::Fdb | Kind::Neighbour)
        };
        let mut ours: Vec<_> = all_objects().iter().filter(silent).cloned().collect();
        ours.reverse();
        all(&mut kernel, Verb::Delete, &ours);
        ours.reverse();
        all(&mut kernel, Verb::Create, &ours);
        let told = hints(&mut kernel);
        let about_ours = |hint: &&Hint| match hint {
            Hint::Seen(key, _) | Hint::Added(key, _) | Hint::Gone(key) => {
                ours.iter().any(|(ours, _)| ours == key)
            }
            _ => false,
        };
        assert_eq!(told.iter().find(about_ours), None);

        let route = all_objects().pop().unwrap();
        all(&mut other, Verb::Delete, std::slice::from_ref(&route));
        assert!(hints(&mut kernel).contains(&Hint::Gone(route.0)));
        all(&mut other, Verb::Create, std::slice::from_ref(&route));
        assert!(hints(&mut kernel).contains(&Hint::Added(route.0, route.1)));
    });
}

#[test]
fn deletion_and_return_of_each_kind_are_told() {
    in_netns(|| {
        let (_, mut kernel) = with_all();
        let mut other = open();
        for object in all_objects()
            .into_iter()
            .filter(|(key, _)| key.kind() != Kind::Link)
            .rev()
        {
            let object = std::slice::from_ref(&object);
            let (key, state) = object[0].clone();
            // A nexthop has routes on it; they go with it, in IPv4 without a word.
            let users: Vec<_> = all_objects()
                .into_iter()
                .filter(|(_, user)| match (user, key) {
                    (
                        Object::Route(RouteTarget::Nexthop { gateway, .. }),
                        Key::Nexthop { gateway: of, .. },
                    ) => *gateway == of,
                    _ => false,
                })
                .collect();
            all(&mut other, Verb::Delete, &users);
            hints(&mut kernel);
            all(&mut other, Verb::Delete, object);
            expect(&mut kernel, &Hint::Gone(key));
            all(&mut other, Verb::Create, object);
            let told = match key.kind() {
                Kind::Route => Hint::Added(key, state),
                _ => Hint::Seen(key, state),
            };
            expect(&mut kernel, &told);
            all(&mut other, Verb::Create, &users);
        }
    });
}

#[test]
fn changes_in_place_are_told() {
    in_netns(|| {
        let (_, mut kernel) = with_all();
        let mut other = open();
        for family in Family::ALL {
            let objects = objects(family);
            let far = if family == Family::V4 {
                ip("192.0.2.99")
            } else {
                ip("2001:db8::99")
            };
            for (key, changed) in [
                (objects[2].0, Object::Fdb(far)),
                (objects[3].0, Object::Neighbour(mac(99))),
                (objects[8].0, Object::Route(RouteTarget::Blackhole)),
            ] {
                hints(&mut kernel);
                all(&mut other, Verb::Replace, &[(key, changed.clone())]);
                expect(&mut kernel, &Hint::Seen(key, changed));
            }
            // A foreign protocol takes the place of one of our routes.
            let mut foreign = Kernel::open(Config {
                protocol: 4,
                ..config()
            })
            .unwrap();
            hints(&mut kernel);
            all(
                &mut foreign,
                Verb::Replace,
                &[(objects[7].0, Object::Route(RouteTarget::Link(name(POD))))],
            );
            expect(
                &mut kernel,
                &Hint::Seen(objects[7].0, Object::Foreign { protocol: 4 }),
            );
        }
    });
}

#[test]
fn settings_are_told() {
    in_netns(|| {
        let (_, mut kernel) = with_all();
        for setting in [
            SysctlName::Ipv4Forwarding,
            SysctlName::Ipv4RpFilter,
            SysctlName::Ipv4ProxyArp,
            SysctlName::Ipv6Forwarding,
            SysctlName::Ipv6ProxyNdp,
        ] {
            let sysctl = Sysctl::link(setting, name(POD));
            std::fs::write(format!("/proc/sys/{sysctl}"), "1").unwrap();
            let told = hints(&mut kernel);
            assert!(
                told.contains(&Hint::Seen(Key::Sysctl(sysctl), Object::Sysctl(1))),
                "{sysctl}: {told:?}"
            );
        }
        for setting in [SysctlName::Ipv4IpForward, SysctlName::Ipv6AllForwarding] {
            let sysctl = Sysctl::host(setting);
            std::fs::write(format!("/proc/sys/{sysctl}"), "1").unwrap();
            let told = hints(&mut kernel);
            assert!(
                told.contains(&Hint::Seen(Key::Sysctl(sysctl), Object::Sysctl(1))),
                "{sysctl}: {told:?}"
            );
        }
    });
}

#[test]
fn links_come_change_and_go() {
    in_netns(|| {
        let (mut setup, mut kernel) = with_all();
        let device = device(Family::V4);
        setup.set_down(device.as_str()).unwrap();
        let down = hints(&mut kernel);
        let is_down = |hint: &Hint| matches!(hint, Hint::Seen(Key::Link(on), Object::Link(link)) if *on == device && !link.up);
        assert!(down.iter().any(is_down), "{down:?}");
        // Its nexthop went with it, unsaid: the next one gets the id again, which must be known to be free.
        setup.set_up(device.as_str()).unwrap();
        hints(&mut kernel);
        assert_eq!(dump(&mut kernel, Kind::Nexthop, Some(device)).len(), 0);
        all(&mut kernel, Verb::Create, &objects(Family::V4)[4..6]);

        setup.delete_link(device.as_str()).unwrap();
        assert!(hints(&mut kernel).contains(&Hint::LinkGone(device)));
        make_veth(&mut setup, "caliaaaaaaaaaaa");
        let pod = name("caliaaaaaaaaaaa");
        let told = hints(&mut kernel);
        assert!(
            told.iter()
                .any(|hint| matches!(hint, Hint::Seen(Key::Link(link), _) if *link == pod))
        );
        setup.rename(pod.as_str(), "other0").unwrap();
        let told = hints(&mut kernel);
        assert!(
            told.contains(&Hint::LinkGone(pod)) && told.contains(&Hint::HostChanged(Some(name("other0")))),
            "{told:?}"
        );
    });
}

#[test]
fn our_own_delete_and_create_of_a_link_is_no_loss() {
    in_netns(|| {
        let (_, mut kernel) = with_all();
        let link = vxlan(Family::V4);
        let operations = [operation(Verb::Delete, &link), operation(Verb::Create, &link)];
        assert!(apply(&mut kernel, &operations).is_empty());
        let told = hints(&mut kernel);
        assert!(
            !told.iter().any(|hint| matches!(hint, Hint::LinkGone(_))),
            "{told:?}"
        );
        assert!(
            told.iter()
                .any(|hint| matches!(hint, Hint::Seen(Key::Link(name), _) if Key::Link(*name) == link.0))
        );
    });
}

#[test]
fn the_host_has_changed_only_when_it_has() {
    in_netns(|| {
        let (mut setup, mut kernel) = with_all();
        let changed = |kernel: &mut Kernel| -> Vec<String> {
            let names = hints(kernel).into_iter().filter_map(|hint| match hint {
                Hint::HostChanged(link) => Some(link.unwrap().to_string()),
                _ => None,
            });
            names.collect()
        };
        setup.set_up("eth0").unwrap();
        setup.set_mtu("eth0", 1500).unwrap();
        setup.set_mac("eth0", mac(1)).unwrap();
        setup.add_address("eth0", net("192.0.2.1/24")).unwrap();
        assert_eq!(changed(&mut kernel), [""; 0]);
        setup.set_mtu("eth0", 1400).unwrap();
        assert_eq!(changed(&mut kernel), ["eth0"]);
        setup.add_address("eth0", net("192.0.2.7/24")).unwrap();
        assert_eq!(changed(&mut kernel), ["eth0"]);
        setup.delete_address("eth0", net("192.0.2.7/24")).unwrap();
        assert_eq!(changed(&mut kernel), ["eth0"]);
        setup.rename("fareth0", "renamed").unwrap();
        let told = changed(&mut kernel);
        assert!(
            told.contains(&"fareth0".to_owned()) && told.contains(&"renamed".to_owned()),
            "{told:?}"
        );
        // Its other end loses its carrier, which the kernel tells a moment later.
        setup.set_down("renamed").unwrap();
        expect(&mut kernel, &Hint::HostChanged(Some(name("eth0"))));
        setup.delete_link("eth0").unwrap();
        let told = changed(&mut kernel);
        assert!(told.contains(&"eth0".to_owned()), "{told:?}");
    });
}

#[test]
fn an_fdb_entry_without_a_destination_is_told_once_like_any_other() {
    in_netns(|| {
        let (_, mut kernel) = with_all();
        let (key, object) = all_objects()
            .into_iter()
            .find(|(key, _)| key.kind() == Kind::Fdb)
            .unwrap();
        let Key::Fdb { link, mac } = key else {
            unreachable!()
        };
        let run = |words: &str| {
            let mut words = words.split(' ');
            let mut command = std::process::Command::new(words.next().unwrap());
            assert!(command.args(words).status().unwrap().success(), "{command:?}");
        };
        let about_it = |kernel: &mut Kernel| -> Vec<Option<Object>> {
            let told = hints(kernel).into_iter().filter_map(|hint| match hint {
                Hint::Seen(told, object) if told == key => Some(Some(object)),
                Hint::Gone(told) if told == key => Some(None),
                _ => None,
            });
            told.collect()
        };
        run(&format!("bridge fdb del {mac} dev {link} self"));
        assert_eq!(about_it(&mut kernel), [None]);
        // By a group of nexthops it leads to, for all that its own words say, nowhere.
        run("ip nexthop add id 901 via 192.0.2.9 fdb");
        run("ip nexthop add id 902 group 901 fdb");
        run(&format!(
            "bridge fdb add {mac} dev {link} nhid 902 self permanent"
        ));
        assert_eq!(about_it(&mut kernel), [Some(Object::Foreign { protocol: 0 })]);
        run(&format!("bridge fdb del {mac} dev {link} self"));
        assert_eq!(about_it(&mut kernel), [None]);
        let Object::Fdb(remote) = object else {
            unreachable!()
        };
        run(&format!(
            "bridge fdb add {mac} dev {link} dst {remote} self permanent"
        ));
        assert_eq!(about_it(&mut kernel), [Some(object)]);
    });
}

#[test]
fn an_overrun_is_told_once() {
    in_netns(|| {
        let mut setup = make_links();
        let mut kernel = Kernel::open(Config {
            receive_buffer: 4096,
            ..config()
        })
        .unwrap();
        for number in 0..200u8 {
            let destination = net(&format!("10.0.0.{number}/32"));
            setup
                .add_route(RouteSpec::to_link(destination, POD).protocol(4))
                .unwrap();
        }
        let told = hints(&mut kernel);
        assert_eq!(told.iter().filter(|hint| **hint == Hint::Lost).count(), 1);
        assert!(told.len() < 200);
        setup
            .add_route(RouteSpec::to_link(net("10.0.1.0/24"), POD).protocol(4))
            .unwrap();
        let told = hints(&mut kernel);
        assert!(matches!(told.as_slice(), [Hint::Added(..)]), "{told:?}");
    });
}

#[test]
fn waiting_ends_with_a_notification_and_not_before() {
    in_netns(|| {
        // IPv6 has things to tell at any time.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let mut setup = Setup::open().unwrap();
        make_veth(&mut setup, POD);
        let mut kernel = open();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let wait = |kernel: &mut Kernel, limit| {
            runtime.block_on(async { tokio::time::timeout(limit, kernel.ready()).await.is_ok() })
        };
        for number in 0..3 {
            // The links' own news, which come late, must end sometime.
            while wait(&mut kernel, Duration::from_millis(20)) {
                hints(&mut kernel);
            }
            let route = RouteSpec::to_link(net(&format!("10.7.{number}.0/24")), POD).protocol(4);
            setup.add_route(route).unwrap();
            assert!(wait(&mut kernel, LIMIT));
            assert!(wait(&mut kernel, LIMIT), "still queued");
            assert!(!hints(&mut kernel).is_empty());
        }
    });
}

#[test]
fn what_came_of_forgetting_flows_ends_the_wait_and_is_told() {
    in_netns(|| {
        let mut kernel = open();
        for host in [7, 8] {
            let addresses = vec![ip(&format!("10.0.0.{host}")), ip(&format!("fd00::{host}"))];
            kernel.flush_flows(addresses.clone());
            let flushed = Flushed {
                addresses,
                result: Ok(0),
            };
            expect(&mut kernel, &Hint::Flushed(flushed));
        }
    });
}

#[test]
fn the_ways_that_are_followed_are_told_with_the_host_and_their_change_as_its() {
    in_netns(|| {
        let (mut setup, mut kernel) = with_all();
        let to = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let destinations = [to("203.0.113.9"), to("2001:db8:9::9")];
        let elsewhere = RouteSpec::via(net("198.51.100.0/24"), ip("192.0.2.250"), None);
        let ways = [
            ("203.0.113.0/24", "192.0.2.250"),
            ("2001:db8:9::/48", "2001:db8::250"),
        ];
        let ways = ways.map(|(net_, gateway)| RouteSpec::via(net(net_), ip(gateway), None));
        for way in &ways {
            setup.add_route(*way).unwrap();
        }
        assert!(
            !hints(&mut kernel).contains(&Hint::HostChanged(None)),
            "not asked for"
        );
        assert!(kernel.host().unwrap().sources.is_empty());

        kernel.follow_ways_to(destinations.to_vec());
        let sources = kernel.host().unwrap().sources;
        assert_eq!(
            sources,
            [
                (destinations[0], ip("192.0.2.1")),
                (destinations[1], ip("2001:db8::1"))
            ]
            .into()
        );
        setup.add_route(elsewhere).unwrap();
        assert!(
            !hints(&mut kernel).contains(&Hint::HostChanged(None)),
            "another way"
        );
        for (at, net_) in ["203.0.113.0/24", "2001:db8:9::/48"].into_iter().enumerate() {
            setup.delete_route(net(net_)).unwrap();
            expect(&mut kernel, &Hint::HostChanged(None));
            assert_eq!(kernel.host().unwrap().sources.get(&destinations[at]), None);
        }
    });
}
