//! Pods talk to each other, on one node and across nodes, and go on whatever becomes of the agents.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use routelet_lab::{Backend, Cluster, Ping, Pinger, Pod, wait};
use routelet_model::Family;

/// Between two requests of each ping.
const INTERVAL: Duration = Duration::from_millis(1);
/// Replies to wait for before the next thing happens to an agent.
const SOME: u64 = 30;

/// Two nodes with two pods each, and all pods reach each other.
struct Pods {
    cluster: Cluster,
    pods: [Pod; 4],
}

impl Pods {
    fn new() -> Self {
        let cluster = Cluster::with_agents(Backend::from_env().unwrap(), 2).unwrap();
        let pods = [(0, "a", 2), (0, "b", 3), (1, "c", 2), (1, "d", 3)];
        let pods = pods.map(|(node, name, host)| cluster.add_pod(node, name, host).unwrap());
        let all = Self { cluster, pods };
        for (from, to) in all.pairs() {
            wait::until(wait::LONG, "the first reply", || {
                ping(to)
                    .patience(Duration::from_millis(50))
                    .run(from.netns())
                    .unwrap()
                    .received()
                    == 1
            })
            .unwrap();
        }
        all
    }

    /// Each pair of pods, in both directions.
    fn pairs(&self) -> impl Iterator<Item = (&Pod, &Pod)> {
        let all = self
            .pods
            .iter()
            .flat_map(|from| self.pods.iter().map(move |to| (from, to)));
        all.filter(|(from, to)| from.id() != to.id())
    }

    /// Does things to the agents while pods of one node and of two nodes ping each other, and fails if one packet is
    /// lost. `rounds` says how often, each time after some replies.
    fn without_loss(mut self, rounds: usize, mut act: impl FnMut(usize, &mut Cluster)) {
        let [a, b, c, _] = &self.pods;
        let pingers = [(a, b), (a, c), (c, b)].map(|(from, to)| ping(to).start(from.netns()).unwrap());
        let flow = |pingers: &[Pinger]| {
            pingers
                .iter()
                .for_each(|pinger| pinger.wait_replies(SOME, wait::LONG).unwrap());
        };
        flow(&pingers);
        for round in 0..rounds {
            act(round, &mut self.cluster);
            flow(&pingers);
        }
        for pinger in pingers {
            let report = pinger.stop().unwrap();
            assert!(report.lost.is_empty(), "{report}: {:?}", report.lost);
        }
    }
}

fn ping(to: &Pod) -> Ping {
    Ping::to(to.address(Family::V4).unwrap()).interval(INTERVAL)
}

#[test]
fn pods_reach_each_other_on_a_node_and_across_nodes() {
    let all = Pods::new();
    for (from, to) in all.pairs() {
        let report = ping(to).count(20).run(from.netns()).unwrap();
        assert_eq!(report.received(), 20, "{report}");
        let node = |pod: &Pod| all.pods.iter().position(|other| other.id() == pod.id()).unwrap() / 2;
        let routers = if node(from) == node(to) { 1 } else { 2 };
        assert_eq!(
            report.ttl,
            Some(64 - routers),
            "from {} to {}",
            from.id(),
            to.id()
        );
    }
}

/// A packet of the pods' full MTU fits into the tunnel.
#[test]
fn large_packets_cross_the_tunnel() {
    let all = Pods::new();
    let [a, _, c, _] = &all.pods;
    // 1450 bytes with the headers of IP and ICMP.
    let report = ping(c).payload(1422).count(10).run(a.netns()).unwrap();
    assert_eq!(report.received(), 10, "{report}");
}

#[test]
fn no_packet_is_lost_while_no_agent_runs() {
    Pods::new().without_loss(4, |round, cluster| {
        for index in 0..2 {
            let agent = cluster.node(index).agent().unwrap();
            if round == 0 {
                assert!(agent.stop().unwrap().success())
            } else {
                agent.kill().unwrap()
            }
        }
    });
}

#[test]
fn no_packet_is_lost_when_agents_are_restarted_or_killed() {
    Pods::new().without_loss(8, |round, cluster| {
        let agent = cluster.node(round % 2).agent().unwrap();
        if round < 4 {
            assert!(agent.stop().unwrap().success());
        }
        agent.restart().unwrap();
        // Also before it is ready, in the next round.
        if round % 4 != 3 {
            agent.wait_ready(wait::LONG).unwrap();
        }
    });
}

#[test]
fn no_packet_is_lost_when_nexthop_objects_are_switched() {
    Pods::new().without_loss(4, |round, cluster| {
        for index in 0..2 {
            cluster.node(index).agent = None;
            let arguments = ["--nexthop-objects", if round % 2 == 0 { "off" } else { "auto" }];
            cluster.start_agent(index, &arguments).unwrap();
        }
        cluster.wait_ready().unwrap();
        for index in 0..2 {
            let used = cluster
                .node(index)
                .agent()
                .unwrap()
                .metric("routelet_nexthop_objects")
                .unwrap();
            assert_eq!(used > 0.5, round % 2 == 1);
        }
    });
}

/// The API server goes, and is asked again when it is back: its news are followed.
#[test]
fn no_packet_is_lost_while_the_api_server_is_away() {
    let metric = |cluster: &mut Cluster, index: usize, series: &str| {
        let agent = cluster.node(index).agent().unwrap();
        agent.metric(series).unwrap()
    };
    let mut extra = Vec::new();
    Pods::new().without_loss(2, |round, cluster| {
        if round == 0 {
            cluster.api().kill().unwrap();
            let failures = "routelet_watch_errors_total{resource=\"nodes\"}";
            wait::until(wait::LONG, "both agents to miss the API server", || {
                (0..2).all(|index| metric(cluster, index, failures) >= 2.0)
            })
            .unwrap();
        } else {
            cluster.api().restart().unwrap();
            extra.extend((0..2).map(|index| cluster.add_pod(index, &format!("extra-{index}"), 10).unwrap()));
            wait::until(wait::LONG, "both agents to hear of the new pods", || {
                (0..2).all(|index| metric(cluster, index, "routelet_pods") == 3.0)
            })
            .unwrap();
        }
    });
    assert_eq!(extra.len(), 2);
}

/// A Node's update that changes nothing that matters, peers that come and go, pods that come and go: none of it is
/// felt by the others.
#[test]
fn no_packet_is_lost_when_the_cluster_changes() {
    let mut extra = Vec::new();
    Pods::new().without_loss(6, |round, cluster| {
        let number = u8::try_from(round).unwrap();
        let touched = cluster
            .node_object(round % 2)
            .label("round", &round.to_string())
            .build();
        cluster.api().apply(&touched).unwrap();
        let peer = routelet_lab::api::objects::node("peer").pod_cidrs(["10.128.1.0/24"]);
        let peer = peer.internal_ip([172, 30, 128, number + 1].into()).build();
        cluster.api().apply(&peer).unwrap();
        extra.push(
            cluster
                .add_pod(round % 2, &format!("extra-{round}"), 10 + number)
                .unwrap(),
        );
        if round % 2 == 1 {
            cluster.api().delete(&peer).unwrap();
            extra.pop().unwrap().delete().unwrap();
        }
    });
}
