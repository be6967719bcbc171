//! A cluster of the lab: a LAN, a Kubernetes API on it, nodes with an agent each, and their pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use routelet_model::{Family, PerFamily};
use serde_json::{Value, json};

use crate::api::{Api, Resource, Server, objects};
use crate::{Agent, ApiServer, Lab, Node, Pod, TempDir, api_machinery, wait};

/// Port of the in-memory API.
const PORT: u16 = 6443;

/// Which Kubernetes API the agents follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The in-memory one.
    Memory,
    /// A real kube-apiserver on a real etcd, with RBAC; see [`crate::apiserver::assets`].
    KubeApiserver,
    /// A newer server of Kubernetes' own packages on a real etcd, without RBAC; see [`crate::api_machinery`].
    ApiMachinery,
}

impl Backend {
    /// The one that the environment variable `ROUTELET_LAB_API` names (`memory`, `kube-apiserver` or `api-machinery`),
    /// else the in-memory one.
    pub fn from_env() -> Result<Self> {
        match std::env::var("ROUTELET_LAB_API").as_deref() {
            Err(_) | Ok("memory") => Ok(Self::Memory),
            Ok("kube-apiserver") => Ok(Self::KubeApiserver),
            Ok("api-machinery") => Ok(Self::ApiMachinery),
            Ok(other) => Err(anyhow!(
                "ROUTELET_LAB_API={other:?}: it must be memory, kube-apiserver or api-machinery"
            )),
        }
    }
}

/// The API that a cluster runs on.
pub enum KubeApi {
    /// The in-memory one, and its server.
    Memory(Api, Server),
    /// A real one.
    Real(Box<ApiServer>),
}

impl KubeApi {
    /// Writes an object as it is given, status included, whether it is there already or not.
    pub fn apply(&self, object: &Value) -> Result<()> {
        match self {
            Self::Real(server) => server.apply(object),
            Self::Memory(api, _) => {
                let (resource, name) = identify(object)?;
                let done = if api.get(resource, &name).is_some() {
                    api.replace(resource, object.clone())
                } else {
                    api.create(resource, object.clone())
                };
                done.map(|_| ()).map_err(|status| anyhow!("{name}: {status:?}"))
            }
        }
    }

    /// The object of the same kind and name, as the API has it.
    pub fn get(&self, object: &Value) -> Result<Value> {
        match self {
            Self::Real(server) => server.get(object),
            Self::Memory(api, _) => {
                let (resource, name) = identify(object)?;
                api.get(resource, &name)
                    .with_context(|| format!("{name} is not there"))
            }
        }
    }

    /// Deletes an object.
    pub fn delete(&self, object: &Value) -> Result<()> {
        match self {
            Self::Real(server) => server.delete(object),
            Self::Memory(api, _) => {
                let (resource, name) = identify(object)?;
                api.delete(resource, &name)
                    .map(|_| ())
                    .map_err(|status| anyhow!("{name}: {status:?}"))
            }
        }
    }

    /// Ends the server, as when its machine dies; what it holds stays.
    pub fn kill(&mut self) -> Result<()> {
        match self {
            Self::Real(server) => server.kill(),
            Self::Memory(_, server) => Ok(server.stop()?),
        }
    }

    /// Starts the server again.
    pub fn restart(&mut self) -> Result<()> {
        match self {
            Self::Real(server) => server.restart(),
            Self::Memory(_, server) => Ok(server.start()?),
        }
    }

    /// The in-memory API, for tests that need its faults or counters.
    pub fn memory(&self) -> Result<(&Api, &Server)> {
        match self {
            Self::Memory(api, server) => Ok((api, server)),
            Self::Real(_) => Err(anyhow!("a real API server produces no faults on demand")),
        }
    }
}

/// Resource and name, with the namespace where there is one, as the in-memory API wants them.
fn identify(object: &Value) -> Result<(Resource, String)> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").context("an object without metadata.name")?;
    match text("/kind").context("an object without kind")? {
        "Node" => Ok((Resource::Nodes, name.to_owned())),
        "Pod" => {
            let namespace = text("/metadata/namespace").unwrap_or("default");
            Ok((Resource::Pods, format!("{namespace}/{name}")))
        }
        kind => Err(anyhow!("the lab writes no {kind}")),
    }
}

