//! A host that drops what it forwards: the agent says so, leaves it alone, and opens it when it is told to.

use std::time::Duration;

use routelet_lab::api::Resource;
use routelet_lab::{Agent, Backend, Cluster, Ping, Pod, wait};
use routelet_model::Family;
use routelet_netlink::Netns;

use crate::need;
use crate::pages::Script;
use crate::support::{nft, run};

const OPEN: &[&str] = &["--open-forward=true", "--audit-interval=24h"];
const CLOSED: &[&str] = &["--audit-interval=24h"];

/// Two nodes with a pod each; the first node has the firewall.
struct World {
    cluster: Cluster,
    pods: [Pod; 2],
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::with_agents(Backend::Memory, 2).unwrap();
        let pods = [(0, "a"), (1, "b")].map(|(node, name)| cluster.add_pod(node, name, 2).unwrap());
        let world = Self { cluster, pods };
        world.wait_through();
        world
    }

    fn host(&self) -> &Netns {
        self.cluster.nodes()[0].node.netns()
    }

    fn run(&self, line: &str) -> String {
        run(self.host(), line)
    }

    fn subnet(&self) -> String {
        self.cluster.nodes()[0].subnet.to_string()
    }

    fn start_agent(&mut self, arguments: &[&str]) {
        self.cluster.node(0).agent = None;
        self.cluster.start_agent(0, arguments).unwrap();
        self.cluster.wait_ready().unwrap();
    }

    fn agent(&mut self) -> &mut Agent {
        self.cluster.node(0).agent().unwrap()
    }

    /// Waits until the agent counts so many chains that drop: not opened in nftables, opened, and of iptables-legacy.
    fn wait_counted(&mut self, counts: [usize; 3]) {
        let labels = [
            ("nftables", false),
            ("nftables", true),
            ("iptables-legacy", false),
        ];
        for ((firewall, opened), count) in labels.into_iter().zip(counts) {
            let series = "routelet_forward_drop_chains";
            let line = format!("{series}{{firewall=\"{firewall}\",opened=\"{opened}\"}} {count}");
            let counted = || self.agent().metrics().unwrap().lines().any(|l| l == line);
            wait::until(wait::LONG, &line, counted).unwrap();
        }
    }

    /// Expects the agent's log to say something so many times.
    #[track_caller]
    fn expect_said(&mut self, text: &str, times: usize) {
        self.agent().expect_log_lines(&[text], times).unwrap();
    }

    /// Whether the pods reach each other, in both directions.
    fn is_through(&self) -> bool {
        let [a, b] = &self.pods;
        [(a, b), (b, a)].into_iter().all(|(from, to)| {
            let ping = Ping::to(to.address(Family::V4).unwrap()).patience(Duration::from_millis(100));
            ping.run(from.netns()).unwrap().received() == 1
        })
    }

    fn wait_through(&self) {
        wait::until(wait::LONG, "the pods to reach each other", || self.is_through()).unwrap();
    }

    /// The FORWARD rules as iptables-save shows them.
    fn saved(&self) -> Vec<String> {
        let text = self.run("iptables-nft-save");
        text.lines()
            .filter(|line| line.starts_with("-A FORWARD"))
            .map(str::to_owned)
            .collect()
    }
}

#[test]
fn a_host_that_drops_is_told_of_and_left_alone() {
    need!("nft" "iptables-nft" "ip6tables-nft");
    let mut world = World::new();
    world.start_agent(CLOSED);
    world.wait_counted([0, 0, 0]);
    world.run("iptables-nft -P FORWARD DROP");
    // Of a family in which the node has no pods.
    world.run("ip6tables-nft -P FORWARD DROP");
    let ruleset = world.run("nft list ruleset");
    world.wait_counted([1, 0, 0]);
    assert!(!world.is_through(), "the policy is in force");
    world.expect_said("nftables chain ip filter FORWARD drops by policy", 1);
    world.expect_said("--open-forward=true", 1);
    let event = || {
        let events = world.cluster.api().memory().unwrap().0.list(Resource::Events);
        events
            .iter()
            .any(|event| event["reason"] == "ForwardingDropped" && event["regarding"]["name"] == "node-1")
    };
    wait::until(wait::LONG, "an Event about the node", event).unwrap();
    nft(
        world.host(),
        "add table inet fw; add chain inet fw pass { type filter hook forward priority 5; policy drop; };",
    );
    world.wait_counted([2, 0, 0]);
    world.expect_said("nftables chain inet fw pass drops by policy", 1);
    nft(world.host(), "delete table inet fw");
    world.wait_counted([1, 0, 0]);
    world.expect_said("nftables chain ip filter FORWARD drops by policy", 1);
    assert_eq!(world.run("nft list ruleset"), ruleset, "nothing is touched");
    world.run("iptables-nft -P FORWARD ACCEPT");
    world.wait_counted([0, 0, 0]);
    assert!(world.is_through());
}

