//! Pods that the runtime starts, and what their network lives through.

use std::net::IpAddr;
use std::time::Duration;

use routelet_lab::api::objects;
use routelet_lab::{Backend, Cluster, Ping, TempDir, skip, wait};
use routelet_model::host_veth_name;
use serde_json::{Value, json};

use crate::containerd::{Runtime, missing};
use crate::image::{self, IMAGE};
use crate::message::Message;

const SLEEP: &[&str] = &["/bin/sleep", "1000000"];

/// Two nodes with an agent and a runtime each. Dropped in this order: a DEL needs nothing of the cluster.
pub(crate) struct World {
    pub(crate) runtimes: [Runtime; 2],
    pub(crate) cluster: Cluster,
    /// Name of the network whose pods these are.
    network: &'static str,
}

/// A pod that runs.
pub(crate) struct Running {
    pub(crate) node: usize,
    pub(crate) name: String,
    pub(crate) sandbox: String,
    container: String,
    pub(crate) address: IpAddr,
}

impl World {
    /// Without network configurations.
    pub(crate) fn new() -> Self {
        Self::of(Cluster::with_agents(Backend::Memory, 2).unwrap(), "pods")
    }

    fn of(cluster: Cluster, network: &'static str) -> Self {
        let directory = TempDir::new().unwrap();
        let image = image::write(&directory).unwrap();
        let start = |index: usize| Runtime::start(cluster.nodes()[index].node.netns(), &image).unwrap();
        Self {
            runtimes: [start(0), start(1)],
            cluster,
            network,
        }
    }

    /// Whose agents install plugin and configuration, and have done so.
    pub(crate) fn installed() -> Self {
        let mut cluster = Cluster::new(Backend::Memory).unwrap();
        (0..2).for_each(|_| _ = cluster.add_node().unwrap());
        let mut world = Self::of(cluster, "k8s-pod-network");
        for node in 0..2 {
            let leases = format!(
                "--cni-lease-dir={}",
                world.runtimes[node].file("leases").display()
            );
            let mut arguments = world.directories(node);
            arguments.extend(["--install-cni".to_owned(), leases]);
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            world.cluster.start_agent(node, &arguments).unwrap();
        }
        world.cluster.wait_ready().unwrap();
        (0..2).for_each(|node| world.wait_network(node));
        world
    }

    /// Where plugin and configuration go, for the agent and for `routelet cleanup`.
    pub(crate) fn directories(&self, node: usize) -> Vec<String> {
        let of = |flag: &str, name: &str| format!("--{flag}={}", self.runtimes[node].file(name).display());
        vec![of("cni-bin-dir", "bin"), of("cni-conf-dir", "conf")]
    }

    fn configured() -> Self {
        let mut world = Self::new();
        for node in 0..2 {
            world.configure(node);
            world.wait_network(node);
        }
        world
    }

    fn configure(&mut self, node: usize) {
        let list = self.list(node);
        self.runtimes[node].configure(&list).unwrap();
    }

    pub(crate) fn wait_network(&self, node: usize) {
        let ready = || self.runtimes[node].cri.is_network_ready().unwrap();
        wait::until(wait::LONG, "NetworkReady", ready).unwrap();
    }

