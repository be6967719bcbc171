//! The play's scene: the LAN, the API, nodes, agents and pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use routelet_lab::api::objects::NodeBuilder;
use routelet_lab::{Backend, Cluster, KubeApi, Pod};
use routelet_model::{Family, IfName, Key, Object, RouteTarget, host_prefix, tunnel_address, vtep_mac};

use crate::observer::{Observer, State, VXLAN_V6, vxlan};
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
    /// Those of the pods' addresses.
    pub(crate) families: Vec<Family>,
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
        let index = cluster.add_unregistered_node()?;
        let object = cluster.node_object_of(index, &Family::ALL, &Family::ALL).build();
        cluster.api().apply(&object)?;
    }
    let families = families_kept(&mut cluster)?;
    let mut rows = Vec::new();
    for family in &families {
        rows.extend(cluster.nodes().iter().map(|node| {
            let name = node.node.name();
            [
                name.to_owned(),
                node.node.address(*family).to_string(),
                node.subnet_of(*family).to_string(),
                vtep_mac(name, *family).to_string(),
            ]
        }));
    }
    screen.table(
        ["node", "address", "pod subnet", "VTEP MAC, by the node's name"],
        &rows,
    )?;
    if families == [Family::V4] {
        screen.say(
            "\nThis API keeps one pod subnet of a node only (kube-apiserver before 1.23 does so): IPv4 alone",
        )?;
    }
    let observer = Observer::open(cluster.nodes()[0].node.netns())?;
    Ok(World {
        cluster,
        observer,
        families,
        pods: BTreeMap::new(),
    })
}

/// The families of the pod subnets that the API has kept of the first node's.
fn families_kept(cluster: &mut Cluster) -> Result<Vec<Family>> {
    let object = cluster.node_object(0).build();
    let kept = cluster.api().get(&object)?;
    let subnets = kept["spec"]["podCIDRs"].as_array();
    let subnets = subnets.with_context(|| format!("no pod subnets in {kept}"))?;
    let node = &cluster.nodes()[0];
    let is_kept = |family: &Family| {
        let subnet = node.subnet_of(*family).to_string();
        subnets.iter().any(|kept| *kept == subnet)
    };
    Ok(Family::ALL.into_iter().filter(is_kept).collect())
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
        let addresses = self.cluster.pod_addresses(index, host, &self.families);
        let node = &self.cluster.nodes()[index].node;
        let begin = Instant::now();
        let pod = node.pod(&name, &addresses)?;
        let took = micros(begin.elapsed());
        let shown: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        let row = [&name, node.name(), &shown.join(" "), pod.host_veth().as_str()].map(str::to_owned);
        let object = self.cluster.pod_object(index, &name, host)?.ips(addresses);
        self.cluster.api().apply(&object.build())?;
        self.pods.entry(index).or_default().push(pod);
        let [name, node, address, veth] = row;
        Ok([name, node, address, veth, took])
    }

    /// A node's Node object.
    pub(crate) fn node_object(&self, index: usize) -> NodeBuilder {
        self.cluster.node_object_of(index, &self.families, &Family::ALL)
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
        let peer = &self.cluster.nodes()[index];
        let mut objects = State::new();
        for family in &self.families {
            let link = match family {
                Family::V4 => vxlan()?,
                Family::V6 => IfName::new(VXLAN_V6)?,
            };
            let mac = vtep_mac(peer.node.name(), *family);
            let subnet = peer.subnet_of(*family);
            let gateway = tunnel_address(subnet);
            let fdb = Object::Fdb(peer.node.address(*family));
            objects.insert(Key::Fdb { link, mac }, fdb);
            let address = gateway;
            objects.insert(Key::Neighbour { link, address }, Object::Neighbour(mac));
            let target = if self.observer.has_nexthop_objects() {
                objects.insert(Key::Nexthop { link, gateway }, Object::Nexthop);
                RouteTarget::Nexthop { link, gateway }
            } else {
                RouteTarget::Gateway { link, gateway }
            };
            objects.insert(Key::route(subnet), Object::Route(target));
        }
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
