//! What the kernel refuses for long: tried ever more rarely, at once when the cause is gone, and at no one else's cost.

mod fake;

use std::time::Duration;

use fake::{Bench, PROTOCOL, device, kernel_error, net, peer, pod, veth, veth_link, vxlan_device};
use nix::libc;
use routelet_model::{Key, Kind, Link, Object, RouteTarget};
use routelet_netlink::{Error, Hint, Verb};

const AUDIT: Duration = Duration::from_secs(60);

/// Lets ten minutes pass, with an audit each minute.
fn ten_minutes(bench: &mut Bench) {
    for _ in 0..10 {
        bench.pass(AUDIT);
        bench.reconciler.audit(bench.now);
    }
    bench.settle();
}

fn tries(bench: &Bench, key: Key) -> usize {
    bench
        .operations()
        .iter()
        .filter(|(_, tried)| *tried == key)
        .count()
}

fn missing_link() -> Error {
    Error::NoSuchLink(veth("eth0"))
}

#[test]
fn a_link_that_stays_away_is_waited_for_and_not_polled() {
    for error in [
        || kernel_error(libc::ENODEV),
        || kernel_error(libc::ENETDOWN),
        missing_link,
    ] {
        for (bad, _) in device().into_iter().chain(peer(1)) {
            let mut bench = Bench::new();
            bench.script(move |o| (o.key == bad).then(error));
            bench.want(device());
            bench.want(peer(1));
            ten_minutes(&mut bench);
            let (tries, dumps) = (tries(&bench, bad), bench.kernel.0.lock().unwrap().dumps);
            assert!(
                (20..60).contains(&tries),
                "{bad}: {tries} tries in ten minutes: {}",
                error()
            );
            // Ten audits, the start, and what the link itself is read back by after each try.
            assert!(dumps < 12 * 9 + 60, "{bad}: {dumps} dumps: {}", error());
            assert!(!bench.reconciler.is_in_doubt(), "{bad}");
        }
    }
}

#[test]
fn tries_out_of_turn_add_none_to_those_that_follow() {
    let mut bench = Bench::with_peer();
    let [_, (bad, _), ..] = peer(2);
    bench.script(move |o| (o.key == bad).then(|| kernel_error(libc::EACCES)));
    bench.want(peer(2));
    bench.pass(Duration::from_secs(300));
    bench.forget_past();
    for _ in 0..100 {
        bench.reconciler.audit(bench.now);
        bench.pass(Duration::from_millis(1));
    }
    assert!(tries(&bench, bad) <= 1, "an audit is no reason to try again");
    for _ in 0..100 {
        bench.hint(Hint::HostChanged);
        bench.pass(Duration::from_millis(1));
    }
    let hurried = tries(&bench, bad);
    assert!(
        (100..103).contains(&hurried),
        "one for each change of the host: {hurried}"
    );
    bench.pass(Duration::from_secs(600));
    let later = tries(&bench, bad);
    assert!((10..40).contains(&later), "{later} tries in ten minutes");
}

#[test]
fn a_device_whose_parent_went_is_back_with_the_parent_and_no_one_is_blamed() {
    let mut bench = Bench::with_peer();
    let link = Key::Link(vxlan_device());
    for (key, _) in device().into_iter().chain(peer(1)) {
        if !matches!(key, Key::Sysctl(_)) {
            bench.meddle(key, None);
        }
    }
    bench.script(move |o| (o.key == link).then(missing_link));
    bench.hint(Hint::LinkGone(vxlan_device()));
    for _ in 0..60 {
        bench.hint(Hint::HostChanged);
        bench.pass(Duration::from_secs(1));
    }
    let report = bench.report();
    assert_eq!(report.fights, [], "no one fights over it");
    assert_eq!(report.refused.len(), 1, "told once: {:?}", report.refused);
    bench.kernel.0.lock().unwrap().script = None;
    bench.hint(Hint::HostChanged);
    bench.settle();
    assert!(bench.holds(device().into_iter().chain(peer(1))), "at once");
}

