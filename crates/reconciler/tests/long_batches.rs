//! Batches that are long enough to be carried out on a thread of their own, while the next one is planned.

mod fake;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use fake::{Bench, device, kernel_error, net, vxlan_device};
use nix::libc;
use routelet_model::{Key, Kind, Object, RouteTarget};
use routelet_netlink::{Hint, Verb};
use routelet_reconciler::Progress;

/// Peers that are told of at once: with two objects each they make one long batch.
const AT_ONCE: usize = 200;
const PEERS: usize = 1000;

/// Nexthop and route of a peer.
fn peer(number: usize) -> [(Key, Object); 2] {
    let (high, low) = ((number / 256) as u8, (number % 256) as u8);
    let gateway = IpAddr::from([10, 1 + high, low, 0]);
    let link = vxlan_device();
    [
        (Key::Nexthop { link, gateway }, Object::Nexthop),
        (
            Key::route(net(&format!("10.{}.{low}.0/24", 1 + high))),
            Object::Route(RouteTarget::Nexthop { link, gateway }),
        ),
    ]
}

fn peers(numbers: impl IntoIterator<Item = usize>) -> impl Iterator<Item = (Key, Object)> {
    numbers.into_iter().flat_map(peer)
}

/// A bench with the device in place.
fn with_device() -> Bench {
    let mut bench = Bench::new();
    bench.want(device());
    bench.reconciler.allow_removal();
    bench.settle();
    bench.forget_past();
    bench
}

/// Makes a step that leaves a long batch under way.
fn send(bench: &mut Bench) {
    let progress = bench.reconciler.step(bench.now);
    assert_eq!(progress, Progress::More, "a long batch is under way");
    assert_eq!(
        bench.report().operations.total(),
        0,
        "it is not known yet what becomes of it"
    );
}

/// Tells of all peers in portions, as the agent takes them, with a step after each.
fn stream(bench: &mut Bench) {
    for first in (0..PEERS).step_by(AT_ONCE) {
        bench.want(peers(first..first + AT_ONCE));
        send(bench);
    }
}

#[test]
fn each_object_is_written_once_and_in_its_order() {
    let mut bench = with_device();
    stream(&mut bench);
    bench.settle();
    assert!(bench.holds(peers(0..PEERS)));
    let operations = bench.operations();
    assert!(operations.iter().all(|(verb, _)| *verb == Verb::Create));
    let keys: BTreeSet<Key> = operations.iter().map(|(_, key)| *key).collect();
    assert_eq!(
        (operations.len(), keys.len()),
        (2 * PEERS, 2 * PEERS),
        "nothing twice"
    );
    for number in 0..PEERS {
        let [(nexthop, _), (route, _)] = peer(number);
        let place = |key| operations.iter().position(|(_, other)| *other == key);
        assert!(place(nexthop) < place(route), "{route} needs {nexthop}");
    }
    let report = bench.report();
    assert_eq!(report.operations.total(), 2 * PEERS as u64);
    assert_eq!(report.repairs, []);
}

#[test]
fn what_fails_on_its_way_is_tried_again() {
    let mut bench = with_device();
    let mut count = 0;
    let mut refused = BTreeSet::new();
    bench.script(move |operation| {
        count += 1;
        (count % 7 == 0 && refused.insert(operation.key)).then(|| kernel_error(libc::ENOMEM))
    });
    stream(&mut bench);
    bench.settle();
    let failed = bench.report().errors.len();
    assert!(failed > 100, "{failed} operations have failed");
    bench.pass(Duration::from_secs(60));
    assert!(bench.holds(peers(0..PEERS)));
    assert_eq!(bench.reconciler.troubles().count(), 0);
    assert_eq!(bench.reconciler.differences().count(), 0);
}

#[test]
fn what_is_wanted_no_more_while_it_is_on_its_way_does_not_stay() {
    let mut bench = with_device();
    stream(&mut bench);
    let (gone, rest): (Vec<usize>, Vec<usize>) = (0..PEERS).partition(|number| number % 5 == 0);
    bench.unwant(peers(gone.iter().copied()));
    bench.settle();
    assert!(bench.holds(peers(rest)));
    let there = bench.objects();
    let left: Vec<Key> = peers(gone)
        .map(|(key, _)| key)
        .filter(|key| there.contains_key(key))
        .collect();
    assert_eq!(left, []);
}

#[test]
fn what_is_wanted_otherwise_while_it_is_on_its_way_is_changed() {
    let mut bench = with_device();
    stream(&mut bench);
    // The last portion is in the kernel's hands.
    let others: Vec<(Key, Object)> = (PEERS - AT_ONCE..PEERS)
        .map(|number| {
            let [_, (route, _)] = peer(number);
            let [_, (_, target)] = peer(number - AT_ONCE);
            (route, target)
        })
        .collect();
    bench.want(others.clone());
    bench.settle();
    assert!(bench.holds(others));
    assert!(bench.holds(peers(0..PEERS - AT_ONCE)));
}

