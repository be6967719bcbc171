//! What the tests of the API's side share: a node with an agent, peers that are Node objects only, and what the kernel
//! is to hold for them, as lines of text.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use ipnet::IpNet;
use routelet_lab::api::objects::{self, NodeBuilder, PodBuilder};
use routelet_lab::api::{Api, Resource, Server};
use routelet_lab::{Agent, Backend, Cluster, KernelView, KubeApi, Pod, wait};
use routelet_model::{Family, MacAddr, host_prefix, host_veth_name, tunnel_address, vtep_mac};
use routelet_netlink::Netns;
use serde_json::Value;

/// Our routing protocol number.
pub(crate) const OURS: u8 = 80;

/// Kernel objects, one line each.
pub(crate) type State = BTreeSet<String>;

/// Operations by kind and verb, as `route create`.
pub(crate) type Operations = BTreeMap<String, u64>;

/// What a peer that comes takes.
pub(crate) const ONE_PEER: [(&str, u64); 5] = [
    ("fdb create", 1),
    ("nft_element create", 2),
    ("neighbour create", 1),
    ("nexthop create", 1),
    ("route create", 1),
];

/// What the agent has made in a namespace: VXLAN devices with their addresses and entries, routes with our protocol.
/// Of link-local IPv6 addresses, the kernel's own work, nothing is said.
pub(crate) fn state(netns: &Netns) -> State {
    let view = KernelView::of(netns).unwrap();
    let mut state = State::new();
    for link in view.links.iter().filter(|link| link.kind == "vxlan") {
        let (up, mac) = (if link.up { "up" } else { "down" }, text(link.mac));
        state.insert(format!("link {} {mac} mtu {} {up}", link.name, link.mtu));
        for row in view.addresses.iter().filter(|row| row.link == link.name) {
            if !matches!(row.address, IpNet::V6(net) if net.addr().is_unicast_link_local()) {
                state.insert(format!("address {} dev {}", row.address, link.name));
            }
        }
    }
    for row in view.neighbours.iter().filter(|row| row.protocol == OURS) {
        let mac = text(row.mac);
        state.insert(format!("neighbour {} lladdr {mac} dev {}", row.address, row.link));
    }
    for row in &view.fdb {
        if let Some(remote) = row.remote {
            state.insert(format!("fdb {} dst {remote} dev {}", row.mac, row.link));
        }
    }
    for row in view.routes.iter().filter(|row| row.protocol == OURS) {
        let destination = row.destination;
        state.insert(match (row.gateway, row.link) {
            _ if row.blackhole => format!("route {destination} blackhole"),
            (Some(gateway), Some(link)) => format!("route {destination} via {gateway} dev {link}"),
            (None, Some(link)) => format!("route {destination} dev {link}"),
            _ => format!("route {destination} to nowhere"),
        });
    }
    state
}

fn text(mac: Option<MacAddr>) -> String {
    mac.map(|mac| mac.to_string()).unwrap_or_default()
}

/// What a node's kernel holds for the node itself, in one family.
pub(crate) fn own(name: &str, subnet: &str) -> State {
    let subnet: IpNet = subnet.parse().unwrap();
    let (device, mtu) = match Family::of_net(subnet) {
        Family::V4 => ("vxlan.calico", 1450),
        Family::V6 => ("vxlan-v6.calico", 1430),
    };
    State::from([
        format!(
            "link {device} {} mtu {mtu} up",
            vtep_mac(name, Family::of_net(subnet))
        ),
        format!("address {} dev {device}", host_prefix(tunnel_address(subnet))),
        format!("route {subnet} blackhole"),
    ])
}

/// What a node's kernel holds for another node, in one family.
pub(crate) fn remote(name: &str, subnet: &str, underlay: &str) -> State {
    let subnet: IpNet = subnet.parse().unwrap();
    let (mac, gateway) = (vtep_mac(name, Family::of_net(subnet)), tunnel_address(subnet));
    let device = match Family::of_net(subnet) {
        Family::V4 => "vxlan.calico",
        Family::V6 => "vxlan-v6.calico",
    };
    State::from([
        format!("fdb {mac} dst {underlay} dev {device}"),
        format!("neighbour {gateway} lladdr {mac} dev {device}"),
        format!("route {subnet} via {gateway} dev {device}"),
    ])
}

/// What a node's kernel holds for the peer of this number.
pub(crate) fn peer(number: u16) -> State {
    remote(
        &peer_name(number),
        &peer_subnet(number),
        &peer_address(number).to_string(),
    )
}

/// What a node's kernel holds for a pod of namespace `default`.
pub(crate) fn pod(name: &str, address: &str) -> State {
    let veth = host_veth_name("cali", "default", name).unwrap();
    State::from([format!("route {address}/32 dev {veth}")])
}

