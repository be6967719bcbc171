//! Nodes.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::super::store::{now, time};

/// A Ready node named `name`, as a kubelet registers it; see [`NodeBuilder`].
pub fn node(name: impl Into<String>) -> NodeBuilder {
    let name = name.into();
    let labels = json!({
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    });
    let now = now();
    NodeBuilder {
        object: json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {"node.alpha.kubernetes.io/ttl": "0"}},
            "spec": {},
            "status": {
                "addresses": [{"type": "Hostname", "address": name}],
                "conditions": conditions(&now),
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "nodeInfo": {
                    "architecture": "amd64",
                    "bootID": "5f3c5d5e-26a2-4a0d-8b6e-0c7b0f1f2a11",
                    "containerRuntimeVersion": "containerd://2.0.5",
                    "kernelVersion": "6.12.0-generic",
                    "kubeProxyVersion": "v1.33.0",
                    "kubeletVersion": "v1.33.0",
                    "machineID": "ec2b8f3f0d8f4f4c8a1d0f3e6a4b9c21",
                    "operatingSystem": "linux",
                    "osImage": "Debian GNU/Linux 13 (trixie)",
                    "systemUUID": "ec2b8f3f-0d8f-4f4c-8a1d-0f3e6a4b9c21",
                },
            },
        }),
    }
}

/// Builds a Node. What is not set is as on a fresh node: no pod subnets, no address but the host name.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    object: Value,
}

impl NodeBuilder {
    /// `spec.podCIDRs`, and `spec.podCIDR` from the first. Taken as they are, so that they may be nonsense.
    #[must_use]
    pub fn pod_cidrs<T: ToString>(mut self, cidrs: impl IntoIterator<Item = T>) -> Self {
        let cidrs: Vec<String> = cidrs.into_iter().map(|cidr| cidr.to_string()).collect();
        if let Some(first) = cidrs.first() {
            self.object["spec"]["podCIDR"] = json!(first);
        }
        self.object["spec"]["podCIDRs"] = json!(cidrs);
        self
    }

    /// One more `InternalIP`.
    #[must_use]
    pub fn internal_ip(self, address: IpAddr) -> Self {
        self.address("InternalIP", &address.to_string())
    }

    /// One more entry of `status.addresses`, in front of the host name.
    #[must_use]
    pub fn address(mut self, kind: &str, address: &str) -> Self {
        if let Some(addresses) = self.object["status"]["addresses"].as_array_mut() {
            let at = addresses.len().saturating_sub(1);
            addresses.insert(at, json!({"type": kind, "address": address}));
        }
        self
    }

