//! What takes a look at ids, or a kernel that lacks something.

use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use routelet_model::{Key, Kind, Object, RouteTarget};

use super::*;
use crate::nexthop::{NexthopIds, NexthopMessage};
use crate::setup::VethEnd;
use crate::{Failure, Netns, Operation, Setup, Verb};

const OURS: u8 = 80;

/// A kernel with a nexthop on a link of the host and a route through it.
fn with_nexthop() -> (Kernel, [Operation; 2]) {
    let mut setup = Setup::open().unwrap();
    let (near, far) = ("near", "far");
    let here = Netns::current().unwrap();
    let end = |name| VethEnd {
        name,
        ..VethEnd::default()
    };
    setup.add_veth(end(near), end(far), &here).unwrap();
    setup.set_up(near).unwrap();
    setup.set_up(far).unwrap();
    let config = Config {
        protocol: OURS,
        devices: vec![near.parse().unwrap()],
        interface_prefix: "cali".to_owned(),
        nft_table: "routelet".to_owned(),
        receive_buffer: 1 << 20,
    };
    let mut kernel = Kernel::open(config).unwrap();
    let (link, gateway) = (near.parse().unwrap(), [10, 0, 1, 0].into());
    let operations = [
        (Key::Nexthop { link, gateway }, Object::Nexthop),
        (
            Key::route("10.0.1.0/24".parse().unwrap()),
            Object::Route(RouteTarget::Nexthop { link, gateway }),
        ),
    ];
    let operations = operations.map(|(key, object)| Operation {
        verb: Verb::Create,
        key,
        object,
    });
    let mut failures = Vec::new();
    kernel.apply(&operations, &mut failures);
    assert!(failures.is_empty(), "{failures:?}");
    (kernel, operations)
}

fn dump(kernel: &mut Kernel, kind: Kind) -> Vec<(Key, Object)> {
    let mut found = Vec::new();
    kernel
        .dump(kind, None, &mut |key, object| found.push((key, object)))
        .unwrap();
    found
}

#[test]
fn without_nf_tables_the_table_is_refused_and_all_else_goes_on() {
    Netns::new()
        .unwrap()
        .run(|| {
            let (mut kernel, operations) = with_nexthop();
            kernel.nft = None;
            let table = Operation {
                verb: Verb::Create,
                key: Key::NftTable,
                object: Object::NftTable,
            };
            let mut failures = Vec::new();
            let mut delete = operations[1].clone();
            delete.verb = Verb::Delete;
            kernel.apply(&[table, delete], &mut failures);
            assert!(
                matches!(
                    failures[..],
                    [Failure {
                        index: 0,
                        error: Error::NoNftables
                    }]
                ),
                "{failures:?}"
            );
            assert_eq!(dump(&mut kernel, Kind::Route), []);
            for kind in [Kind::NftTable, Kind::NftElement, Kind::NftRules] {
                assert_eq!(dump(&mut kernel, kind), []);
            }
            kernel.drain(&mut Vec::new());
        })
        .unwrap();
}

#[test]
fn a_kernel_without_nexthop_objects_is_told_from_one_that_fails() {
    let refused = |errno| Error::Refused { errno, message: None };
    assert!(is_known(Ok(())).unwrap());
    assert!(!is_known::<()>(Err(refused(libc::EOPNOTSUPP))).unwrap());
    assert!(is_known::<()>(Err(refused(libc::ENOBUFS))).is_err());
    assert!(is_known::<()>(Err(Error::Interrupted(8))).unwrap());
}

#[test]
fn what_interrupts_the_first_dumps_is_overcome_by_the_next() {
    let interrupted = || Error::Interrupted(8);
    assert_eq!(unless_interrupted::<()>(Err(interrupted())).unwrap(), None);
    assert_eq!(unless_interrupted(Ok(7)).unwrap(), Some(7));
    assert!(unless_interrupted::<()>(Err(Error::OutcomeUnknown)).is_err());
    Netns::new()
        .unwrap()
        .run(|| {
            let (mut kernel, [nexthop, route]) = with_nexthop();
            // What is known where all were interrupted, and where those of links were.
            for nexthops_are_read in [false, true] {
                kernel.view = View::new(kernel.view.config.clone());
                if nexthops_are_read {
                    kernel.dump_nexthops(None).unwrap();
                }
                // A notification may come before the next.
                Setup::open().unwrap().set_mtu("far", 1400).unwrap();
                kernel.drain(&mut Vec::new());
                assert_eq!(dump(&mut kernel, Kind::Link).len(), 1);
                assert_eq!(dump(&mut kernel, Kind::Nexthop), [(nexthop.key, Object::Nexthop)]);
                let routes = dump(&mut kernel, Kind::Route);
                assert_eq!(routes, [(route.key, route.object.clone())]);
            }
        })
        .unwrap();
}