/// The Node object of the peer of this number.
pub(crate) fn peer_object(number: u16) -> NodeBuilder {
    objects::node(peer_name(number))
        .pod_cidrs([peer_subnet(number)])
        .internal_ip(peer_address(number))
}

pub(crate) fn peer_name(number: u16) -> String {
    format!("peer-{number}")
}

pub(crate) fn peer_subnet(number: u16) -> String {
    let [high, low] = number.to_be_bytes();
    format!("10.{}.{low}.0/24", 245 + u16::from(high))
}

pub(crate) fn peer_address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(172, 30, 100 + high, low).into()
}

/// The operations that follow from another address of a peer.
pub(crate) const NEW_ADDRESS: [(&str, u64); 3] = [
    ("fdb replace", 1),
    ("nft_element create", 1),
    ("nft_element delete", 1),
];

/// A cluster of one node with an agent; its peers are objects without a machine.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    /// What the node's kernel holds for the node itself.
    pub(crate) own: State,
    pods: Vec<Pod>,
}

impl Stage {
    /// Without an agent so far.
    pub(crate) fn new(backend: Backend) -> Self {
        let mut cluster = Cluster::new(backend).unwrap();
        cluster.add_node().unwrap();
        Self {
            cluster,
            own: own("node-1", "10.244.1.0/24"),
            pods: Vec::new(),
        }
    }

    /// With these peers, and an agent that is ready.
    pub(crate) fn with_agent(backend: Backend, peers: impl IntoIterator<Item = u16>) -> Self {
        let mut stage = Self::new(backend);
        for number in peers {
            stage.apply(peer_object(number));
        }
        stage.start_agent(&[]);
        stage.cluster.wait_ready().unwrap();
        stage
    }

    pub(crate) fn start_agent(&mut self, arguments: &[&str]) {
        self.cluster.start_agent(0, arguments).unwrap();
    }

    pub(crate) fn agent(&self) -> &Agent {
        self.cluster.nodes()[0].agent.as_ref().unwrap()
    }

    pub(crate) fn netns(&self) -> &Netns {
        self.cluster.nodes()[0].node.netns()
    }

    /// The in-memory API.
    pub(crate) fn api(&mut self) -> Api {
        self.cluster.api().memory().unwrap().0.clone()
    }

    /// The in-memory API's server.
    pub(crate) fn server(&mut self) -> &Server {
        self.cluster.api().memory().unwrap().1
    }

    pub(crate) fn apply(&mut self, object: impl Into<Value>) {
        self.cluster.api().apply(&object.into()).unwrap();
    }

    pub(crate) fn delete(&mut self, object: impl Into<Value>) {
        self.cluster.api().delete(&object.into()).unwrap();
    }

    /// Makes a pod's links with the node's address number `host`; its object is not made.
    pub(crate) fn link_pod(&mut self, name: &str, host: u8) {
        self.link_pod_as(name, self.cluster.pod_address(0, host).unwrap());
    }

    /// The same with an address that is not the node's to give.
    pub(crate) fn link_pod_as(&mut self, name: &str, address: IpAddr) {
        let pod = self.cluster.nodes()[0].node.pod(name, &[address]).unwrap();
        self.pods.push(pod.without_host_routes().unwrap());
    }

    /// Takes a pod's links away; its object stays.
    pub(crate) fn unlink_pod(&mut self, name: &str) {
        let index = self.pods.iter().position(|pod| pod.id().name == name).unwrap();
        self.pods.remove(index).delete().unwrap();
    }

