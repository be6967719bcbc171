//! What sandboxes that are gone have left: real leases of the distribution's host-local, veths of the real plugin, and an
//! agent that tells what is nobody's from what belongs to a pod that the API does not know.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use routelet_cni::read_leases;
use routelet_lab::api::{Fault, On, Resource, objects};
use routelet_lab::process::built_program;
use routelet_lab::{Backend, TempDir, skip, wait};
use routelet_netlink::Netns;
use serde_json::{Value, json};

use crate::stage::Stage;

/// By which the agent knows the leases that are its plugin's.
const NETWORK: &str = "k8s-pod-network";
const LEASE: &str = "routelet_cni_swept_total{what=\"lease\"}";
const VETH: &str = "routelet_cni_swept_total{what=\"veth\"}";
const RESYNCS: &str = "routelet_resync_seconds_count";

/// A node whose agent looks every second, a directory of leases, and who makes and forgets sandboxes.
struct Node {
    stage: Stage,
    leases: TempDir,
    plugins: PathBuf,
    sandboxes: Vec<Netns>,
}

/// Where host-local is, or the end of the test.
macro_rules! node {
    ($($argument:expr),*) => {
        match plugins() {
            Some(plugins) => Node::new(plugins, &[$($argument),*]),
            None => skip!("no host-local in /usr/lib/cni or /opt/cni/bin"),
        }
    };
}

fn plugins() -> Option<PathBuf> {
    let directories = ["/usr/lib/cni", "/opt/cni/bin"].map(Path::new);
    let found = directories
        .into_iter()
        .find(|path| path.join("host-local").is_file());
    found.map(Path::to_owned)
}

impl Node {
    fn new(plugins: PathBuf, more: &[&str]) -> Self {
        let leases = TempDir::new().unwrap();
        let mut stage = Stage::without_agent_on(Backend::Memory, 1);
        let directory = format!("--cni-lease-dir={}", leases.path().display());
        let arguments = match more
            .iter()
            .any(|argument| argument.starts_with("--audit-interval"))
        {
            true => vec![directory.as_str()],
            false => vec!["--audit-interval=1s", directory.as_str()],
        };
        let arguments = [&arguments, more].concat();
        stage.start_agent(&arguments);
        Self {
            stage,
            leases,
            plugins,
            sandboxes: Vec::new(),
        }
    }

