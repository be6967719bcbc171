//! The CNI plugin and its configuration on the node: there when the network is, right, and kept so.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use routelet_lab::{Backend, TempDir, wait};
use routelet_model::Family;
use serde_json::Value;

use crate::stage::{NO_AUDIT, Stage};

const ETH0: &str = "eth0";
const WRITTEN: &str = "wrote the CNI configuration";

/// The directories that a container runtime looks into.
struct Directories(TempDir);

impl Directories {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        for name in ["bin", "net.d"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("built"), "the plugin\n").unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The agent's arguments; `more` come after.
    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let of = |flag: &str, name: &str| format!("--{flag}={}", self.path(name).display());
        let mut arguments = vec![
            "--install-cni=true".to_owned(),
            of("cni-bin-dir", "bin"),
            of("cni-conf-dir", "net.d"),
            of("cni-binary", "built"),
        ];
        arguments.extend(more.iter().map(ToString::to_string));
        arguments
    }

    fn conflist(&self) -> PathBuf {
        self.path("net.d/10-routelet.conflist")
    }

    fn plugin(&self) -> PathBuf {
        self.path("bin/routelet-cni")
    }

    /// Plugins of the configuration, where it is there.
    fn plugins(&self) -> Option<Vec<Value>> {
        let text = fs::read_to_string(self.conflist()).ok()?;
        let list: Value = serde_json::from_str(&text).unwrap();
        Some(list["plugins"].as_array().unwrap().clone())
    }

    fn mtu(&self) -> Option<u64> {
        self.plugins()?[0]["mtu"].as_u64()
    }

    #[track_caller]
    fn wait_subnets(&self, subnets: &[&str]) {
        let ranges: Vec<Value> = subnets
            .iter()
            .map(|subnet| serde_json::json!([{"subnet": subnet}]))
            .collect();
        let right = || {
            let plugins = self.plugins();
            plugins.is_some_and(|plugins| plugins[0]["ipam"]["ranges"] == Value::Array(ranges.clone()))
        };
        wait::until(wait::LONG, &format!("the ranges {ranges:?}"), right).unwrap();
    }

    fn wait_mtu(&self, mtu: u64) {
        let what = format!("the configuration to say mtu {mtu}");
        wait::until(wait::LONG, &what, || self.mtu() == Some(mtu)).unwrap();
    }
}

fn start(stage: &mut Stage, directories: &Directories, more: &[&str]) {
    let arguments = directories.arguments(more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    stage.cluster.start_agent(0, &arguments).unwrap();
}

/// A node with the plugin installed.
fn installed() -> (Stage, Directories) {
    let (mut stage, directories) = (Stage::without_agent(1), Directories::new());
    start(&mut stage, &directories, NO_AUDIT);
    stage.cluster.wait_ready().unwrap();
    directories.wait_mtu(1450);
    (stage, directories)
}

/// Expects the configuration to have been written so many times.
#[track_caller]
fn expect_written(stage: &mut Stage, times: usize) {
    stage.agent().expect_log_lines(&[WRITTEN], times).unwrap();
}

fn identity(path: &Path) -> (u64, i64, i64) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
}