    /// Waits until what is made from now on has a later creation time than what was made before: it has whole seconds.
    pub(crate) fn next_second(&self) {
        let now = || {
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        let began = now();
        wait::until(wait::LONG, "the next second", || now() > began).unwrap();
    }

    /// The Pod object of a pod on the node, running.
    pub(crate) fn pod_object(&self, name: &str, host: u8) -> PodBuilder {
        self.cluster.pod_object(0, name, host).unwrap()
    }

    /// Makes a pod, links and object, with the node's address number `host`.
    pub(crate) fn add_pod(&mut self, name: &str, host: u8) {
        self.link_pod(name, host);
        self.apply(self.pod_object(name, host));
    }

    /// Waits until the kernel holds what is ours for the node itself and these, and nothing else that is ours.
    pub(crate) fn expect(&self, parts: impl IntoIterator<Item = State>) {
        let mut wanted = self.own.clone();
        wanted.extend(parts.into_iter().flatten());
        let mut found = State::new();
        let settled = wait::until(wait::LONG, "the kernel to hold what it should", || {
            found = state(self.netns());
            found == wanted
        });
        if settled.is_err() {
            let (missing, surplus): (Vec<_>, Vec<_>) = (
                wanted.difference(&found).collect(),
                found.difference(&wanted).collect(),
            );
            panic!("the kernel lacks {missing:#?} and has {surplus:#?} too many");
        }
    }

    /// The operations that the agent has done so far.
    pub(crate) fn operations(&self) -> Operations {
        let text = self.agent().metrics().unwrap();
        let samples = text.lines().filter_map(|line| {
            let (labels, count) = line
                .strip_prefix("routelet_operations_total{")?
                .split_once("} ")?;
            let mut values = labels.split('"').skip(1).step_by(2);
            Some((
                format!("{} {}", values.next()?, values.next()?),
                count.parse().ok()?,
            ))
        });
        samples.collect()
    }

    /// The same, once all that has reached the kernel is counted: the agent publishes its numbers after its work.
    pub(crate) fn settled_operations(&self) -> Operations {
        for kind in ["route", "fdb", "neighbour"] {
            let there = state(self.netns())
                .iter()
                .filter(|line| line.starts_with(kind))
                .count();
            let series = format!("routelet_objects_actual{{kind=\"{kind}\"}}");
            self.expect_metric(&series, |count| count == there as f64);
        }
        self.operations()
    }

    /// Waits until exactly these operations have been done since `before`. Sysctls don't count: which of a host veth's
    /// must be written differs with the defaults of the kernel.
    pub(crate) fn expect_operations(&self, before: &Operations, expected: &[(&str, u64)]) {
        let expected: Operations = expected
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        let mut done = Operations::new();
        let settled = wait::until(wait::LONG, "the operations", || {
            done = self.operations();
            for (name, count) in &mut done {
                *count -= before.get(name).copied().unwrap_or(0);
            }
            done.retain(|name, count| *count > 0 && !name.starts_with("sysctl"));
            done == expected
        });
        assert!(settled.is_ok(), "operations: {done:?}, expected {expected:?}");
    }

    /// The value of one of the agent's metrics.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        self.agent().metric(series).unwrap()
    }

    /// Waits for a metric's value.
    pub(crate) fn expect_metric(&self, series: &str, holds: impl Fn(f64) -> bool) {
        let mut last = None;
        let settled = wait::until(wait::LONG, series, || {
            last = self.agent().metric(series).ok();
            last.is_some_and(&holds)
        });
        assert!(settled.is_ok(), "{series} is {last:?}");
    }

    /// Waits until each watch has met trouble so many times.
    pub(crate) fn expect_errors(&self, at_least: f64) {
        for resource in ["pods", "nodes"] {
            let series = format!("routelet_watch_errors_total{{resource=\"{resource}\"}}");
            self.expect_metric(&series, |errors| errors >= at_least);
        }
    }

    /// Waits for a log line that holds all of these.
    pub(crate) fn expect_log(&self, parts: &[&str]) {
        let holds = |line: &String| parts.iter().all(|part| line.contains(part));
        let told = wait::until(wait::LONG, "a log line", || self.agent().log().iter().any(holds));
        assert!(told.is_ok(), "no log line with {parts:?}");
    }

    /// Expects so many log lines that hold all of these.
    #[track_caller]
    pub(crate) fn expect_log_lines(&self, parts: &[&str], count: usize) {
        self.agent().expect_log_lines(parts, count).unwrap();
    }

    /// Waits for /readyz to refuse with a reason that holds this.
    pub(crate) fn expect_not_ready(&self, reason: &str) {
        let mut last = String::new();
        let told = wait::until(wait::LONG, "a reason not to be ready", || {
            last = match self.agent().get("/readyz") {
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(error) => format!("{error:#}"),
            };
            last.starts_with("503") && last.contains(reason)
        });
        assert!(told.is_ok(), "{reason:?} is not in: {last}");
    }

    /// Waits for a Kubernetes Event of this reason about an object.
    pub(crate) fn expect_event(&mut self, reason: &str, kind: &str, name: &str) {
        let mut seen = Vec::new();
        let told = wait::until(wait::LONG, "a Kubernetes Event", || {
            seen = events(self.cluster.api());
            seen.iter().any(|event| {
                let regarding = &event["regarding"];
                event["reason"] == reason && regarding["kind"] == kind && regarding["name"] == name
            })
        });
        assert!(told.is_ok(), "no Event {reason} about {kind} {name} in {seen:#?}");
    }
}

/// The Events that the agents have written.
fn events(api: &KubeApi) -> Vec<Value> {
    match api {
        KubeApi::Memory(api, _) => api.list(Resource::Events),
        KubeApi::Real(server) => {
            let list = server
                .request("GET", "/apis/events.k8s.io/v1/events", None)
                .unwrap();
            let items = list["items"].as_array().cloned().unwrap_or_default();
            // The server writes Events about itself, too.
            items
                .into_iter()
                .filter(|event| event["reportingController"] == "routelet")
                .collect()
        }
    }
}