    /// Sets an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.object["metadata"]["annotations"][key] = json!(value);
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.object["metadata"]["labels"][key] = json!(value);
        self
    }

    /// Sets a condition, as `("NetworkUnavailable", "True")`.
    #[must_use]
    pub fn condition(mut self, kind: &str, status: &str) -> Self {
        if let Some(conditions) = self.object["status"]["conditions"].as_array_mut() {
            conditions.retain(|condition| condition["type"] != kind);
            conditions.push(condition(kind, status, "Set", "set by the lab", &now()));
        }
        self
    }

    /// `metadata.creationTimestamp`, as `2026-01-01T00:00:00Z`.
    #[must_use]
    pub fn created(mut self, at: &str) -> Self {
        self.object["metadata"]["creationTimestamp"] = json!(at);
        self
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.object["metadata"]["uid"] = json!(uid);
        self
    }

    /// Sets any field by JSON pointer, as `/spec/unschedulable`. Its parent must be an object or absent.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut at = &mut self.object;
        for part in pointer.split('/').skip(1) {
            at = &mut at[part];
        }
        *at = value.into();
        self
    }

    /// Fills the object up to what a node in service has: 50 images, capacity, managed fields; about 13 KB of JSON.
    #[must_use]
    pub fn full_size(mut self) -> Self {
        let images: Vec<Value> = (0..50)
            .map(|n| {
                let repository = format!("registry.example.com/platform/service-{n:02}");
                let names = json!([
                    format!("{repository}@sha256:{}", format!("{n:02x}").repeat(32)),
                    format!("{repository}:v1.{n}.0"),
                ]);
                json!({"names": names, "sizeBytes": 20_000_000 + n * 1_234_567})
            })
            .collect();
        let capacity = json!({
            "cpu": "16", "ephemeral-storage": "203056560Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0",
            "memory": "65841204Ki", "pods": "110",
        });
        let managed = |manager: &str, subresource: &str, fields: Value| {
            json!({
                "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
                "fieldsType": "FieldsV1", "fieldsV1": fields, "subresource": subresource,
            })
        };
        let condition_fields: Map<String, Value> = ["DiskPressure", "MemoryPressure", "PIDPressure", "Ready"]
            .into_iter()
            .map(|kind| {
                let fields = json!({"f:lastHeartbeatTime": {}, "f:lastTransitionTime": {}, "f:message": {}, "f:reason": {}, "f:status": {}});
                (format!("k:{{\"type\":\"{kind}\"}}"), fields)
            })
            .collect();
        self.object["status"]["images"] = json!(images);
        self.object["status"]["allocatable"] = capacity.clone();
        self.object["status"]["capacity"] = capacity;
        self.object["spec"]["providerID"] = json!("aws:///eu-central-1a/i-0123456789abcdef0");
        self.object["metadata"]["managedFields"] = json!([
            managed(
                "kubelet",
                "",
                json!({"f:metadata": {"f:annotations": {".": {}, "f:volumes.kubernetes.io/controller-managed-attach-detach": {}}, "f:labels": {".": {}, "f:kubernetes.io/arch": {}, "f:kubernetes.io/hostname": {}, "f:kubernetes.io/os": {}}}})
            ),
            managed(
                "kube-controller-manager",
                "",
                json!({"f:metadata": {"f:annotations": {"f:node.alpha.kubernetes.io/ttl": {}}}, "f:spec": {"f:podCIDR": {}, "f:podCIDRs": {".": {}, "v:\"10.0.0.0/24\"": {}}}})
            ),
            managed(
                "kubelet",
                "status",
                json!({"f:status": {"f:allocatable": {"f:memory": {}}, "f:capacity": {"f:memory": {}}, "f:conditions": condition_fields, "f:images": {}, "f:nodeInfo": {"f:bootID": {}}}})
            ),
        ]);
        self
    }

    /// The object.
    pub fn build(self) -> Value {
        self.object
    }
}

impl From<NodeBuilder> for Value {
    fn from(builder: NodeBuilder) -> Value {
        builder.object
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, at: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": at, "lastTransitionTime": at,
    })
}

fn conditions(at: &str) -> Value {
    json!([
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
            at
        ),
        condition(
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
            at
        ),
        condition(
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
            at
        ),
        condition(
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status",
            at
        ),
    ])
}

/// Moves the conditions' `lastHeartbeatTime` to now, or on by a second if that is no change.
pub(crate) fn beat(node: &mut Map<String, Value>) {
    let conditions = node
        .get_mut("status")
        .and_then(|status| status.get_mut("conditions"))
        .and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let last = condition["lastHeartbeatTime"]
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok());
        let next = last.and_then(|last| last.checked_add(SignedDuration::from_secs(1)).ok());
        let beat = next.map_or_else(Timestamp::now, |next| next.max(Timestamp::now()));
        condition["lastHeartbeatTime"] = json!(time(beat));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_has_the_size_of_a_real_one() {
        let object = node("worker-1")
            .internal_ip("10.0.0.1".parse().unwrap())
            .full_size()
            .build();
        let size = object.to_string().len();
        assert!((10_000..15_000).contains(&size), "{size}");
    }

    #[test]
    fn beats_differ_even_within_one_second() {
        let Value::Object(mut object) = node("a").build() else {
            panic!("an object")
        };
        let mut seen = Vec::new();
        for _ in 0..3 {
            beat(&mut object);
            seen.push(object["status"]["conditions"][3]["lastHeartbeatTime"].clone());
        }
        seen.dedup();
        assert_eq!(seen.len(), 3);
    }
}