#[test]
fn a_device_without_carrier_holds_no_nexthops_and_gets_them_back_with_it() {
    let mut bench = Bench::with_peer();
    let [(key, _), ..] = device();
    let [_, _, (nexthop, _), (route, _)] = peer(1);
    let set_running = |bench: &Bench, running: bool| {
        let Some(Object::Link(link)) = bench.objects().remove(&key) else {
            panic!()
        };
        let object = Object::Link(Box::new(Link { running, ..*link }));
        bench.meddle(key, Some(object.clone()));
        bench.hint(Hint::Seen(key, object));
    };
    bench.meddle(nexthop, None);
    bench.meddle(route, None);
    set_running(&bench, false);
    bench.pass(Duration::from_secs(300));
    assert_eq!(bench.operations(), [], "nothing can be done");
    set_running(&bench, true);
    bench.settle();
    assert_eq!(
        bench.operations(),
        [(Verb::Create, nexthop), (Verb::Create, route)]
    );
}

#[test]
fn a_host_that_cannot_be_read_is_read_again() {
    let mut bench = Bench::with_peer();
    bench.kernel.0.lock().unwrap().host_fails = true;
    bench.kernel.0.lock().unwrap().host_reads = 0;
    bench.hint(Hint::HostChanged);
    bench.pass(Duration::from_secs(60));
    let reads = bench.kernel.0.lock().unwrap().host_reads;
    assert!((10..70).contains(&reads), "{reads} reads in a minute");
    bench.kernel.0.lock().unwrap().host_fails = false;
    bench.pass(Duration::from_secs(2));
    let reads = bench.kernel.0.lock().unwrap().host_reads;
    bench.pass(Duration::from_secs(60));
    assert_eq!(
        bench.kernel.0.lock().unwrap().host_reads,
        reads,
        "read, and that was it"
    );
}

#[test]
fn lost_notifications_again_and_again_do_not_keep_us_reading() {
    let mut bench = Bench::with_peer();
    bench.hint(Hint::Lost);
    bench.pass(Duration::from_secs(1));
    bench.forget_past();
    for _ in 0..1000 {
        bench.hint(Hint::Lost);
        bench.settle();
    }
    let dumps = bench.kernel.0.lock().unwrap().dumps;
    assert!(dumps <= 12, "{dumps} dumps without time passing");
    bench.pass(Duration::from_secs(1));
    assert!(
        bench.kernel.0.lock().unwrap().dumps > 0,
        "but the last loss is followed by one"
    );
}

#[test]
fn an_error_on_any_change_or_removal_is_retried_and_overcome() {
    for errno in [
        libc::EINVAL,
        libc::ENETDOWN,
        libc::ESRCH,
        libc::ENOBUFS,
        libc::EBUSY,
    ] {
        for ((bad, _), verb) in peer(1)
            .into_iter()
            .flat_map(|object| [(object.clone(), Verb::Replace), (object, Verb::Delete)])
        {
            let mut bench = Bench::with_peer();
            let mut left = 5;
            bench.script(move |o| {
                let fails = o.key == bad && o.verb == verb && left > 0;
                left -= i32::from(fails);
                fails.then(|| kernel_error(errno))
            });
            if verb == Verb::Delete {
                bench.unwant(peer(1));
            } else {
                let strange = match bad {
                    Key::Fdb { .. } => Object::Fdb([203, 0, 113, 9].into()),
                    Key::Neighbour { .. } => Object::Neighbour(routelet_model::HOST_VETH_MAC),
                    Key::Route { .. } => Object::Route(RouteTarget::Blackhole),
                    _ => Object::Foreign { protocol: PROTOCOL },
                };
                bench.meddle(bad, Some(strange.clone()));
                bench.hint(Hint::Seen(bad, strange));
            }
            bench.pass(Duration::from_secs(60));
            let present = bench.objects();
            if verb == Verb::Delete {
                assert!(
                    peer(1).iter().all(|(key, _)| !present.contains_key(key)),
                    "{bad} {errno}"
                );
            } else {
                assert!(bench.holds(peer(1)), "{bad} {errno}");
            }
            assert_eq!(bench.reconciler.troubles().count(), 0, "{bad} {errno}");
        }
    }
}

