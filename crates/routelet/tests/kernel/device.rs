//! The VXLAN device.

use routelet_lab::{KernelView, wait};
use routelet_model::{Family, Kind, Link, LinkKind, MacAddr, Vxlan};

use crate::stage::{DEVICE, Stage, vxlan};

#[test]
fn a_changed_device_is_changed_back() {
    let mut stage = Stage::with_web();
    for round in 0..2 {
        stage.repaired(Kind::Link, "changed", "the device was set down", |stage| {
            stage.setup().set_down(DEVICE).unwrap();
        });
        stage.repaired(Kind::Link, "changed", "the MTU was changed", |stage| {
            stage.setup().set_mtu(DEVICE, 1400 + round).unwrap();
        });
        stage.repaired(Kind::Link, "changed", "the MAC address was changed", |stage| {
            stage
                .setup()
                .set_mac(DEVICE, MacAddr([2, 0, 0, 0, 0, 9]))
                .unwrap();
        });
    }
    stage.wait_noticed();
    stage.assert_right("the device had been changed");
}

/// In place and with all that is on it; no repair, for no one has meddled.
#[test]
fn its_mtu_follows_that_of_the_underlay() {
    let mut stage = Stage::with_web();
    let index = |stage: &Stage| stage.setup().link(DEVICE).unwrap().unwrap().index;
    let before = (index(&stage), stage.sum("routelet_repairs_total"));
    for underlay in [1400, 9000, 1500] {
        let node = &stage.cluster.nodes()[0].node;
        stage.cluster.lab().set_underlay_mtu(node, underlay).unwrap();
        stage.device_mtu = underlay - 50;
        stage.wait_right(&format!("the underlay's MTU was set to {underlay}"));
    }
    assert_eq!((index(&stage), stage.sum("routelet_repairs_total")), before);
    // What it follows is also what it is kept at.
    let node = &stage.cluster.nodes()[0].node;
    stage.cluster.lab().set_underlay_mtu(node, 1400).unwrap();
    stage.device_mtu = 1350;
    stage.wait_right("the underlay's MTU was set to 1400");
    stage.repaired(Kind::Link, "changed", "the MTU was changed", |stage| {
        stage.setup().set_mtu(DEVICE, 1300).unwrap();
    });
}

/// All that was on it comes back, whatever the device is like that someone left in its place.
#[test]
fn a_device_made_with_other_parameters_is_made_anew() {
    let mut stage = Stage::with_web();
    let name = DEVICE.parse().unwrap();
    let local = stage.cluster.nodes()[0].node.address(Family::V4);
    let right = vxlan("node-1", local);
    let LinkKind::Vxlan(kind) = right.kind else {
        unreachable!()
    };
    let with = |kind: Vxlan| Link {
        kind: LinkKind::Vxlan(kind),
        ..right.clone()
    };
    for (what, wrong) in [
        ("another VNI", with(Vxlan { vni: 4097, ..kind })),
        ("another port", with(Vxlan { port: 8472, ..kind })),
        (
            "another local address",
            with(Vxlan {
                local: [172, 30, 99, 99].into(),
                ..kind
            }),
        ),
        ("no parent", with(Vxlan { parent: None, ..kind })),
        (
            "learning",
            with(Vxlan {
                learning: true,
                ..kind
            }),
        ),
        ("nothing on it", right.clone()),
        (
            "another MAC address and MTU, and down",
            Link {
                mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
                mtu: Some(1300),
                up: false,
                ..right.clone()
            },
        ),
    ] {
        let what = format!("the device was made anew with {what}");
        stage.behind_its_back(|stage| {
            stage.setup().delete_link(DEVICE).unwrap();
            stage.setup().add_vxlan(name, &wrong).unwrap();
        });
        stage.wait_right(&what);
    }
    stage.wait_noticed();
    stage.assert_right("the device had been made anew");
}

/// A bridge under the device's name is not ours to delete. The agent says what is wrong, and goes on as soon as the
/// name is free.
#[test]
fn a_device_of_another_kind_in_its_place_is_left_and_told() {
    let mut stage = Stage::with_web();
    let mut setup = stage.setup();
    stage.behind_its_back(|_| {
        setup.delete_link(DEVICE).unwrap();
        setup.add_bridge(DEVICE).unwrap();
        setup.set_up(DEVICE).unwrap();
    });
    let bridge = KernelView::of(stage.netns())
        .unwrap()
        .on_link(DEVICE.parse().unwrap());
    let line = stage
        .agent()
        .wait_log(&format!("object=link {DEVICE}"), wait::LONG)
        .unwrap();
    assert!(
        line.contains("the kernel refused it") && line.contains("--vxlan-device"),
        "{line}"
    );
    stage.wait_noticed();
    let now = KernelView::of(stage.netns())
        .unwrap()
        .on_link(DEVICE.parse().unwrap());
    assert_eq!(
        (now.links, now.routes, now.neighbours),
        (bridge.links, bridge.routes, bridge.neighbours)
    );
    // The kernel adds multicast addresses as it goes.
    assert!(
        bridge.fdb.iter().all(|row| now.fdb.contains(row)),
        "{:?}",
        now.fdb
    );
    assert!(now.fdb.iter().all(|row| row.remote.is_none()), "{:?}", now.fdb);
    assert!(
        !now.addresses.iter().any(|row| row.address.addr().is_ipv4()),
        "{:?}",
        now.addresses
    );
    setup.delete_link(DEVICE).unwrap();
    stage.wait_right("the bridge was deleted");
    stage
        .agent()
        .wait_log("the kernel has taken it after all", wait::LONG)
        .unwrap();
}

/// The device goes on under another name, and with it its VNI and port: no second one can be made. The agent says so,
/// and is content as soon as the name is back.
#[test]
fn a_renamed_device_is_told() {
    let mut stage = Stage::with_web();
    stage.setup().rename(DEVICE, "vxlan9").unwrap();
    let refused = format!("object=link {DEVICE}");
    let line = stage.agent().wait_log(&refused, wait::LONG).unwrap();
    assert!(
        line.contains("the kernel refused it") && line.contains("--vxlan-vni"),
        "{line}"
    );
    stage.setup().rename("vxlan9", DEVICE).unwrap();
    stage.wait_right("the device got its name back");
}
