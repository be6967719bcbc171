//! Three nodes, pods on each, and pings between them that are counted.

use std::time::Duration;

use routelet_lab::{Backend, Cluster, KernelView, Ping, Pinger, Pod, wait};
use routelet_model::Family;
use routelet_netlink::inspect::{LinkRow, NexthopRow, RouteRow};

/// The agent's routing protocol number.
const OURS: u8 = 80;
/// Between two requests of each ping.
const INTERVAL: Duration = Duration::from_millis(2);
/// Replies to wait for before the next thing happens to an agent.
const SOME: u64 = 30;

/// Nodes with an agent each; pods a and b on the first, c on the second, d on the third, of both families.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) pods: [Pod; 4],
}

impl World {
    /// Nodes whose agents are yet to be started.
    pub(crate) fn without_agents() -> Self {
        let mut cluster = Cluster::new(Backend::Memory).unwrap();
        for index in 0..3 {
            cluster.add_unregistered_node().unwrap();
            let object = cluster.node_object_of(index, &Family::ALL, &Family::ALL);
            cluster.api().apply(&object.build()).unwrap();
        }
        let pods = [(0, "a", 2), (0, "b", 3), (1, "c", 2), (2, "d", 2)];
        let pods = pods.map(|(node, name, host)| cluster.add_pod_of(node, name, host, &Family::ALL).unwrap());
        Self { cluster, pods }
    }

    /// Nodes whose agents are ready, and whose pods all reach each other.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let mut world = Self::without_agents();
        for index in 0..3 {
            world.cluster.start_agent(index, arguments).unwrap();
        }
        world.cluster.wait_ready().unwrap();
        world.wait_connected();
        world
    }

    /// Waits until each pod has had an answer from each other one.
    pub(crate) fn wait_connected(&self) {
        for family in Family::ALL {
            for (from, to) in self.pairs() {
                let ping = ping(to, family).patience(Duration::from_millis(50));
                let what = format!("an answer to {} from {}", from.id(), to.id());
                wait::until(wait::LONG, &what, || {
                    ping.clone().run(from.netns()).unwrap().received() == 1
                })
                .unwrap();
            }
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (&Pod, &Pod)> {
        let all = self
            .pods
            .iter()
            .flat_map(|from| self.pods.iter().map(move |to| (from, to)));
        all.filter(|(from, to)| from.id() != to.id())
    }

    /// Pings that run until they are stopped: on a node, and between each two nodes, in both families.
    pub(crate) fn flows(&self) -> Flows {
        let [a, b, c, d] = &self.pods;
        Flows::start(&[(a, b), (a, c), (c, d), (d, b)])
    }

    /// The same, on the first node only.
    pub(crate) fn flows_on_a_node(&self) -> Flows {
        let [a, b, ..] = &self.pods;
        Flows::start(&[(a, b), (b, a)])
    }

    pub(crate) fn view(&self, node: usize) -> KernelView {
        KernelView::of(self.cluster.nodes()[node].node.netns()).unwrap()
    }

    /// What a node's agent has written since it started.
    pub(crate) fn operations(&mut self, node: usize) -> Vec<String> {
        let text = self.cluster.node(node).agent().unwrap().metrics().unwrap();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("routelet_operations_total"));
        lines.map(str::to_owned).collect()
    }
}

fn ping(to: &Pod, family: Family) -> Ping {
    Ping::to(to.address(family).unwrap()).interval(INTERVAL)
}

/// Running pings.
pub(crate) struct Flows(Vec<Pinger>);

impl Flows {
    fn start(pairs: &[(&Pod, &Pod)]) -> Self {
        let all = Family::ALL
            .into_iter()
            .flat_map(|family| pairs.iter().map(move |pair| (family, pair)));
        Self(
            all.map(|(family, (from, to))| ping(to, family).start(from.netns()).unwrap())
                .collect(),
        )
    }

    /// Waits until each has had some more answers.
    pub(crate) fn go_on(&self) {
        for pinger in &self.0 {
            pinger.wait_replies(SOME, wait::LONG).unwrap();
        }
    }

    /// Stops them; each request must have been answered.
    pub(crate) fn have_lost_nothing(self) {
        for pinger in self.0 {
            let report = pinger.stop().unwrap();
            assert!(report.lost.is_empty(), "{report}: {:?}", report.lost);
        }
    }
}

/// What a node's kernel holds that is the agent's, but for nexthops' ids, links' indices and what the kernel adds by itself.
pub(crate) fn state(view: &KernelView) -> Vec<String> {
    let mut lines = Vec::new();
    for link in view.links.iter().filter(|link| link.kind == "vxlan") {
        lines.push(
            LinkRow {
                index: 0,
                ..link.clone()
            }
            .to_string(),
        );
        let addresses = view.addresses.iter().filter(|row| row.link == link.name);
        lines.extend(
            addresses
                .map(ToString::to_string)
                .filter(|line| !line.starts_with("fe80:")),
        );
    }
    for route in view.routes.iter().filter(|route| route.protocol == OURS) {
        let nexthop = route.nexthop.map(|_| 0);
        lines.push(RouteRow { nexthop, ..*route }.to_string());
    }
    lines.extend(
        view.nexthops
            .iter()
            .map(|row| NexthopRow { id: 0, ..*row }.to_string()),
    );
    let neighbours = view.neighbours.iter().filter(|row| row.protocol == OURS);
    lines.extend(neighbours.map(ToString::to_string));
    for row in &view.fdb {
        // Not their state: the program bridge marks what it adds in one more way as lasting.
        lines.extend(
            row.remote
                .map(|remote| format!("{} dev {} dst {remote}", row.mac, row.link)),
        );
    }
    lines.sort();
    lines
}
