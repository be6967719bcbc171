//! The IPAM plugin: exhausted, missing, odd.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::json;

use crate::runtime::{NEWEST, Runtime, VERSIONS, WITH_CHECK, runtime};
use crate::status::agent;

/// Has room for one pod.
const SMALL: &str = "10.244.1.0/30";
const V4: &str = "10.244.1.0/24";

#[test]
fn exhausted_ranges_fail_an_add_and_leave_nothing_of_it() {
    for version in VERSIONS {
        // The second range is the one that runs out: the first has given an address already.
        let mut runtime = runtime!(V4, SMALL).of_version(version);
        runtime.config["ipam"]["ranges"] = json!([[{"subnet": V4}], [{"subnet": "10.244.2.0/30"}]]);
        let first = runtime.pod("first");
        let mut second = runtime.sandbox("second");
        for _ in 0..2 {
            let answer = runtime.add(&mut second);
            assert!(answer.stdout.contains("no IP addresses available"), "{answer:?}");
            assert_eq!(answer.json()["cniVersion"], version);
            assert_eq!(runtime.leased(), [first.id.as_str()]);
            assert_eq!(runtime.veths(), [first.host_veth()]);
        }
        runtime.del(&second).ok();
        if WITH_CHECK.contains(&version) {
            runtime.check(&first).ok();
        }
        runtime.del(&first).ok();
        runtime.add(&mut second).ok();
    }
}

#[test]
fn exhausted_ranges_are_freed_by_gc() {
    let runtime = runtime!(SMALL);
    runtime.pod("dead");
    let mut living = runtime.sandbox("living");
    assert!(!runtime.add(&mut living).success);
    runtime.gc(&[]).ok();
    runtime.add(&mut living).ok();
}

#[test]
fn a_missing_ipam_plugin_is_named_and_what_can_be_done_without_is() {
    for version in VERSIONS {
        let mut runtime = runtime!(V4).of_version(version);
        let pod = runtime.pod("web");
        let path = std::mem::replace(&mut runtime.path, PathBuf::from("/no/such:/nor/such"));
        let text = "host-local is not in CNI_PATH (/no/such:/nor/such)";
        let mut other = runtime.sandbox("other");
        runtime.add(&mut other).fails(version, 100, text);
        if WITH_CHECK.contains(&version) {
            runtime.check(&pod).fails(version, 100, text);
        }
        if version == NEWEST {
            runtime.gc(&[&pod]).fails(version, 100, text);
        }
        assert_eq!(runtime.veths(), [pod.host_veth()]);
        // The veth can go; the address cannot, and the runtime must hear of it.
        for _ in 0..2 {
            runtime.del(&pod).fails(version, 100, text);
            assert_eq!((runtime.veths().len(), runtime.leased().len()), (0, 1));
        }
        runtime.path = path;
        runtime.del(&pod).ok();
        runtime.assert_empty("after DEL");
    }
}

/// Has the runtime use a script for IPAM plugin.
fn script(runtime: &mut Runtime, text: &str) {
    let host_local = runtime.path.join("host-local");
    let directory = runtime.file("plugins");
    std::fs::create_dir_all(&directory).unwrap();
    let program = directory.join("script");
    let text = text.replace("HOST_LOCAL", host_local.to_str().unwrap());
    std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    runtime.config["ipam"]["type"] = "script".into();
    runtime.path = directory;
}

