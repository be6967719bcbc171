//! Values that cannot be read, which a real API server would not let pass: they are set aside, and the rest counts. And
//! what the API refuses the agent.

use routelet_lab::api::{Fault, On, Resource, Status, objects};
use routelet_lab::{Agent, Backend, KubeApi, agent_rules};
use serde_json::json;

use crate::support::{ONE_PEER, Stage, peer, peer_address, peer_object, pod, state};

const UNREADABLE: &str = "routelet_refused{reason=\"unreadable_value\"}";

#[test]
fn nodes_with_garbage_in_them() {
    let mut stage = Stage::with_agent(Backend::Memory, [1]);
    stage.apply(
        objects::node("peer-2")
            .pod_cidrs(["10.245.2.0/24", "nonsense"])
            .internal_ip(peer_address(2)),
    );
    stage.expect([peer(1), peer(2)]);
    stage.expect_log(&["refused", "spec.podCIDRs", "peer-2", "nonsense"]);
    stage.expect_event("UnreadableValue", "Node", "peer-2");
    stage.expect_metric(UNREADABLE, |count| count == 1.0);

    // Nothing in it is usable: no peer, no harm.
    stage.apply(
        objects::node("peer-3")
            .pod_cidrs(["10.245.3.0/240"])
            .internal_ip(peer_address(3)),
    );
    stage.apply(
        peer_object(4)
            .set("/spec/podCIDRs", json!({ "a": 1 }))
            .set("/spec/podCIDR", json!(7)),
    );
    stage.apply(peer_object(5).set("/status/addresses", json!("172.30.100.5")));
    stage.apply(peer_object(6).set("/metadata/annotations", json!(["x"])));
    stage.expect([peer(1), peer(2), peer(6)]);
    stage.expect_event("UnreadableValue", "Node", "peer-3");
    stage.expect_event("NoUnderlayAddress", "Node", "peer-5");

    // A known peer turns into garbage and back.
    stage.apply(peer_object(1).pod_cidrs(["?"]));
    stage.expect([peer(2), peer(6)]);
    stage.apply(peer_object(1));
    stage.expect([peer(1), peer(2), peer(6)]);
}

#[test]
fn the_own_node_turns_into_garbage() {
    let mut stage = Stage::with_agent(Backend::Memory, [1]);
    stage.add_pod("a", 2);
    stage.expect([peer(1), pod("a", "10.244.1.2")]);
    let before = stage.settled_operations();
    stage.apply(stage.cluster.node_object(0).pod_cidrs(["?"]));
    stage.expect_event("UnreadableValue", "Node", "node-1");
    stage.apply(stage.cluster.node_object(0).set("/status/addresses", json!(null)));
    stage.expect_log(&["stays in force", "status.addresses"]);
    stage.apply(peer_object(2));
    stage.expect([peer(1), peer(2), pod("a", "10.244.1.2")]);
    stage.expect_operations(&before, &ONE_PEER);
}

#[test]
fn pods_with_garbage_in_them() {
    let mut stage = Stage::with_agent(Backend::Memory, []);
    stage.link_pod("b", 3);
    stage.add_pod("a", 2);
    stage.expect([pod("a", "10.244.1.2")]);
    for (name, pointer, value) in [
        ("typed-1", "status", json!("Running")),
        ("typed-2", "spec", json!(["node-1"])),
        ("typed-3", "status", json!({ "podIPs": "10.244.1.9", "phase": 7 })),
        (
            "typed-4",
            "status",
            json!({ "podIPs": [{ "ip": 3 }, 4, null, "x"] }),
        ),
    ] {
        let mut object = stage.pod_object(name, 9).build();
        object[pointer] = value;
        stage.apply(object);
    }
    // One address of two can be read.
    stage.apply(
        objects::pod("default", "b")
            .node("node-1")
            .ips(["10.244.1.3", "10.244.1.300"]),
    );
    stage.expect([pod("a", "10.244.1.2"), pod("b", "10.244.1.3")]);
    stage.expect_event("UnreadableValue", "Pod", "b");
    stage.expect_log(&["refused", "default/typed-4", "status.podIPs"]);
    assert_eq!(
        stage.metric("routelet_watch_errors_total{resource=\"pods\"}"),
        0.0
    );
}

/// Where RBAC grants less than the documentation asks for, the log names what is missing.
#[test]
fn a_missing_permission_is_named() {
    let backend = match Backend::from_env().unwrap() {
        // It knows no permissions.
        Backend::ApiMachinery => Backend::Memory,
        backend => backend,
    };
    let mut stage = Stage::new(backend);
    let kubeconfig = match stage.cluster.api() {
        KubeApi::Real(server) => {
            let mut rules = agent_rules().unwrap();
            rules[0]["resources"] = json!(["pods"]);
            server.kubeconfig_for("half", &rules).unwrap()
        }
        KubeApi::Memory(api, _) => {
            let words = "nodes is forbidden: User \"system:serviceaccount:kube-system:half\" cannot watch resource \
                         \"nodes\" in API group \"\" at the cluster scope";
            api.faults().always(
                On::resource(Resource::Nodes),
                Fault::Status(Status::new(403, words)),
            );
            stage.cluster.kubeconfig().to_owned()
        }
    };
    let node = stage.cluster.node(0);
    node.agent = Some(Agent::start(&node.node, &kubeconfig, &[]).unwrap());
    stage.expect_log(&[
        "403",
        "system:serviceaccount:kube-system:half",
        "cannot watch resource \"nodes\"",
    ]);
    stage.expect_not_ready("the first list of the Nodes");
    stage.expect_log(&["listed", "resource=pods"]);
    assert!(state(stage.netns()).is_empty());
}
