//! A node of another network's beside one with the agent.

use routelet_model::{Family, vtep_mac};

use crate::network::Network;
use crate::stage::{Stage, works};

/// The agent's node is 0, the other network's 1.
fn reach_each_other(network: Network) {
    let mut stage = Stage::new(network, 2, &[1]);
    // What the other network's agent knows of the agent's node follows from that one's Node, as for any of its own:
    // the lab gives it the same values as an annotated one has, so the node has to be annotated for them as well.
    let own = stage.cluster.node_object_of(0, &Family::ALL, &Family::ALL);
    let own = network.annotate(own, 0, &stage.cluster.nodes()[0]);
    stage.cluster.api().apply(&own.build()).unwrap();
    stage.start_other(1);
    stage.start_agent(0, &network.arguments());
    let other = stage.pod(1, "other", 2);
    let ours = stage.cluster.add_pod_of(0, "ours", 2, &Family::ALL).unwrap();
    for family in Family::ALL {
        let ours_at = ours.address(family).unwrap();
        let other_at = other.address(family);
        works("the agent's pod to the other's", ours.netns(), other_at);
        works("the other's pod to the agent's", &other.netns, ours_at);
        works("the agent's host to the other's pod", stage.node(0), other_at);
        works("the other's host to the agent's pod", stage.node(1), ours_at);
        let remote = stage.cluster.nodes()[1].node.address(family);
        let view = stage.view(0);
        if network.device(family).is_none() {
            let route = view.route(stage.cluster.nodes()[1].subnet_of(family));
            assert_eq!(route.unwrap().gateway, Some(remote));
            continue;
        }
        let mac = network.mac(1, family);
        assert_ne!(mac, vtep_mac("node-2", family));
        let device = if family == Family::V4 {
            "vxlan.calico"
        } else {
            "vxlan-v6.calico"
        };
        assert_eq!(view.fdb_remote(device, mac), Some(remote));
    }
}

#[test]
fn a_node_with_calico_and_one_with_the_agent_reach_each_others_pods() {
    reach_each_other(Network::Calico);
}

#[test]
fn a_node_with_flannel_and_one_with_the_agent_reach_each_others_pods() {
    reach_each_other(Network::Flannel);
}

#[test]
fn a_node_with_flannel_without_a_tunnel_and_one_with_the_agent_reach_each_others_pods() {
    reach_each_other(Network::HostGateway);
}
