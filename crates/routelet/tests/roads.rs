//! The roads of a packet, in IPv4, IPv6 and both, over underlays of either family and of both.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::time::Duration;

use routelet_lab::{Backend, Cluster, Ping, Pod, wait};
use routelet_model::{Family, Key, Kind, LinkKind, Object};
use routelet_netlink::{Config, Kernel, Netns};

const V4: Family = Family::V4;
const V6: Family = Family::V6;
/// Pings of each road.
const COUNT: u64 = 5;
/// What a packet starts with.
const TTL: u8 = 64;

/// Two nodes with agents; pods a and b on the first one, c on the second.
struct Stage {
    cluster: Cluster,
    pods: Vec<Pod>,
    families: Vec<Family>,
}

impl Stage {
    /// Pods of `families` on nodes whose addresses, as the API tells of them, are of `underlay`. `prepare` is done in
    /// each node before its agent starts.
    fn new(families: &[Family], underlay: &[Family], prepare: impl Fn(&Netns)) -> Self {
        // An API server that keeps one pod subnet only would not do.
        let mut cluster = Cluster::new(Backend::Memory).unwrap();
        for index in 0..2 {
            cluster.add_unregistered_node().unwrap();
            prepare(cluster.nodes()[index].node.netns());
            let object = cluster.node_object_of(index, families, underlay).build();
            cluster.api().apply(&object).unwrap();
        }
        for index in 0..2 {
            cluster.start_agent(index, &[]).unwrap();
        }
        cluster.wait_ready().unwrap();
        let mut stage = Self {
            cluster,
            pods: Vec::new(),
            families: families.to_vec(),
        };
        for (node, name, number) in [(0, "a", 2), (0, "b", 3), (1, "c", 2)] {
            stage.add_pod(node, name, number);
        }
        for family in families {
            let [a, _, c] = &stage.pods[..] else {
                unreachable!()
            };
            for (from, to) in [(a, c), (c, a)] {
                let ping = Ping::to(to.address(*family).unwrap()).patience(Duration::from_millis(50));
                wait::until(wait::LONG, "the first reply across nodes", || {
                    ping.clone().run(from.netns()).unwrap().received() == 1
                })
                .unwrap();
            }
            // Hosts outside have a route to the pods.
            for node in stage.cluster.nodes() {
                let subnet = node.subnet_of(*family);
                stage.cluster.lab().route_to(&node.node, subnet).unwrap();
            }
        }
        stage
    }

    fn add_pod(&mut self, node: usize, name: &str, number: u8) {
        let pod = self.cluster.add_pod_of(node, name, number, &self.families);
        self.pods.push(pod.unwrap());
    }

    fn node(&self, index: usize) -> &routelet_lab::Node {
        &self.cluster.nodes()[index].node
    }

    /// Each road of a family: its name, where it begins, where it leads to, and what the packets' TTL is there.
    fn roads(&self, family: Family) -> Vec<(&'static str, &Netns, IpAddr, u8)> {
        let [a, b, c] = &self.pods[..] else { unreachable!() };
        let address = |pod: &Pod| pod.address(family).unwrap();
        let (own, lab) = (self.node(0), self.cluster.lab());
        vec![
            ("pod to pod on a node", a.netns(), address(b), TTL - 1),
            ("pod to pod across nodes", a.netns(), address(c), TTL - 2),
            ("and back", c.netns(), address(a), TTL - 2),
            ("pod to its own node", a.netns(), own.address(family), TTL),
            ("node to its own pod", own.netns(), address(a), TTL),
            ("node to a pod elsewhere", own.netns(), address(c), TTL - 1),
            ("pod to the outside", a.netns(), lab.address(family), TTL - 1),
            ("outside to the pod", lab.netns(), address(a), TTL - 1),
            ("outside to the other", lab.netns(), address(c), TTL - 1),
        ]
    }

    fn other_node(&self, family: Family) -> (&'static str, &Netns, IpAddr, u8) {
        let to = self.node(1).address(family);
        ("pod to another node", self.pods[0].netns(), to, TTL - 1)
    }

