//! The agent ends and starts again, at any moment and however it ended; and it is alone on its node.

use routelet_lab::{Agent, wait};
use routelet_model::{Key, Object, RouteTarget};

use crate::stage::{NO_AUDIT, OURS, Stage, create, delete, peer_subnet, replace};

/// SIGTERM, and SIGKILL as well.
#[test]
fn a_restart_with_nothing_changed_writes_nothing() {
    let mut stage = Stage::without_agent(50);
    ["a", "b", "c"]
        .into_iter()
        .zip(2..)
        .for_each(|(name, host)| stage.add_pod(name, host));
    stage.start_agent(NO_AUDIT);
    stage.assert_right("the agent was ready");
    let mut listener = stage.listen();
    for round in 0..4 {
        if round % 2 == 0 {
            assert_eq!(stage.agent().stop().unwrap().code(), Some(0));
            stage
                .agent()
                .wait_log("leaves the kernel as it is", wait::LONG)
                .unwrap();
        } else {
            stage.agent().kill().unwrap();
        }
        stage.assert_right("the agent ended");
        stage.agent().restart().unwrap();
        stage.cluster.wait_ready().unwrap();
        stage.assert_right("the agent was ready again");
        for none in [
            "routelet_operations_total",
            "routelet_operation_errors_total",
            "routelet_repairs_total",
        ] {
            assert_eq!(stage.sum(none), 0, "{none}");
        }
        let line = stage.agent().wait_log("in sync", wait::LONG).unwrap();
        assert!(line.contains("written=0 removed=0"), "{line}");
    }
    assert_eq!(listener.heard(), []);
}

/// Nodes and pods that went, came or changed while no agent ran, and what someone did to the kernel meanwhile.
#[test]
fn what_happened_meanwhile_is_made_up_for() {
    let mut stage = Stage::without_agent(10);
    stage.add_pod("stays", 2);
    stage.add_pod("goes", 3);
    stage.start_agent(NO_AUDIT);
    stage.agent().kill().unwrap();

    (1..=3).for_each(|number| stage.remove_peer(number));
    (11..=12).for_each(|number| stage.add_peer(number));
    stage.remove_pod("goes");
    stage.add_pod("comes", 4);
    let fourth = Key::route(peer_subnet(4));
    let target = stage.kernel().remove(&fourth).unwrap();
    stage.meddle(OURS, &[delete(fourth, target)]);
    stage.meddle(
        OURS,
        &[create(
            Key::route(peer_subnet(99)),
            Object::Route(RouteTarget::Blackhole),
        )],
    );
    stage.meddle(
        4,
        &[replace(
            Key::route(peer_subnet(5)),
            Object::Route(RouteTarget::Blackhole),
        )],
    );

    stage.agent().restart().unwrap();
    stage.cluster.wait_ready().unwrap();
    stage.wait_right("the agent was away");
    assert_eq!(
        stage.sum("routelet_repairs_total"),
        0,
        "who did what while no agent ran, no one knows"
    );
}

/// Killed after so many notifications of its work, while the API goes on telling of changes.
#[test]
fn killed_at_any_moment() {
    let mut stage = Stage::without_agent(100);
    let mut listener = stage.listen();
    let mut next = 1;
    stage.cluster.start_agent(0, NO_AUDIT).unwrap();
    for (round, moment) in [300, 0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 1]
        .into_iter()
        .enumerate()
    {
        // Ten peers go and ten others come: eighty objects at least.
        for number in next..next + 10 {
            stage.remove_peer(number);
            stage.add_peer(number + 100);
        }
        if round % 3 == 0 {
            stage.add_pod(&format!("pod-{round}"), 10 + u8::try_from(round).unwrap());
        }
        next += 10;
        let mut heard = 0;
        wait::until(wait::LONG, &format!("{moment} notifications"), || {
            heard += listener.heard().len();
            heard >= moment
        })
        .unwrap();
        stage.agent().restart().unwrap();
    }
    stage.cluster.wait_ready().unwrap();
    stage.wait_right("the agent was killed many times");
    stage.agent().restart().unwrap();
    stage.cluster.wait_ready().unwrap();
    stage.assert_right("one more restart");
    assert_eq!(stage.sum("routelet_operations_total"), 0);
}

#[test]
fn switching_nexthop_objects_leaves_nothing_behind() {
    let mut stage = Stage::new(20, NO_AUDIT);
    for nexthop_objects in [false, true, false] {
        stage.nexthop_objects = nexthop_objects;
        let when = if nexthop_objects { "auto" } else { "off" };
        stage.start_agent(&["--nexthop-objects", when, "--audit-interval", "24h"]);
        stage.assert_right(&format!("--nexthop-objects {when}"));
        assert_eq!(stage.sum("routelet_nexthop_objects"), u64::from(nexthop_objects));
    }
    stage.start_agent(&["--nexthop-objects", "off", "--audit-interval", "24h"]);
    assert_eq!(stage.sum("routelet_operations_total"), 0, "nothing left to do");
}

#[test]
fn a_second_agent_on_a_node_says_so_and_ends() {
    let mut stage = Stage::new(5, NO_AUDIT);
    let before = (stage.agent().pid(), stage.sum("routelet_operations_total"));
    let mut listener = stage.listen();
    let mut second = Agent::start(&stage.cluster.nodes()[0].node, stage.cluster.kubeconfig(), &[]).unwrap();
    assert_eq!(second.wait_exit(wait::LONG).unwrap().code(), Some(3));
    let told = format!(
        "another routelet agent already runs in this network namespace (process {})",
        before.0
    );
    second.wait_log(&told, wait::LONG).unwrap();
    assert!(stage.agent().is_running());
    assert_eq!(listener.heard(), []);
    stage.wait_noticed();
    assert_eq!(
        stage.sum("routelet_operations_total"),
        before.1 + 1,
        "one for the blackhole route"
    );
    stage.assert_right("a second agent was started");
}
