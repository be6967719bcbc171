//! The real agent on a node of the lab, with a cluster of any size on the in-memory API.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use routelet_lab::api::{Api, Resource};
use routelet_lab::process::built_program;
use routelet_lab::{Agent, Backend, Cluster, Pod, wait};
use routelet_netlink::Netns;

use crate::peer::Peer;

/// How long the agent may take to get ready with the largest cluster.
const PATIENCE: Duration = Duration::from_secs(120);

/// The agent's program.
pub(crate) fn program() -> Result<PathBuf> {
    built_program("routelet", "ROUTELET_BIN")
}

/// One node with an agent; the others are Nodes of the API only.
pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    pub(crate) api: Api,
    pub(crate) peers: Vec<Peer>,
    /// Pods of the node; what holds their namespaces.
    pub(crate) pods: Vec<Pod>,
}

impl Rig {
    /// A cluster with so many other nodes, and with so many pods on the one whose agent is not started yet.
    pub(crate) fn new(peers: usize, pods: u8) -> Result<Self> {
        let mut cluster = Cluster::new(Backend::Memory)?;
        let api = cluster.api().memory()?.0.clone();
        let node = cluster.add_node()?;
        let peers = Peer::several(peers);
        for peer in &peers {
            create(&api, Resource::Nodes, peer.object())?;
        }
        let add = |number| cluster.add_pod(node, &format!("pod-{number}"), number);
        let pods = (1..=pods).map(add).collect::<Result<_>>()?;
        Ok(Self {
            cluster,
            api,
            peers,
            pods,
        })
    }

    /// Starts the agent and waits until it is ready; returns how long that took.
    pub(crate) fn start(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.cluster.start_agent(0, &[])?;
        self.agent()?.wait_ready(PATIENCE)?;
        Ok(began.elapsed())
    }

    pub(crate) fn agent(&mut self) -> Result<&mut Agent> {
        self.cluster.node(0).agent()
    }

    /// Kills the agent, once its kernel is as it should be.
    pub(crate) fn stop_in_sync(&mut self) -> Result<()> {
        let agent = self.agent()?;
        let is_in_sync = || -> Result<bool> {
            let metrics = agent.metrics()?;
            let counts = metrics
                .lines()
                .filter(|line| line.starts_with("routelet_objects_out_of_sync{"));
            Ok(counts.map(|line| line.ends_with(" 0")).reduce(|a, b| a && b) == Some(true))
        };
        wait::until(PATIENCE, "the agent to be in sync", || {
            is_in_sync().is_ok_and(|is| is)
        })?;
        agent.kill()
    }

    /// The node's namespace.
    pub(crate) fn netns(&self) -> Netns {
        self.cluster.nodes()[0].node.netns().clone()
    }

    /// Index of a link of the node.
    pub(crate) fn index(&self, link: &str) -> Result<u32> {
        let state = self.cluster.nodes()[0].node.setup()?.link(link)?;
        Ok(state.with_context(|| format!("no link {link}"))?.index)
    }
}

/// Creates an object and says when the API server published it.
pub(crate) fn create(api: &Api, resource: Resource, object: serde_json::Value) -> Result<Instant> {
    let change = api.create(resource, object);
    change
        .map(|change| change.published)
        .map_err(|status| anyhow::anyhow!("creating an object: {status:?}"))
}

/// Lets time pass: for the agent to fall idle, and where the passing of time is what is measured.
#[expect(
    clippy::disallowed_methods,
    reason = "idleness shows in nothing, and being at rest takes its time"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
