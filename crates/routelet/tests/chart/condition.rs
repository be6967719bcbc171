//! `nodeCondition`: the permission for it, and that the policy which keeps the agent from writing more comes along. What
//! the policy lets pass is tested on the real admission code, in `tests/machinery`.

use routelet_lab::{Agent, Backend, Cluster, KubeApi, apiserver, skip, wait};
use serde_json::Value;

use crate::helm::{is_missing, object, template, template_for};

const POLICY: &str = "ValidatingAdmissionPolicy";
const KINDS: &[&str] = &["admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"];

#[test]
fn the_policy_is_there_only_where_it_is_needed_and_known() {
    if is_missing() {
        skip!("helm is not installed");
    }
    let has_policy = |objects: &[Value]| objects.iter().any(|object| object["kind"] == POLICY);
    let may_write = |objects: &[Value]| {
        let rules = &object(objects, "ClusterRole", "routelet")["rules"];
        rules.to_string().contains("nodes/status")
    };
    for (value, kinds, policy, write) in [
        ("nodeCondition=true", KINDS, true, true),
        ("nodeCondition=true", &[], false, true),
        ("nodeCondition=false", KINDS, false, false),
        ("nodeCondition=false", &[], false, false),
    ] {
        let objects = template_for(&[value], kinds);
        assert_eq!(
            (has_policy(&objects), may_write(&objects)),
            (policy, write),
            "{value}"
        );
    }
}

/// An agent on the real API server with the permissions that the chart gives with these values.
fn agent_with(values: &[&str], name: &str, cluster: &mut Cluster) -> Agent {
    let rules = object(&template(values), "ClusterRole", "routelet")["rules"].clone();
    let KubeApi::Real(server) = cluster.api() else {
        unreachable!()
    };
    let kubeconfig = server.kubeconfig_for(name, &rules).unwrap();
    let index = cluster.add_node().unwrap();
    let mut agent = Agent::start(&cluster.nodes()[index].node, &kubeconfig, &["--node-condition"]).unwrap();
    agent.wait_ready(wait::LONG).unwrap();
    agent
}

fn condition(cluster: &mut Cluster, index: usize) -> Option<Value> {
    let object = cluster.node_object(index).build();
    let node = cluster.api().get(&object).unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap().clone();
    conditions
        .into_iter()
        .find(|condition| condition["type"] == "NetworkUnavailable")
}

#[test]
fn with_the_charts_permissions_the_condition_is_written_and_without_them_all_else_works() {
    if is_missing() {
        skip!("helm is not installed");
    }
    if let Err(reason) = apiserver::assets() {
        skip!("{reason}");
    }
    let mut cluster = Cluster::new(Backend::KubeApiserver).unwrap();
    let _agent = agent_with(&["nodeCondition=true"], "with", &mut cluster);
    wait::until(wait::LONG, "the condition", || {
        condition(&mut cluster, 0).is_some_and(|condition| condition["status"] == "False")
    })
    .unwrap();
    assert_eq!(condition(&mut cluster, 0).unwrap()["reason"], "RouteletIsUp");

    let without = agent_with(&[], "without", &mut cluster);
    let told = without
        .wait_log("cannot write the Node's condition", wait::LONG)
        .unwrap();
    assert!(
        told.contains("403") && told.contains("nodeCondition=true"),
        "{told}"
    );
    assert_eq!(condition(&mut cluster, 1), None);
}
