//! A cluster that changes from another network to the agent, node by node, and back.

use routelet_model::{Family, host_prefix};

use crate::network::Network;
use crate::pages::Script;
use crate::pod::OtherPod;
use crate::stage::{Flows, Stage, works};

/// Protocol number of the agent's routes.
const OURS: u8 = 80;

/// The command of the page on moving from the network for a node that goes back.
fn documented(network: Network) -> String {
    let mut script = Script::of(match network {
        Network::Calico | Network::CalicoCrossSubnet => {
            "neighbours/moving.rs: calicos_nodes_are_taken_over_one_by_one_and_given_back_without_loss"
        }
        Network::Flannel | Network::Canal | Network::HostGateway => {
            "neighbours/moving.rs: flannels_nodes_are_taken_over_one_by_one_and_given_back_without_loss"
        }
    });
    script.take("nft delete table").text
}

/// Pods stay, and talk all the way.
fn move_and_back(network: Network) {
    let last_step = documented(network);
    let mut stage = Stage::new(network, 3, &[0, 1, 2]);
    for index in 0..3 {
        stage.start_other(index);
    }
    let [a, b, c] = [(0, "a"), (1, "b"), (2, "c")].map(|(index, name)| stage.pod(index, name, 2));
    let beside = stage.pod(0, "beside", 3);
    let flows = Flows::start(&[
        ("first to second node", &a, &b),
        ("second to third node", &b, &c),
        ("third to first node", &c, &a),
        ("on the first node", &a, &beside),
    ]);
    flows.flow();
    for index in 0..3 {
        let before = devices(&stage, index);
        stage.start_agent(index, &network.arguments_on_its_node());
        flows.flow();
        assert_eq!(
            devices(&stage, index),
            before,
            "the devices are the same, with their MACs"
        );
        routes_are_the_agents(&stage, index, &a);
        // A pod that is made now is like any other.
        let name = format!("new-{index}");
        let new = stage.cluster.add_pod_of(index, &name, 9, &Family::ALL).unwrap();
        for pod in [&a, &b, &c].iter().enumerate().filter(|(on, _)| *on != index) {
            for family in Family::ALL {
                works("to a new pod", &pod.1.netns, new.address(family).unwrap());
                works("from a new pod", new.netns(), pod.1.address(family));
            }
        }
    }
    for index in 0..3 {
        // Routes that name their gateways are what the other network's agent knows.
        let mut arguments = network.arguments_on_its_node();
        arguments.extend(["--nexthop-objects", "off"]);
        stage.start_agent(index, &arguments);
        flows.flow();
        stage.leave(index, &last_step);
        flows.flow();
        let left = stage.view(index);
        assert!(left.nexthops.is_empty(), "{left}");
        stage.start_other(index);
        flows.flow();
    }
    flows.lost_nothing();
}

/// The routes to other nodes' pods, and on the first node those to its own that have routes, pod `a` among them.
fn routes_are_the_agents(stage: &Stage, index: usize, a: &OtherPod) {
    let view = stage.view(index);
    for family in Family::ALL {
        let nodes = stage.cluster.nodes().iter().enumerate();
        let others = nodes.filter(|(other, _)| *other != index);
        let mut routes: Vec<_> = others.map(|(_, node)| node.subnet_of(family)).collect();
        if index == 0 && !stage.network.has_bridge() {
            routes.push(host_prefix(a.address(family)));
        }
        for route in routes {
            assert_eq!(view.route(route).unwrap().protocol, OURS, "{route}: {view}");
        }
    }
}

/// Index, MAC and MTU of the two devices.
fn devices(stage: &Stage, index: usize) -> Vec<String> {
    let view = stage.view(index);
    let devices = Family::ALL
        .into_iter()
        .filter_map(|family| stage.network.device(family));
    devices
        .map(|device| view.link(device).unwrap().to_string())
        .collect()
}

#[test]
fn calicos_nodes_are_taken_over_one_by_one_and_given_back_without_loss() {
    move_and_back(Network::Calico);
}

#[test]
fn calicos_nodes_are_taken_over_and_given_back_without_loss_across_subnets() {
    move_and_back(Network::CalicoCrossSubnet);
}

#[test]
fn canals_nodes_are_taken_over_one_by_one_and_given_back_without_loss() {
    move_and_back(Network::Canal);
}

/// Pods on flannel's bridge stay there until they are made anew: their node's route to the bridge serves.
#[test]
fn flannels_nodes_are_taken_over_one_by_one_and_given_back_without_loss() {
    move_and_back(Network::Flannel);
}

#[test]
fn flannels_nodes_without_a_tunnel_are_taken_over_and_given_back_without_loss() {
    move_and_back(Network::HostGateway);
}