#[test]
fn an_opened_host_lets_pods_through_and_stays_open() {
    need!("nft" "iptables-nft" "iptables-nft-save");
    let mut world = World::new();
    world.run("iptables-nft -P FORWARD DROP");
    world.run("iptables-nft -A FORWARD -i other0 -j ACCEPT");
    let others = world.saved();
    world.start_agent(CLOSED);
    world.wait_counted([1, 0, 0]);
    assert!(!world.is_through());
    world.start_agent(OPEN);
    world.wait_counted([0, 1, 0]);
    assert!(world.is_through());
    let subnet = world.subnet();
    let ours = ["-d", "-s"].map(|end| {
        format!("-A FORWARD {end} {subnet} -m comment --comment \"routelet: pod subnet\" -j ACCEPT")
    });
    assert_eq!(world.saved(), [&ours[..], &others].concat());

    // Restored at once, however they went; no audit comes to help.
    world.run("iptables-nft -F FORWARD");
    world.wait_through();
    nft(world.host(), "flush ruleset");
    world.run("iptables-nft -P FORWARD DROP");
    world.wait_through();
    // A chain that comes later is opened, too.
    nft(
        world.host(),
        "add table inet fw; add chain inet fw pass { type filter hook forward priority 5; policy drop; };",
    );
    world.wait_through();
    world.wait_counted([0, 2, 0]);
    world.expect_said("WARN", 0);
}

#[test]
fn our_rules_go_when_they_are_needed_or_wanted_no_more() {
    need!("nft" "iptables-nft" "iptables-nft-save");
    let mut world = World::new();
    world.run("iptables-nft -P FORWARD DROP");
    world.run("iptables-nft -A FORWARD -i other0 -j ACCEPT");
    let others = world.saved();
    world.start_agent(OPEN);
    world.wait_counted([0, 1, 0]);
    world.run("iptables-nft -P FORWARD ACCEPT");
    wait::until(wait::LONG, "our rules to go with the policy", || {
        world.saved() == others
    })
    .unwrap();
    world.run("iptables-nft -P FORWARD DROP");
    world.wait_through();
    assert_eq!(world.saved().len(), 3);
    world.start_agent(CLOSED);
    world.wait_counted([1, 0, 0]);
    assert_eq!(world.saved(), others, "the setting was withdrawn");
}

/// The node's pod subnets change: it gets IPv6, too.
#[test]
fn rules_follow_the_pod_subnets() {
    need!("ip6tables-nft" "ip6tables-nft-save");
    let mut world = World::new();
    world.run("ip6tables-nft -P FORWARD DROP");
    world.start_agent(OPEN);
    world.wait_counted([0, 0, 0]);
    let subnets = [world.subnet(), "fd00:244:1::/64".to_owned()];
    let node = world.cluster.node_object(0).pod_cidrs(subnets).build();
    world.cluster.api().apply(&node).unwrap();
    world.wait_counted([0, 1, 0]);
    let saved = world.run("ip6tables-nft-save");
    for end in ["-s", "-d"] {
        assert!(
            saved.contains(&format!("-A FORWARD {end} fd00:244:1::/64 ")),
            "{saved}"
        );
    }
}

/// The tables of iptables-legacy tell of no change, so that an audit finds it, and the agent opens none.
#[test]
fn a_host_that_drops_by_iptables_legacy_is_told_how_to_open_it() {
    need!("iptables-legacy");
    let mut world = World::new();
    world.start_agent(&["--open-forward=true", "--audit-interval=1s"]);
    world.wait_counted([0, 0, 0]);
    world.run("iptables-legacy -P FORWARD DROP");
    world.wait_counted([0, 0, 1]);
    assert!(!world.is_through());
    let warning = world
        .agent()
        .wait_log("iptables-legacy chain ip filter FORWARD", wait::LONG)
        .unwrap();
    let (_, commands) = warning.split_once("this opens it: ").unwrap();
    let mut script =
        Script::of("firewall/agent_forward.rs: a_host_that_drops_by_iptables_legacy_is_told_how_to_open_it");
    assert_eq!(commands, script.take("iptables-legacy").text, "docs/firewall.md");
    for command in commands.split("; ") {
        world.run(command);
    }
    world.wait_through();
}