#[test]
fn a_notification_that_comes_meanwhile_is_heeded() {
    let mut bench = with_device();
    stream(&mut bench);
    bench.settle();
    bench.forget_past();
    // Someone takes away what has been made, while more is on its way.
    let [_, (route, _)] = peer(3);
    bench.want(peers(PEERS..PEERS + AT_ONCE));
    assert_eq!(bench.reconciler.step(bench.now), Progress::More);
    bench.meddle(route, None);
    bench.hint(Hint::Gone(route));
    bench.want(peers(PEERS + AT_ONCE..PEERS + 2 * AT_ONCE));
    bench.settle();
    assert!(bench.holds(peers(0..PEERS + 2 * AT_ONCE)));
    let repairs: Vec<Key> = bench.report().repairs.iter().map(|repair| repair.key).collect();
    assert_eq!(repairs, [route]);
    assert_eq!(bench.kernel.0.lock().unwrap().dumps, 0, "no dump was needed");
}

#[test]
fn the_next_batch_is_planned_as_if_the_one_under_way_went_well() {
    let mut bench = with_device();
    let [(nexthop, _), (route, _)] = peer(0);
    bench.script(move |operation| {
        let fails = operation.key == nexthop && operation.verb == Verb::Create;
        fails.then(|| kernel_error(libc::ENOMEM))
    });
    let of_kind = |kind| peers(0..2 * AT_ONCE).filter(move |(key, _)| key.kind() == kind);
    bench.want(of_kind(Kind::Nexthop));
    send(&mut bench);
    bench.want(of_kind(Kind::Route));
    send(&mut bench);
    // Sent before it was known that its nexthop is not there.
    bench.settle();
    let sent = bench.operations();
    assert!(
        sent.contains(&(Verb::Create, route)),
        "{route} has not been planned meanwhile"
    );
    assert!(!bench.objects().contains_key(&nexthop));
}

#[test]
fn what_is_to_be_changed_is_so_before_anything_new_uses_it() {
    let mut bench = with_device();
    let [(fdb, _), ..] = fake::peer(1);
    bench.want([(fdb, Object::Fdb([192, 0, 2, 2].into()))]);
    bench.settle();
    bench.forget_past();
    bench.want(peers(0..AT_ONCE));
    send(&mut bench);
    bench.want([(fdb, Object::Fdb([192, 0, 2, 99].into()))]);
    bench.want(peers(AT_ONCE..2 * AT_ONCE));
    bench.settle();
    let sent = bench.operations();
    let place = |key: Key| sent.iter().position(|(_, other)| *other == key);
    let [(new, _), _] = peer(AT_ONCE);
    assert!(place(fdb).is_some() && place(fdb) < place(new));
}

#[test]
fn what_was_planned_meanwhile_is_not_sent_to_a_device_that_has_gone() {
    let mut bench = with_device();
    bench.want(peers(0..AT_ONCE));
    send(&mut bench);
    bench.want(peers(AT_ONCE..2 * AT_ONCE));
    let device = Key::Link(vxlan_device());
    bench.meddle(device, None);
    bench.hint(Hint::LinkGone(vxlan_device()));
    bench.settle();
    let sent = bench.operations();
    let place = |key: Key| sent.iter().position(|(_, other)| *other == key);
    for number in AT_ONCE..2 * AT_ONCE {
        let [(nexthop, _), _] = peer(number);
        assert!(place(device) < place(nexthop), "{nexthop} comes after its device");
    }
    assert!(bench.holds(peers(AT_ONCE..2 * AT_ONCE)));
}

#[test]
fn what_is_wanted_no_more_when_it_fails_is_no_trouble() {
    let mut bench = with_device();
    let mut routes = peers(0..AT_ONCE).filter(|(key, _)| key.kind() == Kind::Route);
    let (taken, _) = routes.next().unwrap();
    let (failing, _) = routes.next().unwrap();
    bench.meddle(taken, Some(Object::Foreign { protocol: 4 }));
    bench.script(move |operation| (operation.key == failing).then(|| kernel_error(libc::ENOMEM)));
    bench.want(peers(0..AT_ONCE));
    send(&mut bench);
    for key in [taken, failing] {
        bench.reconciler.want(key, None);
    }
    bench.settle();
    let report = bench.report();
    assert_eq!((report.replaced, report.refused), (vec![], vec![]));
    assert_eq!(bench.reconciler.troubles().count(), 0);
    assert!(!bench.operations().contains(&(Verb::Supplant, taken)));
    let there = bench.objects();
    assert_eq!(there.get(&taken), Some(&Object::Foreign { protocol: 4 }));
}
