//! Pods as the plugins of other networks connect them.

use std::net::IpAddr;

use routelet_lab::{Cluster, wait};
use routelet_model::{Family, HOST_VETH_MAC, host_prefix, host_veth_name};
use routelet_netlink::Netns;
use routelet_netlink::setup::{Setup, VethEnd};

use crate::network::{Network, run};

/// A pod that another network's plugin has connected.
pub(crate) struct OtherPod {
    pub(crate) netns: Netns,
    addresses: Vec<IpAddr>,
}

impl OtherPod {
    /// Connects a pod with address number `host` of its node's subnets, and writes its Pod object.
    pub(crate) fn new(network: Network, cluster: &mut Cluster, index: usize, name: &str, host: u8) -> Self {
        let addresses = cluster.pod_addresses(index, host, &Family::ALL);
        let pod = Self {
            netns: Netns::new().unwrap(),
            addresses,
        };
        if network.has_bridge() {
            pod.connect_to_bridge(cluster, index, name);
        } else {
            pod.connect_by_route(cluster, index, name);
        }
        let mut setup = Setup::open_in(&pod.netns).unwrap();
        wait::until(wait::LONG, "the pod's link to carry packets", || {
            setup.link("eth0").unwrap().is_some_and(|link| link.running)
        })
        .unwrap();
        let object = cluster.pod_object(index, name, host).unwrap();
        let object = object.ips(&pod.addresses).build();
        cluster.api().apply(&object).unwrap();
        pod
    }

    pub(crate) fn address(&self, family: Family) -> IpAddr {
        let mut addresses = self.addresses.iter();
        *addresses.find(|address| Family::of(**address) == family).unwrap()
    }

    /// As Calico's plugin does.
    fn connect_by_route(&self, cluster: &Cluster, index: usize, name: &str) {
        let node = cluster.nodes()[index].node.netns();
        let veth = host_veth_name("cali", "default", name).unwrap();
        self.add_veth(node, veth.as_str());
        let mut host = format!(
            "cd /proc/sys/net; echo 1 > ipv4/conf/{veth}/proxy_arp; echo 1 > ipv4/conf/{veth}/forwarding\n\
             echo 1 > ipv6/conf/{veth}/proxy_ndp; echo 1 > ipv6/conf/{veth}/forwarding\n\
             ip address replace fe80::ecee:eeff:feee:eeee/64 dev {veth} nodad\n"
        );
        let mut inside = String::new();
        for address in &self.addresses {
            let net = host_prefix(*address);
            host += &format!("ip route add {net} dev {veth} scope link\n");
            inside += &format!("ip address add {net} dev eth0 {}\n", nodad(*address));
            inside += match address {
                IpAddr::V4(_) => {
                    "ip route add 169.254.1.1 dev eth0 scope link\nip route add default via 169.254.1.1 dev eth0\n"
                }
                IpAddr::V6(_) => "ip route add default via fe80::ecee:eeff:feee:eeee dev eth0\n",
            };
        }
        run(node, &host);
        run(&self.netns, &inside);
    }

    /// As flannel's plugin has the plugin `bridge` do it.
    fn connect_to_bridge(&self, cluster: &Cluster, index: usize, name: &str) {
        let node = cluster.nodes()[index].node.netns();
        let veth = format!("veth{name}");
        self.add_veth(node, &veth);
        let mut host = format!(
            "ip link show dev cni0 >/dev/null 2>&1 || {{ ip link add cni0 type bridge; ip link set cni0 mtu 1430 up; }}\n\
             ip link set {veth} master cni0\n"
        );
        let mut inside = String::new();
        for (address, gateway) in self
            .addresses
            .iter()
            .zip(cluster.pod_addresses(index, 1, &Family::ALL))
        {
            let length = cluster.nodes()[index]
                .subnet_of(Family::of(*address))
                .prefix_len();
            host += &format!(
                "ip address replace {gateway}/{length} dev cni0 {}\n",
                nodad(*address)
            );
            inside += &format!(
                "ip address add {address}/{length} dev eth0 {}\nip route add default via {gateway}\n",
                nodad(*address)
            );
        }
        run(node, &host);
        run(&self.netns, &inside);
    }

    fn add_veth(&self, node: &Netns, name: &str) {
        let near = VethEnd {
            name,
            mac: name.starts_with("cali").then_some(HOST_VETH_MAC),
            mtu: Some(1430),
            up: true,
            ..VethEnd::default()
        };
        let far = VethEnd {
            name: "eth0",
            mtu: Some(1430),
            up: true,
            ..VethEnd::default()
        };
        let mut setup = Setup::open_in(node).unwrap();
        setup.add_veth(near, far, &self.netns).unwrap();
        run(&self.netns, "ip link set lo up");
    }
}

fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "nodad" } else { "" }
}
