//! What differs between watching Pods and watching Nodes.

use std::hash::Hash;

use routelet_model::{ClusterEvent, Node, Pod, PodId, Resource};
use serde::de::DeserializeOwned;

use crate::convert;
use crate::slim::{SlimNode, SlimPod};

/// A kind of object that is watched.
pub(crate) trait Kind: Hash + Sized {
    /// The object as it is decoded.
    type Slim: DeserializeOwned;
    /// What tells one object from another.
    type Key: Clone + Eq + Hash;

    /// Which resource it is.
    const RESOURCE: Resource;
    /// Where the API has the collection.
    const PATH: &'static str;

    /// The object's key; `None` where it has no name.
    fn key(slim: &Self::Slim) -> Option<Self::Key>;
    /// The object; `None` where it has no name.
    fn read(slim: Self::Slim) -> Option<Self>;
    /// `metadata.resourceVersion`.
    fn version(slim: &Self::Slim) -> &str;
    /// The event that tells of the object.
    fn applied(self) -> ClusterEvent;
    /// The event that tells that the object is gone.
    fn deleted(key: Self::Key) -> ClusterEvent;
}

impl Kind for Pod {
    type Slim = SlimPod;
    type Key = PodId;

    const RESOURCE: Resource = Resource::Pods;
    const PATH: &'static str = "/api/v1/pods";

    fn key(slim: &SlimPod) -> Option<PodId> {
        convert::pod_id(slim)
    }

    fn read(slim: SlimPod) -> Option<Self> {
        convert::pod(slim)
    }

    fn version(slim: &SlimPod) -> &str {
        &slim.metadata.resource_version
    }

    fn applied(self) -> ClusterEvent {
        ClusterEvent::PodApplied(self)
    }

    fn deleted(key: PodId) -> ClusterEvent {
        ClusterEvent::PodDeleted(key)
    }
}

impl Kind for Node {
    type Slim = SlimNode;
    type Key = String;

    const RESOURCE: Resource = Resource::Nodes;
    const PATH: &'static str = "/api/v1/nodes";

    fn key(slim: &SlimNode) -> Option<String> {
        convert::node_name(slim)
    }

    fn read(slim: SlimNode) -> Option<Self> {
        convert::node(slim)
    }

    fn version(slim: &SlimNode) -> &str {
        &slim.metadata.resource_version
    }

    fn applied(self) -> ClusterEvent {
        ClusterEvent::NodeApplied(self)
    }

    fn deleted(key: String) -> ClusterEvent {
        ClusterEvent::NodeDeleted(key)
    }
}
