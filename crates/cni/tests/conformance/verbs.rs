//! Each verb in each version of the specification: as it should be, twice, and without what it may lack.

use serde_json::{Value, json};

use crate::runtime::{NEWEST, Runtime, VERSIONS, WITH_CHECK, runtime};

const V4: &str = "10.244.1.0/24";
const V6: &str = "fd00:244:1::/64";

/// Does the same in each version.
macro_rules! in_each {
    ($versions:expr, $work:expr) => {
        for version in $versions {
            let runtime = runtime!(V4, V6).of_version(version);
            let work: fn(&Runtime, &str) = $work;
            work(&runtime, version);
        }
    };
}

#[test]
fn add_answers_in_the_version_of_the_question() {
    in_each!(VERSIONS, |runtime, version| {
        let pod = runtime.pod("web");
        let answer = pod.previous.as_ref().unwrap();
        assert_eq!(answer["cniVersion"], version);
        let ips = answer["ips"].as_array().unwrap();
        assert_eq!(ips.len(), 2);
        let told: Vec<_> = ips.iter().filter_map(|ip| ip.get("version")).collect();
        let old = version < "1.0.0";
        assert_eq!(told, if old { vec!["4", "6"] } else { vec![] });
        let has_mtu = answer["interfaces"][1].get("mtu").is_some();
        assert_eq!(has_mtu, version == NEWEST, "{answer}");
        assert_eq!(answer["interfaces"][1]["name"], "eth0");
        assert_eq!(
            answer["interfaces"][1]["sandbox"],
            pod.netns.path().to_str().unwrap()
        );
        assert!(answer["interfaces"][0].get("sandbox").is_none());
        for ip in ips {
            assert_eq!(ip["interface"], 1);
        }
        assert_eq!(
            answer["routes"],
            json!([
                {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
                {"dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee"}
            ])
        );
    });
}

#[test]
fn a_second_add_fails_and_harms_nothing() {
    in_each!(VERSIONS, |runtime, version| {
        let mut pod = runtime.pod("web");
        let before = (runtime.leases(), runtime.veths(), pod.previous.clone());
        runtime.add(&mut pod).fails(version, 101, "eth0 already");
        assert_eq!((runtime.leases(), runtime.veths(), pod.previous.clone()), before);
        if WITH_CHECK.contains(&version) {
            runtime.check(&pod).ok();
        }
    });
}

#[test]
fn add_after_del_connects_anew() {
    in_each!(VERSIONS, |runtime, _| {
        let mut pod = runtime.pod("web");
        runtime.del(&pod).ok();
        runtime.add(&mut pod).ok();
        runtime.del(&pod).ok();
        runtime.assert_empty("after DEL");
    });
}

#[test]
fn add_needs_a_namespace_that_is_there() {
    in_each!(VERSIONS, |runtime, version| {
        let sandbox = runtime.sandbox("web");
        let call = |netns: &str| runtime.call_in("ADD", &sandbox, netns, &runtime.config);
        call("").fails(version, 4, "CNI_NETNS is missing");
        call("/no/such/namespace").fails(version, 3, "/no/such/namespace");
        call("/proc/self/status").fails(version, 8, "/proc/self/status");
        call("/proc/self/ns/net").fails(version, 8, "the host's");
        runtime.assert_empty("after an ADD without namespace");
    });
}

#[test]
fn del_takes_all_away_as_often_as_it_is_asked() {
    in_each!(VERSIONS, |runtime, _| {
        let pod = runtime.pod("web");
        for _ in 0..3 {
            let answer = runtime.del(&pod).ok();
            assert_eq!(answer.stdout, "");
            runtime.assert_empty("after DEL");
            assert_eq!(crate::runtime::links(&pod.netns), [""; 0]);
        }
    });
}

#[test]
fn del_needs_no_namespace() {
    in_each!(VERSIONS, |runtime, _| {
        for netns in ["", "/no/such/namespace", "/proc/self/ns/net", "/proc/self/status"] {
            let pod = runtime.pod("web");
            runtime.call_in("DEL", &pod, netns, &runtime.config).ok();
            runtime.assert_empty(netns);
        }
        let pod = runtime.pod("web");
        let path = pod.netns.path();
        drop(pod.netns);
        let pod = crate::runtime::Sandbox {
            previous: None,
            ..runtime.sandbox("web")
        };
        runtime
            .call_in("DEL", &pod, path.to_str().unwrap(), &runtime.config)
            .ok();
        runtime.assert_empty("the namespace vanished");
    });
}

#[test]
fn del_needs_neither_the_result_of_the_add_nor_the_pods_name() {
    in_each!(VERSIONS, |runtime, _| {
        let mut pod = runtime.pod("web");
        pod.previous = None;
        pod.args = String::new();
        runtime.del(&pod).ok();
        runtime.assert_empty("after DEL");
    });
}

#[test]
fn del_of_what_never_was_succeeds() {
    in_each!(VERSIONS, |runtime, _| {
        let pod = runtime.pod("web");
        runtime.del(&runtime.sandbox("another")).ok();
        assert_eq!(runtime.veths(), [pod.host_veth()]);
    });
}

#[test]
fn check_succeeds_as_often_as_it_is_asked() {
    in_each!(WITH_CHECK, |runtime, _| {
        let pod = runtime.pod("web");
        for _ in 0..2 {
            assert_eq!(runtime.check(&pod).ok().stdout, "");
        }
    });
}

#[test]
fn check_needs_the_namespace_and_the_result() {
    in_each!(WITH_CHECK, |runtime, version| {
        let mut pod = runtime.pod("web");
        let mut config = runtime.config.clone();
        config["prevResult"] = pod.previous.clone().unwrap();
        let call = |netns: &str| runtime.call_in("CHECK", &pod, netns, &config);
        call("").fails(version, 4, "CNI_NETNS is missing");
        call("/no/such/namespace").fails(version, 3, "/no/such/namespace");
        pod.previous = None;
        runtime.check(&pod).fails(version, 7, "prevResult is missing");
        pod.previous = Some(json!({"ips": "all"}));
        runtime.check(&pod).fails(version, 7, "prevResult");
    });
}

#[test]
fn check_of_what_is_not_connected_fails() {
    in_each!(WITH_CHECK, |runtime, version| {
        let pod = runtime.pod("web");
        runtime.del(&pod).ok();
        runtime.check(&pod).fails(version, 105, "eth0 is gone");
    });
}

#[test]
fn verbs_that_a_version_does_not_have_are_refused() {
    in_each!(VERSIONS, |runtime, version| {
        let pod = runtime.pod("web");
        if !WITH_CHECK.contains(&version) {
            runtime.check(&pod).fails(version, 1, "CHECK");
        }
        if version != NEWEST {
            runtime.status().fails(version, 1, "STATUS");
            runtime.gc(&[&pod]).fails(version, 1, "GC");
            assert_eq!(runtime.leased(), [pod.id]);
        }
    });
}

#[test]
fn version_tells_the_versions_whatever_it_is_asked_in() {
    let runtime = runtime!(V4);
    for version in VERSIONS.into_iter().chain(["0.1.0", "9.9.9"]) {
        for _ in 0..2 {
            let answer = runtime.run("VERSION", &[], &json!({"cniVersion": version})).ok();
            assert_eq!(
                answer.json(),
                json!({"cniVersion": version, "supportedVersions": VERSIONS})
            );
        }
    }
    assert_eq!(
        runtime.run("VERSION", &[], &json!({})).ok().json()["cniVersion"],
        NEWEST
    );
}

#[test]
fn configurations_of_unknown_versions_are_refused() {
    let runtime = runtime!(V4);
    let sandbox = runtime.sandbox("web");
    for version in [
        json!("0.1.0"),
        json!("0.2.0"),
        json!("1.2.0"),
        json!("2.0.0"),
        json!(1),
        Value::Null,
    ] {
        for verb in ["ADD", "DEL", "CHECK", "STATUS", "GC"] {
            let mut config = runtime.config.clone();
            config["cniVersion"] = version.clone();
            runtime
                .call(verb, &sandbox, &config)
                .fails(NEWEST, 1, "cniVersion");
        }
    }
    runtime.assert_empty("after what was refused");
}

#[test]
fn wrong_configurations_are_refused_by_field() {
    let runtime = runtime!(V4);
    let sandbox = runtime.sandbox("web");
    for (field, value, text) in [
        ("mtu", json!(67), "mtu is 67"),
        ("mtu", json!(70000), "mtu is 70000"),
        ("mtu", json!("1450"), "1450"),
        ("name", json!("../etc"), "../etc"),
        ("interfacePrefix", json!("interface"), "interfacePrefix"),
        ("routeProtocol", json!(256), "256"),
        ("ipam", json!({}), "ipam.type is missing"),
        ("ipam", json!({"type": "../host-local"}), "../host-local"),
    ] {
        let mut config = runtime.config.clone();
        config[field] = value;
        runtime.call("ADD", &sandbox, &config).fails(NEWEST, 7, text);
    }
    runtime.assert_empty("after what was refused");
}

#[test]
fn wrong_environments_are_refused_by_variable() {
    let runtime = runtime!(V4);
    let mut sandbox = runtime.sandbox("web");
    runtime
        .run("PUT", &[], &runtime.config)
        .fails(NEWEST, 4, "CNI_COMMAND is \\\"PUT\\\"");
    for verb in ["ADD", "DEL", "CHECK"] {
        runtime
            .run(verb, &[], &runtime.config)
            .fails(NEWEST, 4, "CNI_CONTAINERID is missing");
        for (id, ifname, args, text) in [
            ("../id", "eth0", "", "../id"),
            ("id", "", "", "CNI_IFNAME is missing"),
            ("id", "a-name-too-long-for-it", "", "a-name-too-long-for-it"),
            ("id", "eth0", "K8S_POD_NAME", "K8S_POD_NAME"),
        ] {
            (sandbox.id, sandbox.ifname, sandbox.args) = (id.into(), ifname.into(), args.into());
            runtime
                .call(verb, &sandbox, &runtime.config)
                .fails(NEWEST, 4, text);
        }
    }
    runtime.assert_empty("after what was refused");
}

#[test]
fn what_is_no_json_is_told() {
    let runtime = runtime!(V4);
    let sandbox = runtime.sandbox("web");
    for verb in ["ADD", "DEL", "STATUS", "GC", "VERSION"] {
        runtime
            .call(verb, &sandbox, &json!([1, 2]))
            .fails(NEWEST, 6, "no JSON object");
    }
}
