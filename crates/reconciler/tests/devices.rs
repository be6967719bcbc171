//! Links and what hangs on them: parents of direct ways, tunnel devices that are wanted no more, host veths whose pods are gone.

mod fake;

use std::time::Duration;

use fake::{Bench, device, kernel_error, net, peer, pod, veth, veth_link, vxlan_device};
use nix::libc;
use routelet_model::{Key, Kind, Object, RouteTarget};
use routelet_netlink::{Hint, Verb};

/// The nexthop and the route of a peer that is reached straight over a link of the host's.
fn direct(link: &str, number: u8) -> [(Key, Object); 2] {
    let (link, gateway) = (veth(link), [192, 0, 2, number].into());
    [
        (Key::Nexthop { link, gateway }, Object::Nexthop),
        (
            Key::route(net(&format!("10.0.{number}.0/24"))),
            Object::Route(RouteTarget::Nexthop { link, gateway }),
        ),
    ]
}

#[test]
fn a_change_of_a_link_is_followed_by_a_look_at_what_leaves_by_it_and_at_nothing_else() {
    let bench = || {
        let mut bench = Bench::with_peer();
        for (name, index) in [("eth0", 3), ("eth1", 4)] {
            bench.meddle(Key::Link(veth(name)), Some(veth_link(true, index)));
        }
        bench.want(direct("eth0", 7));
        bench.want(direct("eth1", 8));
        bench.settle();
        bench.forget_past();
        // The kernel takes nexthops and routes along with a carrier, and says nothing of it.
        for (key, _) in direct("eth0", 7).into_iter().chain(direct("eth1", 8)) {
            bench.meddle(key, None);
        }
        bench
    };
    let made = |bench: &Bench| {
        bench
            .operations()
            .into_iter()
            .map(|(_, key)| key)
            .collect::<Vec<_>>()
    };
    let keys = |objects: [(Key, Object); 2]| objects.map(|(key, _)| key);
    for (changed, repaired) in [
        ("eth0", keys(direct("eth0", 7))),
        ("eth1", keys(direct("eth1", 8))),
    ] {
        let mut bench = bench();
        bench.hint(Hint::HostChanged(Some(veth(changed))));
        bench.pass(Duration::from_secs(1));
        assert_eq!(made(&bench), repaired, "{changed}");
    }
    let mut none = bench();
    none.hint(Hint::HostChanged(Some(veth("docker0"))));
    none.pass(Duration::from_secs(1));
    assert_eq!(made(&none), []);
    // Where its name is not known, it may be any.
    let mut any = bench();
    any.hint(Hint::HostChanged(None));
    any.pass(Duration::from_secs(1));
    assert_eq!(made(&any).len(), 4);
}

