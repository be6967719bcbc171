//! Pods whose veth comes and goes, before or after the API tells, and what the CNI plugin adds by itself.

use routelet_lab::wait;
use routelet_model::{Key, Kind, Object, RouteTarget, host_prefix};
use routelet_netlink::Hint;
use routelet_netlink::setup::RouteSpec;

use crate::stage::{NO_AUDIT, OURS, Stage, delete};

#[test]
fn the_veth_may_come_before_the_pod_or_after_it() {
    let mut stage = Stage::new(1, NO_AUDIT);
    stage.add_pod_links("early", 2);
    stage.wait_noticed();
    let object = stage.cluster.pod_object(0, "early", 2).unwrap().build();
    stage.cluster.api().apply(&object).unwrap();
    stage.wait_right("the API told of a pod whose veth was there");

    let object = stage.cluster.pod_object(0, "late", 3).unwrap().build();
    stage.cluster.api().apply(&object).unwrap();
    wait::until(wait::LONG, "the agent to know of two pods", || {
        stage.sum("routelet_pods") == 2
    })
    .unwrap();
    assert_eq!(
        stage.agent().get("/readyz").unwrap().status,
        200,
        "a pod that has not started yet is nothing unusual"
    );
    stage.add_pod_links("late", 3);
    stage.wait_right("the veth of a pod came that the API had told of");
    assert_no_trouble(&mut stage);
}

#[test]
fn a_veth_may_go_and_come_again() {
    let mut stage = Stage::new(1, NO_AUDIT);
    stage.add_pod("web", 2);
    stage.wait_right("the pod was added");
    for round in 0..3 {
        stage.remove_pod_links("web");
        if round > 0 {
            stage.wait_noticed();
        }
        stage.add_pod_links("web", 2);
        stage.wait_right("the CNI plugin made the veth anew");
    }
    assert_no_trouble(&mut stage);
}

#[test]
fn a_changed_veth_is_changed_back() {
    let mut stage = Stage::new(1, NO_AUDIT);
    stage.add_pod("web", 2);
    stage.wait_right("the pod was added");
    let veth = stage.veth("web");
    stage.repaired(Kind::Link, "changed", "the host veth was set down", |stage| {
        stage.setup().set_down(veth.as_str()).unwrap();
    });
    stage.repaired(
        Kind::Link,
        "changed",
        "the host veth got another MAC address",
        |stage| {
            stage
                .setup()
                .set_mac(veth.as_str(), "02:00:00:00:00:09".parse().unwrap())
                .unwrap();
        },
    );
    stage.wait_noticed();
    stage.assert_right("the veth had been changed");
}

/// The plugin adds the pod's route at ADD, before the API knows the address. Nothing ever touches that route: neither
/// while its pod is unknown, nor when the API tells of the pod, nor when an agent starts at that time.
#[test]
fn a_route_of_the_cni_plugin_is_neither_removed_nor_rewritten() {
    let mut stage = Stage::new(1, NO_AUDIT);
    let key = stage.connect_pod("web", 2);
    let veth = stage.veth("web");
    let mut listener = stage.listen();
    stage.wait_noticed();
    stage.start_agent(NO_AUDIT);
    let written = stage.sum("routelet_operations_total");
    let object = stage.cluster.pod_object(0, "web", 2).unwrap().build();
    stage.cluster.api().apply(&object).unwrap();
    wait::until(wait::LONG, "the agent to know of the pod", || {
        stage.sum("routelet_pods") == 1
    })
    .unwrap();
    stage.wait_right("the API told of the pod");
    assert_eq!(
        stage.sum("routelet_operations_total"),
        written,
        "all that the agent wants for a pod, the plugin has made"
    );
    stage.wait_noticed();
    let heard = listener.heard();
    let touched = heard
        .iter()
        .filter(|hint| matches!(hint, Hint::Seen(k, _) | Hint::Added(k, _) | Hint::Gone(k) if *k == key));
    assert_eq!(
        touched.collect::<Vec<_>>(),
        Vec::<&Hint>::new(),
        "the route is touched"
    );
    // Only now is it the agent's to repair.
    stage.repaired(Kind::Route, "deleted", "the pod's route was deleted", |stage| {
        stage.meddle(OURS, &[delete(key, Object::Route(RouteTarget::Link(veth)))]);
    });
}

/// As long as its veth lives, a route of a pod stays that the API does not tell of: the API may merely be slow. A route
/// to another address through the veth of a pod that is known is not of that kind.
#[test]
fn a_route_of_an_unknown_pod_lives_as_long_as_its_veth() {
    let mut stage = Stage::new(1, NO_AUDIT);
    stage.connect_pod("unknown", 2);
    stage.add_pod("known", 3);
    let (stray, veth) = (
        host_prefix(stage.cluster.pod_address(0, 4).unwrap()),
        stage.veth("known"),
    );
    stage
        .setup()
        .add_route(RouteSpec::to_link(stray, veth.as_str()).protocol(OURS))
        .unwrap();
    let routes = |stage: &Stage| -> Vec<Key> {
        stage
            .kernel()
            .into_keys()
            .filter(|key| [2, 3, 4].map(|host| host_key(stage, host)).contains(key))
            .collect()
    };
    let remaining = [2, 3].map(|host| host_key(&stage, host));
    wait::until(wait::LONG, "the stray route to go", || {
        routes(&stage) == remaining
    })
    .unwrap();
    stage.start_agent(NO_AUDIT);
    stage.wait_noticed();
    assert_eq!(routes(&stage), remaining, "after the agent started anew");
    stage.remove_pod_links("unknown");
    stage.wait_right("the veth went");
}

fn host_key(stage: &Stage, host: u8) -> Key {
    Key::route(host_prefix(stage.cluster.pod_address(0, host).unwrap()))
}

fn assert_no_trouble(stage: &mut Stage) {
    let log = stage.agent().log();
    let bad: Vec<&String> = log
        .iter()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
