//! The reconciler against a kernel that refuses, forgets, interrupts and lies.

mod fake;

use std::collections::BTreeSet;
use std::time::Duration;

use fake::{Bench, PROTOCOL, device, kernel_error, net, peer, pod, veth, veth_link};
use nix::libc;
use routelet_model::{Key, Kind, Object, RouteTarget};
use routelet_netlink::{Error, Hint, Verb};
use routelet_reconciler::Cause;

#[test]
fn makes_in_the_order_of_the_kinds_and_then_rests() {
    let mut bench = Bench::new();
    bench.want(peer(1));
    bench.want(device());
    bench.want(peer(2));
    bench.settle();
    assert!(bench.holds(device().into_iter().chain(peer(1)).chain(peer(2))));
    let kinds: Vec<Kind> = bench.operations().iter().map(|(_, key)| key.kind()).collect();
    assert!(kinds.is_sorted(), "{kinds:?}");
    bench.reconciler.audit(bench.now);
    bench.settle();
    assert_eq!(bench.operations(), [], "a second look writes nothing");
    assert_eq!(bench.report().repairs, []);
}

#[test]
fn an_audit_repairs_what_changed_without_a_word() {
    let mut bench = Bench::with_peer();
    let [(fdb, _), (_, _), (_, _), (route, _)] = peer(1);
    bench.meddle(fdb, Some(Object::Fdb([203, 0, 113, 9].into())));
    bench.meddle(route, None);
    bench.reconciler.audit(bench.now);
    bench.settle();
    assert!(bench.holds(peer(1)));
    let mut repairs: Vec<_> = bench
        .report()
        .repairs
        .into_iter()
        .map(|r| (r.key, r.cause))
        .collect();
    repairs.sort();
    assert_eq!(repairs, [(fdb, Cause::Changed), (route, Cause::Deleted)]);
}

#[test]
fn a_notification_repairs_at_once() {
    for (key, object) in peer(1) {
        let mut bench = Bench::with_peer();
        bench.meddle(key, None);
        if matches!(key, Key::Nexthop { .. }) {
            // The kernel takes the routes through it along.
            let [.., (route, _)] = peer(1);
            bench.meddle(route, None);
        }
        bench.hint(Hint::Gone(key));
        bench.settle();
        assert!(bench.holds(peer(1)), "{key}");
        assert_eq!(
            bench.kernel.0.lock().unwrap().dumps,
            0,
            "{key}: no dump was needed"
        );
        let report = bench.report();
        assert!(
            report
                .repairs
                .iter()
                .any(|r| r.key == key && r.cause == Cause::Deleted),
            "{key} {object}"
        );
    }
}

#[test]
fn routes_that_went_silently_with_their_nexthop_come_back() {
    let mut bench = Bench::with_peer();
    let [_, _, (nexthop, _), (route, _)] = peer(1);
    bench.meddle(nexthop, None);
    bench.meddle(route, None);
    bench.hint(Hint::Gone(nexthop));
    bench.settle();
    assert_eq!(
        bench.operations(),
        [(Verb::Create, nexthop), (Verb::Create, route)]
    );
}

#[test]
fn every_error_on_every_kind_is_retried_told_once_and_overcome() {
    for errno in [
        libc::EINVAL,
        libc::ENETDOWN,
        libc::ENODEV,
        libc::EBUSY,
        libc::ENOBUFS,
        libc::EEXIST,
    ] {
        for (bad, _) in device().into_iter().chain(peer(1)) {
            let mut bench = Bench::new();
            let mut left = 5;
            bench.script(move |o| {
                let fails = o.key == bad && left > 0;
                left -= i32::from(fails);
                fails.then(|| kernel_error(errno))
            });
            bench.want(device());
            bench.want(peer(1));
            bench.pass(Duration::from_secs(60));
            assert!(
                bench.holds(device().into_iter().chain(peer(1))),
                "{bad} errno {errno}"
            );
            let report = bench.report();
            assert!(
                report.refused.iter().filter(|(key, _)| *key == bad).count() <= 1,
                "{bad} errno {errno}"
            );
            let recovered = report.recovered.iter().any(|(key, _)| *key == bad);
            let refused = report.refused.iter().any(|(key, _)| *key == bad);
            assert_eq!(
                recovered, refused,
                "{bad} errno {errno}: told of the trouble and of its end"
            );
            assert_eq!(bench.reconciler.troubles().count(), 0);
        }
    }
}

#[test]
fn one_bad_object_does_not_hold_up_the_rest() {
    let mut bench = Bench::with_peer();
    let [_, (bad, _), ..] = peer(2);
    bench.script(move |o| (o.key == bad).then(|| kernel_error(libc::EINVAL)));
    bench.want(peer(2));
    bench.want(peer(3));
    bench.pass(Duration::from_secs(300));
    assert!(bench.holds(peer(3)));
    let tries = bench.operations().iter().filter(|(_, key)| *key == bad).count();
    assert!((10..40).contains(&tries), "{tries} tries in five minutes");
    assert_eq!(bench.report().refused.len(), 1, "the same trouble is told once");
    assert_eq!(bench.reconciler.count(Kind::Neighbour).out_of_sync, 1);
}