    /// Runs ADD of a plugin for a container; its addresses.
    fn add(&mut self, plugin: &Path, container: &str, pod: &str) -> IpAddr {
        let sandbox = Netns::new().unwrap();
        let subnet = self.stage.cluster.nodes()[0].subnet;
        let config = json!({
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": "routelet-cni",
            "mtu": 1450,
            "ipam": {"type": "host-local", "dataDir": self.leases.path(), "ranges": [[{"subnet": subnet}]]},
        });
        let config = self.leases.write("config", config.to_string()).unwrap();
        let mut command = Command::new(plugin);
        command
            .env_clear()
            .env("CNI_COMMAND", "ADD")
            .env("CNI_PATH", &self.plugins)
            .env("CNI_CONTAINERID", container)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", sandbox.path())
            .env(
                "CNI_ARGS",
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"),
            )
            .stdin(Stdio::from(File::open(config).unwrap()));
        let output = self.stage.netns().run(|| command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        self.sandboxes.push(sandbox);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let address = answer["ips"][0]["address"].as_str().unwrap();
        address.split('/').next().unwrap().parse().unwrap()
    }

    /// A lease of a container of which there is nothing else, as host-local writes it.
    fn add_lease(&mut self, container: &str) -> IpAddr {
        let host_local = self.plugins.join("host-local");
        self.add(&host_local, container, container)
    }

    /// The sandbox of a pod, as a runtime makes it, without telling the API.
    fn add_sandbox(&mut self, pod: &str) -> IpAddr {
        let ours = built_program("routelet-cni", "ROUTELET_CNI_BIN").unwrap();
        self.add(&ours, &format!("of-{pod}"), pod)
    }

    /// Another sandbox of a pod; the runtime has not taken the first one down.
    fn add_sandbox_anew(&mut self, pod: &str) -> IpAddr {
        let ours = built_program("routelet-cni", "ROUTELET_CNI_BIN").unwrap();
        self.add(&ours, &format!("of-{pod}-2"), pod)
    }

    /// The Pod object of a pod.
    fn pod_object(&self, pod: &str, addresses: &[IpAddr]) -> Value {
        let object = objects::pod("default", pod).node("node-1");
        object.ips(addresses.iter().copied()).phase("Running").build()
    }

    /// Containers that have a lease.
    fn leased(&self) -> Vec<String> {
        let leases = read_leases(&self.leases.path().join(NETWORK)).unwrap();
        let mut containers: Vec<_> = leases.into_iter().map(|lease| lease.container_id).collect();
        containers.sort();
        containers
    }

    fn wait_leased(&self, containers: &[&str]) {
        let what = format!("leases of {containers:?} alone");
        wait::until(wait::LONG, &what, || self.leased() == containers).unwrap();
    }

    /// Waits for so many looks of the agent, in each of which it might sweep.
    fn wait_looks(&mut self) {
        let enough = self.stage.sum(RESYNCS) + 4;
        wait::until(wait::LONG, "four audits", || self.stage.sum(RESYNCS) >= enough).unwrap();
    }

    /// Expects the agent to have counted so many; it does when they are gone.
    fn expect_swept(&mut self, leases: u64, veths: u64) {
        let what = format!("{leases} leases and {veths} veths to be counted");
        let mut counted = || (self.stage.sum(LEASE), self.stage.sum(VETH));
        let right = wait::until(wait::LONG, &what, || counted() == (leases, veths));
        right.unwrap_or_else(|error| panic!("{error}: {:?}", counted()));
    }

    fn has_veth(&self, pod: &str) -> bool {
        let veth = routelet_model::host_veth_name("cali", "default", pod).unwrap();
        self.stage.setup().link(veth.as_str()).unwrap().is_some()
    }

    fn delete_veth(&self, pod: &str) {
        let veth = routelet_model::host_veth_name("cali", "default", pod).unwrap();
        self.stage.setup().delete_link(veth.as_str()).unwrap();
    }
}

#[test]
fn a_lease_goes_of_which_neither_the_api_nor_the_kernel_knows_anything_and_no_other() {
    let mut node = node!("--cni-sweep-after=1s");
    let told = node.add_lease("told");
    let told = node.pod_object("told", &[told]);
    node.stage.cluster.api().apply(&told).unwrap();
    // A static pod whose mirror pod the API has refused, and a pod whose address has not reached the API.
    node.add_sandbox("static");
    node.add_sandbox("new");
    let new = node.pod_object("new", &[]);
    node.stage.cluster.api().apply(&new).unwrap();
    let dead = node.add_lease("dead");
    node.wait_leased(&["of-new", "of-static", "told"]);
    let line = node.stage.agent().wait_log("swept a lease", wait::LONG).unwrap();
    for part in [
        format!("address={dead}"),
        "container=dead".to_owned(),
        "age_seconds=".to_owned(),
    ] {
        assert!(line.contains(&part), "{part:?} is not in {line}");
    }
    node.wait_looks();
    node.wait_leased(&["of-new", "of-static", "told"]);
    assert!(node.has_veth("static") && node.has_veth("new"));
    node.expect_swept(1, 0);

    // A veth that is gone, and a pod that the API has no more.
    node.delete_veth("static");
    node.wait_leased(&["of-new", "told"]);
    node.stage.cluster.api().delete(&told).unwrap();
    node.wait_leased(&["of-new"]);
    node.expect_swept(3, 0);
}

#[test]
fn the_veth_of_a_sandbox_that_no_one_takes_down_goes_after_its_pod_and_then_its_lease() {
    let mut node = node!("--cni-sweep-after=1s");
    node.add_sandbox("static");
    let address = node.add_sandbox("web");
    let web = node.pod_object("web", &[address]);
    node.stage.cluster.api().apply(&web).unwrap();
    node.wait_looks();
    assert!(node.has_veth("web"));
    // One that has ended keeps what it has until the API has it no more.
    let mut ended = web.clone();
    ended["status"]["phase"] = "Succeeded".into();
    node.stage.cluster.api().apply(&ended).unwrap();
    node.wait_looks();
    assert!(node.has_veth("web"));
    node.expect_swept(0, 0);

    node.stage.cluster.api().delete(&web).unwrap();
    wait::until(wait::LONG, "the veth to go", || !node.has_veth("web")).unwrap();
    let line = node
        .stage
        .agent()
        .wait_log("swept a host veth", wait::LONG)
        .unwrap();
    for part in [
        "container=of-web",
        &format!("addresses={address}"),
        "unused_seconds=",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    node.wait_leased(&["of-static"]);
    node.wait_looks();
    assert!(node.has_veth("static"), "its Pod was never there");
    node.expect_swept(1, 1);
}

#[test]
fn a_pod_made_anew_under_its_name_keeps_its_veth() {
    let mut node = node!("--cni-sweep-after=2s");
    let address = node.add_sandbox("web");
    let web = node.pod_object("web", &[address]);
    node.stage.cluster.api().apply(&web).unwrap();
    node.wait_looks();
    node.stage.cluster.api().delete(&web).unwrap();
    // The kubelet restarts a static pod: another sandbox under the name, and the API refuses its mirror pod.
    node.add_sandbox_anew("web");
    node.wait_leased(&["of-web-2"]);
    node.wait_looks();
    assert!(node.has_veth("web"));
    node.expect_swept(1, 0);
}

#[test]
fn nothing_is_swept_while_the_api_is_away() {
    let mut node = node!("--cni-sweep-after=1s");
    node.wait_looks();
    let (api, _) = node.stage.cluster.api().memory().unwrap();
    api.faults().always(On::resource(Resource::Pods), Fault::Drop);
    api.faults().cut_watches(Resource::Pods);
    node.stage.agent().wait_log("lost the watch", wait::LONG).unwrap();
    node.add_lease("dead");
    node.wait_looks();
    assert_eq!(node.leased(), ["dead"]);

    let (api, _) = node.stage.cluster.api().memory().unwrap();
    api.faults().clear();
    node.wait_leased(&[]);
}

/// Also one that is over before anyone has looked: who knows what became of the pods meanwhile.
#[test]
fn what_was_seen_before_the_api_was_away_counts_for_nothing() {
    const AFTER: Duration = Duration::from_secs(4);
    let mut node = node!("--audit-interval=2s", "--cni-sweep-after=4s");
    node.add_lease("dead");
    // The first may be that of the start, when nothing is looked for.
    let enough = node.stage.sum(RESYNCS) + 2;
    wait::until(wait::LONG, "a look", || node.stage.sum(RESYNCS) >= enough).unwrap();
    let (api, _) = node.stage.cluster.api().memory().unwrap();
    api.faults().next(1, On::watch(Resource::Pods), Fault::Drop);
    api.faults().cut_watches(Resource::Pods);
    let agent = node.stage.agent();
    agent.wait_log("the API server is back", wait::LONG).unwrap();
    let back = Instant::now();
    node.wait_leased(&[]);
    assert!(
        back.elapsed() >= AFTER,
        "swept {:?} after an outage",
        back.elapsed()
    );
}

#[test]
fn host_local_is_not_disturbed_while_it_holds_its_lock() {
    let mut node = node!("--cni-sweep-after=1s");
    // Someone starts a pod, at length.
    let lock = node.leases.path().join(NETWORK);
    std::fs::create_dir(&lock).unwrap();
    let lock = File::create(lock.join("lock")).unwrap();
    lock.lock().unwrap();
    let lease = node.leases.path().join(NETWORK).join("10.244.1.9");
    std::fs::write(&lease, "dead\r\neth0").unwrap();
    node.wait_looks();
    assert_eq!(node.leased(), ["dead"]);
    lock.unlock().unwrap();
    node.wait_leased(&[]);
}

#[test]
fn a_younger_lease_stays_and_so_does_every_one_where_no_sweep_is_asked_for() {
    for arguments in [&["--cni-sweep-after=1h"][..], &["--cni-sweep-after=off"], &[]] {
        let Some(plugins) = plugins() else {
            skip!("no host-local in /usr/lib/cni or /opt/cni/bin");
        };
        let mut node = Node::new(plugins, arguments);
        node.add_lease("dead");
        node.wait_looks();
        assert_eq!(node.leased(), ["dead"], "{arguments:?}");
        assert_eq!(node.stage.sum(LEASE), 0);
    }
}

#[test]
fn leases_that_cannot_be_removed_are_told_once_with_path_and_remedy() {
    let mut node = node!("--cni-sweep-after=1s");
    // Root may write to anything but a directory where a file should be.
    let lock = node.leases.path().join(NETWORK).join("lock");
    std::fs::create_dir_all(lock).unwrap();
    std::fs::write(
        node.leases.path().join(NETWORK).join("10.244.1.9"),
        "dead\r\neth0",
    )
    .unwrap();
    let line = node.stage.agent().wait_log("cannot sweep", wait::LONG).unwrap();
    for part in [
        NETWORK,
        "Is a directory",
        "--cni-lease-dir",
        "--cni-sweep-after=off",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    node.wait_looks();
    node.stage.agent().expect_log_lines(&["cannot sweep"], 1).unwrap();
}