/// As before 4.20: each dump shows all that there is, whatever it is asked for.
#[test]
fn dumps_that_the_kernel_does_not_filter_show_the_same() {
    Netns::new()
        .unwrap()
        .run(|| {
            let (mut kernel, [nexthop, route]) = with_nexthop();
            let Key::Nexthop { link, .. } = nexthop.key else {
                unreachable!()
            };
            let mut setup = Setup::open().unwrap();
            let other = crate::setup::RouteSpec::blackhole("10.9.0.0/16".parse().unwrap());
            setup.add_route(other.protocol(4)).unwrap();
            let all = |kernel: &mut Kernel, link| {
                let mut found = Vec::new();
                for kind in Kind::ALL {
                    kernel
                        .dump(kind, link, &mut |key, object| found.push((key, object)))
                        .unwrap();
                }
                found
            };
            let links = [None, Some(link), Some("far".parse().unwrap())];
            let filtered = links.map(|link| all(&mut kernel, link));
            assert!(filtered[0].contains(&(route.key, route.object)));
            kernel.filter_itself();
            assert_eq!(links.map(|link| all(&mut kernel, link)), filtered);
        })
        .unwrap();
}

#[test]
fn a_nexthop_changed_under_its_id_is_mended_with_its_routes() {
    Netns::new()
        .unwrap()
        .run(|| {
            let (mut kernel, [mut nexthop, route]) = with_nexthop();
            kernel.drain(&mut Vec::new());
            let Key::Nexthop { link, gateway } = nexthop.key else {
                unreachable!()
            };
            let (id, on) = (
                kernel.view.nexthops.id(link, gateway).unwrap(),
                kernel.index_of(link).unwrap(),
            );
            let mut other = Socket::open().unwrap();
            for (protocol, gateway) in [(OURS, [10, 0, 9, 9]), (4, [10, 0, 1, 0])] {
                let changed = NexthopMessage::new(id, protocol, on, gateway.into(), true);
                other.request(&changed, NLM_F_CREATE | NLM_F_REPLACE).unwrap();
                let mut hints = Vec::new();
                kernel.drain(&mut hints);
                assert!(
                    hints.contains(&Hint::Seen(nexthop.key, Object::Foreign { protocol })),
                    "{hints:?}"
                );
                let found = dump(&mut kernel, Kind::Nexthop);
                assert_eq!(found, [(nexthop.key, Object::Foreign { protocol })]);
                nexthop.verb = Verb::Replace;
                kernel.apply(std::slice::from_ref(&nexthop), &mut Vec::new());
                assert_eq!(dump(&mut kernel, Kind::Nexthop), [(nexthop.key, Object::Nexthop)]);
                assert_eq!(
                    dump(&mut kernel, Kind::Route),
                    [(route.key, route.object.clone())]
                );
            }
        })
        .unwrap();
}