#[test]
fn a_tunnel_stays_whole_for_one_route_that_cannot_be_moved_off_it_and_goes_with_the_last() {
    let mut bench = Bench::with_peer();
    bench.want(peer(2));
    bench.meddle(Key::Link(veth("eth0")), Some(veth_link(true, 3)));
    bench.settle();
    bench.forget_past();
    let stuck = Key::route(net("10.0.2.0/24"));
    bench.script(move |o| (o.key == stuck).then(|| kernel_error(libc::EPERM)));
    for number in [1, 2] {
        let [fdb, neighbour, nexthop, _] = peer(number);
        bench.unwant([fdb, neighbour, nexthop]);
        bench.want(direct("eth0", number));
    }
    let [link, _, address] = device();
    bench.unwant([link, address]);
    bench.pass(Duration::from_secs(2));
    let deleted = |bench: &Bench| -> Vec<Kind> {
        let operations = bench.operations().into_iter();
        operations
            .filter(|(verb, _)| *verb == Verb::Delete)
            .map(|(_, key)| key.kind())
            .collect()
    };
    assert_eq!(deleted(&bench), [], "all that the stuck route might need");
    bench.kernel.0.lock().unwrap().script = None;
    bench.pass(Duration::from_secs(60));
    let mut kinds = deleted(&bench);
    kinds.sort();
    let each = [
        Kind::Link,
        Kind::Address,
        Kind::Fdb,
        Kind::Neighbour,
        Kind::Nexthop,
    ];
    assert!(each.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    assert!(
        !bench
            .objects()
            .keys()
            .any(|key| key.link() == Some(vxlan_device()))
    );
    assert!(bench.holds(direct("eth0", 1).into_iter().chain(direct("eth0", 2))));
}

#[test]
fn a_veth_is_abandoned_whose_pod_was_wanted_and_is_no_more_and_only_once_no_route_leads_to_it() {
    let add_veth = |bench: &mut Bench, name: &str, index: u32| {
        bench.meddle(Key::Link(veth(name)), Some(veth_link(true, index)));
        bench.hint(Hint::Seen(Key::Link(veth(name)), veth_link(true, index)));
        bench.settle();
    };
    let abandoned = |bench: &Bench| bench.reconciler.abandoned_veths().into_iter().collect::<Vec<_>>();
    let mut bench = Bench::with_peer();
    // The pod of the one is told by the API, that of the other is not.
    for (name, index) in [("cali1", 7), ("cali2", 8)] {
        add_veth(&mut bench, name, index);
    }
    bench.want(pod("cali1", "10.0.0.7/32"));
    bench.settle();
    assert_eq!(abandoned(&bench), []);
    let route = Key::route(net("10.0.0.7/32"));
    bench.script(move |o| (o.key == route).then(|| kernel_error(libc::EPERM)));
    bench.unwant(pod("cali1", "10.0.0.7/32"));
    bench.settle();
    assert_eq!(abandoned(&bench), [], "a route leads to it");
    bench.kernel.0.lock().unwrap().script = None;
    bench.pass(Duration::from_secs(60));
    assert_eq!(abandoned(&bench), [veth("cali1")]);

    // Another sandbox of its name: nothing is known of whose it is.
    add_veth(&mut bench, "cali1", 9);
    assert_eq!(abandoned(&bench), []);
    bench.want(pod("cali1", "10.0.0.7/32"));
    bench.settle();
    bench.unwant(pod("cali1", "10.0.0.7/32"));
    bench.settle();
    assert_eq!(abandoned(&bench), [veth("cali1")]);
    bench.want(pod("cali1", "10.0.0.8/32"));
    bench.settle();
    assert_eq!(abandoned(&bench), [], "its pod is back");
}

#[test]
fn a_device_made_anew_is_filled_again() {
    let mut bench = Bench::with_peer();
    for (key, _) in device().into_iter().chain(peer(1)) {
        if !matches!(key, Key::Sysctl(_)) {
            bench.meddle(key, None);
        }
    }
    bench.hint(Hint::LinkGone(vxlan_device()));
    bench.settle();
    assert!(bench.holds(device().into_iter().chain(peer(1))));
}

#[test]
fn a_device_with_other_parameters_is_made_anew() {
    let mut bench = Bench::with_peer();
    let [(key, mut wanted), ..] = device();
    let Object::Link(link) = &mut wanted else { panic!() };
    let routelet_model::LinkKind::Vxlan(vxlan) = &mut link.kind else {
        panic!()
    };
    vxlan.vni = 99;
    bench.want([(key, wanted.clone())]);
    bench.settle();
    let operations = bench.operations();
    assert_eq!(operations[..2], [(Verb::Delete, key), (Verb::Create, key)]);
    assert!(bench.holds([(key, wanted)]));
    assert_eq!(bench.report().repairs, [], "a change of settings is no repair");
    assert!(
        operations.iter().any(|(_, key)| *key == peer(1)[0].0),
        "what was on it is written again"
    );
}

#[test]
fn a_device_that_someone_sets_down_is_set_up_and_looked_at_twice() {
    let mut bench = Bench::with_peer();
    let [(key, down), ..] = device();
    let Some(Object::Link(mut link)) = bench.objects().remove(&key) else {
        panic!("{down}")
    };
    link.up = false;
    bench.meddle(key, Some(Object::Link(link.clone())));
    let [_, (neighbour, _), (nexthop, _), (route, _)] = peer(1);
    bench.meddle(nexthop, None);
    bench.meddle(route, None);
    bench.hint(Hint::Seen(key, Object::Link(link)));
    bench.settle();
    assert!(bench.holds(device().into_iter().chain(peer(1))));
    // What the kernel took away a moment after the first look is found by the second.
    bench.meddle(neighbour, None);
    bench.pass(Duration::from_secs(1));
    assert!(bench.holds(peer(1)));
}
