//! Pods.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::store::now;

/// A pod as a Deployment makes it, not yet scheduled, phase `Pending`; see [`PodBuilder`].
pub fn pod(namespace: &str, name: &str) -> PodBuilder {
    let owner = name.rsplit_once('-').map_or(name, |(owner, _)| owner);
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "generateName": format!("{owner}-"),
            "labels": {"app.kubernetes.io/name": owner, "pod-template-hash": "6d4cf56db6"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner,
                "uid": "7c1f3a52-9a1e-4c55-8f0d-3a3f5b0a7e10", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "containers": [{
                "name": "main",
                "image": "registry.example.com/platform/service:v1.0.0",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
                "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "volumeMounts": [{
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    "name": "kube-api-access", "readOnly": true,
                }],
            }],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "tolerations": [
                {"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
                {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300},
            ],
            "volumes": [{
                "name": "kube-api-access",
                "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]},
            }],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    });
    PodBuilder { object }
}

/// Builds a Pod.
#[derive(Clone, Debug)]
pub struct PodBuilder {
    object: Value,
}

impl PodBuilder {
    /// `spec.nodeName`.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.object["spec"]["nodeName"] = json!(name);
        self
    }

    /// `status.podIPs`, and `status.podIP` from the first; the phase becomes `Running`. Taken as they are, so that
    /// they may be nonsense.
    #[must_use]
    pub fn ips<T: ToString>(mut self, addresses: impl IntoIterator<Item = T>) -> Self {
        let addresses: Vec<String> = addresses.into_iter().map(|address| address.to_string()).collect();
        if let Some(first) = addresses.first() {
            self.object["status"]["podIP"] = json!(first);
        }
        self.object["status"]["podIPs"] = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        self.phase("Running")
    }

    /// One address; see [`PodBuilder::ips`].
    #[must_use]
    pub fn ip(self, address: IpAddr) -> Self {
        self.ips([address])
    }

    /// `status.phase`, and for `Running` the times and container states that go with it.
    #[must_use]
    pub fn phase(mut self, phase: &str) -> Self {
        let status = &mut self.object["status"];
        status["phase"] = json!(phase);
        if phase == "Running" {
            let at = now();
            status["startTime"] = json!(at);
            status["conditions"] = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
                .into_iter()
                .map(|kind| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": at}))
                .collect();
            status["containerStatuses"] = json!([{
                "name": "main", "ready": true, "started": true, "restartCount": 0,
                "image": "registry.example.com/platform/service:v1.0.0", "imageID": "", "lastState": {},
                "state": {"running": {"startedAt": at}},
            }]);
        }
        self
    }

    /// `spec.hostNetwork: true`.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.object["spec"]["hostNetwork"] = json!(true);
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.object["metadata"]["labels"][key] = json!(value);
        self
    }

    /// Sets an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.object["metadata"]["annotations"][key] = json!(value);
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

    /// `metadata.deletionTimestamp`: the pod is terminating.
    #[must_use]
    pub fn terminating(mut self) -> Self {
        self.object["metadata"]["deletionTimestamp"] = json!(now());
        self.object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        self
    }

    /// The object.
    pub fn build(self) -> Value {
        self.object
    }
}

impl From<PodBuilder> for Value {
    fn from(builder: PodBuilder) -> Value {
        builder.object
    }
}