#[test]
fn plugin_and_configuration_come_when_the_network_is_ready_and_not_before() {
    let (mut stage, directories) = (Stage::without_agent(1), Directories::new());
    let address = stage.cluster.nodes()[0].node.address_with_prefix(Family::V4);
    let mut setup = stage.setup();
    setup.delete_address(ETH0, address).unwrap();
    // The API is reached by another address meanwhile.
    setup
        .add_address(ETH0, "172.30.200.1/16".parse().unwrap())
        .unwrap();
    start(&mut stage, &directories, NO_AUDIT);
    wait::until(wait::LONG, "the agent to miss nothing but the address", || {
        let ready = stage.agent().get("/readyz");
        ready.is_ok_and(|ready| ready.body.contains("is on no link") && ready.body.lines().count() == 1)
    })
    .unwrap();
    assert!(!directories.conflist().exists() && !directories.plugin().exists());

    setup.add_address(ETH0, address).unwrap();
    stage.cluster.wait_ready().unwrap();
    directories.wait_mtu(1450);
    let plugins = directories.plugins().unwrap();
    assert_eq!(plugins.len(), 1, "{plugins:?}");
    assert_eq!(plugins[0]["type"], "routelet-cni");
    let ranges = serde_json::json!([[{"subnet": stage.cluster.nodes()[0].subnet}]]);
    assert_eq!(plugins[0]["ipam"]["ranges"], ranges);
    assert_eq!(ranges[0][0]["subnet"], "10.244.1.0/24");
    let socket = stage.agent().socket();
    assert_eq!(plugins[0]["socket"], socket.to_str().unwrap());
    assert_eq!(fs::read_to_string(directories.plugin()).unwrap(), "the plugin\n");
    let mode = fs::metadata(directories.plugin()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn nothing_is_written_where_nothing_has_changed() {
    let (mut stage, directories) = (Stage::without_agent(1), Directories::new());
    start(&mut stage, &directories, &["--audit-interval=1s"]);
    stage.cluster.wait_ready().unwrap();
    directories.wait_mtu(1450);
    let both = [directories.conflist(), directories.plugin()];
    let before = both.each_ref().map(|path| identity(path));
    // Neither a new agent nor audits.
    stage.agent().restart().unwrap();
    stage.cluster.wait_ready().unwrap();
    let resyncs = "routelet_resync_seconds_count";
    let enough = stage.sum(resyncs) + 2;
    wait::until(wait::LONG, "two audits", || stage.sum(resyncs) >= enough).unwrap();
    assert_eq!(both.each_ref().map(|path| identity(path)), before);
    expect_written(&mut stage, 0);
}

#[test]
fn what_others_remove_or_change_comes_back_at_once() {
    let (_stage, directories) = installed();
    let (conflist, plugin) = (directories.conflist(), directories.plugin());
    let text = fs::read_to_string(&conflist).unwrap();
    let right = || {
        fs::read_to_string(&conflist).is_ok_and(|now| now == text)
            && fs::read_to_string(&plugin).is_ok_and(|now| now == "the plugin\n")
    };
    let comes_back = |after: &str| {
        wait::until(
            wait::LONG,
            &format!("both files to be right after {after}"),
            right,
        )
        .unwrap();
    };
    fs::remove_file(&conflist).unwrap();
    comes_back("the configuration was removed");
    fs::remove_file(&plugin).unwrap();
    comes_back("the plugin was removed");
    fs::write(&conflist, "{}").unwrap();
    comes_back("the configuration was overwritten");
    // portmap is listed as soon as it is there.
    fs::write(directories.path("bin/portmap"), "").unwrap();
    wait::until(wait::LONG, "portmap to be listed", || {
        directories
            .plugins()
            .is_some_and(|plugins| plugins.len() == 2 && plugins[1]["type"] == "portmap")
    })
    .unwrap();
}

#[test]
fn the_configuration_follows_the_underlays_mtu() {
    let (mut stage, directories) = installed();
    for underlay in [1400, 9000] {
        let node = &stage.cluster.nodes()[0].node;
        stage.cluster.lab().set_underlay_mtu(node, underlay).unwrap();
        directories.wait_mtu(u64::from(underlay) - 50);
    }
    expect_written(&mut stage, 3);
}

#[test]
fn the_configuration_follows_the_nodes_pod_subnets() {
    // A real API server may be too old for two families.
    let (mut stage, directories) = (Stage::without_agent_on(Backend::Memory, 1), Directories::new());
    start(&mut stage, &directories, NO_AUDIT);
    stage.cluster.wait_ready().unwrap();
    directories.wait_mtu(1450);
    let both = [Family::V4, Family::V6];
    let object = stage.cluster.node_object_of(0, &both, &both).build();
    let subnets = both.map(|family| stage.cluster.nodes()[0].subnet_of(family).to_string());
    // A Node's subnets are set once: other ones come with another Node object.
    stage.cluster.api().delete(&object).unwrap();
    stage.cluster.api().apply(&object).unwrap();
    directories.wait_subnets(&[subnets[0].as_str(), subnets[1].as_str()]);
    assert_eq!(directories.mtu(), Some(1430), "IPv6 takes more");

    // IPv6 needs 1280 bytes. A pod that must have an IPv6 address could not start at all.
    let set_mtu = |stage: &Stage, mtu| {
        let node = &stage.cluster.nodes()[0].node;
        stage.cluster.lab().set_underlay_mtu(node, mtu).unwrap();
    };
    set_mtu(&stage, 1340);
    directories.wait_subnets(&[subnets[0].as_str()]);
    directories.wait_mtu(1290);
    stage.agent().wait_log("IPv6 needs 1280", wait::LONG).unwrap();
    set_mtu(&stage, 1500);
    directories.wait_subnets(&[subnets[0].as_str(), subnets[1].as_str()]);
    directories.wait_mtu(1430);

    let others = ["10.244.77.0/24", "fd00:244:77::/64"];
    let other = stage.cluster.node_object_of(0, &both, &both).pod_cidrs(others);
    let other = other.build();
    stage.cluster.api().delete(&other).unwrap();
    stage.cluster.api().apply(&other).unwrap();
    directories.wait_subnets(&others);
}

#[test]
fn where_pods_do_not_fit_the_configuration_that_is_there_refuses_them_and_says_why() {
    let (mut stage, directories) = (Stage::without_agent_on(Backend::Memory, 1), Directories::new());
    // IPv6 pods alone, in VXLAN over IPv4.
    let object = stage
        .cluster
        .node_object_of(0, &[Family::V6], &[Family::V4])
        .build();
    stage.cluster.api().delete(&object).unwrap();
    stage.cluster.api().apply(&object).unwrap();
    start(&mut stage, &directories, NO_AUDIT);
    stage.cluster.wait_ready().unwrap();
    directories.wait_mtu(1450);
    let set_mtu = |stage: &Stage, mtu| {
        let node = &stage.cluster.nodes()[0].node;
        stage.cluster.lab().set_underlay_mtu(node, mtu).unwrap();
    };
    let refusal = || {
        directories
            .plugins()
            .and_then(|plugins| plugins[0]["refuse"].as_str().map(str::to_owned))
    };
    set_mtu(&stage, 1320);
    let why = wait::until_some(wait::LONG, "the configuration to refuse", refusal).unwrap();
    assert!(
        why.contains("leaves 1270 bytes") && why.contains("(1320), or --mtu"),
        "{why}"
    );
    stage
        .agent()
        .wait_log("new pods get no network", wait::LONG)
        .unwrap();
    let answer = routelet_cni::agent::get(&stage.agent().socket(), "/cni").unwrap();
    assert_eq!((answer.status, answer.body.trim()), (503, why.as_str()));

    // An agent that finds it so makes none; one that is there it has refuse at once.
    stage.agent().restart().unwrap();
    stage.cluster.wait_ready().unwrap();
    set_mtu(&stage, 1319);
    let says = |bytes: &str| refusal().is_some_and(|why| why.contains(bytes));
    wait::until(wait::LONG, "it to name the new number", || says("1269 bytes")).unwrap();
    set_mtu(&stage, 1500);
    wait::until(wait::LONG, "the configuration to take pods again", || {
        refusal().is_none()
    })
    .unwrap();
    assert_eq!(directories.mtu(), Some(1450));
}

#[test]
fn a_missing_directory_and_another_configuration_are_told_once_and_stop_nothing() {
    let (mut stage, directories) = (Stage::without_agent(1), Directories::new());
    fs::remove_dir(directories.path("net.d")).unwrap();
    start(&mut stage, &directories, &["--audit-interval=1s"]);
    stage.cluster.wait_ready().unwrap();
    let told = stage
        .agent()
        .wait_log("cannot install the CNI plugin", wait::LONG)
        .unwrap();
    assert!(told.contains("net.d/10-routelet.conflist"), "{told}");
    fs::create_dir(directories.path("net.d")).unwrap();
    fs::write(directories.path("net.d/05-other.conf"), "{}").unwrap();
    directories.wait_mtu(1450);
    let told = stage.agent().wait_log("goes before", wait::LONG).unwrap();
    assert!(told.contains("net.d/05-other.conf"), "{told}");
    let resyncs = "routelet_resync_seconds_count";
    let enough = stage.sum(resyncs) + 2;
    wait::until(wait::LONG, "two audits", || stage.sum(resyncs) >= enough).unwrap();
    for once in ["cannot install the CNI plugin", "goes before"] {
        stage.agent().expect_log_lines(&[once], 1).unwrap();
    }
}