    pub(crate) fn list(&mut self, node: usize) -> Value {
        let runtime = &self.runtimes[node];
        let leases = runtime.file("leases");
        let subnet = self.cluster.nodes()[node].subnet;
        let socket = self.cluster.node(node).agent().unwrap().socket();
        json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "routelet-cni",
                    "mtu": 1450,
                    "socket": socket,
                    "ipam": {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": subnet}]]},
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }

    /// A pod's PodSandboxConfig.
    pub(crate) fn sandbox(&self, node: usize, name: &str, attempt: u64) -> Message {
        let metadata = Message::new().text(1, name).text(2, &format!("uid-{name}"));
        let metadata = metadata.text(3, "default").number(4, attempt);
        let linux = Message::new().text(1, &self.runtimes[node].control_group());
        Message::new().message(1, &metadata).message(8, &linux)
    }

    /// Starts a pod as the kubelet does, and tells the API its address.
    pub(crate) fn run(&mut self, node: usize, name: &str, attempt: u64) -> Running {
        let config = self.sandbox(node, name, attempt);
        let cri = &self.runtimes[node].cri;
        let sandbox = cri.run_sandbox(&config).unwrap();
        let container = cri.start_container(&sandbox, &config, IMAGE, SLEEP).unwrap();
        let address: IpAddr = cri.address(&sandbox).unwrap().parse().unwrap();
        let object = objects::pod("default", name).node(&format!("node-{}", node + 1));
        let object = object.ips([address]).phase("Running").build();
        self.cluster.api().apply(&object).unwrap();
        Running {
            node,
            name: name.to_owned(),
            sandbox,
            container,
            address,
        }
    }

    /// Five requests from inside the container, all answered; returns what ping wrote.
    pub(crate) fn ping(&self, from: &Running, to: IpAddr) -> String {
        let to = to.to_string();
        let command = ["/bin/ping", "-c", "5", "-i", "0.1", "-W", "2", &to];
        let done = self.runtimes[from.node]
            .cri
            .execute(&from.container, &command)
            .unwrap();
        assert!(
            done.code == 0 && done.output.contains(" 0% packet loss"),
            "{done:?}"
        );
        done.output
    }

    pub(crate) fn stop(&self, pod: &Running) {
        let cri = &self.runtimes[pod.node].cri;
        cri.stop_sandbox(&pod.sandbox).unwrap();
        cri.remove_sandbox(&pod.sandbox).unwrap();
    }

    pub(crate) fn has_veth(&self, pod: &Running) -> bool {
        let veth = host_veth_name("cali", "default", &pod.name).unwrap();
        let mut setup = self.cluster.nodes()[pod.node].node.setup().unwrap();
        setup.link(veth.as_str()).unwrap().is_some()
    }

    pub(crate) fn has_lease(&self, pod: &Running) -> bool {
        let leases = self.runtimes[pod.node].file("leases").join(self.network);
        leases.join(pod.address.to_string()).exists()
    }
}

#[test]
fn the_network_is_ready_once_the_configuration_is_there() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut world = World::new();
    assert!(!world.runtimes[0].cri.is_network_ready().unwrap());
    world.configure(0);
    world.wait_network(0);
    assert!(
        !world.runtimes[1].cri.is_network_ready().unwrap(),
        "the other node's"
    );
}

#[test]
fn pods_reach_each_other_and_stopping_one_frees_what_it_had() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut world = World::configured();
    let [a, b, c] = [(0, "a"), (0, "b"), (1, "c")].map(|(node, name)| world.run(node, name, 0));
    assert!(
        world.ping(&a, b.address).contains("ttl=63"),
        "one router on a node"
    );
    assert!(world.ping(&a, c.address).contains("ttl=62"), "two across nodes");
    assert!(world.ping(&c, a.address).contains("ttl=62"));
    assert!(world.has_veth(&a) && world.has_lease(&a));
    world.stop(&a);
    assert!(!world.has_veth(&a) && !world.has_lease(&a));
    assert!(world.has_veth(&b) && world.has_lease(&b), "another pod's");

    let again = world.run(0, "a", 1);
    assert_ne!(again.sandbox, a.sandbox);
    world.ping(&again, c.address);
    world.ping(&c, again.address);
}

#[test]
fn no_packet_is_lost_while_the_runtime_is_killed_and_started_again() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut world = World::configured();
    let [a, c] = [(0, "a"), (1, "c")].map(|(node, name)| world.run(node, name, 0));
    world.ping(&a, c.address);
    let other = world.cluster.nodes()[1].node.netns().clone();
    let pinger = Ping::to(a.address)
        .interval(Duration::from_millis(2))
        .start(&other)
        .unwrap();
    pinger.wait_replies(30, wait::LONG).unwrap();
    world.runtimes[0].kill().unwrap();
    pinger.wait_replies(30, wait::LONG).unwrap();
    world.runtimes[0].restart().unwrap();
    world.wait_network(0);
    pinger.wait_replies(30, wait::LONG).unwrap();
    let report = pinger.stop().unwrap();
    assert!(report.lost.is_empty(), "{report}: {:?}", report.lost);

    world.ping(&a, c.address);
    world.stop(&a);
    assert!(!world.has_veth(&a) && !world.has_lease(&a));
}
