//! What an ADD brings about: the network of a pod, in the pod and on the host.

use std::net::IpAddr;

use routelet_lab::{KernelView, Ping};
use routelet_model::{
    Family, HOST_VETH_MAC, IfName, Key, Kind, Object, RouteTarget, Sysctl, SysctlName, host_prefix,
    host_veth_name, host_veth_sysctls, pod_gateway,
};
use routelet_netlink::{Config, Kernel, Netns, Setup, sysctl};
use serde_json::json;

use crate::runtime::{MTU, Runtime, Sandbox, runtime};

const V4: &str = "10.244.1.0/24";
const V6: &str = "fd00:244:1::/64";

fn read(netns: &Netns, name: SysctlName, link: IfName) -> Option<u32> {
    netns
        .run(|| sysctl::read(Sysctl::link(name, link)).unwrap())
        .unwrap()
}

fn families(pod: &Sandbox) -> Vec<Family> {
    pod.addresses().into_iter().map(Family::of).collect()
}

fn assert_network(runtime: &Runtime, pod: &Sandbox) {
    let veth = host_veth_name("cali", "default", "web").unwrap();
    let host = Setup::open_in(&runtime.node)
        .unwrap()
        .link(veth.as_str())
        .unwrap()
        .unwrap();
    assert_eq!(
        (host.mac, host.mtu, host.running),
        (Some(HOST_VETH_MAC), MTU, true)
    );
    let alias = host.alias.unwrap();
    assert!(
        alias.starts_with("routelet pods id-of-web eth0 ") && alias.ends_with(" default/web"),
        "{alias}"
    );
    assert_eq!(routelet_model::given_addresses(&alias), pod.addresses());
    let eth0 = pod.setup().link("eth0").unwrap().unwrap();
    assert_eq!((eth0.mtu, eth0.running), (MTU, true));

    let (outside, inside) = (
        KernelView::of(&runtime.node).unwrap(),
        KernelView::of(&pod.netns).unwrap(),
    );
    for family in families(pod) {
        let gateway = pod_gateway(family);
        let default = inside
            .routes
            .iter()
            .find(|route| route.destination.prefix_len() == 0 && Family::of_net(route.destination) == family);
        assert_eq!(default.unwrap().gateway, Some(gateway));
        for (name, value) in host_veth_sysctls(family) {
            assert_eq!(read(&runtime.node, *name, veth), Some(*value), "{name:?}");
        }
    }
    for address in pod.addresses() {
        assert!(inside.has_address("eth0", host_prefix(address)), "{inside}");
        let route = outside.route(host_prefix(address)).unwrap();
        assert_eq!((route.link, route.protocol), (Some(veth), 80));
    }
}

#[test]
fn of_each_family_and_of_both() {
    for ranges in [&[V4][..], &[V6], &[V4, V6], &[V6, V4]] {
        let Some(runtime) = Runtime::new(ranges) else {
            routelet_lab::skip!("no host-local in /usr/lib/cni or /opt/cni/bin")
        };
        let pod = runtime.pod("web");
        assert_eq!(pod.addresses().len(), ranges.len());
        assert_network(&runtime, &pod);
        runtime.check(&pod).ok();
        runtime.del(&pod).ok();
        runtime.assert_empty("after DEL");
    }
}

/// How often a link's neighbours have been asked for with IPv6.
fn solicitations(netns: &Netns, link: &str) -> u64 {
    let path = format!("/proc/thread-self/net/dev_snmp6/{link}");
    let counters = netns.run(|| std::fs::read_to_string(path).unwrap()).unwrap();
    let mut values = counters
        .lines()
        .filter_map(|line| line.strip_prefix("Icmp6OutNeighborSolicits"));
    values.next().unwrap().trim().parse().unwrap()
}

/// Nothing is to be waited for after an ADD: the first packet gets through, and the first question for a neighbour is
/// answered.
#[test]
fn works_with_the_first_packet() {
    let runtime = runtime!(V4, V6);
    let forward = [SysctlName::Ipv4IpForward, SysctlName::Ipv6AllForwarding];
    runtime
        .node
        .run(|| forward.map(|name| sysctl::write(Sysctl::host(name), 1).unwrap()))
        .unwrap();
    for number in 0..20 {
        let pod = runtime.pod(&format!("web-{number}"));
        let other = runtime.pod(&format!("other-{number}"));
        let ping = |from: &Netns, to: IpAddr, ttl| {
            let report = Ping::to(to).run(from).unwrap();
            assert!(report.lost.is_empty(), "pod {number}, {to}: {report}");
            assert_eq!(report.ttl, Some(ttl), "{to}");
        };
        for address in pod.addresses() {
            ping(&runtime.node, address, 64);
        }
        for address in other.addresses() {
            ping(&pod.netns, address, 63);
        }
        for (netns, link) in [
            (&pod.netns, "eth0"),
            (&other.netns, "eth0"),
            (&runtime.node, &pod.host_veth()),
            (&runtime.node, &other.host_veth()),
        ] {
            let asked = solicitations(netns, link);
            assert!(asked <= 1, "pod {number}, {link}: asked {asked} times");
        }
    }
}

