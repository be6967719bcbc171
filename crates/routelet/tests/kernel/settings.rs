//! Settings below /proc/sys.

use std::fs;

use routelet_model::{Kind, Sysctl, SysctlName};

use crate::stage::{NO_AUDIT, Stage};

#[test]
fn a_setting_that_the_kernel_tells_of_is_set_back_at_once() {
    let mut stage = Stage::new(1, NO_AUDIT);
    stage.add_pod("web", 2);
    stage.wait_right("the pod was added");
    let veth = stage.veth("web");
    for (sysctl, wrong) in [
        (Sysctl::host(SysctlName::Ipv4IpForward), 0),
        (Sysctl::link(SysctlName::Ipv4Forwarding, veth), 0),
        (Sysctl::link(SysctlName::Ipv4ProxyArp, veth), 0),
        (Sysctl::link(SysctlName::Ipv4RpFilter, veth), 0),
        (Sysctl::link(SysctlName::Ipv4RpFilter, veth), 2),
    ] {
        stage.repaired(
            Kind::Sysctl,
            "changed",
            &format!("{sysctl} became {wrong}"),
            |stage| {
                set(stage, sysctl, wrong);
            },
        );
    }
    stage.wait_noticed();
    stage.assert_right("the settings had been changed");
}

#[test]
fn a_setting_that_the_kernel_does_not_tell_of_is_set_back_by_the_audit() {
    let mut stage = Stage::new(1, &["--audit-interval", "1s"]);
    stage.add_pod("web", 2);
    stage.wait_right("the pod was added");
    let delay = Sysctl::link(SysctlName::Ipv4ProxyDelay, stage.veth("web"));
    stage.repaired(Kind::Sysctl, "changed", "proxy_delay was changed", |stage| {
        set(stage, delay, 80)
    });
}

/// Of other links and other settings, the agent lets everyone do what they like.
#[test]
fn other_settings_stay() {
    let mut stage = Stage::new(1, NO_AUDIT);
    stage.add_pod("web", 2);
    stage.wait_right("the pod was added");
    let operations = stage.sum("routelet_operations_total");
    let others = [
        Sysctl::link(SysctlName::Ipv4ProxyArp, "eth0".parse().unwrap()),
        Sysctl::link(SysctlName::Ipv4RpFilter, "eth0".parse().unwrap()),
        Sysctl::host(SysctlName::Ipv6AllForwarding),
        Sysctl::link(SysctlName::Ipv6ProxyNdp, stage.veth("web")),
    ];
    for sysctl in others {
        set(&stage, sysctl, 1);
    }
    stage.wait_noticed();
    for sysctl in others {
        let text = stage
            .netns()
            .run(|| fs::read_to_string(format!("/proc/sys/{sysctl}")).unwrap())
            .unwrap();
        assert_eq!(text.trim(), "1", "{sysctl}");
    }
    assert_eq!(
        stage.sum("routelet_operations_total"),
        operations + 1,
        "one for the blackhole route"
    );
}

fn set(stage: &Stage, sysctl: Sysctl, value: u32) {
    stage
        .netns()
        .run(|| fs::write(format!("/proc/sys/{sysctl}"), value.to_string()).unwrap())
        .unwrap();
}
