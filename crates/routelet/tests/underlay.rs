//! `--underlay`, on nodes with two NICs: agents choose, peers follow, pods talk over what was chosen.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use routelet_lab::api::objects::{self, NodeBuilder};
use routelet_lab::{Agent, Backend, Cluster, KernelView, Ping, Pod, wait};
use routelet_model::{Family, vtep_mac};
use routelet_netlink::setup::{RouteSpec, VethEnd};

const V4: Family = Family::V4;
const DEVICE: &str = "vxlan.calico";
const ETH0: &str = "eth0";
const ETH1: &str = "eth1";
/// The second network's MTU, by which what goes over it is known.
const MTU: u32 = 1400;
/// The second network's own address.
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 250));
/// Calico's annotation.
const ADDRESS: &str = "projectcalico.org/IPv4Address";
const UNKNOWN: &str = "routelet_refused{reason=\"underlay_address_unknown_to_peers\"}";

/// Two nodes on the LAN by eth0 and on a second network by eth1, with a pod each.
struct Stage {
    cluster: Cluster,
    pods: Vec<Pod>,
}

/// A node's address in the second network.
fn second(index: usize) -> IpNet {
    let number = u8::try_from(index).unwrap() + 1;
    IpNet::new_assert(Ipv4Addr::new(10, 99, 0, number).into(), 24)
}

impl Stage {
    /// With agents; `object` makes the Node objects of what they are by default.
    fn new(underlay: &str, object: impl Fn(NodeBuilder, usize) -> NodeBuilder) -> Self {
        let mut cluster = Cluster::new(Backend::from_env().unwrap()).unwrap();
        let mut lan = cluster.lab().setup().unwrap();
        lan.add_bridge("second0").unwrap();
        lan.set_up("second0").unwrap();
        lan.add_address("second0", IpNet::new_assert(ROUTER, 24)).unwrap();
        for index in 0..2 {
            cluster.add_unregistered_node().unwrap();
            let node = &cluster.nodes()[index].node;
            let port = format!("second-{index}");
            let end = |name| VethEnd {
                name,
                mtu: Some(MTU),
                up: true,
                ..VethEnd::default()
            };
            lan.add_veth(end(&port), end(ETH1), node.netns()).unwrap();
            lan.set_master(&port, "second0").unwrap();
            let mut setup = node.setup().unwrap();
            setup.add_address(ETH1, second(index)).unwrap();
            // The API is reached whatever becomes of eth0.
            let api = cluster.lab().address(V4).into();
            setup.add_route(RouteSpec::via(api, ROUTER, Some(ETH1))).unwrap();
        }
        let mut stage = Self {
            cluster,
            pods: Vec::new(),
        };
        stage.register(object);
        for index in 0..2 {
            stage
                .cluster
                .start_agent(index, &["--underlay", underlay])
                .unwrap();
            let pod = stage.cluster.add_pod(index, &format!("pod-{index}"), 2).unwrap();
            stage.pods.push(pod);
        }
        stage
    }

    fn register(&mut self, object: impl Fn(NodeBuilder, usize) -> NodeBuilder) {
        for index in 0..2 {
            let node = object(self.cluster.node_object(index), index).build();
            self.cluster.api().apply(&node).unwrap();
        }
    }

    fn view(&self, index: usize) -> KernelView {
        KernelView::of(self.cluster.nodes()[index].node.netns()).unwrap()
    }

    fn agent(&mut self, index: usize) -> &mut Agent {
        self.cluster.node(index).agent().unwrap()
    }

    /// Waits until each node sends its tunnel's packets to the other's address of the network, with the MTU that its
    /// links leave, and the pods reach each other.
    fn wait_on(&mut self, what: &str, address: impl Fn(&Self, usize) -> IpAddr, mtu: u32) {
        self.cluster.wait_ready().unwrap();
        for index in 0..2 {
            let peer = 1 - index;
            let mac = vtep_mac(self.cluster.nodes()[peer].node.name(), V4);
            let sends = || {
                let view = self.view(index);
                let device = view.link(DEVICE).map(|link| link.mtu);
                device == Some(mtu) && view.fdb_remote(DEVICE, mac) == Some(address(self, peer))
            };
            wait::until(wait::LONG, what, sends)
                .unwrap_or_else(|error| panic!("{error}: {}", self.view(index)));
        }
        self.pods_talk(what);
    }

