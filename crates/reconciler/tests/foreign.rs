//! Someone else's routes where ours should be, or beside them.

mod fake;

use fake::{Bench, device, kernel_error, net, peer, pod, veth_link};
use nix::libc;
use routelet_model::{Key, Object, RouteTarget};
use routelet_netlink::{Hint, Verb};

#[test]
fn a_foreign_route_in_our_place_is_replaced_and_told() {
    let mut bench = Bench::with_peer();
    let route = Key::route(net("10.0.2.0/24"));
    bench.meddle(route, Some(Object::Foreign { protocol: 4 }));
    bench.want(peer(2));
    bench.settle();
    assert!(bench.holds(peer(2)));
    let report = bench.report();
    assert_eq!(
        report.replaced.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        [route]
    );
    assert_eq!(report.refused, []);
}

#[test]
fn a_foreign_route_stays_where_ours_is_wanted_no_more() {
    let mut bench = Bench::with_peer();
    let [.., (route, _)] = peer(1);
    bench.script(move |o| (o.key == route).then(|| kernel_error(libc::EPERM)));
    bench.meddle(route, Some(Object::Foreign { protocol: 4 }));
    bench.hint(Hint::Seen(route, Object::Foreign { protocol: 4 }));
    bench.settle();
    bench.unwant(peer(1));
    bench.settle();
    assert_eq!(
        bench.objects().get(&route),
        Some(&Object::Foreign { protocol: 4 })
    );
}

#[test]
fn a_late_notification_makes_no_foreign_route_of_ours() {
    let mut bench = Bench::with_peer();
    let [.., (route, _)] = peer(1);
    bench.hint(Hint::Gone(route));
    bench.settle();
    assert!(bench.holds(peer(1)));
    assert_eq!(
        bench.operations(),
        [(Verb::Create, route)],
        "refused, as it is there"
    );
    let report = bench.report();
    assert_eq!((report.replaced, report.repairs), (vec![], vec![]));
}

#[test]
fn a_foreign_route_beside_a_stale_one_does_not_hide_it() {
    let mut bench = Bench::new();
    bench.want(device());
    let stale = Key::route(net("10.0.77.0/24"));
    bench.meddle(stale, Some(Object::Route(RouteTarget::Blackhole)));
    bench.settle();
    // As the kernel's own route does, when an address is added to some link.
    bench.hint(Hint::Seen(stale, Object::Foreign { protocol: 2 }));
    bench.settle();
    bench.reconciler.allow_removal();
    bench.settle();
    assert!(!bench.objects().contains_key(&stale));
}

#[test]
fn a_foreign_route_beside_ours_goes_also_where_someone_replaces_ours_meanwhile() {
    let [.., (route, wanted)] = peer(1);
    for replacement in [Object::Route(RouteTarget::Blackhole), wanted] {
        let mut bench = Bench::with_peer();
        bench.hint(Hint::Added(route, Object::Foreign { protocol: 4 }));
        bench.hint(Hint::Seen(route, replacement.clone()));
        bench.settle();
        assert_eq!(
            bench.operations(),
            [(Verb::Supplant, route)],
            "replaced by {replacement:?}"
        );
    }
}

/// The CNI plugin makes a pod's route just before the agent does, and the kernel's word of it comes after.
#[test]
fn our_own_route_that_was_there_first_is_no_ones_change() {
    let mut bench = Bench::with_peer();
    let [(link, veth), sysctl, (route, target)] = pod("cali1", "10.0.0.7/32");
    bench.meddle(link, Some(veth.clone()));
    bench.meddle(route, Some(target.clone()));
    bench.want([(link, veth), sysctl, (route, target.clone())]);
    bench.script(move |operation| {
        let is_late = operation.key == route && operation.verb == Verb::Create;
        is_late.then(|| kernel_error(libc::EEXIST))
    });
    bench.hint(Hint::Seen(link, veth_link(true, 7)));
    bench.settle();
    assert!(bench.operations().contains(&(Verb::Create, route)));
    bench.hint(Hint::Added(route, target));
    bench.settle();
    assert_eq!(bench.operations(), []);
    assert_eq!(bench.report().repairs, []);
}
