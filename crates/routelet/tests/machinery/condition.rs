//! Agents that write their Node's condition while the chart's policy is in force.

use routelet_lab::{Agent, Backend, Cluster, skip, wait};
use serde_json::Value;

use crate::policy::{NAME, agent_on, enforce, lacks};
use crate::server;

fn conditions(cluster: &mut Cluster, index: usize) -> Vec<Value> {
    let object = cluster.node_object(index).build();
    let node = cluster.api().get(&object).unwrap();
    node["status"]["conditions"].as_array().unwrap().clone()
}

fn is_ours(condition: &Value) -> bool {
    condition["type"] == "NetworkUnavailable"
}

#[test]
fn each_agent_writes_the_condition_of_its_own_node() {
    if let Some(reason) = lacks() {
        skip!("{reason}");
    }
    let mut cluster = Cluster::new(Backend::ApiMachinery).unwrap();
    for _ in 0..3 {
        cluster.add_node().unwrap();
    }
    enforce(server(&mut cluster), "node-1");
    let before = conditions(&mut cluster, 0);
    assert!(before.len() > 1 && !before.iter().any(is_ours), "{before:?}");
    for index in [0, 1] {
        cluster.start_agent(index, &["--node-condition"]).unwrap();
    }
    // One with the token of another's node.
    let kubeconfig = agent_on(server(&mut cluster), Some("node-1"));
    let stray = Agent::start(&cluster.nodes()[2].node, &kubeconfig, &["--node-condition"]).unwrap();
    cluster.wait_ready().unwrap();

    for index in [0, 1] {
        let mut last = Vec::new();
        let written = wait::until(wait::LONG, "the condition", || {
            last = conditions(&mut cluster, index);
            last.iter()
                .any(|condition| is_ours(condition) && condition["status"] == "False")
        });
        assert!(written.is_ok(), "{last:?}");
        assert_eq!(
            last.iter().find(|last| is_ours(last)).unwrap()["reason"],
            "RouteletIsUp"
        );
        last.retain(|condition| !is_ours(condition));
        assert_eq!(last.len(), before.len(), "the kubelet's stay");
    }
    let told = stray
        .wait_log("cannot write the Node's condition", wait::LONG)
        .unwrap();
    assert!(told.contains(NAME), "{told}");
    assert!(!conditions(&mut cluster, 2).iter().any(is_ours));
}
