//! TX checksum offload: read before it is written, and kept as it is wanted.

mod fake;

use fake::{Bench, device, vxlan_device};
use routelet_model::{Key, Kind, Object};
use routelet_netlink::Verb;
use routelet_reconciler::Cause;

fn key() -> Key {
    Key::ChecksumOffload(vxlan_device())
}

fn with(on: bool) -> Bench {
    let mut bench = Bench::new();
    bench.want(device());
    bench.want([(key(), Object::ChecksumOffload(on))]);
    bench.reconciler.allow_removal();
    bench.settle();
    bench
}

fn writes(bench: &Bench) -> Vec<(Verb, Key)> {
    let mut operations = bench.operations();
    operations.retain(|(_, key)| key.kind() == Kind::ChecksumOffload);
    operations
}

#[test]
fn what_is_right_already_is_not_written() {
    let mut bench = with(true);
    assert_eq!(writes(&bench), []);
    bench.reconciler.audit(bench.now);
    bench.settle();
    assert_eq!(writes(&bench), []);
    assert_eq!(bench.reconciler.count(Kind::ChecksumOffload).out_of_sync, 0);
}

#[test]
fn an_audit_finds_what_someone_has_switched_without_a_word() {
    let mut bench = with(false);
    assert_eq!(writes(&bench), [(Verb::Replace, key())]);
    bench.forget_past();
    bench.meddle(key(), Some(Object::ChecksumOffload(true)));
    bench.settle();
    assert_eq!(writes(&bench), [], "nothing tells of it");
    bench.reconciler.audit(bench.now);
    bench.settle();
    assert_eq!(writes(&bench), [(Verb::Replace, key())]);
    let repairs = bench.report().repairs;
    assert_eq!(repairs.len(), 1);
    assert_eq!((repairs[0].key, repairs[0].cause), (key(), Cause::Changed));
    assert_eq!(repairs[0].found, Some(Object::ChecksumOffload(true)));
}

#[test]
fn a_device_that_is_not_there_is_waited_for() {
    let mut bench = Bench::new();
    bench.want([(key(), Object::ChecksumOffload(false))]);
    bench.settle();
    assert_eq!(writes(&bench), []);
    bench.want(device());
    bench.settle();
    assert_eq!(writes(&bench), [(Verb::Replace, key())]);
    assert!(bench.holds([(key(), Object::ChecksumOffload(false))]));
    assert!(bench.report().repairs.is_empty());
}

#[test]
fn what_is_wanted_no_more_stays_as_it_is() {
    let mut bench = with(false);
    bench.forget_past();
    bench.unwant([(key(), Object::ChecksumOffload(false))]);
    bench.settle();
    assert_eq!(writes(&bench), []);
}
