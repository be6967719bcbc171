//! Each write of each kind of object, and each error that the kernel may answer it with.

mod fake;

use std::collections::BTreeSet;
use std::time::Duration;

use fake::{Bench, PROTOCOL, device, kernel_error, net, nft_table, peer, pod, veth, veth_link, vxlan_device};
use nix::libc;
use routelet_model::{Key, Kind, LinkKind, MacAddr, Object, RouteTarget};
use routelet_netlink::{Error, Verb};

/// What a write is answered with; `None` stands for no answer.
const ANSWERS: [Option<i32>; 7] = [
    Some(libc::EEXIST),
    Some(libc::ESRCH),
    Some(libc::ENODEV),
    Some(libc::ENETDOWN),
    Some(libc::EINVAL),
    Some(libc::ENOBUFS),
    None,
];

/// How the kernel's objects come to differ from what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// There are none.
    Empty,
    /// Each is otherwise.
    Changed,
    /// All are there, on a device that is to be made anew.
    OtherDevice,
    /// Someone else's routes stand where ours are wanted.
    Foreign,
    /// All are there, and are wanted no more.
    Withdrawn,
}

const STARTS: [Start; 5] = [
    Start::Empty,
    Start::Changed,
    Start::OtherDevice,
    Start::Foreign,
    Start::Withdrawn,
];

/// One object at least of each kind.
fn wanted() -> Vec<(Key, Object)> {
    let offload = (
        Key::ChecksumOffload(vxlan_device()),
        Object::ChecksumOffload(false),
    );
    let own_subnet = (
        Key::route(net("10.0.0.0/24")),
        Object::Route(RouteTarget::Blackhole),
    );
    let all = device().into_iter().chain(nft_table()).chain(peer(1));
    all.chain(pod("cali1", "10.0.0.7/32"))
        .chain([offload, own_subnet])
        .collect()
}

/// The same object in another state; `None` of what is there or not, and has no other.
fn changed(object: &Object) -> Option<Object> {
    Some(match object {
        Object::Link(link) => {
            let mut link = link.clone();
            link.mac = Some(MacAddr([2; 6]));
            Object::Link(link)
        }
        Object::Sysctl(value) => Object::Sysctl(1 - value),
        Object::ChecksumOffload(on) => Object::ChecksumOffload(!on),
        Object::NftTable | Object::NftRules(_) => Object::Foreign { protocol: 0 },
        Object::Fdb(_) => Object::Fdb([192, 0, 2, 99].into()),
        Object::Neighbour(_) => Object::Neighbour(MacAddr([2; 6])),
        Object::Nexthop => Object::Foreign { protocol: PROTOCOL },
        Object::Route(RouteTarget::Blackhole) => Object::OddRoutes,
        Object::Route(_) => Object::Route(RouteTarget::Blackhole),
        Object::Address | Object::NftElement | Object::OddRoutes | Object::Foreign { .. } => return None,
    })
}

/// The same, and a VXLAN device with a parameter that cannot be changed in place.
fn with_other_vni(mut object: Object) -> Object {
    if let Object::Link(link) = &mut object
        && let LinkKind::Vxlan(vxlan) = &mut link.kind
    {
        vxlan.vni = 7;
    }
    object
}

/// A kernel as it is at the start, and a reconciler that has been told what is wanted and has not begun.
fn bench(start: Start) -> Bench {
    let mut bench = Bench::new();
    bench.meddle(Key::Link(veth("cali1")), Some(veth_link(true, 7)));
    for (key, object) in wanted() {
        match start {
            Start::Changed => bench.meddle(key, changed(&object)),
            Start::OtherDevice => bench.meddle(key, Some(with_other_vni(object))),
            Start::Foreign if matches!(object, Object::Route(target) if target != RouteTarget::Blackhole) => {
                bench.meddle(key, Some(Object::Foreign { protocol: 4 }));
            }
            _ => {}
        }
    }
    bench.want(wanted());
    bench.reconciler.allow_removal();
    if start == Start::Withdrawn {
        bench.settle();
        bench.unwant(wanted());
    }
    bench.forget_past();
    bench
}

/// What is not as it shall be.
fn faults(bench: &Bench, start: Start) -> Vec<String> {
    let present = bench.objects();
    let mut faults = Vec::new();
    for (key, object) in wanted() {
        let is_setting = matches!(key, Key::Sysctl(_) | Key::ChecksumOffload(_));
        let there = present.get(&key);
        let is_right = match start {
            Start::Withdrawn => there.is_none() || is_setting || key == Key::Link(veth("cali1")),
            _ => there.is_some_and(|there| object.satisfied_by(there)),
        };
        if !is_right {
            faults.push(format!("{key}: {there:?}"));
        }
    }
    faults
}

/// Has the first such write answered so. It has been carried out, or not.
fn answer(bench: &Bench, (verb, key): (Verb, Key), answer: Option<i32>, is_done: bool) {
    let mut is_first = true;
    bench.carry_out_the_scripted(is_done);
    bench.script(move |operation| {
        let is_it = is_first && (operation.verb, operation.key) == (verb, key);
        is_first &= !is_it;
        is_it.then(|| answer.map_or(Error::OutcomeUnknown, kernel_error))
    });
}

#[test]
fn whatever_a_write_is_answered_with_what_is_wanted_comes_to_be_and_a_second_look_writes_nothing() {
    let mut seen = BTreeSet::new();
    for start in STARTS {
        let mut calm = bench(start);
        calm.settle();
        assert_eq!(faults(&calm, start), [""; 0], "{start:?}");
        let mut writes = calm.operations();
        writes.sort_by_key(|(verb, key)| (*key, *verb as u8));
        writes.dedup();
        for (verb, key) in writes {
            seen.insert((key.kind(), verb as u8));
            for given in ANSWERS {
                for is_done in [false, true] {
                    let what = format!("{start:?}, {verb:?} {key}: {given:?}, done: {is_done}");
                    let mut bench = bench(start);
                    answer(&bench, (verb, key), given, is_done);
                    bench.pass(Duration::from_secs(60));
                    assert_eq!(faults(&bench, start), [""; 0], "{what}");
                    let out_of_sync = bench.reconciler.differences().count();
                    let in_trouble = bench.reconciler.troubles().count();
                    assert_eq!((out_of_sync, in_trouble), (0, 0), "{what}");
                    bench.operations();
                    bench.reconciler.audit(bench.now);
                    bench.pass(Duration::from_secs(60));
                    assert_eq!(bench.operations(), [], "{what}");
                }
            }
        }
    }
    let of = |verb| {
        let kinds = Kind::ALL.into_iter();
        kinds
            .filter(|kind| seen.contains(&(*kind, verb as u8)))
            .collect::<Vec<_>>()
    };
    let settings = [Kind::Sysctl, Kind::ChecksumOffload];
    let but = |left_out: &[Kind]| {
        let kinds = Kind::ALL.into_iter();
        kinds.filter(|kind| !left_out.contains(kind)).collect::<Vec<_>>()
    };
    assert_eq!(of(Verb::Create), but(&settings));
    assert_eq!(of(Verb::Replace), but(&[Kind::Address, Kind::NftElement]));
    assert_eq!(of(Verb::Supplant), [Kind::Route]);
    assert_eq!(of(Verb::Delete), but(&settings));
}