/// What the agent is allowed to do with the API: the rules of the ClusterRole that deploy/routelet.yaml gives it.
pub fn agent_rules() -> Result<Value> {
    let documents = include_str!("../../../deploy/routelet.yaml").split("\n---\n");
    for document in documents {
        let object: Value = serde_saphyr::from_str(document).context("deploy/routelet.yaml")?;
        if object["kind"] == "ClusterRole" {
            return Ok(object["rules"].clone());
        }
    }
    Err(anyhow!("deploy/routelet.yaml holds no ClusterRole"))
}

/// A cluster.
pub struct Cluster {
    // Dropped in this order: the agents before the API.
    nodes: Vec<ClusterNode>,
    api: KubeApi,
    backend: Backend,
    kubeconfig: PathBuf,
    lab: Lab,
    directory: TempDir,
}

/// A node of a cluster.
pub struct ClusterNode {
    /// Its namespace and links.
    pub node: Node,
    /// Its IPv4 pod subnet.
    pub subnet: IpNet,
    /// Its IPv6 pod subnet, which its Node object has where it is made to: see [`Cluster::node_object_of`].
    pub subnet_v6: IpNet,
    /// Its agent, once started.
    pub agent: Option<Agent>,
}

impl ClusterNode {
    /// Its pod subnet of a family.
    pub fn subnet_of(&self, family: Family) -> IpNet {
        match family {
            Family::V4 => self.subnet,
            Family::V6 => self.subnet_v6,
        }
    }

    /// Its agent.
    pub fn agent(&mut self) -> Result<&mut Agent> {
        self.agent
            .as_mut()
            .with_context(|| format!("no agent was started on {}", self.node.name()))
    }
}

impl Cluster {
    /// A cluster without nodes.
    pub fn new(backend: Backend) -> Result<Self> {
        let lab = Lab::new()?;
        let directory = TempDir::new()?;
        let (api, kubeconfig) = match backend {
            Backend::KubeApiserver => {
                let server = ApiServer::start(&lab)?;
                let kubeconfig = server.kubeconfig_for("routelet", &agent_rules()?)?;
                (KubeApi::Real(Box::new(server)), kubeconfig)
            }
            Backend::ApiMachinery => {
                let server = ApiServer::start_machinery(&lab)?;
                let kubeconfig = server.kubeconfig_of(&api_machinery::service_account("routelet", None))?;
                (KubeApi::Real(Box::new(server)), kubeconfig)
            }
            Backend::Memory => {
                let address = SocketAddr::new(lab.address(Family::V4), PORT);
                let api = Api::new();
                let server = lab.netns().run(|| api.serve(TcpListener::bind(address)?))??;
                let kubeconfig = directory.write("kubeconfig", kubeconfig(&server.url()))?;
                (KubeApi::Memory(api, server), kubeconfig)
            }
        };
        Ok(Self {
            nodes: Vec::new(),
            api,
            backend,
            kubeconfig,
            lab,
            directory,
        })
    }

