//! Kubernetes list and watch, from Pods and Nodes to cluster events.
//!
//! [`connect`] makes a client from a kubeconfig or the pod's own credentials, [`run`] watches for ever and sends
//! a [`ClusterEvent`] for each change that counts, [`Status`] says how the watches stand, and [`events`] and
//! [`condition`] are the way back: Kubernetes Events about Nodes and Pods, and this Node's NetworkUnavailable. Nothing
//! here knows the kernel.

mod addresses;
mod annotations;
mod backoff;
mod client;
pub mod condition;
mod convert;
mod error;
pub mod events;
mod fold;
mod http;
mod kind;
mod list;
mod lookup;
mod slim;
mod status;
mod stream;

use std::sync::Arc;

pub use addresses::HostAddresses;
pub use client::{ApiSettings, connect};
pub use error::{Error, ErrorKind};
use kube::Client;
pub use lookup::{FoundPod, find_pod};
use routelet_model::{ClusterEvent, Node, Pod};
pub use status::{Status, WatchState, WatchStatus};
use tokio::sync::mpsc;

/// Watches the Pods of the node `node_name` and all Nodes, and sends every change that counts.
///
/// After each complete list, the first and any later one, deletions are sent for what it did not hold, then
/// [`ClusterEvent::Synced`]. Trouble with the API server ends nothing: it is retried for ever, logged once, and
/// seen in `status`. A watch over a connection from an address that the host has lost is begun anew at once. Runs until
/// it is dropped; a full channel holds it up.
pub async fn run(
    client: Client,
    node_name: String,
    events: mpsc::Sender<ClusterEvent>,
    status: Arc<Status>,
    host: HostAddresses,
) {
    let selector = format!("spec.nodeName={node_name}");
    let pods = stream::Watch::<Pod>::new(
        client.clone(),
        Some(selector),
        events.clone(),
        status.clone(),
        host.clone(),
    );
    let nodes = stream::Watch::<Node>::new(client, None, events, status, host);
    tokio::join!(pods.run(), nodes.run());
}
