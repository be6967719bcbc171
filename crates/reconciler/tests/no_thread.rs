//! A host that has no thread to give for long batches. Alone in its program: the limit is the whole process'.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::fs;

use fake::{Bench, device, net};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use routelet_model::{Key, Object, RouteTarget};
use routelet_reconciler::Progress;

/// Room for what the test itself needs, in bytes: less than a thread's stack.
const ROOM: u64 = 3 << 19;

/// Objects that make a long batch.
fn routes(number: u8) -> impl Iterator<Item = (Key, Object)> {
    let subnets =
        (0..=u8::MAX).flat_map(move |low| [0, 128].map(|last| format!("10.{number}.{low}.{last}/25")));
    subnets.map(|subnet| (Key::route(net(&subnet)), Object::Route(RouteTarget::Blackhole)))
}

/// Bytes of address space that the process has.
fn address_space() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kilobytes: u64 = size.unwrap().trim_end_matches("kB").trim().parse().unwrap();
    kilobytes * 1024
}

#[test]
fn without_a_thread_long_batches_are_carried_out_at_once_and_that_is_told_once() {
    let mut bench = Bench::new();
    bench.want(device());
    bench.reconciler.allow_removal();
    bench.settle();
    bench.forget_past();
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let mut told = Vec::new();
    for number in 1..=3 {
        bench.want(routes(number));
        if number < 3 {
            setrlimit(Resource::RLIMIT_AS, address_space() + ROOM, hard).unwrap();
        }
        let progress = bench.reconciler.step(bench.now);
        setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
        assert_ne!(progress, Progress::More, "nothing is under way");
        assert!(bench.holds(routes(number)));
        told.extend(bench.report().no_thread);
    }
    // With threads to be had again, as well: it is tried once.
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("temporarily unavailable"), "{told:?}");
}