    /// One with `count` nodes, named node-1 and so on, and an agent on each that is ready.
    pub fn with_agents(backend: Backend, count: usize) -> Result<Self> {
        let mut cluster = Self::new(backend)?;
        for _ in 0..count {
            cluster.add_node()?;
        }
        for index in 0..count {
            cluster.start_agent(index, &[])?;
        }
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Adds a node, with its Node object but without an agent; returns its index.
    pub fn add_node(&mut self) -> Result<usize> {
        let index = self.add_unregistered_node()?;
        self.api.apply(&self.node_object(index).build())?;
        Ok(index)
    }

    /// Adds a node that has no Node object yet; returns its index.
    pub fn add_unregistered_node(&mut self) -> Result<usize> {
        self.add_unregistered_node_in(0)
    }

    /// The same, in one of the lab's two networks: 0 is the LAN, 1 lies behind a router.
    pub fn add_unregistered_node_in(&mut self, lan: usize) -> Result<usize> {
        let number = self.nodes.len() + 1;
        let name = format!("node-{number}");
        let node = match lan {
            0 => self.lab.node(&name)?,
            _ => self.lab.node_behind_router(&name)?,
        };
        let subnets = subnets(number)?;
        self.nodes.push(ClusterNode {
            node,
            subnet: subnets.v4,
            subnet_v6: subnets.v6,
            agent: None,
        });
        Ok(number - 1)
    }

    /// The Node object of a node, to be changed and applied. Its pod subnet and its address are IPv4 ones.
    pub fn node_object(&self, index: usize) -> objects::NodeBuilder {
        self.node_object_of(index, &[Family::V4], &[Family::V4])
    }

    /// The same, with pod subnets of `pods` and addresses of `underlay`.
    pub fn node_object_of(&self, index: usize, pods: &[Family], underlay: &[Family]) -> objects::NodeBuilder {
        let node = &self.nodes[index];
        let object =
            objects::node(node.node.name()).pod_cidrs(pods.iter().map(|family| node.subnet_of(*family)));
        underlay.iter().fold(object, |object, family| {
            object.internal_ip(node.node.address(*family))
        })
    }

    /// Starts the agent of a node. On the API machinery its token is bound to the node, as Kubernetes binds a pod's.
    pub fn start_agent(&mut self, index: usize, arguments: &[&str]) -> Result<()> {
        let node = &self.nodes[index].node;
        let kubeconfig = match &self.api {
            KubeApi::Real(server) if self.backend == Backend::ApiMachinery => {
                server.kubeconfig_of(&api_machinery::service_account("routelet", Some(node.name())))?
            }
            _ => self.kubeconfig.clone(),
        };
        let agent = Agent::start(node, &kubeconfig, arguments)?;
        self.nodes[index].agent = Some(agent);
        Ok(())
    }

    /// Waits until every agent is ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if let Some(agent) = &mut node.agent {
                agent.wait_ready(wait::LONG)?;
            }
        }
        Ok(())
    }

    /// Adds a pod with the address number `host` of its node's subnet: first its links, as the CNI plugin makes them,
    /// then its Pod object.
    pub fn add_pod(&self, index: usize, name: &str, host: u8) -> Result<Pod> {
        self.add_pod_of(index, name, host, &[Family::V4])
    }

    /// The same, with an address of each of the families.
    pub fn add_pod_of(&self, index: usize, name: &str, host: u8, families: &[Family]) -> Result<Pod> {
        let addresses = self.pod_addresses(index, host, families);
        let pod = self.nodes[index].node.pod(name, &addresses)?;
        let object = self.pod_object(index, name, host)?.ips(addresses);
        self.api.apply(&object.build())?;
        Ok(pod)
    }

    /// The Pod object of a pod, to be changed and applied.
    pub fn pod_object(&self, index: usize, name: &str, host: u8) -> Result<objects::PodBuilder> {
        let address = self.pod_address(index, host)?;
        Ok(objects::pod("default", name)
            .node(self.nodes[index].node.name())
            .ips([address])
            .phase("Running"))
    }

    /// Address number `host` of a node's IPv4 pod subnet.
    pub fn pod_address(&self, index: usize, host: u8) -> Result<IpAddr> {
        let addresses = self.pod_addresses(index, host, &[Family::V4]);
        addresses.first().copied().context("a node without a pod subnet")
    }

    /// Addresses number `host` of a node's pod subnets, in the order of the families.
    pub fn pod_addresses(&self, index: usize, host: u8, families: &[Family]) -> Vec<IpAddr> {
        let address = |family: &Family| match self.nodes[index].subnet_of(*family) {
            IpNet::V4(net) => IpAddr::from(Ipv4Addr::from_bits(net.network().to_bits() + u32::from(host))),
            IpNet::V6(net) => IpAddr::from(Ipv6Addr::from_bits(net.network().to_bits() + u128::from(host))),
        };
        families.iter().map(address).collect()
    }

    /// A node.
    pub fn node(&mut self, index: usize) -> &mut ClusterNode {
        &mut self.nodes[index]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    /// The LAN.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The API.
    pub fn api(&mut self) -> &mut KubeApi {
        &mut self.api
    }

    /// The agents' kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A directory that lives as long as the cluster.
    pub fn directory(&self) -> &TempDir {
        &self.directory
    }
}

/// Pod subnets of the node of this number: 10.244.NUMBER.0/24 and fd00:244:NUMBER::/64, the number in hexadecimal there.
fn subnets(number: usize) -> Result<PerFamily<IpNet>> {
    let number = u8::try_from(number).context("the cluster's subnets are enough for 255 nodes")?;
    Ok(PerFamily {
        v4: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, number, 0), 24).into(),
        v6: Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x244, number.into(), 0, 0, 0, 0, 0), 64).into(),
    })
}

/// A kubeconfig for a server without authentication.
fn kubeconfig(url: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{ "name": "lab", "cluster": { "server": url } }],
        "users": [{ "name": "lab", "user": {} }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
    })
    .to_string()
}
