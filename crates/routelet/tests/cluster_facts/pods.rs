//! Pods of the node: their addresses come, collide, move and go.

use routelet_lab::Backend;
use routelet_lab::api::objects;
use serde_json::Value;

use crate::support::{Stage, pod};

#[test]
fn pods_come_change_and_go() {
    let mut stage = Stage::with_agent(Backend::from_env().unwrap(), []);
    let pending = |name| objects::pod("default", name).node("node-1");

    // Scheduled, with no address yet; then with one.
    stage.link_pod("a", 2);
    stage.apply(pending("a"));
    stage.add_pod("b", 3);
    stage.expect([pod("b", "10.244.1.3")]);
    stage.apply(stage.pod_object("a", 2));
    stage.expect([pod("a", "10.244.1.2"), pod("b", "10.244.1.3")]);

    // The object before its veth.
    stage.apply(stage.pod_object("early", 4));
    stage.apply(stage.pod_object("b", 3).phase("Succeeded"));
    stage.expect([pod("a", "10.244.1.2")]);
    stage.link_pod("early", 4);
    stage.expect([pod("a", "10.244.1.2"), pod("early", "10.244.1.4")]);

    // On the host's network: no pod of ours.
    let host = stage.cluster.nodes()[0].node.address(routelet_model::Family::V4);
    stage.apply(pending("proxy").host_network().ip(host));
    // A StatefulSet's pod, made anew by the same name with another address; its veth is made anew as well.
    stage.delete(stage.pod_object("a", 2));
    stage.expect([pod("early", "10.244.1.4")]);
    stage.unlink_pod("a");
    stage.add_pod("a", 5);
    stage.expect([pod("a", "10.244.1.5"), pod("early", "10.244.1.4")]);

    // The same in one go, as after an outage: no event between shows it. The old veth takes its route along.
    stage.unlink_pod("a");
    stage.link_pod("a", 6);
    let before = stage.settled_operations();
    stage.delete(stage.pod_object("a", 5));
    stage.apply(stage.pod_object("a", 6));
    stage.expect([pod("a", "10.244.1.6"), pod("early", "10.244.1.4")]);
    stage.expect_operations(&before, &[("route create", 1)]);
    stage.expect_metric("routelet_pods", |pods| pods == 2.0);
    // All of this is the course of things.
    stage.expect_log_lines(&["WARN"], 0);
}

#[test]
fn an_address_goes_to_the_live_pod_and_among_those_to_the_newer() {
    const REFUSED: &str = "routelet_refused{reason=\"address_taken\"}";
    let mut stage = Stage::with_agent(Backend::from_env().unwrap(), []);
    stage.add_pod("job", 2);
    stage.expect([pod("job", "10.244.1.2")]);
    stage.next_second();

    // The job is done, and its address is another's. Its veth lingers.
    stage.apply(stage.pod_object("job", 2).phase("Succeeded"));
    stage.add_pod("web", 2);
    stage.expect([pod("web", "10.244.1.2")]);
    // A finished pod claims nothing.
    stage.expect_log_lines(&["refused"], 0);

    // Two live pods: the newer has it.
    stage.next_second();
    stage.add_pod("newer", 2);
    stage.expect([pod("newer", "10.244.1.2")]);
    stage.expect_log(&["refused", "default/web", "10.244.1.2", "default/newer"]);
    stage.expect_event("AddressTaken", "Pod", "web");
    stage.expect_metric(REFUSED, |count| count == 1.0);

    // The newer goes: the older has it again.
    stage.delete(stage.pod_object("newer", 2));
    stage.expect([pod("web", "10.244.1.2")]);
    stage.expect_metric(REFUSED, |count| count == 0.0);
    stage.expect_log_lines(&["WARN", "refused: "], 1);
}

#[test]
fn an_address_outside_the_subnets_is_refused() {
    const REFUSED: &str = "routelet_refused{reason=\"address_outside_subnets\"}";
    let mut stage = Stage::with_agent(Backend::from_env().unwrap(), []);
    let stray = || -> Value {
        objects::pod("default", "stray")
            .node("node-1")
            .ips(["172.30.0.1"])
            .into()
    };
    stage.link_pod("stray", 9);
    stage.apply(stray());
    stage.add_pod("a", 2);
    stage.expect([pod("a", "10.244.1.2")]);
    stage.expect_log(&["refused", "default/stray", "172.30.0.1", "10.244.1.0/24"]);
    stage.expect_event("AddressOutsideSubnets", "Pod", "stray");
    stage.expect_metric(REFUSED, |count| count == 1.0);
    stage.expect_metric("routelet_pods", |pods| pods == 2.0);

    // Allowed for those whose addresses another IPAM gives.
    stage.cluster.node(0).agent().unwrap().stop().unwrap();
    stage.apply(objects::pod("default", "stray").node("node-1").ips(["10.99.0.1"]));
    stage.unlink_pod("stray");
    stage.link_pod_as("stray", [10, 99, 0, 1].into());
    stage.start_agent(&["--allow-any-pod-address"]);
    stage.cluster.wait_ready().unwrap();
    stage.expect([pod("a", "10.244.1.2"), pod("stray", "10.99.0.1")]);
    stage.expect_log_lines(&["refused"], 0);
}
