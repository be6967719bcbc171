//! The agents are replaced as a DaemonSet does it: one node after the other, each agent asked to end before the next one
//! starts, and the next node only when that one is ready.

use routelet_lab::wait;

use crate::support::World;

#[test]
fn rolling_the_agents_loses_no_packet_and_writes_nothing() {
    let mut world = World::new(&[]);
    let flows = world.flows();
    flows.go_on();
    for _ in 0..2 {
        for index in 0..3 {
            let agent = world.cluster.node(index).agent().unwrap();
            assert_eq!(agent.stop().unwrap().code(), Some(0));
            flows.go_on();
            agent.restart().unwrap();
            agent.wait_ready(wait::LONG).unwrap();
            flows.go_on();
            assert_eq!(world.operations(index), [""; 0], "node {index}");
        }
    }
    flows.have_lost_nothing();
}

/// Pods and nodes that come while some of the agents are away.
#[test]
fn what_comes_during_a_roll_out_is_reached_once_it_is_through() {
    let mut world = World::new(&[]);
    let flows = world.flows();
    let mut new = Vec::new();
    for index in 0..3 {
        let agent = world.cluster.node(index).agent().unwrap();
        assert_eq!(agent.stop().unwrap().code(), Some(0));
        // On the node without an agent, and on the next one.
        for (node, host) in [(index, 10), ((index + 1) % 3, 20)] {
            let (name, host) = (format!("new-{index}-{node}"), host + u8::try_from(index).unwrap());
            let families = routelet_model::Family::ALL;
            new.push(world.cluster.add_pod_of(node, &name, host, &families).unwrap());
        }
        flows.go_on();
        let agent = world.cluster.node(index).agent().unwrap();
        agent.restart().unwrap();
        agent.wait_ready(wait::LONG).unwrap();
    }
    flows.go_on();
    let from = &world.pods[0];
    for pod in &new {
        for address in pod.addresses() {
            let ping = routelet_lab::Ping::to(*address);
            wait::until(wait::LONG, &format!("an answer from {}", pod.id()), || {
                ping.clone().run(from.netns()).unwrap().received() == 1
            })
            .unwrap();
        }
    }
    flows.have_lost_nothing();
}
