//! Each encapsulation by traffic: two nodes in one network, and one behind a router.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::time::Duration;

use routelet_lab::{Backend, Cluster, KernelView, Ping, Pod, kernel_lacks, wait};
use routelet_model::Family;
use routelet_netlink::Netns;
use routelet_netlink::setup::RouteSpec;

const V4: Family = Family::V4;
const V6: Family = Family::V6;
/// `RTPROT_BIRD` of linux/rtnetlink.h: stands for a BGP daemon's routes.
const BIRD: u8 = 12;
const COUNT: u64 = 5;

/// Nodes 0 and 1 in one network, node 2 behind the router; pods a and b on node 0, c on node 1, d on node 2.
struct Stage {
    cluster: Cluster,
    pods: Vec<Pod>,
    families: Vec<Family>,
}

impl Stage {
    fn new(encapsulation: &str, families: &[Family]) -> Self {
        let mut cluster = Cluster::new(Backend::Memory).unwrap();
        for index in 0..3 {
            cluster.add_unregistered_node_in(index / 2).unwrap();
            let object = cluster.node_object_of(index, families, &Family::ALL).build();
            cluster.api().apply(&object).unwrap();
        }
        let mut stage = Self {
            cluster,
            pods: Vec::new(),
            families: families.to_vec(),
        };
        stage.start(encapsulation);
        for (node, name, number) in [(0, "a", 2), (0, "b", 3), (1, "c", 2), (2, "d", 2)] {
            let pod = stage.cluster.add_pod_of(node, name, number, families).unwrap();
            stage.pods.push(pod);
        }
        stage
    }

    fn start(&mut self, encapsulation: &str) {
        for index in 0..3 {
            self.restart(index, encapsulation);
        }
        self.cluster.wait_ready().unwrap();
    }

    fn restart(&mut self, index: usize, encapsulation: &str) {
        self.cluster.node(index).agent = None;
        let arguments = ["--encapsulation", encapsulation];
        self.cluster.start_agent(index, &arguments).unwrap();
    }

    fn view(&self, node: usize) -> KernelView {
        KernelView::of(self.cluster.nodes()[node].node.netns()).unwrap()
    }

    /// Where the first node's route to another's pods leads, and by which device.
    fn way(&self, to: usize, family: Family) -> Option<(IpAddr, String)> {
        let view = self.view(0);
        let row = view.route(self.cluster.nodes()[to].subnet_of(family))?;
        Some((row.gateway?, row.link?.to_string()))
    }

    fn direct(&self, to: usize, family: Family) -> Option<(IpAddr, String)> {
        Some((self.cluster.nodes()[to].node.address(family), "eth0".to_owned()))
    }

    /// Each pair of places of the families that packets travel between: on a node, across nodes, from host to pod.
    fn all_roads_work(&self, families: &[Family]) {
        let [a, b, c, d] = &self.pods[..] else {
            unreachable!()
        };
        let node = |index: usize| &self.cluster.nodes()[index].node;
        for family in families {
            let address = |pod: &Pod| pod.address(*family).unwrap();
            for (what, from, to) in [
                ("pod to pod on a node", a.netns(), address(b)),
                ("pod to pod across nodes", a.netns(), address(c)),
                ("pod to pod across networks", a.netns(), address(d)),
                ("and back", d.netns(), address(a)),
                ("host to a pod elsewhere", node(0).netns(), address(c)),
                ("host to a pod across networks", node(0).netns(), address(d)),
                ("pod to its host", a.netns(), node(0).address(*family)),
                ("pod to another host", a.netns(), node(1).address(*family)),
                (
                    "pod to a host across networks",
                    a.netns(),
                    node(2).address(*family),
                ),
            ] {
                works(what, from, to);
            }
        }
    }

    /// What a BGP daemon does: the nodes' networks learn of each other's pods.
    fn announce(&self) {
        for family in &self.families {
            for (index, node) in self.cluster.nodes().iter().enumerate() {
                let subnet = node.subnet_of(*family);
                self.cluster.lab().route_to(&node.node, subnet).unwrap();
                for (other, from) in self.cluster.nodes().iter().enumerate() {
                    if index / 2 != other / 2 {
                        let router = self.cluster.lab().address_in(other / 2, *family);
                        let route = RouteSpec::via(subnet, router, Some("eth0"))
                            .protocol(BIRD)
                            .metric(32);
                        from.node.setup().unwrap().add_route(route).unwrap();
                    }
                }
            }
        }
    }
}

fn works(what: &str, from: &Netns, to: IpAddr) {
    let first = Ping::to(to).patience(Duration::from_millis(50));
    wait::until(wait::LONG, what, || {
        first.clone().run(from).unwrap().received() == 1
    })
    .unwrap();
    let ping = Ping::to(to).count(COUNT).interval(Duration::from_millis(1));
    let report = ping.run(from).unwrap();
    assert_eq!(report.received(), COUNT, "{what} ({to}): {report}");
}

#[test]
fn in_vxlan_all_roads_work() {
    let stage = Stage::new("vxlan", &Family::ALL);
    stage.all_roads_work(&Family::ALL);
    assert_eq!(stage.way(1, V4).unwrap().1, "vxlan.calico");
    assert_eq!(stage.way(2, V6).unwrap().1, "vxlan-v6.calico");
}