    fn all_roads_work(&self) {
        for family in &self.families {
            for road in self.roads(*family).into_iter().chain([self.other_node(*family)]) {
                works(road);
            }
        }
    }

    /// Pings with packets as large as the pods' MTU, and with some that the sender has to cut.
    fn large_packets_pass(&self) {
        let [a, b, c] = &self.pods[..] else { unreachable!() };
        let outside = self.cluster.lab();
        for family in &self.families {
            let headers = match family {
                Family::V4 => 20 + 8,
                Family::V6 => 40 + 8,
            };
            let mtu = a.setup().unwrap().link("eth0").unwrap().unwrap().mtu;
            let full = usize::try_from(mtu).unwrap() - headers;
            for to in [b, c].map(|pod| pod.address(*family).unwrap()) {
                for payload in [full, full + 1, 3 * full] {
                    pass(a.netns(), to, payload);
                }
            }
            pass(outside.netns(), c.address(*family).unwrap(), full);
        }
    }

    /// VNI and family of the underlay address of each VXLAN device of the first node.
    fn devices(&self) -> Vec<(String, u32, Family)> {
        let config = Config {
            protocol: 80,
            devices: ["vxlan.calico", "vxlan-v6.calico"]
                .map(|name| name.parse().unwrap())
                .into(),
            interface_prefix: "cali".to_owned(),
            nft_table: "routelet".to_owned(),
            receive_buffer: 1 << 20,
        };
        let mut all = Vec::new();
        let mut take = |key, object| {
            if let (Key::Link(name), Object::Link(link)) = (key, object)
                && let LinkKind::Vxlan(vxlan) = link.kind
            {
                all.push((name.to_string(), vxlan.vni, Family::of(vxlan.local)));
            }
        };
        let look = || Kernel::open(config).unwrap().dump(Kind::Link, None, &mut take);
        self.node(0).netns().run(look).unwrap().unwrap();
        all.sort();
        all
    }
}

fn works((name, from, to, ttl): (&str, &Netns, IpAddr, u8)) {
    let ping = Ping::to(to).count(COUNT).interval(Duration::from_millis(1));
    let report = ping.run(from).unwrap();
    assert_eq!(report.received(), COUNT, "{name} ({to}): {report}");
    assert_eq!(report.ttl, Some(ttl), "{name} ({to}): {report}");
}

fn pass(from: &Netns, to: IpAddr, payload: usize) {
    let report = Ping::to(to).payload(payload).count(3).run(from).unwrap();
    assert_eq!(report.received(), 3, "{payload} bytes to {to}: {report}");
}

fn write_sysctl(netns: &Netns, path: &str, value: &str) {
    netns
        .run(|| std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap())
        .unwrap();
}

fn device(name: &str, vni: u32, underlay: Family) -> (String, u32, Family) {
    (name.to_owned(), vni, underlay)
}

#[test]
fn pods_of_both_families_over_an_underlay_of_both() {
    let stage = Stage::new(&Family::ALL, &Family::ALL, |_| {});
    let devices = [
        device("vxlan-v6.calico", 4096, V6),
        device("vxlan.calico", 4096, V4),
    ];
    assert_eq!(stage.devices(), devices);
    stage.all_roads_work();
    stage.large_packets_pass();
}

#[test]
fn pods_of_both_families_over_an_ipv4_underlay() {
    let stage = Stage::new(&Family::ALL, &[V4], |_| {});
    let devices = [
        device("vxlan-v6.calico", 4097, V4),
        device("vxlan.calico", 4096, V4),
    ];
    assert_eq!(stage.devices(), devices);
    stage.all_roads_work();
    stage.large_packets_pass();
}

#[test]
fn pods_of_both_families_over_an_ipv6_underlay() {
    let stage = Stage::new(&Family::ALL, &[V6], |_| {});
    let devices = [
        device("vxlan-v6.calico", 4096, V6),
        device("vxlan.calico", 4097, V6),
    ];
    assert_eq!(stage.devices(), devices);
    stage.all_roads_work();
    stage.large_packets_pass();
}