#[test]
fn ipv6_is_ready_at_once_whatever_the_defaults_are() {
    let runtime = runtime!(V6);
    let sandbox = runtime.sandbox("web");
    let defaults = |values: [(&str, &str); 3]| {
        for (name, value) in values {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/default/{name}"), value).unwrap();
        }
    };
    // As network managers and container runtimes like to have it: random link-local addresses, no IPv6, careful probing.
    let values = [("addr_gen_mode", "3"), ("accept_dad", "2"), ("disable_ipv6", "1")];
    for netns in [&runtime.node, &sandbox.netns] {
        netns.run(|| defaults(values)).unwrap();
    }
    let pod = {
        let mut sandbox = sandbox;
        runtime.add(&mut sandbox).ok();
        sandbox
    };
    assert_network(&runtime, &pod);
    let gateway = format!("{}/64", pod_gateway(Family::V6)).parse().unwrap();
    let veth = pod.host_veth();
    assert!(KernelView::of(&runtime.node).unwrap().has_address(&veth, gateway));
    for address in pod.addresses() {
        let report = Ping::to(address).run(&runtime.node).unwrap();
        assert!(report.lost.is_empty(), "{report}");
    }

    // Who sets the veth down takes the address; it comes back the same.
    let mut setup = Setup::open_in(&runtime.node).unwrap();
    setup.set_down(&veth).unwrap();
    setup.set_up(&veth).unwrap();
    assert!(KernelView::of(&runtime.node).unwrap().has_address(&veth, gateway));
}

#[test]
fn the_agent_finds_its_objects_in_place() {
    let runtime = runtime!(V4, V6);
    let pod = runtime.pod("web");
    let veth: IfName = pod.host_veth().parse().unwrap();
    let mut found = Vec::new();
    let config = Config {
        protocol: 80,
        devices: Vec::new(),
        interface_prefix: "cali".to_owned(),
        receive_buffer: 1 << 20,
        nft_table: "routelet".to_owned(),
    };
    runtime
        .node
        .run(|| {
            let mut kernel = Kernel::open(config).unwrap();
            for kind in [Kind::Link, Kind::Route] {
                kernel
                    .dump(kind, None, &mut |key, object| found.push((key, object)))
                    .unwrap();
            }
        })
        .unwrap();
    for address in pod.addresses() {
        let wanted = (
            Key::route(host_prefix(address)),
            Object::Route(RouteTarget::Link(veth)),
        );
        assert!(found.contains(&wanted), "{wanted:?} in {found:?}");
    }
    assert!(found.iter().any(|(key, _)| *key == Key::Link(veth)));
}

#[test]
fn without_an_mtu_the_kernels_default_holds() {
    let mut runtime = runtime!(V4);
    runtime.config["mtu"] = json!(0);
    let pod = runtime.pod("web");
    assert_eq!(pod.result().interfaces[1].mtu, Some(1500));
    runtime.check(&pod).ok();
}

#[test]
fn prefix_and_protocol_are_settings() {
    let mut runtime = runtime!(V4);
    runtime.config["interfacePrefix"] = "pod".into();
    runtime.config["routeProtocol"] = 99.into();
    let pod = runtime.pod("web");
    let veth = host_veth_name("pod", "default", "web").unwrap();
    assert_eq!(pod.host_veth(), veth.as_str());
    let view = KernelView::of(&runtime.node).unwrap();
    assert_eq!(view.route(host_prefix(pod.addresses()[0])).unwrap().protocol, 99);
    runtime.check(&pod).ok();
}

#[test]
fn name_servers_are_passed_on() {
    let mut runtime = runtime!(V4);
    runtime.config["dns"] = json!({"nameservers": ["10.96.0.10"]});
    let pod = runtime.pod("web");
    assert_eq!(pod.previous.unwrap()["dns"]["nameservers"][0], "10.96.0.10");
}

/// The kernel answers ARP for the gateway only on a host that has a way to it.
#[test]
fn works_on_a_host_without_a_default_route() {
    let runtime = runtime!(V4, V6);
    let mut host = Setup::open_in(&runtime.node).unwrap();
    for everywhere in ["0.0.0.0/0", "::/0"] {
        host.delete_route(everywhere.parse().unwrap()).unwrap();
    }
    let pod = runtime.pod("web");
    runtime.check(&pod).ok();
    for address in ["172.30.0.2", "fd00:30::2"] {
        let report = Ping::to(address.parse().unwrap()).run(&pod.netns).unwrap();
        assert!(report.lost.is_empty(), "{address}: {report}");
    }
}