/// It has come since nexthops were last read, and its notification is not read yet.
#[test]
fn no_route_leads_to_a_strangers_nexthop_that_has_the_id_of_ours() {
    Netns::new()
        .unwrap()
        .run(|| {
            let (mut kernel, [nexthop, route]) = with_nexthop();
            let Key::Nexthop { link, .. } = nexthop.key else {
                unreachable!()
            };
            let gateway = [10, 0, 2, 0].into();
            let id = NexthopIds::default().allocate(link, gateway);
            let on = kernel.index_of(link).unwrap();
            let strangers = NexthopMessage::new(id, 4, on, [10, 9, 9, 9].into(), true);
            Socket::open().unwrap().request(&strangers, NLM_F_CREATE).unwrap();
            let target = Object::Route(RouteTarget::Nexthop { link, gateway });
            let operation = |verb, key, object: &Object| Operation {
                verb,
                key,
                object: object.clone(),
            };
            let new = Key::route("10.0.2.0/24".parse().unwrap());
            // A nexthop, a route that is new and one that has led elsewhere, in one batch.
            let operations = [
                operation(Verb::Create, Key::Nexthop { link, gateway }, &Object::Nexthop),
                operation(Verb::Create, new, &target),
                operation(Verb::Replace, route.key, &target),
            ];
            let mut failures = Vec::new();
            kernel.apply(&operations, &mut failures);
            assert_eq!(
                dump(&mut kernel, Kind::Route),
                [(route.key, route.object.clone())],
                "{failures:?}"
            );
            let failed: Vec<usize> = failures.iter().map(|failure| failure.index).collect();
            assert_eq!(failed, [0, 1, 2], "{failures:?}");
            assert!(failures[0].error.is_already_exists(), "{failures:?}");
            assert!(
                failures[1..]
                    .iter()
                    .all(|failure| failure.error.is_missing_nexthop()),
                "{failures:?}"
            );
            failures.clear();
            kernel.apply(&operations, &mut failures);
            assert!(failures.is_empty(), "{failures:?}");
            let mut routes = dump(&mut kernel, Kind::Route);
            routes.sort_by_key(|(key, _)| *key);
            assert_eq!(routes, [(route.key, target.clone()), (new, target)]);
        })
        .unwrap();
}

#[test]
fn a_second_nexthop_for_a_gateway_is_a_stray_that_can_be_deleted() {
    Netns::new()
        .unwrap()
        .run(|| {
            let (mut kernel, [nexthop, _]) = with_nexthop();
            let Key::Nexthop { link, gateway } = nexthop.key else {
                unreachable!()
            };
            let second = NexthopMessage::new(7, OURS, kernel.index_of(link).unwrap(), gateway, true);
            Socket::open().unwrap().request(&second, NLM_F_CREATE).unwrap();
            let stray = (Key::StrayNexthop { id: 7 }, Object::Foreign { protocol: OURS });
            assert_eq!(
                dump(&mut kernel, Kind::Nexthop),
                [stray.clone(), (nexthop.key, Object::Nexthop)]
            );
            let delete = Operation {
                verb: Verb::Delete,
                key: stray.0,
                object: stray.1,
            };
            kernel.apply(&[delete], &mut Vec::new());
            assert_eq!(dump(&mut kernel, Kind::Nexthop), [(nexthop.key, Object::Nexthop)]);
        })
        .unwrap();
}

#[test]
fn a_link_that_loses_its_carrier_takes_its_nexthops_along_without_a_word() {
    Netns::new()
        .unwrap()
        .run(|| {
            let (mut kernel, operations) = with_nexthop();
            kernel.drain(&mut Vec::new());
            Setup::open().unwrap().set_down("far").unwrap();
            // The kernel acts on a lost carrier from a worker.
            let deadline = Instant::now() + Duration::from_secs(10);
            while !dump(&mut kernel, Kind::Nexthop).is_empty() {
                assert!(Instant::now() < deadline, "the nexthop stays");
                std::thread::yield_now();
            }
            let mut hints = Vec::new();
            kernel.drain(&mut hints);
            assert!(!hints.contains(&Hint::Gone(operations[0].key)), "{hints:?}");
            let Key::Nexthop { link, gateway } = operations[0].key else {
                unreachable!()
            };
            assert_eq!(kernel.view.nexthops.id(link, gateway), None);
        })
        .unwrap();
}

#[test]
fn a_nexthop_that_is_there_though_forgotten_is_found_again() {
    Netns::new()
        .unwrap()
        .run(|| {
            let (mut kernel, operations) = with_nexthop();
            let Key::Nexthop { link, .. } = operations[0].key else {
                unreachable!()
            };
            kernel.view.nexthops.forget_link(link);
            let mut failures = Vec::new();
            kernel.apply(&operations[..1], &mut failures);
            assert!(failures.is_empty(), "{failures:?}");
            assert_eq!(
                dump(&mut kernel, Kind::Nexthop),
                [(operations[0].key, Object::Nexthop)]
            );
        })
        .unwrap();
}