/// The kernel may have carried out any of it: here one of two.
#[test]
fn a_batch_whose_outcome_is_unknown_is_read_back() {
    let mut bench = Bench::with_peer();
    let wanted = || peer(2).into_iter().chain(peer(3));
    let mut sent = BTreeSet::new();
    bench.script(move |o| sent.insert(o.key).then_some(Error::OutcomeUnknown));
    bench.want(wanted());
    bench.reconciler.step(bench.now);
    let first: BTreeSet<Key> = bench.operations().into_iter().map(|(_, key)| key).collect();
    assert_eq!(first, wanted().map(|(key, _)| key).collect(), "all in one batch");
    let (done, missed): (Vec<_>, Vec<_>) = wanted().enumerate().partition(|(place, _)| place % 2 == 0);
    for (_, (key, object)) in done {
        bench.meddle(key, Some(object));
    }
    bench.pass(Duration::from_secs(1));
    assert!(bench.holds(wanted()));
    let mut again = bench.operations();
    again.sort_by_key(|(_, key)| *key);
    let mut missed: Vec<_> = missed
        .into_iter()
        .map(|(_, (key, _))| (Verb::Create, key))
        .collect();
    missed.sort_by_key(|(_, key)| *key);
    assert_eq!(
        again, missed,
        "what is missing is written once more, and nothing else"
    );
    let report = bench.report();
    assert_eq!(report.repairs, [], "no one has meddled");
    assert_eq!(
        report.operations.total(),
        missed.len() as u64,
        "nothing is counted that may not have been done"
    );
    assert_eq!(bench.reconciler.troubles().count(), 0);
    assert_eq!(bench.reconciler.differences().count(), 0);
}

#[test]
fn lost_notifications_make_everything_be_read_again() {
    let mut bench = Bench::with_peer();
    let [.., (route, _)] = peer(1);
    bench.meddle(route, None);
    bench.hint(Hint::Lost);
    bench.pass(Duration::from_secs(1));
    assert!(bench.holds(peer(1)));
    assert_eq!(bench.report().lost, 1);
}

#[test]
fn an_interrupted_dump_is_never_acted_on() {
    let mut bench = Bench::with_peer();
    bench.want(peer(2));
    bench.settle();
    bench.forget_past();
    bench.kernel.0.lock().unwrap().interrupted = Some(Kind::Route);
    bench.reconciler.audit(bench.now);
    bench.pass(Duration::from_secs(10));
    assert_eq!(
        bench.operations(),
        [],
        "half a dump does not say that the other half is gone"
    );
    let dumps = bench.kernel.0.lock().unwrap().dumps;
    assert!(
        (10..150).contains(&dumps),
        "read again, but not in a hurry: {dumps} dumps"
    );
    let [.., (route, _)] = peer(1);
    bench.meddle(route, None);
    bench.kernel.0.lock().unwrap().interrupted = None;
    bench.pass(Duration::from_secs(10));
    assert!(bench.holds(peer(1)));
}

#[test]
fn nothing_is_taken_away_before_it_is_allowed() {
    let mut bench = Bench::new();
    let stale = Key::route(net("10.0.99.0/24"));
    bench.meddle(stale, Some(Object::Route(RouteTarget::Blackhole)));
    let foreign = Key::route(net("10.1.0.0/24"));
    bench.meddle(foreign, Some(Object::Foreign { protocol: 4 }));
    bench.want(device());
    bench.want(peer(1));
    bench.settle();
    bench.unwant(peer(1));
    bench.pass(Duration::from_secs(600));
    assert!(bench.objects().contains_key(&stale) && bench.holds(peer(1)));
    bench.reconciler.allow_removal();
    bench.settle();
    let left = bench.objects();
    assert!(!left.contains_key(&stale) && peer(1).iter().all(|(key, _)| !left.contains_key(key)));
    assert_eq!(
        bench.report().repairs,
        [],
        "what is left from an earlier agent is no one's meddling"
    );
    assert!(left.contains_key(&foreign), "what is not ours stays");
}

#[test]
fn takes_away_in_the_reverse_order() {
    let mut bench = Bench::with_peer();
    bench.unwant(peer(1));
    bench.settle();
    let mut expected: Vec<_> = peer(1).into_iter().map(|(key, _)| (Verb::Delete, key)).collect();
    expected.reverse();
    assert_eq!(bench.operations(), expected);
}

