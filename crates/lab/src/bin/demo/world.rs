//! The play's scene: the LAN, the API, nodes, agents and pods.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use routelet_lab::{Backend, Cluster, KubeApi, Pod};
use routelet_model::{Family, Key, Object, RouteTarget, host_prefix, tunnel_address, vtep_mac};

use crate::observer::{Observer, State, vxlan};
use crate::screen::{Screen, micros};

/// Nodes at the beginning.
const NODES: usize = 3;
/// Pods of each node, by the beginning of their name, and the last byte of their address.
const PODS: [(&str, u8); 3] = [("web", 2), ("api", 3), ("db", 4)];
/// The last lines of an agent's log that a failure shows.
const LOG_LINES: usize = 40;

/// The cluster, and an ear at the kernel of its first node.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) observer: Observer,
    /// The pods of each node, by its index.
    pub(crate) pods: BTreeMap<usize, Vec<Pod>>,
}

/// Makes the LAN, the API and the nodes.
pub(crate) fn network(screen: &mut Screen, backend: Backend) -> Result<World> {
    screen.step("Three nodes on a LAN, each a network namespace, and a Kubernetes API")?;
    let begin = Instant::now();
    let mut cluster = Cluster::new(backend)?;
    let api = match cluster.api() {
        KubeApi::Memory(_, server) => format!("{}, in memory", server.url()),
        KubeApi::Real(server) => format!(
            "https://{}, kube-apiserver on etcd, with TLS and RBAC; ready after {:.1} s",
            server.address(),
            begin.elapsed().as_secs_f64()
        ),
    };
    screen.say(&format!("Kubernetes API  {api}\n"))?;
    for _ in 0..NODES {
        cluster.add_node()?;
    }
    let rows: Vec<[String; 4]> = cluster
        .nodes()
        .iter()
        .map(|node| {
            let mac = vtep_mac(node.node.name(), Family::V4);
            let address = node.node.address(Family::V4);
            [
                node.node.name().to_owned(),
                address.to_string(),
                node.subnet.to_string(),
                mac.to_string(),
            ]
        })
        .collect();
    screen.table(
        ["node", "address", "pod subnet", "VTEP MAC, by the node's name"],
        &rows,
    )?;
    let observer = Observer::open(cluster.nodes()[0].node.netns())?;
    Ok(World {
        cluster,
        observer,
        pods: BTreeMap::new(),
    })
}

/// Starts the agents.
pub(crate) fn agents(screen: &mut Screen, world: &mut World) -> Result<()> {
    screen.step("An agent on each node: `routelet run`")?;
    for index in 0..NODES {
        world.start_agent(screen, index)?;
    }
    Ok(())
}

/// Makes the pods, and shows how long the CNI plugin takes to connect each.
pub(crate) fn pods(screen: &mut Screen, world: &mut World) -> Result<()> {
    screen.step("Three pods on each node")?;
    let mut rows = Vec::new();
    for index in 0..NODES {
        for (name, host) in PODS {
            rows.push(world.add_pod(index, name, host)?);
        }
    }
    screen.table(["pod", "node", "address", "host veth", ">network after"], &rows)?;
    screen.say("")?;
    screen.say(
        "Network after: from making the pod's namespace until the CNI plugin, routelet-cni, has connected it",
    )
}

impl World {
    /// Starts the agent of a node, and waits until it is ready.
    pub(crate) fn start_agent(&mut self, screen: &mut Screen, index: usize) -> Result<()> {
        let begin = Instant::now();
        self.cluster.start_agent(index, &[])?;
        let node = self.cluster.node(index);
        let name = node.node.name().to_owned();
        let agent = node.agent()?;
        agent.wait_ready(routelet_lab::wait::LONG)?;
        let took = begin.elapsed().as_secs_f64() * 1e3;
        screen.say(&format!(
            "{name}  pid {}, ready {took:.0} ms after its start",
            agent.pid()
        ))
    }

    /// Adds a pod; returns what to tell of it.
    pub(crate) fn add_pod(&mut self, index: usize, name: &str, host: u8) -> Result<[String; 5]> {
        let name = format!("{name}-{}", index + 1);
        let address = self.cluster.pod_address(index, host)?;
        let node = &self.cluster.nodes()[index].node;
        let begin = Instant::now();
        let pod = node.pod(&name, &[address])?;
        let took = micros(begin.elapsed());
        let row = [&name, node.name(), &address.to_string(), pod.host_veth().as_str()].map(str::to_owned);
        let object = self.cluster.pod_object(index, &name, host)?.build();
        self.cluster.api().apply(&object)?;
        self.pods.entry(index).or_default().push(pod);
        let [name, node, address, veth] = row;
        Ok([name, node, address, veth, took])
    }

    /// A pod of a node.
    pub(crate) fn pod(&self, node: usize, pod: usize) -> Result<&Pod> {
        self.pods
            .get(&node)
            .and_then(|pods| pods.get(pod))
            .context("there is no such pod")
    }

    /// What the first node's kernel has to hold of another node.
    pub(crate) fn objects_of_peer(&self, index: usize) -> Result<State> {
        let link = vxlan()?;
        let peer = &self.cluster.nodes()[index];
        let mac = vtep_mac(peer.node.name(), Family::V4);
        let gateway = tunnel_address(peer.subnet);
        let mut objects = State::from([
            (Key::Fdb { link, mac }, Object::Fdb(peer.node.address(Family::V4))),
            (
                Key::Neighbour {
                    link,
                    address: gateway,
                },
                Object::Neighbour(mac),
            ),
        ]);
        let target = if self.observer.has_nexthop_objects() {
            objects.insert(Key::Nexthop { link, gateway }, Object::Nexthop);
            RouteTarget::Nexthop { link, gateway }
        } else {
            RouteTarget::Gateway { link, gateway }
        };
        objects.insert(Key::route(peer.subnet), Object::Route(target));
        Ok(objects)
    }

    /// Fails where an object is missing in the first node's kernel, or another than it should be.
    pub(crate) fn ensure_present(&mut self, expected: &State) -> Result<()> {
        let state = self.observer.state()?;
        for (key, object) in expected {
            ensure!(
                state.get(key) == Some(object),
                "{key} should be {object}, and is {:?}",
                state.get(key)
            );
        }
        Ok(())
    }

    /// The first node's route to a pod of its own.
    pub(crate) fn route_to_pod(&self, pod: usize) -> Result<(IpNet, Key)> {
        let address = self
            .pod(0, pod)?
            .address(Family::V4)
            .context("the pod has no IPv4 address")?;
        Ok((host_prefix(address), Key::route(host_prefix(address))))
    }

    /// Shows what the agents wrote last.
    pub(crate) fn show_logs(&self, screen: &mut Screen) -> Result<()> {
        for node in self.cluster.nodes() {
            if let Some(agent) = &node.agent {
                let log = agent.log();
                screen.line(&format!("\nlog of the agent on {}:", node.node.name()))?;
                for line in &log[log.len().saturating_sub(LOG_LINES)..] {
                    screen.say(line)?;
                }
            }
        }
        Ok(())
    }
}
