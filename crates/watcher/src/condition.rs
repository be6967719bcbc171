//! The condition NetworkUnavailable of this node's Node object: whether the scheduler may send pods to it. Controllers
//! taint a node for which it is True (`node.kubernetes.io/network-unavailable`).
//!
//! Written at most twice in an agent's life: True at its start where the Node has no such condition, so that a new node
//! is given no pods before it has a network, and False once it has one. A Node that says already what would be written
//! is left alone, and one whose network an earlier agent has set up is never said to be without.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::error::Error;

/// `NodeNetworkUnavailable` of the Kubernetes API's core/v1.
const TYPE: &str = "NetworkUnavailable";
/// Longest time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the condition is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    status: &'static str,
    reason: &'static str,
    message: &'static str,
}

const NOT_YET: Wanted = Wanted {
    status: "True",
    reason: "RouteletIsStarting",
    message: "routelet has not yet set up this node's network",
};
const UP: Wanted = Wanted {
    status: "False",
    reason: "RouteletIsUp",
    message: "routelet has set up this node's network",
};

/// Writes the condition of the Node `node_name`, and ends when it says that there is a network. `ready` resolves when
/// there is one. Needs the permission to get nodes and to patch nodes/status. What fails is tried again, ever more
/// rarely, and told once.
pub async fn keep(client: Client, node_name: String, ready: impl Future<Output = ()> + Send) {
    let mut writer = Writer {
        nodes: Api::all(client),
        node_name,
        failing: false,
    };
    tokio::pin!(ready);
    tokio::select! {
        biased;
        () = &mut ready => {}
        () = writer.write(NOT_YET) => ready.await,
    }
    writer.write(UP).await;
}

struct Writer {
    nodes: Api<Node>,
    node_name: String,
    /// Whether the log has heard of a failure that has lasted since.
    failing: bool,
}

impl Writer {
    /// Tries until the Node says it, or need not.
    async fn write(&mut self, wanted: Wanted) {
        let mut backoff = Backoff::default();
        loop {
            let result = timeout(REQUEST_TIMEOUT, self.try_to_write(wanted)).await;
            let Err(error) = result.unwrap_or(Err(Error::Silent(REQUEST_TIMEOUT))) else {
                self.failing = false;
                return;
            };
            if !self.failing {
                tracing::warn!(
                    %error,
                    "cannot write the Node's condition {TYPE}={}, trying again; routing is not affected. It takes the \
                     permission to patch nodes/status, which the chart gives with nodeCondition=true",
                    wanted.status
                );
            }
            self.failing = true;
            sleep(backoff.next(error.retry_after())).await;
        }
    }

    async fn try_to_write(&self, wanted: Wanted) -> Result<(), Error> {
        let node = self.nodes.get(&self.node_name).await.map_err(refused)?;
        let conditions = node.status.and_then(|status| status.conditions);
        let found = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == TYPE);
        let Some(condition) = change(found, wanted) else {
            return Ok(());
        };
        // Conditions are merged by their type: those of the kubelet stay.
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        self.nodes
            .patch_status(&self.node_name, &PatchParams::default(), &patch)
            .await
            .map_err(refused)?;
        tracing::info!(
            "the Node's condition {TYPE} is {}: {}",
            wanted.status,
            wanted.message
        );
        Ok(())
    }
}

fn refused(error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => Error::from_status(*status, None),
        other => Error::Unreachable(other),
    }
}

/// The condition to write in place of the one that was found, if any.
fn change(found: Option<NodeCondition>, wanted: Wanted) -> Option<NodeCondition> {
    let says_so = |found: &NodeCondition| {
        found.status == wanted.status
            && found.reason.as_deref() == Some(wanted.reason)
            && found.message.as_deref() == Some(wanted.message)
    };
    if wanted == NOT_YET && found.is_some() || found.as_ref().is_some_and(says_so) {
        return None;
    }
    let now = Time(jiff::Timestamp::now());
    let since = found
        .filter(|found| found.status == wanted.status)
        .and_then(|found| found.last_transition_time);
    Some(NodeCondition {
        type_: TYPE.to_owned(),
        status: wanted.status.to_owned(),
        reason: Some(wanted.reason.to_owned()),
        message: Some(wanted.message.to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(since.unwrap_or(now)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: &str, reason: &str) -> NodeCondition {
        NodeCondition {
            type_: TYPE.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some("as they say".to_owned()),
            last_transition_time: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
            ..NodeCondition::default()
        }
    }

    #[test]
    fn only_a_node_without_the_condition_is_told_to_wait() {
        assert_eq!(change(None, NOT_YET).unwrap().status, "True");
        for status in ["True", "False", "Unknown"] {
            assert_eq!(change(Some(condition(status, "NoRouteCreated")), NOT_YET), None);
        }
    }

    #[test]
    fn what_others_say_is_replaced_once_there_is_a_network() {
        for (found, keeps_its_time) in [
            (None, false),
            (Some(condition("True", "NoRouteCreated")), false),
            (Some(condition("False", "CalicoIsUp")), true),
        ] {
            let written = change(found, UP).unwrap();
            assert_eq!(
                (written.status.as_str(), written.reason.as_deref()),
                ("False", Some("RouteletIsUp"))
            );
            let since = written.last_transition_time.clone().unwrap().0;
            assert_eq!(since == jiff::Timestamp::UNIX_EPOCH, keeps_its_time);
            assert_eq!(change(Some(written), UP), None, "and only once");
        }
    }
}