    fn pods_talk(&self, what: &str) {
        let [a, b] = &self.pods[..] else { unreachable!() };
        for (from, to) in [(a, b), (b, a)] {
            let ping = Ping::to(to.address(V4).unwrap()).patience(Duration::from_millis(50));
            let answered = || ping.clone().run(from.netns()).unwrap().received() == 1;
            wait::until(wait::LONG, what, answered).unwrap();
        }
    }
}

fn lan(stage: &Stage, index: usize) -> IpAddr {
    stage.cluster.nodes()[index].node.address(V4)
}

fn on_second(_: &Stage, index: usize) -> IpAddr {
    second(index).addr()
}

#[test]
fn without_the_setting_the_internal_ip_counts_whatever_other_links_there_are() {
    let mut stage = Stage::new("internal-ip", |object, index| {
        object.internal_ip(second(index).addr())
    });
    stage.wait_on("over the LAN", lan, 1450);
}

/// The nodes' objects list both addresses, and both sides choose by the same rule: nothing else is needed.
#[test]
fn a_network_is_chosen_on_both_sides() {
    let mut stage = Stage::new("cidr=10.99.0.0/16", |object, index| {
        object.internal_ip(second(index).addr())
    });
    stage.wait_on("over the second network", on_second, MTU - 50);
    for index in 0..2 {
        assert!(stage.agent(index).metric(UNKNOWN).unwrap_or(0.0) < 0.5);
        stage
            .agent(index)
            .expect_log_lines(&[&format!("sends from {} on eth1", second(index).addr())], 1)
            .unwrap();
    }
}

/// Peers cannot know what a name chooses. The agent says so, with the remedy, and the remedy helps.
#[test]
fn an_interface_is_chosen_and_peers_are_told_by_annotation() {
    let mut stage = Stage::new("interface=bond*,eth1", |object, _| object);
    for index in 0..2 {
        let remedy = format!("Annotate the Node with {ADDRESS}={}", second(index));
        let lan = format!("take {} from its Node object", lan(&stage, index));
        let agent = stage.agent(index);
        agent
            .expect_log_lines(
                &[
                    "refused: node",
                    "by --underlay interface=bond*,eth1",
                    &lan,
                    &remedy,
                ],
                1,
            )
            .unwrap();
        wait::until(wait::LONG, "it to be counted", || {
            agent.metric(UNKNOWN).is_ok_and(|count| count > 0.5)
        })
        .unwrap();
    }
    stage.register(|object, index| object.annotation(ADDRESS, &second(index).to_string()));
    stage.wait_on("over the second network", on_second, MTU - 50);
    for index in 0..2 {
        let agent = stage.agent(index);
        agent.wait_log("no longer refused: node", wait::LONG).unwrap();
        assert!(agent.metric(UNKNOWN).unwrap() < 0.5);
    }
}

/// The kernel tells of a route that someone changes, and the device is there anew with all that is on it.
#[test]
fn the_way_to_an_address_is_followed_as_routes_change() {
    let mut stage = Stage::new("can-reach=203.0.113.9", |object, index| {
        object.internal_ip(second(index).addr())
    });
    stage.wait_on("by the default route", lan, 1450);
    let to: IpNet = "203.0.113.0/24".parse().unwrap();
    for index in 0..2 {
        let mut setup = stage.cluster.nodes()[index].node.setup().unwrap();
        setup.add_route(RouteSpec::via(to, ROUTER, Some(ETH1))).unwrap();
    }
    let leaves_by = |stage: &Stage, local: &dyn Fn(&Stage, usize) -> IpAddr, mtu| {
        for index in 0..2 {
            let line = format!("sends from {} on", local(stage, index));
            let agent = stage.cluster.nodes()[index].agent.as_ref().unwrap();
            agent.wait_log(&line, wait::LONG).unwrap();
            wait::until(wait::LONG, "the device to be there anew", || {
                stage.view(index).link(DEVICE).is_some_and(|link| link.mtu == mtu)
            })
            .unwrap();
        }
    };
    leaves_by(&stage, &on_second, MTU - 50);
    stage.register(|object, index| object.annotation(ADDRESS, &second(index).to_string()));
    stage.wait_on("over the second network", on_second, MTU - 50);
    // And back.
    stage.register(|object, _| object);
    for index in 0..2 {
        let mut setup = stage.cluster.nodes()[index].node.setup().unwrap();
        setup.delete_route(to).unwrap();
    }
    stage.wait_on("by the default route again", lan, 1450);
}