/// As when the runtime gives the address of a pod that goes to the next one before the API has told that it went.
#[test]
fn a_route_that_another_pod_has_got_meanwhile_stays_when_the_old_pod_is_told_gone() {
    let mut bench = Bench::with_peer();
    for (name, index) in [("cali1", 7), ("cali2", 8)] {
        bench.meddle(Key::Link(veth(name)), Some(veth_link(true, index)));
        bench.hint(Hint::Seen(Key::Link(veth(name)), veth_link(true, index)));
    }
    bench.want(pod("cali1", "10.0.0.7/32"));
    bench.settle();
    let route = Key::route(net("10.0.0.7/32"));
    let next = Object::Route(RouteTarget::Link(veth("cali2")));
    bench.meddle(Key::Link(veth("cali1")), None);
    bench.hint(Hint::LinkGone(veth("cali1")));
    bench.settle();
    bench.meddle(route, Some(next.clone()));
    bench.hint(Hint::Seen(route, next.clone()));
    bench.unwant(pod("cali1", "10.0.0.7/32"));
    bench.settle();
    assert_eq!(bench.objects().get(&route), Some(&next));
}

#[test]
fn anothers_route_to_our_own_subnet_serves_until_it_is_gone() {
    let mut bench = Bench::with_peer();
    let own = Key::route(net("10.0.0.0/24"));
    let others = Object::Foreign { protocol: 2 };
    bench.meddle(own, Some(others.clone()));
    bench.want([(own, Object::Route(RouteTarget::Blackhole))]);
    bench.settle();
    let report = bench.report();
    assert_eq!((report.yielded.len(), report.replaced.len()), (1, 0));
    bench.forget_past();
    ten_minutes(&mut bench);
    assert_eq!(bench.operations(), [], "and is let alone");
    assert_eq!(bench.objects().get(&own), Some(&others));
    assert_eq!(bench.reconciler.count(Kind::Route).out_of_sync, 0);
    // With a link, without a word.
    bench.meddle(own, None);
    bench.hint(Hint::HostChanged);
    bench.settle();
    assert_eq!(
        bench.objects().get(&own),
        Some(&Object::Route(RouteTarget::Blackhole))
    );
    bench.meddle(own, Some(others.clone()));
    bench.hint(Hint::Seen(own, others));
    bench.settle();
    bench.meddle(own, None);
    bench.hint(Hint::OthersGone(own));
    bench.settle();
    assert_eq!(
        bench.objects().get(&own),
        Some(&Object::Route(RouteTarget::Blackhole))
    );
    assert_eq!(bench.report().repairs, [], "no one has touched ours");
}

/// As after a reboot: the API still tells the pod's former address, which may be another pod's by now.
#[test]
fn the_plugins_word_on_a_pods_address_is_newer_than_the_apis() {
    let mut bench = Bench::with_peer();
    let (old, new) = (Key::route(net("10.0.0.7/32")), Key::route(net("10.0.0.8/32")));
    let to = |name: &str| Object::Route(RouteTarget::Link(veth(name)));
    for (name, index, given) in [("cali1", 7, [10, 0, 0, 8]), ("cali2", 8, [10, 0, 0, 7])] {
        let Object::Link(mut link) = veth_link(true, index) else {
            panic!()
        };
        link.given = vec![given.into()];
        bench.meddle(Key::Link(veth(name)), Some(Object::Link(link.clone())));
        bench.hint(Hint::Seen(Key::Link(veth(name)), Object::Link(link)));
    }
    for (key, object) in [(new, to("cali1")), (old, to("cali2"))] {
        bench.meddle(key, Some(object.clone()));
        bench.hint(Hint::Added(key, object));
    }
    bench.want(pod("cali1", "10.0.0.7/32"));
    ten_minutes(&mut bench);
    let present = bench.objects();
    assert_eq!(
        (present.get(&new), present.get(&old)),
        (Some(&to("cali1")), Some(&to("cali2")))
    );
    assert!(
        bench
            .operations()
            .iter()
            .all(|(_, key)| key.kind() != Kind::Route)
    );
    // The kubelet has told the API.
    bench.unwant(pod("cali1", "10.0.0.7/32").into_iter().skip(2));
    bench.want(pod("cali1", "10.0.0.8/32"));
    bench.want(pod("cali2", "10.0.0.7/32"));
    ten_minutes(&mut bench);
    assert!(
        bench.holds(
            pod("cali1", "10.0.0.8/32")
                .into_iter()
                .chain(pod("cali2", "10.0.0.7/32"))
        )
    );
    assert!(
        bench
            .operations()
            .iter()
            .all(|(_, key)| key.kind() != Kind::Route)
    );
}
