//! `routelet diff`, without an agent and beside one: what differs is shown object by object, and nothing is written.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use routelet_model::{Family, Key, MacAddr, NftSet, Object, RouteTarget, Sysctl, SysctlName, vtep_mac};
use serde_json::{Value, json};

use crate::program::{routelet, told};
use crate::stage::{DEVICE, NO_AUDIT, OURS, Stage, create, delete, peer_name, peer_subnet, replace};

/// The program with these variables and none beside; exit code, standard output and standard error.
fn diff(stage: &Stage, words: &[&str], variables: &[(&str, String)]) -> (i32, String, String) {
    let mut command = routelet(&["diff"]);
    command
        .args(words)
        .envs(variables.iter().map(|(name, value)| (name, value)));
    stage.netns().run(|| told(&mut command)).unwrap()
}

/// The variables of an agent's pod, as far as it cannot do without.
fn variables(stage: &Stage) -> Vec<(&'static str, String)> {
    let file = |path: PathBuf| path.to_str().unwrap().to_owned();
    vec![
        ("ROUTELET_NODE_NAME", "node-1".to_owned()),
        ("ROUTELET_KUBECONFIG", file(stage.cluster.kubeconfig().to_owned())),
        (
            "ROUTELET_ADMIN_SOCKET",
            file(stage.cluster.directory().path().join("no-agent.sock")),
        ),
    ]
}

/// The rows of JSON: object, difference, wanted and actual.
fn rows(text: &str) -> Vec<[String; 4]> {
    let found: Value = serde_json::from_str(text).unwrap();
    let rows = found["differences"].as_array().unwrap().iter();
    let cell = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
    rows.map(|row| ["object", "difference", "wanted", "actual"].map(|name| cell(row, name)))
        .collect()
}

#[test]
fn without_an_agent_each_object_that_differs_is_shown_and_nothing_is_written() {
    let mut stage = Stage::with_web();
    stage.agent().kill().unwrap();
    let variables = variables(&stage);
    let (code, stdout, stderr) = diff(&stage, &[], &variables);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));

    let (device, veth) = (DEVICE.parse().unwrap(), stage.veth("web"));
    let mac = |number| vtep_mac(&peer_name(number), Family::V4);
    let route_to = |number| Key::route(peer_subnet(number));
    let nexthop = |number| RouteTarget::Nexthop {
        link: device,
        gateway: peer_subnet(number).addr(),
    };
    let (remote, wrong): (IpAddr, IpAddr) = ([172, 30, 128, 1].into(), [172, 30, 128, 99].into());
    let fdb = Key::Fdb {
        link: device,
        mac: mac(1),
    };
    let neighbour = Key::Neighbour {
        link: device,
        address: peer_subnet(3).addr(),
    };
    let wrong_mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let subnet = "10.99.0.0/24".parse().unwrap();
    let element = Key::nft_element(NftSet::Pods, peer_subnet(3));
    stage.meddle(
        OURS,
        &[
            delete(route_to(2), Object::Route(nexthop(2))),
            replace(fdb, Object::Fdb(wrong)),
            replace(neighbour, Object::Neighbour(wrong_mac)),
            create(Key::route(subnet), Object::Route(RouteTarget::Blackhole)),
            delete(element, Object::NftElement),
            delete(route_to(1), Object::Route(nexthop(1))),
        ],
    );
    // Someone else's, where a peer's belongs, and where none of ours does.
    let other = "10.98.0.0/24".parse().unwrap();
    stage.meddle(
        188,
        &[
            create(route_to(1), Object::Route(RouteTarget::Blackhole)),
            create(Key::route(other), Object::Route(RouteTarget::Blackhole)),
        ],
    );
    let filter = Sysctl::link(SysctlName::Ipv4RpFilter, veth);
    stage
        .netns()
        .run(|| fs::write(format!("/proc/sys/{filter}"), "0").unwrap())
        .unwrap();
    stage.setup().set_mtu(DEVICE, 1400).unwrap();

    let (before, mut kernel) = (stage.kernel(), stage.listen());
    let (code, stdout, stderr) = diff(&stage, &["--output=json"], &variables);
    assert!(kernel.heard().is_empty());
    assert_eq!(stage.kernel(), before);
    assert_eq!((code, stderr.as_str()), (1, ""), "{stdout}");
    let vxlan = |mtu| {
        let local = stage.cluster.nodes()[0].node.address(Family::V4);
        let mac = vtep_mac("node-1", Family::V4);
        format!("vxlan id 4096 dstport 4789 local {local} dev eth0 nolearning address {mac} mtu {mtu} up")
    };
    let row = |cells: [&str; 4]| cells.map(str::to_owned);
    let (mac1, mac3) = (mac(1), mac(3));
    assert_eq!(
        rows(&stdout),
        [
            row(["link vxlan.calico", "differs", &vxlan(1450), &vxlan(1400)]),
            row([&format!("sysctl {filter}"), "differs", "1", "0"]),
            row(["nft element 10.128.3.0/24 of pods", "missing", "present", "-"]),
            row([
                &format!("fdb {mac1} dev {DEVICE}"),
                "differs",
                &format!("dst {remote}"),
                &format!("dst {wrong}")
            ]),
            row([
                &format!("neighbour 10.128.3.0 dev {DEVICE}"),
                "differs",
                &format!("lladdr {mac3} permanent"),
                &format!("lladdr {wrong_mac} permanent")
            ]),
            row(["route 10.99.0.0/24", "surplus", "-", "blackhole"]),
            row([
                "route 10.128.1.0/24",
                "differs",
                &format!("via 10.128.1.0 dev {DEVICE}"),
                "made by someone else (proto 188)"
            ]),
            row([
                "route 10.128.2.0/24",
                "missing",
                &format!("via 10.128.2.0 dev {DEVICE}"),
                "-"
            ]),
        ]
    );
    let (code, table, _) = diff(&stage, &[], &variables);
    assert_eq!(code, 1);
    let words: Vec<Vec<_>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(words[0], ["OBJECT", "DIFFERENCE", "WANTED", "ACTUAL"]);
    assert_eq!(
        words[8],
        [
            "route",
            "10.128.2.0/24",
            "missing",
            "via",
            "10.128.2.0",
            "dev",
            DEVICE,
            "-"
        ]
    );

    stage.agent().restart().unwrap();
    stage.cluster.wait_ready().unwrap();
    stage.meddle(
        188,
        &[delete(Key::route(other), Object::Route(RouteTarget::Blackhole))],
    );
    stage.wait_right("the agent came back");
    let (code, stdout, _) = diff(&stage, &[], &variables);
    assert_eq!((code, stdout.as_str()), (0, ""));
}

