//! What the chart's admission policy lets an agent's token write, judged by Kubernetes' own admission.

use std::path::PathBuf;

use routelet_lab::{ApiServer, Lab, api_machinery, skip};
use serde_json::{Value, json};

use crate::policy::{MERGE, NAME, STRATEGIC, agent_on, ask, enforce, lacks};

const STATUS: &str = "/api/v1/nodes/node-1/status";
const NODE: &str = "/api/v1/nodes/node-1";
const APPLY: &str = "application/apply-patch+yaml";
const OTHER_NODE: &str = "of no other";
const OTHER_CONDITION: &str = "NetworkUnavailable, and no other";
const OTHER_STATUS: &str = "nothing of a Node's status but the condition";
const METADATA: &str = "not write a Node's metadata";
const SPEC: &str = "not write a Node's specification";

fn condition(kind: &str, status: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": "Test", "message": "", "lastHeartbeatTime": null,
            "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

/// A Node as a kubelet and others have it, with something of each kind.
fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": { "zone": "a" },
            "annotations": { "projectcalico.org/IPv4Address": "192.0.2.1/24" },
            "finalizers": ["example.com/drain"],
        },
        "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }],
            "allocatable": { "cpu": "3920m", "memory": "8000000Ki" },
            "capacity": { "cpu": "4000m", "memory": "8Gi", "pods": "110" },
            "conditions": [condition("Ready", "True"), condition("NetworkUnavailable", "True")],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
            "images": [{ "names": ["example.com/web:1"], "sizeBytes": 1000 }],
            "nodeInfo": { "kubeletVersion": "v1.36.0", "osImage": "Debian" },
            "volumesInUse": ["kubernetes.io/csi/disk"],
        },
    })
}

/// What an agent asks for, and what of the refusal's text tells why; `None`: it may.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    Value,
    Option<&'static str>,
);

/// By the agent on node-1.
fn rows() -> Vec<Row> {
    let status = |fields: Value| json!({ "status": fields });
    let metadata = |fields: Value| json!({ "metadata": fields });
    let conditions = |conditions: &[Value]| status(json!({ "conditions": conditions }));
    let up = || conditions(&[condition("NetworkUnavailable", "False")]);
    let owner = json!([{ "apiVersion": "v1", "kind": "Node", "name": "gone", "uid": "1" }]);
    let mut replaced = node("node-1");
    replaced["status"]["addresses"][0]["address"] = json!("192.0.2.9");
    let applied =
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "finalizers": ["example.com/stay"] } });
    vec![
        ("its condition", STATUS, STRATEGIC, up(), None),
        ("nothing", STATUS, MERGE, json!({}), None),
        // The server itself keeps the specification where the status is written.
        (
            "the specification by the status",
            STATUS,
            MERGE,
            json!({ "spec": { "unschedulable": true } }),
            None,
        ),
        (
            "its condition on another Node",
            "/api/v1/nodes/node-2/status",
            STRATEGIC,
            up(),
            Some(OTHER_NODE),
        ),
        (
            "another condition",
            STATUS,
            STRATEGIC,
            conditions(&[condition("Ready", "False")]),
            Some(OTHER_CONDITION),
        ),
        (
            "a new condition",
            STATUS,
            STRATEGIC,
            conditions(&[condition("Mine", "True")]),
            Some(OTHER_CONDITION),
        ),
        (
            "its condition alone",
            STATUS,
            MERGE,
            conditions(&[condition("NetworkUnavailable", "False")]),
            Some(OTHER_CONDITION),
        ),
        (
            "conditions without its own",
            STATUS,
            MERGE,
            conditions(&[condition("Ready", "True")]),
            Some(OTHER_CONDITION),
        ),
        (
            "no conditions",
            STATUS,
            MERGE,
            status(json!({ "conditions": null })),
            Some(NAME),
        ),
        (
            "addresses",
            STATUS,
            MERGE,
            status(json!({ "addresses": [{ "type": "InternalIP", "address": "192.0.2.9" }] })),
            Some(OTHER_STATUS),
        ),
        (
            "no addresses",
            STATUS,
            MERGE,
            status(json!({ "addresses": null })),
            Some(OTHER_STATUS),
        ),
        (
            "addresses in a whole object",
            STATUS,
            "application/json",
            replaced,
            Some(OTHER_STATUS),
        ),
        (
            "capacity",
            STATUS,
            MERGE,
            status(json!({ "capacity": { "cpu": "5" } })),
            Some(OTHER_STATUS),
        ),
        (
            "a new resource",
            STATUS,
            MERGE,
            status(json!({ "capacity": { "example.com/gpu": "1" } })),
            Some(OTHER_STATUS),
        ),
        (
            "allocatable",
            STATUS,
            MERGE,
            status(json!({ "allocatable": { "cpu": "1m" } })),
            Some(OTHER_STATUS),
        ),
        (
            "images",
            STATUS,
            MERGE,
            status(json!({ "images": [{ "names": ["example.com/web:2"], "sizeBytes": 1000 }] })),
            Some(OTHER_STATUS),
        ),
        (
            "no images",
            STATUS,
            MERGE,
            status(json!({ "images": null })),
            Some(OTHER_STATUS),
        ),
        (
            "versions",
            STATUS,
            MERGE,
            status(json!({ "nodeInfo": { "kubeletVersion": "v1.0.0" } })),
            Some(OTHER_STATUS),
        ),
        (
            "the kubelet's port",
            STATUS,
            MERGE,
            status(json!({ "daemonEndpoints": { "kubeletEndpoint": { "Port": 1 } } })),
            Some(OTHER_STATUS),
        ),
        (
            "a phase",
            STATUS,
            MERGE,
            status(json!({ "phase": "Terminated" })),
            Some(OTHER_STATUS),
        ),
        (
            "volumes in use",
            STATUS,
            MERGE,
            status(json!({ "volumesInUse": null })),
            Some(OTHER_STATUS),
        ),
        (
            "volumes attached",
            STATUS,
            MERGE,
            status(json!({ "volumesAttached": [{ "name": "a", "devicePath": "b" }] })),
            Some(OTHER_STATUS),
        ),
        (
            "a label",
            STATUS,
            MERGE,
            metadata(json!({ "labels": { "zone": "b" } })),
            Some(METADATA),
        ),
        (
            "no labels",
            STATUS,
            MERGE,
            metadata(json!({ "labels": null })),
            Some(METADATA),
        ),
        (
            "a label by the Node",
            NODE,
            MERGE,
            metadata(json!({ "labels": { "zone": "b" } })),
            Some(METADATA),
        ),
        (
            "an annotation",
            STATUS,
            MERGE,
            metadata(json!({ "annotations": { "projectcalico.org/IPv4Address": "192.0.2.9/24" } })),
            Some(METADATA),
        ),
        (
            "no annotations",
            STATUS,
            MERGE,
            metadata(json!({ "annotations": null })),
            Some(METADATA),
        ),
        (
            "a finalizer",
            STATUS,
            MERGE,
            metadata(json!({ "finalizers": ["example.com/drain", "example.com/stay"] })),
            Some(METADATA),
        ),
        (
            "an applied finalizer",
            "/api/v1/nodes/node-1/status?fieldManager=agent&force=true",
            APPLY,
            applied,
            Some(METADATA),
        ),
        (
            "no finalizers",
            STATUS,
            MERGE,
            metadata(json!({ "finalizers": null })),
            Some(METADATA),
        ),
        (
            "an owner",
            STATUS,
            MERGE,
            metadata(json!({ "ownerReferences": owner })),
            Some(METADATA),
        ),
        (
            "the specification",
            NODE,
            MERGE,
            json!({ "spec": { "unschedulable": true } }),
            Some(SPEC),
        ),
        (
            "its pod subnets",
            NODE,
            MERGE,
            json!({ "spec": { "podCIDRs": null } }),
            Some(SPEC),
        ),
    ]
}