#[test]
fn odd_answers_of_an_ipam_plugin_fail_an_add() {
    for (text, code, told) in [
        ("cat >/dev/null", 102, "answered no result"),
        ("cat >/dev/null; echo gibberish", 102, "gibberish"),
        ("cat >/dev/null; echo '{\"ips\": []}'", 102, "gave no address"),
        (
            "cat >/dev/null; echo '{\"ips\": [{\"address\": \"10.244.1\"}]}'",
            102,
            "10.244.1",
        ),
        ("cat >/dev/null; exit 3", 102, "exit status: 3"),
        ("cat >/dev/null; kill -9 $$", 102, "signal: 9"),
        (
            "cat >/dev/null; echo '{\"code\": 11, \"msg\": \"later\", \"details\": \"much\"}'; exit 1",
            11,
            "later",
        ),
    ] {
        let mut runtime = runtime!(V4);
        script(&mut runtime, text);
        let mut sandbox = runtime.sandbox("web");
        runtime.add(&mut sandbox).fails(NEWEST, code, told);
        runtime.assert_empty(text);
    }
}

#[test]
fn an_ipam_plugin_that_cannot_be_run_is_named() {
    let mut runtime = runtime!(V4);
    script(&mut runtime, "");
    let program = runtime.path.join("script");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut sandbox = runtime.sandbox("web");
    runtime
        .add(&mut sandbox)
        .fails(NEWEST, 100, program.to_str().unwrap());
}

#[test]
fn an_ipam_plugin_gets_what_the_runtime_gave() {
    let mut runtime = runtime!(V4);
    let seen = runtime.file("seen");
    let text = format!("tee {0}.config | HOST_LOCAL; env >{0}.env", seen.display());
    script(&mut runtime, &text);
    runtime.config["runtimeConfig"] = json!({"portMappings": [{"hostPort": 80}]});
    runtime.config["ipam"]["extra"] = "kept".into();
    let pod = runtime.pod("web");
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(runtime.file("seen.config")).unwrap()).unwrap();
    assert_eq!(config["runtimeConfig"], runtime.config["runtimeConfig"]);
    assert_eq!(config["ipam"], runtime.config["ipam"]);
    let environment = std::fs::read_to_string(runtime.file("seen.env")).unwrap();
    for line in [
        "CNI_COMMAND=ADD".to_owned(),
        format!("CNI_CONTAINERID={}", pod.id),
        format!("CNI_NETNS={}", pod.netns.path().display()),
        "CNI_IFNAME=eth0".to_owned(),
        format!("CNI_ARGS={}", pod.args),
        format!("CNI_PATH={}", runtime.path.display()),
    ] {
        assert!(
            environment.lines().any(|found| found == line),
            "{line} in {environment}"
        );
    }
}

#[test]
fn a_network_too_narrow_for_ipv6_is_refused() {
    let mut runtime = runtime!("fd00:244:1::/64");
    runtime.config["mtu"] = 1279.into();
    let mut sandbox = runtime.sandbox("web");
    runtime.add(&mut sandbox).fails(NEWEST, 7, "IPv6 needs 1280");
    runtime.assert_empty("after what was refused");
    runtime.config["mtu"] = 1280.into();
    runtime.add(&mut sandbox).ok();
}

/// host-local knows neither; one that does hears of them in the version that has them.
#[test]
fn status_and_gc_reach_an_ipam_plugin_that_knows_them() {
    let mut runtime = runtime!(V4);
    let seen = runtime.file("seen");
    let text = format!(
        r#"config=$(cat)
echo "$CNI_COMMAND $config" >>{}
case $CNI_COMMAND in
  VERSION) echo '{{"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}}' ;;
  STATUS) echo '{{"code": 50, "msg": "no address left"}}'; exit 1 ;;
esac"#,
        seen.display()
    );
    script(&mut runtime, &text);
    agent(&runtime, "HTTP/1.1 200 OK\r\n\r\n");
    runtime.status().fails(NEWEST, 50, "no address left");
    runtime.gc(&[]).ok();
    let seen = std::fs::read_to_string(seen).unwrap();
    for verb in ["STATUS", "GC"] {
        let line = seen.lines().find(|line| line.starts_with(verb)).unwrap();
        let config: serde_json::Value = serde_json::from_str(&line[verb.len()..]).unwrap();
        assert_eq!(config["cniVersion"], NEWEST, "{line}");
    }
}