/// As when a NIC becomes a port of a bridge or a bond, or its address goes to a VLAN on it: the pattern fits the new link,
/// and its MTU counts at once.
#[test]
fn a_chosen_address_is_followed_to_another_link_with_its_mtu() {
    let mut stage = Stage::new("interface=br*,eth1", |object, index| {
        object.annotation(ADDRESS, &second(index).to_string())
    });
    stage.wait_on("over the second network", on_second, MTU - 50);
    let mut setup = stage.cluster.nodes()[0].node.setup().unwrap();
    setup.add_bridge("br1").unwrap();
    setup.set_up("br1").unwrap();
    setup.delete_address(ETH1, second(0)).unwrap();
    setup.set_master(ETH1, "br1").unwrap();
    setup.add_address("br1", second(0)).unwrap();
    stage
        .agent(0)
        .wait_log("sends from 10.99.0.1 on br1", wait::LONG)
        .unwrap();
    stage.wait_on("over the bridge", on_second, MTU - 50);
    for mtu in [1300, MTU] {
        for index in 0..2 {
            let (mut setup, link) = (
                stage.cluster.nodes()[index].node.setup().unwrap(),
                if index == 0 { "br1" } else { ETH1 },
            );
            setup.set_mtu(link, mtu).unwrap();
        }
        stage.wait_on(&format!("with an MTU of {mtu}"), on_second, mtu - 50);
    }
}

/// A node gets another address, as from DHCP; first the host has it, then the API tells, and both agents follow.
#[test]
fn a_node_gets_another_address_and_its_pods_are_reached_again() {
    for underlay in ["internal-ip", "interface=eth0"] {
        let mut stage = Stage::new(underlay, |object, _| object);
        stage.wait_on("over the LAN", lan, 1450);
        let new: IpNet = "172.30.77.1/16".parse().unwrap();
        let old = stage.cluster.nodes()[0].node.address_with_prefix(V4);
        let mut setup = stage.cluster.nodes()[0].node.setup().unwrap();
        setup.add_address(ETH0, new).unwrap();
        // The kernel takes a second address of one network away with the first, and the routes by it.
        setup.delete_address(ETH0, old).unwrap();
        setup.add_address(ETH0, new).unwrap_or_default();
        let object = objects::node("node-1")
            .pod_cidrs([stage.cluster.nodes()[0].subnet])
            .internal_ip(new.addr());
        stage.cluster.api().apply(&object.build()).unwrap();
        let address = move |stage: &Stage, index: usize| match index {
            0 => new.addr(),
            _ => lan(stage, index),
        };
        stage.wait_on("with the new address", address, 1450);
    }
}

/// What comes over a connection from an address that has gone is lost on its way, and nothing tells so: the agent must find
/// that by itself, long before the silence makes it suspicious.
#[test]
fn a_node_without_the_address_that_it_asked_the_api_from_hears_of_the_cluster_at_once() {
    let mut stage = Stage::new("internal-ip", |object, _| object);
    stage.wait_on("over the LAN", lan, 1450);
    let node = &stage.cluster.nodes()[0].node;
    let mut setup = node.setup().unwrap();
    setup.delete_address(ETH1, second(0)).unwrap();
    setup.add_address(ETH1, "10.99.0.77/24".parse().unwrap()).unwrap();
    let api = stage.cluster.lab().address(V4).into();
    setup.add_route(RouteSpec::via(api, ROUTER, Some(ETH1))).unwrap();

    let moved: IpAddr = "172.30.77.2".parse().unwrap();
    let object = objects::node("node-2")
        .pod_cidrs([stage.cluster.nodes()[1].subnet])
        .internal_ip(moved);
    stage.cluster.api().apply(&object.build()).unwrap();
    let mac = vtep_mac("node-2", V4);
    wait::until(wait::LONG, "the peer's new address", || {
        stage.view(0).fdb_remote(DEVICE, mac) == Some(moved)
    })
    .unwrap();
    let lost = "goes from 10.99.0.1, which this host has no more";
    for resource in ["pods", "nodes"] {
        let parts = [lost, &format!("resource={resource}")];
        stage.agent(0).expect_log_lines(&parts, 1).unwrap();
    }
}
