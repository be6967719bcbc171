//! The agent's watches before a server that the test plays.

use std::sync::Arc;

use crate::server::{Asked, Server, Stream, node, told};
use routelet_model::{ClusterEvent, Resource};
use routelet_watcher::{ErrorKind, HostAddresses, Status, WatchStatus};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The agent's watches; that of Pods gets an empty streaming list and is then left alone.
pub(crate) struct Setup {
    pub(crate) server: Server,
    pub(crate) events: mpsc::Receiver<ClusterEvent>,
    pub(crate) status: Arc<Status>,
    agent: JoinHandle<()>,
    _pods: Stream,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

pub(crate) const PODS: &str = "/api/v1/pods?";
pub(crate) const NODES: &str = "/api/v1/nodes?";
pub(crate) const STREAMING: &[&str] = &[
    "watch=true",
    "sendInitialEvents=true",
    "resourceVersionMatch=NotOlderThan",
];

impl Setup {
    /// Starts the agent and gives its first request for Nodes.
    pub(crate) async fn new() -> (Self, Asked) {
        let (mut server, client) = Server::new();
        let (sender, mut events) = mpsc::channel(1000);
        let status = Arc::new(Status::default());
        let agent = tokio::spawn(routelet_watcher::run(
            client,
            "n1".to_owned(),
            sender,
            status.clone(),
            HostAddresses::unknown(),
        ));
        let pods = server
            .next(PODS)
            .await
            .with(&["fieldSelector=spec.nodeName%3Dn1"])
            .stream();
        pods.end_list("1");
        let nodes = server.next(NODES).await.with(STREAMING);
        told(&mut events, &["pods"]).await;
        (
            Self {
                server,
                events,
                status,
                agent,
                _pods: pods,
            },
            nodes,
        )
    }

    /// Starts the agent, with Nodes a and b told by a streaming list at version 10.
    pub(crate) async fn synced() -> (Self, Stream) {
        let (mut setup, nodes) = Self::new().await;
        let stream = nodes.stream();
        stream.event("ADDED", node("a", 5, "10.0.1.0/24"));
        stream.event("ADDED", node("b", 6, "10.0.2.0/24"));
        stream.end_list("10");
        setup.told(&["+a", "+b", "nodes"]).await;
        (setup, stream)
    }

    /// The next request for Nodes, which has all of `parts` in its line.
    pub(crate) async fn expect(&mut self, parts: &[&str]) -> Asked {
        self.server.next(NODES).await.with(parts)
    }

    pub(crate) async fn told(&mut self, wanted: &[&str]) {
        told(&mut self.events, wanted).await;
    }

    pub(crate) fn nodes(&self) -> WatchStatus {
        self.status.get(Resource::Nodes)
    }

    pub(crate) fn errors(&self, kind: ErrorKind) -> u64 {
        self.nodes().errors.get(&kind).copied().unwrap_or_default()
    }
}
