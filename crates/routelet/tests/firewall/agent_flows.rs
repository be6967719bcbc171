//! The agent forgets the flows of addresses that leave their pod, and of no others.

use std::net::{IpAddr, SocketAddr};

use routelet_lab::{Agent, Backend, Cluster, Pod, wait};
use routelet_model::Family;
use routelet_netlink::Netns;

use crate::need;
use crate::support::{arrives, deliver, flows, flows_with, nft, udp};

/// The address of a service, which leads to a pod.
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10)), 53);

/// A node whose service leads to a pod, as kube-proxy does it.
struct World {
    cluster: Cluster,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::with_agents(Backend::Memory, 1).unwrap();
        let world = Self { cluster };
        nft(
            world.netns(),
            "add table ip service; add chain ip service nat { type nat hook prerouting priority -100; };",
        );
        world
    }

    fn netns(&self) -> &Netns {
        self.cluster.nodes()[0].node.netns()
    }

    fn lead_service_to(&self, address: IpAddr) {
        let rule = format!(
            "ip daddr {} udp dport {} dnat to {address}",
            SERVICE.ip(),
            SERVICE.port()
        );
        nft(
            self.netns(),
            &format!("flush chain ip service nat; add rule ip service nat {rule};"),
        );
    }

    fn add_pod(&self, name: &str, host: u8) -> Pod {
        self.cluster.add_pod(0, name, host).unwrap()
    }

    /// First the links go, as when a runtime stops a pod, then the Pod object.
    fn remove_pod(&mut self, pod: Pod, name: &str) {
        pod.delete().unwrap();
        let object = self.cluster.pod_object(0, name, 0).unwrap().build();
        self.cluster.api().delete(&object).unwrap();
    }

    fn agent(&mut self) -> &mut Agent {
        self.cluster.node(0).agent().unwrap()
    }

    /// Waits until the agent has forgotten so many flows altogether.
    fn wait_flushed(&mut self, count: usize) {
        let line = format!("routelet_flows_flushed_total {count}");
        let flushed = || self.agent().metrics().unwrap().lines().any(|l| l == line);
        wait::until(wait::LONG, &line, flushed).unwrap();
    }
}

fn address(pod: &Pod) -> IpAddr {
    pod.address(Family::V4).unwrap()
}

/// As it shows in the list of flows.
fn shown(address: IpAddr) -> String {
    format!("={address} ")
}

#[test]
fn a_client_of_a_pod_that_moved_reaches_the_new_one_at_once() {
    need!("nft");
    let mut world = World::new();
    let [client, server] = [("client", 2), ("server", 3)].map(|(name, host)| world.add_pod(name, host));
    let client = udp(client.netns(), (address(&client), 4000));
    world.lead_service_to(address(&server));
    let at = udp(server.netns(), (address(&server), SERVICE.port()));
    deliver(&client, SERVICE, &at);
    let old = address(&server);
    assert_eq!(flows_with(world.netns(), &shown(old)), 1);

    // The client never stops sending from its one port, as a resolver does.
    let new = world.add_pod("next", 4);
    let at = udp(new.netns(), (address(&new), SERVICE.port()));
    world.lead_service_to(address(&new));
    assert!(
        !arrives(&client, SERVICE, &at),
        "the flow leads to the old pod as long as that is there"
    );
    world.remove_pod(server, "server");
    world.wait_flushed(1);
    assert!(arrives(&client, SERVICE, &at), "{:#?}", flows(world.netns()));
}

#[test]
fn flows_of_an_address_that_another_pod_gets_go_and_others_stay() {
    need!("nft");
    let mut world = World::new();
    let [backend, other] = [("backend", 2), ("other", 3)].map(|(name, host)| world.add_pod(name, host));
    let pod = world.add_pod("pod", 4);
    let moving = address(&pod);
    world.lead_service_to(address(&backend));
    let at = udp(backend.netns(), (address(&backend), SERVICE.port()));
    let stays = udp(other.netns(), (address(&other), 4000));
    deliver(&udp(pod.netns(), (moving, 4000)), SERVICE, &at);
    deliver(&stays, SERVICE, &at);
    let netns = world.netns();
    assert_eq!(
        (
            flows_with(netns, &shown(moving)),
            flows_with(netns, &shown(SERVICE.ip()))
        ),
        (1, 2)
    );

    // Another backend, and another pod with the same address and the same port.
    world.lead_service_to(address(&other));
    world.remove_pod(pod, "pod");
    world.wait_flushed(1);
    let next = world.add_pod("next", 4);
    assert_eq!(address(&next), moving);
    let source = udp(next.netns(), (moving, 4000));
    let at_other = udp(other.netns(), (address(&other), SERVICE.port()));
    assert_eq!(
        deliver(&source, SERVICE, &at_other),
        SocketAddr::new(moving, 4000)
    );
    assert!(
        arrives(&stays, SERVICE, &at),
        "the flow of the other client still leads to its backend"
    );
    world.wait_flushed(1);
    assert_eq!(flows_with(world.netns(), &shown(SERVICE.ip())), 2);
}

/// A new pod, a deleted and repaired route and an agent's start are no reason to forget anything.
#[test]
fn flows_of_addresses_that_stay_stay() {
    need!("nft");
    let mut world = World::new();
    let [client, server] = [("client", 2), ("server", 3)].map(|(name, host)| world.add_pod(name, host));
    world.lead_service_to(address(&server));
    let at = udp(server.netns(), (address(&server), SERVICE.port()));
    let client = udp(client.netns(), (address(&client), 4000));
    deliver(&client, SERVICE, &at);
    world.cluster.nodes()[0]
        .node
        .setup()
        .unwrap()
        .delete_route(routelet_model::host_prefix(address(&server)))
        .unwrap();
    deliver(&client, SERVICE, &at);
    world.cluster.node(0).agent = None;
    world.cluster.start_agent(0, &[]).unwrap();
    world.cluster.wait_ready().unwrap();
    let (gone, name) = (world.add_pod("gone", 9), "gone");
    world.remove_pod(gone, name);
    assert!(arrives(&client, SERVICE, &at));
    assert_eq!(flows_with(world.netns(), &shown(address(&server))), 1);
    world.wait_flushed(0);
}
