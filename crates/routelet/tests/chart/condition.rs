//! `nodeCondition`: what the agent may write with it, and what keeps it from writing more.

use cel::{Context, Program, Value as Cel};
use routelet_lab::{Agent, Backend, Cluster, KubeApi, apiserver, skip, wait};
use serde_json::{Value, json};

use crate::helm::{is_missing, object, template, template_for};

const POLICY: &str = "ValidatingAdmissionPolicy";
const KINDS: &[&str] = &["admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"];
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";
const AGENT: &str = "system:serviceaccount:kube-system:routelet";

/// What an expression of the policy says about a request.
fn says(expression: &Value, request: &Request) -> bool {
    let program = Program::compile(expression.as_str().unwrap()).unwrap();
    let mut context = Context::default();
    context.add_variable("request", &request.request).unwrap();
    context.add_variable("object", &request.new).unwrap();
    context.add_variable("oldObject", &request.old).unwrap();
    match program.execute(&context).unwrap() {
        Cel::Bool(says) => says,
        other => panic!("{expression} says {other:?}"),
    }
}

/// A request to write a Node's status.
#[derive(Clone)]
struct Request {
    request: Value,
    old: Value,
    new: Value,
}

impl Request {
    /// The agent on node-1 says that its own Node has a network.
    fn of_the_agent() -> Self {
        let old = json!({"metadata": {"name": "node-1"}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        }});
        let mut new = old.clone();
        let up = json!({"type": "NetworkUnavailable", "status": "False"});
        new["status"]["conditions"].as_array_mut().unwrap().push(up);
        let user = json!({"username": AGENT, "extra": {NODE_CLAIM: ["node-1"]}});
        Self {
            request: json!({"userInfo": user}),
            old,
            new,
        }
    }

    /// The same, but for this.
    fn but(change: impl FnOnce(&mut Self)) -> Self {
        let mut request = Self::of_the_agent();
        change(&mut request);
        request
    }
}

/// The expressions by an interpreter of their language: the API server of these tests is one that has no such policies.
#[test]
fn the_policy_lets_an_agent_write_the_one_condition_of_its_own_node() {
    if is_missing() {
        skip!("helm is not installed");
    }
    let objects = template_for(&["nodeCondition=true"], KINDS);
    let policy = &object(&objects, POLICY, "routelet-own-node")["spec"];
    assert_eq!(policy["failurePolicy"], "Fail");
    let binding = &object(&objects, "ValidatingAdmissionPolicyBinding", "routelet-own-node")["spec"];
    assert_eq!(binding["policyName"], "routelet-own-node");
    assert_eq!(binding["validationActions"], json!(["Deny"]));

    let is_asked = |request: &Request| says(&policy["matchConditions"][0]["expression"], request);
    let refused = |request: &Request| -> Vec<usize> {
        let validations = policy["validations"].as_array().unwrap();
        (0..validations.len())
            .filter(|index| !says(&validations[*index]["expression"], request))
            .collect()
    };
    let kubelet = |it: &mut Request| it.request["userInfo"]["username"] = json!("system:node:node-1");
    assert!(is_asked(&Request::of_the_agent()));
    assert!(
        !is_asked(&Request::but(kubelet)),
        "others are none of its business"
    );

    let replaces = |it: &mut Request| {
        it.old = it.new.clone();
        it.new["status"]["conditions"][1]["status"] = json!("True");
    };
    let first = |it: &mut Request| {
        it.old["status"].as_object_mut().unwrap().remove("conditions");
        it.new["status"]["conditions"].as_array_mut().unwrap().remove(0);
    };
    for allowed in [
        Request::of_the_agent(),
        Request::but(replaces),
        Request::but(first),
    ] {
        assert_eq!(refused(&allowed), [0; 0]);
    }

    let elsewhere = |it: &mut Request| it.request["userInfo"]["extra"][NODE_CLAIM] = json!(["node-2"]);
    let no_claim = |it: &mut Request| it.request["userInfo"]["extra"] = json!({"other": ["node-1"]});
    let no_extra = |it: &mut Request| drop(it.request["userInfo"].as_object_mut().unwrap().remove("extra"));
    let not_ready = |it: &mut Request| it.new["status"]["conditions"][0]["status"] = json!("False");
    let no_more_ready =
        |it: &mut Request| drop(it.new["status"]["conditions"].as_array_mut().unwrap().remove(0));
    let moved = |it: &mut Request| it.new["status"]["addresses"][0]["address"] = json!("192.0.2.2");
    assert_eq!(refused(&Request::but(elsewhere)), [0]);
    assert_eq!(refused(&Request::but(no_claim)), [0]);
    assert_eq!(refused(&Request::but(no_extra)), [0]);
    assert_eq!(refused(&Request::but(not_ready)), [1]);
    assert_eq!(refused(&Request::but(no_more_ready)), [1]);
    assert_eq!(refused(&Request::but(moved)), [2]);
    let labelled = |it: &mut Request| it.new["metadata"]["labels"] = json!({"zone": "b"});
    // Other nodes' agents follow it, as they follow addresses.
    let annotated = |it: &mut Request| {
        it.old["metadata"]["annotations"] = json!({"projectcalico.org/IPv4Address": "192.0.2.1/24"});
        it.new["metadata"]["annotations"] = json!({"projectcalico.org/IPv4Address": "192.0.2.9/24"});
    };
    let stripped = |it: &mut Request| it.old["metadata"]["annotations"] = json!({"owner": "net"});
    assert_eq!(refused(&Request::but(labelled)), [3]);
    assert_eq!(refused(&Request::but(annotated)), [3]);
    assert_eq!(refused(&Request::but(stripped)), [3]);
}

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