#[test]
fn a_subnet_moves_to_another_node_make_before_break() {
    let mut bench = Bench::with_peer();
    let [.., (route, _)] = peer(1);
    let [.., (_, target)] = peer(2);
    bench.unwant(peer(1).into_iter().take(3));
    bench.want(peer(2).into_iter().take(3));
    bench.want([(route, target.clone())]);
    bench.settle();
    let operations = bench.operations();
    assert_eq!(
        operations
            .iter()
            .filter(|(_, key)| *key == route)
            .collect::<Vec<_>>(),
        [&(Verb::Replace, route)]
    );
    let replaced = operations.iter().position(|(_, key)| *key == route).unwrap();
    let first_delete = operations
        .iter()
        .position(|(verb, _)| *verb == Verb::Delete)
        .unwrap();
    assert!(replaced < first_delete, "{operations:?}");
    assert_eq!(bench.objects()[&route], target);
}

#[test]
fn a_pod_waits_for_its_veth_without_a_retry() {
    let mut bench = Bench::with_peer();
    bench.want(pod("cali1", "10.0.0.7/32"));
    bench.pass(Duration::from_secs(600));
    assert_eq!(bench.operations(), []);
    bench.meddle(Key::Link(veth("cali1")), Some(veth_link(true, 7)));
    bench.hint(Hint::Seen(Key::Link(veth("cali1")), veth_link(true, 7)));
    bench.settle();
    assert!(bench.holds(pod("cali1", "10.0.0.7/32")));
}

#[test]
fn a_route_on_a_living_veth_is_kept_until_its_pod_is_known() {
    let mut bench = Bench::with_peer();
    let early = Key::route(net("10.0.0.7/32"));
    bench.meddle(Key::Link(veth("cali1")), Some(veth_link(true, 7)));
    bench.meddle(early, Some(Object::Route(RouteTarget::Link(veth("cali1")))));
    bench.reconciler.audit(bench.now);
    bench.pass(Duration::from_secs(600));
    assert!(
        bench.objects().contains_key(&early),
        "the plugin's route comes before the API's word"
    );
    bench.want(pod("cali1", "10.0.0.8/32"));
    bench.reconciler.audit(bench.now);
    bench.settle();
    assert!(
        !bench.objects().contains_key(&early),
        "the veth's pod is known, and has another address"
    );
    bench.unwant(pod("cali1", "10.0.0.8/32"));
    bench.settle();
    let route = Key::route(net("10.0.0.8/32"));
    assert!(
        !bench.objects().contains_key(&route),
        "what was wanted and is no more goes at once"
    );
}

#[test]
fn an_adopted_object_costs_no_write() {
    let mut bench = Bench::new();
    for (key, object) in device().into_iter().chain(peer(1)) {
        bench.meddle(key, Some(object));
    }
    bench.want(device());
    bench.want(peer(1));
    bench.reconciler.allow_removal();
    bench.settle();
    assert_eq!(bench.operations(), []);
}

#[test]
fn a_fight_is_told_once_and_fought_ever_more_rarely() {
    let mut bench = Bench::with_peer();
    let [.., (route, _)] = peer(1);
    for _ in 0..1000 {
        if bench.objects().contains_key(&route) {
            bench.meddle(route, None);
            bench.hint(Hint::Gone(route));
        }
        bench.pass(Duration::from_millis(10));
    }
    let report = bench.report();
    assert_eq!(report.fights, [route]);
    assert!(
        report.repairs.len() < 40,
        "{} repairs in ten seconds",
        report.repairs.len()
    );
    bench.pass(Duration::from_secs(60));
    assert!(bench.holds(peer(1)), "the last word is ours");
}

#[test]
fn a_surplus_object_of_ours_is_taken_away() {
    let mut bench = Bench::with_peer();
    for (key, object) in [
        (
            Key::StrayNexthop { id: 7 },
            Object::Foreign { protocol: PROTOCOL },
        ),
        (
            Key::route(net("10.0.77.0/24")),
            Object::Foreign { protocol: PROTOCOL },
        ),
        (peer(9)[0].0, peer(9)[0].1.clone()),
    ] {
        bench.meddle(key, Some(object.clone()));
        bench.hint(Hint::Seen(key, object));
        bench.settle();
        assert!(!bench.objects().contains_key(&key), "{key}");
        assert_eq!(bench.report().repairs[0].cause, Cause::Surplus);
    }
}

/// As when a route is deleted, found missing by a dump and made again, before the notification is read.
#[test]
fn a_trouble_ends_when_someone_else_takes_its_object_away() {
    let mut bench = Bench::with_peer();
    let stale = Key::route(net("10.0.77.0/24"));
    let object = Object::Route(RouteTarget::Blackhole);
    bench.script(move |o| (o.key == stale).then(|| kernel_error(libc::EPERM)));
    bench.meddle(stale, Some(object.clone()));
    bench.hint(Hint::Seen(stale, object));
    bench.settle();
    assert_eq!(bench.reconciler.troubles().count(), 1);
    bench.meddle(stale, None);
    bench.hint(Hint::Gone(stale));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.reconciler.troubles().count(), 0);
    assert_eq!(bench.report().recovered.len(), 1);
}