/// A server with two Nodes on which the policy is in force.
fn fenced() -> (Lab, ApiServer) {
    let lab = Lab::new().unwrap();
    let server = ApiServer::start_machinery(&lab).unwrap();
    server.apply_all(&[node("node-1"), node("node-2")]).unwrap();
    enforce(&server, "node-1");
    (lab, server)
}

/// Users whom the policy leaves alone.
fn others(server: &ApiServer) -> Vec<(&'static str, PathBuf)> {
    let elsewhere =
        json!({ "ServiceAccount": { "Namespace": "other", "Name": "routelet", "NodeName": "node-1" } });
    [
        (
            "the kubelet",
            api_machinery::user("system:node:node-1", &["system:nodes"]),
        ),
        (
            "another service account",
            api_machinery::service_account("kube-proxy", Some("node-1")),
        ),
        ("a namesake in another namespace", elsewhere),
    ]
    .into_iter()
    .map(|(who, holder)| (who, server.kubeconfig_of(&holder).unwrap()))
    .collect()
}

#[test]
fn an_agent_may_write_the_one_condition_of_its_own_node_and_nothing_else() {
    if let Some(reason) = lacks() {
        skip!("{reason}");
    }
    let (_lab, server) = fenced();
    let agent = agent_on(&server, Some("node-1"));
    let others = others(&server);
    let mut wrong = Vec::new();
    for (what, path, content, body, refusal) in rows() {
        let answer = ask(&server, &agent, path, content, &body);
        let right = match (&answer, refusal) {
            (Ok(_), None) => true,
            (Err(told), Some(why)) => told.contains(NAME) && told.contains(why),
            _ => false,
        };
        if !right {
            wrong.push(format!("the agent writes {what}: {answer:?}, not {refusal:?}"));
        }
        for (who, kubeconfig) in &others {
            if let Err(told) = ask(&server, kubeconfig, path, content, &body) {
                wrong.push(format!("{who} writes {what}: {told}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_token_of_no_node_or_of_another_writes_nothing() {
    if let Some(reason) = lacks() {
        skip!("{reason}");
    }
    let (_lab, server) = fenced();
    let up = json!({ "status": { "conditions": [condition("NetworkUnavailable", "False")] } });
    for (node, may) in [(Some("node-1"), true), (Some("node-2"), false), (None, false)] {
        let agent = agent_on(&server, node);
        match ask(&server, &agent, STATUS, STRATEGIC, &up) {
            Ok(_) => assert!(may, "a token of {node:?}"),
            Err(told) => assert!(!may && told.contains(OTHER_NODE), "a token of {node:?}: {told}"),
        }
    }
}
