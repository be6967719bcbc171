//! What the agent tells root of all that it knows: `/state` on its unix socket.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use routelet_cni::agent::{self, Limits};
use routelet_lab::api::objects;
use routelet_lab::wait;
use routelet_model::{Family, Kind, vtep_mac};
use serde_json::{Value, json};

use crate::stage::{NO_AUDIT, Stage, delete, peer_name};

const LIMITS: Limits = Limits {
    patience: Duration::from_secs(30),
    longest: 1 << 24,
};

fn state(stage: &mut Stage) -> Value {
    let socket = stage.agent().socket();
    let answer = agent::ask(&socket, "GET", "/state", "", LIMITS).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// Waits until the state has `wanted` at a place.
fn wait_state(stage: &mut Stage, pointer: &str, wanted: &Value) -> Value {
    let mut last = Value::Null;
    let waited = wait::until(wait::LONG, &format!("{pointer} to be {wanted}"), || {
        last = state(stage);
        last.pointer(pointer) == Some(wanted)
    });
    waited.unwrap_or_else(|error| panic!("{error:#}: {last:#}"));
    last
}

#[test]
fn the_state_tells_the_node_its_peers_and_its_pods() {
    let mut stage = Stage::with_web();
    let veth = stage.veth("web").to_string();
    let state = state(&mut stage);
    assert_eq!(state["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(state["node"], "node-1");
    assert_eq!(state["encapsulation"], "vxlan");
    assert_eq!(state["ready"], true);
    assert_eq!(state["not_ready"], json!([]));
    assert!(state["started"]["seconds_ago"].as_f64().unwrap() > 0.0);
    assert!(
        state["started"]["at"].as_str().unwrap().ends_with('Z'),
        "{}",
        state["started"]
    );
    let settings = state["settings"].as_array().unwrap();
    for (flag, value) in [
        ("audit-interval", "24h"),
        ("vxlan-vni", "4096"),
        ("node-name", "node-1"),
    ] {
        assert!(
            settings.contains(&json!({ "flag": flag, "value": value })),
            "{flag}"
        );
    }
    for (watch, (resource, objects)) in state["watches"]
        .as_array()
        .unwrap()
        .iter()
        .zip([("pods", 1), ("nodes", 4)])
    {
        assert_eq!(watch["resource"], resource);
        assert_eq!(watch["state"], "watching");
        assert_eq!(watch["objects"], objects);
        assert!(watch["last_contact"]["seconds_ago"].as_f64().is_some(), "{watch}");
    }
    let routes = &state["objects"].as_array().unwrap()[Kind::Route as usize];
    assert_eq!(
        routes,
        &json!({ "kind": "route", "wanted": 5, "actual": 5, "out_of_sync": 0 })
    );
    assert!(state["last_resync"]["seconds"].as_f64().is_some(), "{state:#}");
    assert_eq!(state["last_repair"], Value::Null);

    let node = &stage.cluster.nodes()[0];
    let own = &state["networks"][0];
    assert_eq!(own["parent"], "eth0");
    assert_eq!(own["device"], "vxlan.calico");
    assert_eq!(own["mtu"], 1450);
    assert_eq!(own["pod_subnets"], json!([node.subnet]));
    let mac = vtep_mac(&peer_name(2), Family::V4).to_string();
    assert_eq!(
        state["peers"][1],
        json!({
            "name": "peer-2",
            "networks": [{
                "family": "IPv4",
                "pod_subnets": ["10.128.2.0/24"],
                "underlay": "172.30.128.2",
                "tunnel_address": "10.128.2.0",
                "vtep_mac": mac,
                "way": "vxlan",
                "device": "vxlan.calico",
            }],
            "refusals": [],
            "out_of_sync": [],
        })
    );
    assert_eq!(state["peers"].as_array().unwrap().len(), 3);
    assert_eq!(
        state["pods"],
        json!([{
            "namespace": "default",
            "name": "web",
            "host_veth": veth,
            "addresses": [{ "address": stage.cluster.pod_address(0, 2).unwrap(), "route": "in_place", "why": null }],
        }])
    );
}

#[test]
fn the_state_tells_what_is_refused_what_is_missing_and_what_was_repaired() {
    let mut stage = Stage::with_web();
    // Its veth is never made.
    let waiting = stage.cluster.pod_object(0, "waiting", 3).unwrap();
    stage.cluster.api().apply(&waiting.build()).unwrap();
    // Its address is none of this node's.
    let stranger = stage
        .cluster
        .pod_object(0, "stranger", 4)
        .unwrap()
        .ips([IpAddr::from([192, 0, 2, 7])]);
    stage.cluster.api().apply(&stranger.build()).unwrap();
    // It has no address.
    let subnet: IpNet = "10.129.0.0/24".parse().unwrap();
    let lost = objects::node("lost").pod_cidrs([subnet]);
    stage.cluster.api().apply(&lost.build()).unwrap();
    wait_state(&mut stage, "/pods/1/name", &json!("waiting"));
    let told = wait_state(&mut stage, "/peers/0/name", &json!("lost"));
    let why = |pod: usize| told["pods"][pod]["addresses"][0]["why"].as_str().unwrap();
    assert_eq!(told["pods"][0]["name"], "stranger");
    assert_eq!(told["pods"][0]["addresses"][0]["route"], "refused");
    assert!(
        why(0).contains("outside of this node's pod subnets"),
        "{}",
        why(0)
    );
    assert_eq!(told["pods"][1]["addresses"][0]["route"], "missing");
    assert!(why(1).contains("is not on this node"), "{}", why(1));
    assert_eq!(told["peers"][0]["networks"][0]["way"], "none");
    let refusal = told["peers"][0]["refusals"][0].as_str().unwrap();
    assert!(refusal.contains("node lost has no IPv4 address"), "{refusal}");
    let reasons: Vec<_> = told["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refusal| refusal["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["no_underlay_address", "address_outside_subnets"]);

    let (route, object) = stage
        .wanted()
        .into_iter()
        .find(|(key, _)| key.to_string() == "route 10.128.2.0/24")
        .unwrap();
    stage.meddle(80, &[delete(route, object)]);
    let told = wait_state(&mut stage, "/repairs", &json!(1));
    assert_eq!(told["last_repair"]["kind"], "route");
    assert_eq!(told["last_repair"]["cause"], "deleted");
    assert_eq!(told["last_repair"]["object"], "route 10.128.2.0/24");
    assert!(told["last_repair"]["when"]["seconds_ago"].as_f64().is_some());
}

/// More than the agent looks at in one go.
#[test]
fn of_many_peers_each_is_told_once() {
    let mut stage = Stage::new(0, NO_AUDIT);
    for number in 0..600u32 {
        let [.., high, low] = number.to_be_bytes();
        let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 128 + high, low, 0), 24);
        let object = objects::node(format!("many-{number:03}"))
            .pod_cidrs([IpNet::from(subnet)])
            .internal_ip(IpAddr::from([172, 30, 128 + high, low]));
        stage.cluster.api().apply(&object.build()).unwrap();
    }
    let told = wait_state(&mut stage, "/peers/599/name", &json!("many-599"));
    let peers = told["peers"].as_array().unwrap();
    let names: Vec<_> = peers.iter().map(|peer| peer["name"].as_str().unwrap()).collect();
    let wanted: Vec<_> = (0..600).map(|number| format!("many-{number:03}")).collect();
    assert_eq!(names, wanted);
}

/// The port that serves probes and metrics tells nothing of it, and to be asked costs the kernel nothing.
#[test]
fn the_state_is_for_root_and_asking_for_it_writes_nothing() {
    let mut stage = Stage::new(2, NO_AUDIT);
    let operations = stage.sum("routelet_operations_total");
    let mut kernel = stage.listen();
    for _ in 0..20 {
        state(&mut stage);
    }
    assert!(kernel.heard().is_empty());
    assert_eq!(stage.sum("routelet_operations_total"), operations);
    assert_eq!(stage.agent().get("/state").unwrap().status, 404);
}

#[test]
fn an_agent_that_is_not_ready_says_what_it_waits_for() {
    let mut stage = Stage::without_its_node_object();
    let socket = stage.agent().socket();
    wait::until(wait::LONG, "the agent to answer", || {
        agent::get(&socket, "/state").is_ok_and(|answer| answer.status == 200)
    })
    .unwrap();
    let told = wait_state(&mut stage, "/watches/1/synced", &json!(true));
    let told = if told["not_ready"].to_string().contains("no Node") {
        told
    } else {
        wait_state(
            &mut stage,
            "/not_ready/0",
            &json!("there is no Node \"node-1\": the node name must be that of this node's Node object"),
        )
    };
    assert_eq!(told["ready"], false);
    assert_eq!(told["networks"], json!([]));
}
