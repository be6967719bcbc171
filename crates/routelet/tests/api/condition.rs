//! The Node's condition NetworkUnavailable, written where that is wanted.

use routelet_lab::api::{Api, Fault, On, Resource, Status, Verb};
use routelet_lab::{Backend, wait};
use serde_json::{Value, json};

use crate::support::Stage;

const TYPE: &str = "NetworkUnavailable";
const SUBNET: &str = "10.244.1.0/24";

fn condition(api: &Api) -> Option<Value> {
    let node = api.get(Resource::Nodes, "node-1").unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap().clone();
    assert!(
        conditions.iter().any(|condition| condition["type"] == "Ready"),
        "the kubelet's stay: {conditions:?}"
    );
    conditions.into_iter().find(|condition| condition["type"] == TYPE)
}

fn expect(api: &Api, status: &str, reason: &str) {
    let mut last = None;
    let said = wait::until(wait::LONG, "the condition", || {
        last = condition(api);
        last.as_ref()
            .is_some_and(|last| last["status"] == status && last["reason"] == reason)
    });
    said.unwrap_or_else(|error| panic!("{error}: {last:?}"));
}

/// A node that has no pod subnet yet, and an agent with these arguments.
fn without_subnet(arguments: &[&str]) -> Stage {
    let mut stage = Stage::new(Backend::Memory);
    set_subnets(&stage.api(), json!([]));
    stage.start_agent(arguments);
    stage
}

fn set_subnets(api: &Api, subnets: Value) {
    let mut node = api.get(Resource::Nodes, "node-1").unwrap();
    node["spec"] = json!({"podCIDRs": subnets});
    api.replace(Resource::Nodes, node).unwrap();
}

#[test]
fn a_new_node_is_given_no_pods_before_it_has_a_network() {
    let mut stage = without_subnet(&["--node-condition"]);
    let api = stage.api();
    expect(&api, "True", "RouteletIsStarting");
    let since = condition(&api).unwrap()["lastTransitionTime"].clone();
    stage.next_second();
    set_subnets(&stage.api(), json!([SUBNET]));
    expect(&api, "False", "RouteletIsUp");
    assert_ne!(condition(&api).unwrap()["lastTransitionTime"], since);
    assert_eq!(api.counters().requests(Resource::Nodes, Verb::Patch), 2);
    stage.expect_log_lines(&["the Node's condition NetworkUnavailable is"], 2);
}

#[test]
fn a_restart_writes_nothing() {
    let mut stage = without_subnet(&["--node-condition"]);
    set_subnets(&stage.api(), json!([SUBNET]));
    let api = stage.api();
    expect(&api, "False", "RouteletIsUp");
    let before = condition(&api);
    api.reset_counters();
    stage.cluster.node(0).agent().unwrap().restart().unwrap();
    // The second look, once the agent is ready, is the last thing that it does about it.
    let looked = api.wait_for(wait::LONG, |counters| {
        counters.requests(Resource::Nodes, Verb::Get) == 2
    });
    looked.unwrap();
    assert_eq!(api.counters().requests(Resource::Nodes, Verb::Patch), 0);
    assert_eq!(condition(&api), before);
}

#[test]
fn what_the_api_refuses_is_tried_again_and_told_once() {
    let mut stage = Stage::new(Backend::Memory);
    let api = stage.api();
    let refused = Fault::Status(Status::new(403, "nodes \"node-1\" is forbidden"));
    api.faults().next(3, On::verb(Verb::Patch), refused);
    stage.start_agent(&["--node-condition"]);
    expect(&api, "False", "RouteletIsUp");
    stage.expect_log_lines(&["cannot write the Node's condition", "forbidden"], 1);
}

#[test]
fn without_the_setting_nothing_is_written() {
    let mut stage = without_subnet(&[]);
    set_subnets(&stage.api(), json!([SUBNET]));
    stage.cluster.wait_ready().unwrap();
    let api = stage.api();
    let counters = api.counters();
    for verb in [Verb::Get, Verb::Patch, Verb::Update] {
        assert_eq!(counters.requests(Resource::Nodes, verb), 0);
    }
    assert_eq!(condition(&api), None);
}