/// The agent's settings are taken from the agent, be they flags or variables; beside it, in sync, there is nothing to show.
#[test]
fn beside_an_agent_its_settings_count_and_nothing_is_written() {
    let mut stage = Stage::without_agent(2);
    let flags = [
        "--vxlan-vni",
        "77",
        "--vxlan-device",
        "vx77",
        "--route-protocol",
        "81",
    ];
    stage.start_agent(&[NO_AUDIT, &flags].concat());
    let socket = stage.agent().socket();
    let words = ["--output=json", "--admin-socket", socket.to_str().unwrap()];
    let operations = stage.sum("routelet_operations_total");
    let (code, stdout, stderr) = diff(&stage, &words, &[]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["settings"], "agent");
    assert_eq!(found["differences"], json!([]));
    let wanted: u64 = stage.sum("routelet_objects_wanted");
    assert_eq!(found["wanted"], wanted);
    assert_eq!(stage.sum("routelet_operations_total"), operations);
    assert_eq!(stage.sum("routelet_repairs_total"), 0);

    // What the agent cannot put right stands out: a pod whose veth is never made.
    let waiting = stage.cluster.pod_object(0, "waiting", 3).unwrap();
    stage.cluster.api().apply(&waiting.build()).unwrap();
    let (code, stdout, _) = diff(&stage, &words, &[]);
    assert_eq!(code, 1);
    let rows = rows(&stdout);
    let route = rows.iter().find(|row| row[0] == "route 10.244.1.3/32").unwrap();
    assert_eq!(route[1], "missing");
    assert_eq!(rows.len(), 6, "a link, four settings, a route: {rows:?}");

    // A flag goes before what the agent says.
    let (code, stdout, _) = diff(&stage, &[&words[..], &["--vxlan-vni=78"]].concat(), &[]);
    assert_eq!(code, 1);
    assert!(stdout.contains("vxlan id 78 dstport 4789"), "{stdout}");
}

#[test]
fn what_cannot_be_compared_is_told_with_the_reason() {
    let mut stage = Stage::without_agent(0);
    let object = stage.cluster.node_object(0).build();
    stage.cluster.api().delete(&object).unwrap();
    let mut variables = variables(&stage);
    let (code, stdout, stderr) = diff(&stage, &[], &variables);
    assert_eq!((code, stdout.as_str()), (4, ""), "{stderr}");
    assert!(
        stderr.starts_with("error: not all is known") && stderr.contains("there is no Node \"node-1\""),
        "{stderr}"
    );

    let (code, _, stderr) = diff(
        &stage,
        &[
            "--timeout=1s",
            "--api-server-host=127.0.0.1",
            "--api-server-port=9",
        ],
        &variables,
    );
    assert_eq!(code, 6, "{stderr}");
    assert!(
        stderr.contains("could not be listed within --timeout") && stderr.contains("refused"),
        "{stderr}"
    );

    variables.retain(|(name, _)| *name != "ROUTELET_NODE_NAME");
    let (code, _, stderr) = diff(&stage, &[], &variables);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("--node-name <NAME>") && stderr.contains("ROUTELET_NODE_NAME"),
        "{stderr}"
    );
    assert!(stderr.contains("Usage: routelet diff"), "{stderr}");
    let (code, _, stderr) = diff(&stage, &["--vxlan-vni=many"], &variables);
    assert_eq!(code, 2, "{stderr}");
}

/// A route that the CNI plugin has just made is no surplus, and a foreign one in the place of the blackhole does as well.
#[test]
fn what_the_agent_would_let_be_is_no_difference() {
    let mut stage = Stage::with_web();
    stage.agent().kill().unwrap();
    stage.connect_pod("new", 9);
    let own = stage.cluster.nodes()[0].subnet;
    let blackhole = || Object::Route(RouteTarget::Blackhole);
    stage.meddle(OURS, &[delete(Key::route(own), blackhole())]);
    stage.meddle(188, &[create(Key::route(own), blackhole())]);
    let (code, stdout, stderr) = diff(&stage, &[], &variables(&stage));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
}
