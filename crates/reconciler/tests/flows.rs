//! Flows of addresses that leave their pod are forgotten: when, how often, and that nothing else is.

mod fake;

use std::net::IpAddr;
use std::time::Duration;

use fake::{Bench, net, pod, veth, veth_link};
use nix::libc;
use routelet_model::{Key, Object, RouteTarget};
use routelet_netlink::Hint;

const ADDRESS: &str = "10.0.0.7/32";

/// A bench where pods cali1 and cali2 have veths, and cali1 the address.
fn with_pod() -> Bench {
    let mut bench = Bench::with_peer();
    for (name, index) in [("cali1", 7), ("cali2", 8)] {
        add_veth(&bench, name, index);
    }
    bench.want(pod("cali1", ADDRESS));
    bench.settle();
    assert!(bench.holds(pod("cali1", ADDRESS)));
    bench.forget_past();
    bench
}

fn add_veth(bench: &Bench, name: &str, index: u32) {
    bench.meddle(Key::Link(veth(name)), Some(veth_link(true, index)));
    bench.hint(Hint::Seen(Key::Link(veth(name)), veth_link(true, index)));
}

/// The kernel takes the veth away, and the route along.
fn remove_veth(bench: &Bench, name: &str) {
    bench.meddle(Key::Link(veth(name)), None);
    bench.meddle(Key::route(net(ADDRESS)), None);
    bench.hint(Hint::LinkGone(veth(name)));
}

fn lead_to(name: &str) -> Object {
    Object::Route(RouteTarget::Link(veth(name)))
}

/// Takes what was flushed, call by call, and checks that the kernel had the routes by then.
fn flushed(bench: &Bench, route: Option<&str>) -> Vec<Vec<IpAddr>> {
    let calls = bench.flushes();
    for (_, objects) in &calls {
        assert_eq!(
            objects.get(&Key::route(net(ADDRESS))),
            route.map(lead_to).as_ref(),
            "flushed before the kernel had the new route"
        );
    }
    calls.into_iter().map(|(addresses, _)| addresses).collect()
}

fn address() -> IpAddr {
    net(ADDRESS).addr()
}

#[test]
fn a_new_pod_is_no_reason() {
    let bench = with_pod();
    assert_eq!(flushed(&bench, None), Vec::<Vec<IpAddr>>::new());
}

#[test]
fn an_address_that_moves_to_another_pod_is_flushed_once() {
    let mut bench = with_pod();
    bench.want(pod("cali2", ADDRESS));
    bench.settle();
    bench.reconciler.audit(bench.now);
    bench.pass(Duration::from_secs(60));
    assert_eq!(flushed(&bench, Some("cali2")), [[address()]]);
    let report = bench.report().flushed;
    assert_eq!((report.addresses, report.flows), (vec![address()], 1));
}

#[test]
fn an_address_that_goes_is_flushed() {
    let mut bench = with_pod();
    bench.unwant(pod("cali1", ADDRESS));
    bench.settle();
    assert_eq!(flushed(&bench, None), [[address()]]);
}

#[test]
fn an_address_that_goes_with_its_veth_is_flushed_when_the_pod_is_known_to_be_gone() {
    let mut bench = with_pod();
    remove_veth(&bench, "cali1");
    bench.pass(Duration::from_secs(60));
    assert_eq!(
        flushed(&bench, None),
        Vec::<Vec<IpAddr>>::new(),
        "the veth may come back"
    );
    bench.unwant(pod("cali1", ADDRESS));
    bench.settle();
    assert_eq!(flushed(&bench, None), [[address()]]);
}

#[test]
fn an_address_that_another_pod_has_after_its_veth_went_is_flushed() {
    let mut bench = with_pod();
    remove_veth(&bench, "cali1");
    bench.settle();
    bench.want(pod("cali2", ADDRESS));
    bench.settle();
    assert_eq!(flushed(&bench, Some("cali2")), [[address()]]);
}

/// The CNI plugin leads the address to the new pod; the agent hears of it and writes nothing.
#[test]
fn an_address_that_someone_else_moved_is_flushed() {
    let mut bench = with_pod();
    let route = Key::route(net(ADDRESS));
    bench.unwant(pod("cali1", ADDRESS));
    bench.meddle(route, Some(lead_to("cali2")));
    bench.hint(Hint::Seen(route, lead_to("cali2")));
    bench.want(pod("cali2", ADDRESS));
    bench.settle();
    assert_eq!(flushed(&bench, Some("cali2")), [[address()]]);
    let writes = bench.operations();
    assert!(writes.iter().all(|(_, key)| *key != route), "{writes:?}");
}

#[test]
fn a_repaired_route_is_no_reason() {
    let mut bench = with_pod();
    let route = Key::route(net(ADDRESS));
    for found in [None, Some(lead_to("cali2"))] {
        bench.meddle(route, found.clone());
        bench.hint(found.map_or(Hint::Gone(route), |found| Hint::Seen(route, found)));
        bench.settle();
        assert!(bench.holds(pod("cali1", ADDRESS)));
    }
    remove_veth(&bench, "cali1");
    bench.settle();
    add_veth(&bench, "cali1", 9);
    bench.settle();
    assert!(bench.holds(pod("cali1", ADDRESS)));
    assert_eq!(flushed(&bench, None), Vec::<Vec<IpAddr>>::new());
}

#[test]
fn at_the_start_only_an_address_that_leads_elsewhere_is_flushed() {
    let mut bench = Bench::new();
    for (name, index) in [("cali1", 7), ("cali2", 8)] {
        bench.meddle(Key::Link(veth(name)), Some(veth_link(true, index)));
    }
    let other = "10.0.0.8/32";
    bench.meddle(Key::route(net(ADDRESS)), Some(lead_to("cali1")));
    bench.meddle(Key::route(net(other)), Some(lead_to("cali2")));
    bench.want(pod("cali2", ADDRESS));
    bench.want(pod("cali2", other));
    bench.reconciler.allow_removal();
    bench.settle();
    assert_eq!(flushed(&bench, Some("cali2")), [[address()]]);
}

#[test]
fn many_addresses_are_flushed_at_once() {
    let mut bench = with_pod();
    let addresses: Vec<String> = (10..110).map(|host| format!("10.0.0.{host}/32")).collect();
    for address in &addresses {
        bench.want(pod("cali1", address));
    }
    bench.settle();
    for address in &addresses {
        bench.want(pod("cali2", address));
    }
    bench.settle();
    let calls = flushed(&bench, Some("cali1"));
    assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [100]);
}

#[test]
fn a_failure_is_told_once_and_tried_again() {
    let mut bench = with_pod();
    bench.kernel.0.lock().unwrap().flush_error = Some(libc::EPERM);
    bench.unwant(pod("cali1", ADDRESS));
    bench.settle();
    let told = bench.report().flushed;
    assert!(told.failed.is_some() && told.addresses.is_empty());
    bench.pass(Duration::from_secs(3));
    assert_eq!(flushed(&bench, None), vec![[address()]; 4]);
    assert_eq!(bench.report().flushed.failed, None, "told once");
    bench.kernel.0.lock().unwrap().flush_error = None;
    bench.pass(Duration::from_secs(60));
    assert_eq!(flushed(&bench, None), [[address()]]);
    assert_eq!(bench.report().flushed.addresses, [address()]);
}
