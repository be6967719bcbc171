//! TX checksum offload of the VXLAN device.

use routelet_lab::wait;
use routelet_model::Kind;
use routelet_netlink::Ethtool;

use crate::stage::{DEVICE, NO_AUDIT, Stage};

fn with(setting: &str) -> Stage {
    let arguments = [NO_AUDIT, &["--vxlan-checksum-offload", setting]].concat();
    Stage::new(1, &arguments)
}

fn is_on(stage: &Stage) -> bool {
    let ethtool = Ethtool::open_in(stage.netns()).unwrap();
    ethtool.tx_checksum(DEVICE.parse().unwrap()).unwrap()
}

fn switch(stage: &Stage, on: bool) {
    let ethtool = Ethtool::open_in(stage.netns()).unwrap();
    ethtool.set_tx_checksum(DEVICE.parse().unwrap(), on).unwrap();
}

fn written(stage: &mut Stage) -> u64 {
    ["create", "replace"]
        .map(|verb| format!("routelet_operations_total{{kind=\"checksum_offload\",verb=\"{verb}\"}}"))
        .iter()
        .map(|series| stage.sum(series))
        .sum()
}

#[test]
fn switched_off_it_is_off_and_what_someone_changes_is_changed_back() {
    let mut stage = with("off");
    assert!(!is_on(&stage));
    assert_eq!(written(&mut stage), 1);
    stage
        .agent()
        .expect_log_lines(&["vxlan_checksum_offload=\"off\""], 1)
        .unwrap();
    for round in 1..=2 {
        stage.repaired(Kind::ChecksumOffload, "changed", "it was switched on", |stage| {
            switch(stage, true)
        });
        assert!(!is_on(&stage));
        assert_eq!(written(&mut stage), 1 + round);
    }
    // A device that is made anew has it on.
    stage.setup().delete_link(DEVICE).unwrap();
    stage.wait_right("the device was deleted");
    wait::until(wait::LONG, "the new device's to be off", || !is_on(&stage)).unwrap();
    stage.wait_noticed();
    assert_eq!(
        stage.repairs(Kind::ChecksumOffload, "changed"),
        2,
        "no one's doing but the agent's"
    );
}

#[test]
fn switched_on_it_is_on_and_nothing_is_written_that_is_right_already() {
    let mut stage = with("on");
    assert!(is_on(&stage));
    assert_eq!(written(&mut stage), 0);
    stage.repaired(Kind::ChecksumOffload, "changed", "it was switched off", |stage| {
        switch(stage, false)
    });
    assert!(is_on(&stage));
    // What an agent with another setting has left is changed by the next.
    stage.start_agent(&["--vxlan-checksum-offload", "off"]);
    assert!(!is_on(&stage));
    stage.start_agent(&["--vxlan-checksum-offload", "off"]);
    assert_eq!(written(&mut stage), 0);
}

/// This kernel is none that spoils checksums: which are, the release says.
#[test]
fn by_itself_the_agent_leaves_it_as_it_is() {
    let mut stage = Stage::new(1, &["--audit-interval", "1s"]);
    for on in [false, true, false] {
        switch(&stage, on);
        let audits = stage.sum("routelet_resync_seconds_count");
        wait::until(wait::LONG, "two audits", || {
            stage.sum("routelet_resync_seconds_count") >= audits + 2
        })
        .unwrap();
        assert_eq!(is_on(&stage), on);
    }
    assert_eq!(written(&mut stage), 0);
}
