//! Everything at once: flushes with many peers, notifications lost in a storm, and audits that find nothing to do.

use routelet_lab::{KernelView, wait};
use routelet_model::{Key, Kind, Object, RouteTarget};
use routelet_netlink::Operation;

use crate::stage::{NO_AUDIT, OURS, Stage, create, delete};

const PEERS: u8 = 200;

#[test]
fn flushed_tables_are_filled_again() {
    let mut stage = Stage::new(PEERS, NO_AUDIT);
    stage.add_pod("web", 2);
    stage.wait_right("the pod was added");
    for kinds in [
        &[Kind::Fdb][..],
        &[Kind::Neighbour],
        &[Kind::Route],
        &[Kind::Nexthop],
        &[Kind::Address],
        &[Kind::NftElement],
        &[Kind::NftRules],
        &[Kind::NftTable],
        &[
            Kind::Address,
            Kind::Fdb,
            Kind::Neighbour,
            Kind::Nexthop,
            Kind::Route,
        ],
    ] {
        let flush = removal_of_all(&stage, kinds);
        let what = format!("{} objects of {kinds:?} were deleted", flush.len());
        stage.repaired(kinds[0], "deleted", &what, |stage| stage.meddle(OURS, &flush));
    }
    for kind in [
        Kind::NftElement,
        Kind::Fdb,
        Kind::Neighbour,
        Kind::Route,
        Kind::Nexthop,
    ] {
        assert!(stage.repairs(kind, "deleted") >= 2 * u64::from(PEERS), "{kind}");
    }
    stage.wait_noticed();
    stage.assert_right("all had been flushed");
}

/// While the agent stands still, more changes than its receive buffer holds: it learns that it has missed some, and
/// finds out by itself what they were.
#[test]
fn lost_notifications_cost_nothing_but_a_resync() {
    let mut stage = Stage::new(20, &["--receive-buffer", "65536", "--audit-interval", "24h"]);
    let storm: Vec<Operation> = (0..4000_u32)
        .map(|number| {
            let destination = ipnet::Ipv4Net::new_assert((0x0b00_0000 + number).into(), 32).into();
            create(Key::route(destination), Object::Route(RouteTarget::Blackhole))
        })
        .collect();
    let of_ours = removal_of_all(&stage, &[Kind::Fdb, Kind::Neighbour, Kind::Nexthop, Kind::Route]);
    assert_eq!(stage.sum("routelet_notifications_lost_total"), 0);
    stage.behind_its_back(|stage| {
        stage.meddle(4, &storm);
        stage.meddle(OURS, &of_ours);
    });
    wait::until(wait::LONG, "the loss to be counted", || {
        stage.sum("routelet_notifications_lost_total") > 0
    })
    .unwrap();
    stage
        .agent()
        .wait_log("notifications of the kernel were lost", wait::LONG)
        .unwrap();
    stage.wait_right("notifications were lost");
    let routes = KernelView::of(stage.netns()).unwrap().routes;
    let foreign = routes.iter().filter(|route| route.protocol == 4).count();
    assert_eq!(foreign, storm.len(), "no foreign route is missing");
}

#[test]
fn an_audit_that_finds_nothing_writes_nothing() {
    let mut stage = Stage::new(50, &["--audit-interval", "1s"]);
    stage.add_pod("web", 2);
    stage.wait_right("the pod was added");
    let mut listener = stage.listen();
    let count = |stage: &mut Stage| {
        [
            "routelet_operations_total",
            "routelet_operation_errors_total",
            "routelet_repairs_total",
        ]
        .map(|name| stage.sum(name))
    };
    let before = count(&mut stage);
    let resyncs = stage.sum("routelet_resync_seconds_count");
    wait::until(wait::LONG, "two audits", || {
        stage.sum("routelet_resync_seconds_count") >= resyncs + 2
    })
    .unwrap();
    assert_eq!(count(&mut stage), before);
    assert_eq!(
        listener.heard(),
        [],
        "the kernel is as it was, and no one wrote to it"
    );
}

/// Removes all objects of these kinds, those last that others may depend on.
fn removal_of_all(stage: &Stage, kinds: &[Kind]) -> Vec<Operation> {
    let of_kinds = stage
        .kernel()
        .into_iter()
        .rev()
        .filter(|(key, _)| kinds.contains(&key.kind()));
    of_kinds.map(|(key, object)| delete(key, object)).collect()
}
