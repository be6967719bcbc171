//! The nft table among the other objects, on the fake kernel: order, repair, and what is overlapped.

mod fake;

use std::time::Duration;

use fake::{Bench, device, kernel_error, net, nft_table, peer};
use routelet_model::{Key, Kind, NftSet, Object};
use routelet_netlink::{Hint, Verb};
use routelet_reconciler::Cause;

/// An agent in sync, with a peer and the table.
fn with_table() -> Bench {
    let mut bench = Bench::with_peer();
    bench.want(nft_table());
    bench.settle();
    assert!(bench.holds(nft_table()));
    bench.forget_past();
    bench
}

fn element(set: NftSet, text: &str) -> (Key, Object) {
    (Key::nft_element(set, net(text)), Object::NftElement)
}

fn kinds(operations: &[(Verb, Key)]) -> Vec<Kind> {
    let mut kinds: Vec<_> = operations.iter().map(|(_, key)| key.kind()).collect();
    kinds.dedup();
    kinds
}

#[test]
fn rules_come_after_the_elements_and_before_what_leads_to_a_peer() {
    let mut bench = Bench::new();
    bench.want(device());
    bench.want(nft_table());
    bench.want(peer(1));
    bench.reconciler.allow_removal();
    bench.settle();
    assert_eq!(
        kinds(&bench.operations())[3..],
        [
            Kind::NftTable,
            Kind::NftElement,
            Kind::NftRules,
            Kind::Fdb,
            Kind::Neighbour,
            Kind::Nexthop,
            Kind::Route
        ]
    );
    bench.unwant(peer(1));
    bench.unwant([element(NftSet::Nodes, "192.0.2.2/32")]);
    bench.settle();
    assert_eq!(
        kinds(&bench.operations()),
        [
            Kind::Route,
            Kind::Nexthop,
            Kind::Neighbour,
            Kind::Fdb,
            Kind::NftElement
        ]
    );
}

#[test]
fn an_audit_of_what_is_in_sync_writes_nothing() {
    let mut bench = with_table();
    bench.reconciler.audit(bench.now);
    bench.settle();
    assert_eq!(bench.operations(), []);
}

#[test]
fn a_table_that_someone_deleted_is_made_again_with_all_that_was_in_it() {
    let mut bench = with_table();
    for (key, _) in nft_table() {
        bench.meddle(key, None);
    }
    bench.hint(Hint::NftTouched);
    bench.settle();
    assert!(bench.holds(nft_table()));
    let repairs = bench.report().repairs;
    assert_eq!(repairs.len(), 4);
    assert!(repairs.iter().all(|repair| repair.cause == Cause::Deleted));
    assert_eq!(
        kinds(&bench.operations()),
        [Kind::NftTable, Kind::NftElement, Kind::NftRules]
    );
}

#[test]
fn what_someone_did_within_the_table_is_put_right_and_told() {
    let mut bench = with_table();
    let [_, pods, nodes, rules] = nft_table();
    let surplus = element(NftSet::Nodes, "192.0.2.99/32");
    let foreign = Object::Foreign { protocol: 0 };
    bench.meddle(pods.0, None);
    bench.meddle(surplus.0, Some(surplus.1.clone()));
    bench.meddle(rules.0, Some(foreign.clone()));
    bench.hint(Hint::NftTouched);
    bench.settle();
    assert!(bench.holds(nft_table()) && !bench.holds([surplus.clone()]));
    let mut causes: Vec<_> = bench
        .report()
        .repairs
        .into_iter()
        .map(|repair| (repair.key, repair.cause))
        .collect();
    causes.sort_unstable();
    let mut expected = [
        (pods.0, Cause::Deleted),
        (surplus.0, Cause::Surplus),
        (rules.0, Cause::Changed),
    ];
    expected.sort_unstable();
    assert_eq!(causes, expected);
    assert!(!bench.operations().iter().any(|(_, key)| *key == nodes.0));
}

#[test]
fn a_table_of_another_shape_is_replaced_and_what_it_held_is_made_anew() {
    let mut bench = with_table();
    bench.meddle(Key::NftTable, Some(Object::Foreign { protocol: 0 }));
    bench.hint(Hint::NftTouched);
    bench.settle();
    assert!(bench.holds(nft_table()));
}

/// Of a set without ranges, what goes makes no room.
#[test]
fn a_range_goes_before_one_that_overlaps_it_is_made() {
    let mut bench = with_table();
    let inner = element(NftSet::OwnPods, "10.0.1.0/24");
    let outer = element(NftSet::OwnPods, "10.0.0.0/16");
    bench.want([inner.clone()]);
    bench.settle();
    let _ = (bench.operations(), bench.report());
    bench.unwant([inner.clone()]);
    bench.want([outer.clone()]);
    bench.settle();
    let mut operations = bench.operations();
    operations.sort_unstable_by_key(|(verb, _)| *verb == Verb::Create);
    assert_eq!(operations, [(Verb::Delete, inner.0), (Verb::Create, outer.0)]);
    let batches = bench.report().batches;
    assert_eq!(batches, [2], "in one transaction");
}

#[test]
fn elements_wait_for_a_table_that_the_kernel_refuses_and_are_told_once() {
    let mut bench = Bench::with_peer();
    bench.script(|operation| (operation.key == Key::NftTable).then(|| kernel_error(nix::libc::EOPNOTSUPP)));
    bench.want(nft_table());
    bench.pass(Duration::from_secs(60));
    let report = bench.report();
    let told: Vec<_> = report.refused.iter().map(|(key, _)| *key).collect();
    assert_eq!(told, [Key::NftTable]);
    let tries = bench
        .operations()
        .iter()
        .filter(|(_, key)| *key != Key::NftTable)
        .count();
    assert_eq!(tries, 3, "once each, before it was known");
    bench.script(|_| None);
    bench.pass(Duration::from_secs(60));
    assert!(bench.holds(nft_table()));
}

/// The table goes between a look at it and a write to it.
#[test]
fn elements_whose_table_has_just_gone_come_back_with_it_and_nobody_is_alarmed() {
    let mut bench = with_table();
    for (key, _) in nft_table() {
        bench.meddle(key, None);
    }
    bench.want([element(NftSet::Nodes, "192.0.2.3/32")]);
    bench.pass(Duration::from_secs(1));
    assert!(bench.holds(nft_table()) && bench.holds([element(NftSet::Nodes, "192.0.2.3/32")]));
    let report = bench.report();
    assert_eq!(report.refused, []);
}