#[test]
fn ipv6_pods_over_either_underlay() {
    for (underlay, vni) in [(V6, 4096), (V4, 4097)] {
        let stage = Stage::new(&[V6], &[underlay], |_| {});
        assert_eq!(stage.devices(), [device("vxlan-v6.calico", vni, underlay)]);
        stage.all_roads_work();
        stage.large_packets_pass();
    }
}

/// As distributions set it, for links that are there and for those to come. What a pod sends to another node comes back
/// by the tunnel, so that the agent's device must not filter strictly. With a strict filter on the node's own link the
/// packet would be dropped on the way there, and that link is not the agent's: see docs/architecture.md.
#[test]
fn a_strict_reverse_path_filter_by_default_stops_no_answer_in_the_tunnel() {
    for (own_link, underlay) in [("2", &Family::ALL[..]), ("2", &[V4]), ("0", &[V4])] {
        let stage = Stage::new(&[V4], underlay, |node| {
            write_sysctl(node, "ipv4/conf/all/rp_filter", "0");
            write_sysctl(node, "ipv4/conf/default/rp_filter", "1");
            write_sysctl(node, "ipv4/conf/eth0/rp_filter", own_link);
        });
        stage.all_roads_work();
    }
}

#[test]
fn the_filter_of_the_tunnels_device_stays_loose() {
    let stage = Stage::new(&[V4], &[V4], |node| {
        write_sysctl(node, "ipv4/conf/default/rp_filter", "1");
    });
    let node = stage.node(0).netns();
    let wait_loose = |after: &str| {
        let is_loose = || {
            let path = "/proc/sys/net/ipv4/conf/vxlan.calico/rp_filter";
            let read = node.run(|| std::fs::read_to_string(path)).unwrap();
            read.is_ok_and(|value| value.trim() == "2")
        };
        wait::until(wait::LONG, &format!("a loose filter after {after}"), is_loose).unwrap();
    };
    wait_loose("the start");
    for value in ["0", "1"] {
        write_sysctl(node, "ipv4/conf/vxlan.calico/rp_filter", value);
        wait_loose("a change");
    }
    stage
        .node(0)
        .setup()
        .unwrap()
        .delete_link("vxlan.calico")
        .unwrap();
    wait_loose("another device");
    wait::until(wait::LONG, "pods to reach another node again", || {
        let (_, from, to, _) = stage.other_node(V4);
        Ping::to(to)
            .patience(Duration::from_millis(50))
            .run(from)
            .unwrap()
            .received()
            == 1
    })
    .unwrap();
}

#[test]
fn all_other_roads_work_where_the_nodes_links_filter_strictly() {
    for (all, own_link) in [("0", "1"), ("1", "0"), ("1", "1")] {
        let stage = Stage::new(&[V4], &[V4], |node| {
            write_sysctl(node, "ipv4/conf/all/rp_filter", all);
            write_sysctl(node, "ipv4/conf/default/rp_filter", "1");
            write_sysctl(node, "ipv4/conf/eth0/rp_filter", own_link);
        });
        stage.roads(V4).into_iter().for_each(works);
    }
}

/// Hosts probe new addresses for duplicates, which takes a second or two. When the plugin's ADD has returned, a pod's
/// first packet goes out all the same, and the first one to it arrives.
#[test]
fn no_pod_waits_for_duplicate_address_detection() {
    let mut stage = Stage::new(&Family::ALL, &Family::ALL, |node| {
        write_sysctl(node, "ipv6/conf/default/accept_dad", "1");
    });
    for (number, from_pod) in [(10, true), (11, false)] {
        stage.add_pod(0, &format!("new-{number}"), number);
        let (new, c) = (&stage.pods[stage.pods.len() - 1], &stage.pods[2]);
        let (from, to) = if from_pod { (new, c) } else { (c, new) };
        let report = Ping::to(to.address(V6).unwrap()).run(from.netns()).unwrap();
        assert_eq!((report.sent, report.received()), (1, 1), "{report}");
    }
}