#[test]
fn across_subnets_only_in_vxlan_all_roads_work() {
    let stage = Stage::new("vxlan-cross-subnet", &Family::ALL);
    stage.all_roads_work(&Family::ALL);
    for family in Family::ALL {
        assert_eq!(stage.way(1, family), stage.direct(1, family));
        assert!(stage.way(2, family).unwrap().1.starts_with("vxlan"));
    }
}

#[test]
fn without_encapsulation_what_is_on_the_link_is_routed_and_the_rest_left_to_bgp() {
    let mut stage = Stage::new("none", &Family::ALL);
    for family in Family::ALL {
        assert_eq!(stage.way(1, family), stage.direct(1, family));
        assert_eq!(stage.way(2, family), None);
    }
    assert!(stage.view(0).link("vxlan.calico").is_none());
    let agent = stage.cluster.node(0).agent().unwrap();
    agent.expect_log_lines(&["get no route from here"], 2).unwrap();
    let others = "routelet_peer_ways{family=\"ipv4\",way=\"others\"}";
    assert!((agent.metric(others).unwrap() - 1.0).abs() < 0.1);
    stage.announce();
    stage.all_roads_work(&Family::ALL);
    // The agent neither replaces a BGP daemon's route nor takes it away, at a start of its own either.
    let before: Vec<String> = bgp_routes(&stage);
    assert_eq!(before.len(), 2);
    stage.start("none");
    stage.all_roads_work(&Family::ALL);
    assert_eq!(bgp_routes(&stage), before);
}

fn bgp_routes(stage: &Stage) -> Vec<String> {
    let view = stage.view(0);
    let rows = view.routes.iter().filter(|row| row.protocol == BIRD);
    rows.map(ToString::to_string).collect()
}

#[test]
fn in_ipip_all_ipv4_roads_work_and_ipv6_is_refused() {
    kernel_lacks!(ipip);
    let mut stage = Stage::new("ipip", &Family::ALL);
    stage.all_roads_work(&[V4]);
    assert_eq!(
        stage.way(1, V4).unwrap(),
        (stage.direct(1, V4).unwrap().0, "tunl0".to_owned())
    );
    assert_eq!(stage.way(1, V6), None);
    let agent = stage.cluster.node(0).agent().unwrap();
    agent
        .expect_log_lines(&["IPIP carries IPv4 over IPv4 only"], 1)
        .unwrap();
}

#[test]
fn across_subnets_only_in_ipip_all_ipv4_roads_work() {
    kernel_lacks!(ipip);
    let stage = Stage::new("ipip-cross-subnet", &[V4]);
    stage.all_roads_work(&[V4]);
    assert_eq!(stage.way(1, V4), stage.direct(1, V4));
    assert_eq!(stage.way(2, V4).unwrap().1, "tunl0");
}

/// Pods a and c have a direct way in all of these modes, and a and b have their node's.
fn no_loss_through(modes: &[&str]) {
    let mut stage = Stage::new(modes[0], &[V4]);
    let [a, b, c, _] = &stage.pods[..] else {
        unreachable!()
    };
    for pod in [b, c] {
        works("before the change", a.netns(), pod.address(V4).unwrap());
    }
    let pingers = [(a, b), (a, c), (c, a)].map(|(from, to)| {
        let ping = Ping::to(to.address(V4).unwrap()).interval(Duration::from_millis(1));
        ping.start(from.netns()).unwrap()
    });
    for mode in modes {
        stage.start(mode);
        for pinger in &pingers {
            pinger.wait_replies(30, wait::LONG).unwrap();
        }
    }
    for pinger in pingers {
        let report = pinger.stop().unwrap();
        assert!(report.lost.is_empty(), "{report}: {:?}", report.lost);
    }
    let last = stage.view(0);
    assert_eq!(stage.way(1, V4), stage.direct(1, V4));
    wait::until(wait::LONG, "the old mode's devices to go", || {
        stage.view(0).link("vxlan.calico").is_none()
    })
    .unwrap_or_else(|error| panic!("{error}: {last}"));
    let left = stage.view(0);
    assert!(left.fdb.iter().all(|row| row.remote.is_none()), "{left}");
}

#[test]
fn a_change_of_mode_loses_nothing_where_the_way_stays() {
    no_loss_through(&["vxlan-cross-subnet", "none", "vxlan-cross-subnet", "none"]);
}

#[test]
fn a_change_from_vxlan_to_ipip_loses_nothing_where_the_way_stays() {
    kernel_lacks!(ipip);
    no_loss_through(&[
        "vxlan-cross-subnet",
        "ipip-cross-subnet",
        "none",
        "ipip-cross-subnet",
    ]);
}

/// From the tunnel to the direct way and back, node by node: what comes in either way is taken.
#[test]
fn vxlan_becomes_cross_subnet_node_by_node_without_loss() {
    let mut stage = Stage::new("vxlan", &[V4]);
    let [a, _, c, _] = &stage.pods[..] else {
        unreachable!()
    };
    works("before the change", a.netns(), c.address(V4).unwrap());
    let ping = Ping::to(c.address(V4).unwrap()).interval(Duration::from_millis(1));
    let pinger = ping.start(a.netns()).unwrap();
    for mode in ["vxlan-cross-subnet", "vxlan"] {
        for index in 0..3 {
            stage.restart(index, mode);
            stage.cluster.wait_ready().unwrap();
            pinger.wait_replies(30, wait::LONG).unwrap();
        }
    }
    let report = pinger.stop().unwrap();
    assert!(report.lost.is_empty(), "{report}: {:?}", report.lost);
}
