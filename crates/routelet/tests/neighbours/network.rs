//! What the agents of other networks put into a node's kernel, and write on its Node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;

use ipnet::IpNet;
use routelet_lab::api::objects::NodeBuilder;
use routelet_lab::{Cluster, ClusterNode};
use routelet_model::{Family, MacAddr};
use routelet_netlink::Netns;

/// Who connects the nodes and the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Calico, in VXLAN, with pods in the nodes' pod subnets.
    Calico,
    /// The same, in VXLAN only to nodes of other networks.
    CalicoCrossSubnet,
    /// flannel, in VXLAN, with pods on a bridge.
    Flannel,
    /// flannel between the nodes, and Calico's plugin for the pods.
    Canal,
    /// flannel without a tunnel: its backend host-gw.
    HostGateway,
}

/// The devices between the nodes.
struct Tunnel {
    device: [&'static str; 2],
    vni: u32,
    port: u16,
}

impl Network {
    fn tunnel(self) -> Option<Tunnel> {
        match self {
            Self::HostGateway => None,
            Self::Calico | Self::CalicoCrossSubnet => Some(Tunnel {
                device: ["vxlan.calico", "vxlan-v6.calico"],
                vni: 4096,
                port: 4789,
            }),
            Self::Flannel | Self::Canal => Some(Tunnel {
                device: ["flannel.1", "flannel-v6.1"],
                vni: 1,
                port: 8472,
            }),
        }
    }

    /// The device of a family, where there is a tunnel.
    pub(crate) fn device(self, family: Family) -> Option<&'static str> {
        Some(self.tunnel()?.device[usize::from(family == Family::V6)])
    }

    fn is_calicos(self) -> bool {
        matches!(self, Self::Calico | Self::CalicoCrossSubnet)
    }

    /// Whether pods are on a bridge, and not behind a route each.
    pub(crate) fn has_bridge(self) -> bool {
        matches!(self, Self::Flannel | Self::HostGateway)
    }

    /// Settings with which an agent speaks with its nodes, with devices of its own.
    pub(crate) fn arguments(self) -> Vec<&'static str> {
        match self {
            Self::Calico => Vec::new(),
            Self::CalicoCrossSubnet => vec!["--encapsulation", "vxlan-cross-subnet"],
            Self::Flannel | Self::Canal => vec!["--vxlan-vni", "1", "--vxlan-port", "8472"],
            Self::HostGateway => vec!["--encapsulation", "none"],
        }
    }

    /// Settings with which an agent takes over a node of its, devices included.
    pub(crate) fn arguments_on_its_node(self) -> Vec<&'static str> {
        let devices = ["--vxlan-device", "flannel.1", "--vxlan-device-v6", "flannel-v6.1"];
        let has_flannels = matches!(self, Self::Flannel | Self::Canal);
        let devices: &[&str] = if has_flannels { &devices } else { &[] };
        [&self.arguments(), devices].concat()
    }

    /// A VTEP MAC address that follows from nothing, as flannel draws one.
    pub(crate) fn mac(self, number: usize, family: Family) -> MacAddr {
        let family = if family == Family::V4 { 4 } else { 6 };
        MacAddr([0x52, 0x1e, 0x7d, 0x03, family, u8::try_from(number).unwrap()])
    }

    /// Calico's may be any address of the pod network; flannel's is the subnet's first.
    pub(crate) fn tunnel_address(self, subnet: IpNet) -> IpAddr {
        let host = if self.is_calicos() { 200 } else { 0 };
        match subnet.network() {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + host).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(host)).into(),
        }
    }

    /// A Node with the annotations that this network's agent writes.
    pub(crate) fn annotate(self, mut object: NodeBuilder, number: usize, node: &ClusterNode) -> NodeBuilder {
        for family in Family::ALL {
            let mac = self.mac(number, family);
            let values = match self {
                Self::Calico | Self::CalicoCrossSubnet => vec![
                    (
                        ["projectcalico.org/IPv4Address", "projectcalico.org/IPv6Address"],
                        node.node.address_with_prefix(family).to_string(),
                    ),
                    (
                        [
                            "projectcalico.org/IPv4VXLANTunnelAddr",
                            "projectcalico.org/IPv6VXLANTunnelAddr",
                        ],
                        self.tunnel_address(node.subnet_of(family)).to_string(),
                    ),
                    (
                        [
                            "projectcalico.org/VXLANTunnelMACAddr",
                            "projectcalico.org/VXLANTunnelMACAddrV6",
                        ],
                        mac.to_string(),
                    ),
                ],
                Self::Flannel | Self::Canal | Self::HostGateway => vec![
                    (
                        ["flannel.alpha.coreos.com/backend-type"; 2],
                        self.backend().to_owned(),
                    ),
                    (
                        ["flannel.alpha.coreos.com/kube-subnet-manager"; 2],
                        "true".to_owned(),
                    ),
                    (
                        [
                            "flannel.alpha.coreos.com/backend-data",
                            "flannel.alpha.coreos.com/backend-v6-data",
                        ],
                        self.backend_data(mac),
                    ),
                    (
                        [
                            "flannel.alpha.coreos.com/public-ip",
                            "flannel.alpha.coreos.com/public-ipv6",
                        ],
                        node.node.address(family).to_string(),
                    ),
                ],
            };
            for (names, value) in values {
                object = object.annotation(names[usize::from(family == Family::V6)], &value);
            }
        }
        object
    }

    fn backend(self) -> &'static str {
        if self.tunnel().is_some() {
            "vxlan"
        } else {
            "host-gw"
        }
    }

    fn backend_data(self, mac: MacAddr) -> String {
        match self.tunnel() {
            Some(Tunnel { vni, .. }) => format!("{{\"VNI\":{vni},\"VtepMAC\":\"{mac}\"}}"),
            None => "null".to_owned(),
        }
    }

    /// Starts its agent on a node: what is there already is left as it is, as after the agent's restart.
    pub(crate) fn set_up(self, cluster: &Cluster, index: usize) {
        let node = &cluster.nodes()[index];
        let mut script = String::from(
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n",
        );
        for family in Family::ALL {
            let peers = cluster.nodes().iter().enumerate();
            let peers = peers.filter(|(other, _)| *other != index);
            let Some(tunnel) = self.tunnel() else {
                for (_, peer) in peers {
                    let (subnet, remote) = (peer.subnet_of(family), peer.node.address(family));
                    script += &format!("ip route replace {subnet} via {remote} dev eth0\n");
                }
                continue;
            };
            let device = tunnel.device[usize::from(family == Family::V6)];
            script += &self.set_up_device(&tunnel, device, index, node, family);
            for (other, peer) in peers {
                let mac = self.mac(other, family);
                let remote = peer.node.address(family);
                let subnet = peer.subnet_of(family);
                let gateway = self.tunnel_address(subnet);
                script += &format!(
                    "ip neighbour replace {gateway} lladdr {mac} dev {device} nud permanent\n\
                     bridge fdb replace {mac} dev {device} dst {remote} self permanent\n"
                );
                let is_near = node.node.address_with_prefix(family).contains(&remote);
                script += &match self == Self::CalicoCrossSubnet && is_near {
                    true => format!("ip route replace {subnet} via {remote} dev eth0 onlink proto 80\n"),
                    false => format!("ip route replace {subnet} via {gateway} dev {device} onlink\n"),
                };
            }
        }
        run(node.node.netns(), &script);
    }

    /// The commands that make a device, and the route that Calico has beside it.
    fn set_up_device(
        self,
        tunnel: &Tunnel,
        device: &str,
        index: usize,
        node: &ClusterNode,
        family: Family,
    ) -> String {
        let Tunnel { vni, port, .. } = tunnel;
        let mac = self.mac(index, family);
        let local = node.node.address(family);
        let subnet = node.subnet_of(family);
        let address = self.tunnel_address(subnet);
        let mtu = if family == Family::V4 { 1450 } else { 1430 };
        let blackhole = match self.is_calicos() {
            true => format!("ip route replace blackhole {subnet} proto 80\n"),
            false => String::new(),
        };
        format!(
            "ip link show dev {device} >/dev/null 2>&1 || ip link add {device} address {mac} \
             type vxlan id {vni} local {local} dev eth0 dstport {port} nolearning\n\
             ip link set {device} mtu {mtu} up\n\
             ip address replace {address} dev {device}\n\
             {blackhole}"
        )
    }
}

/// Runs a shell's script in a namespace. It must succeed.
pub(crate) fn run(netns: &Netns, script: &str) -> String {
    let mut command = std::process::Command::new("sh");
    command.args(["-euc", script]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = netns.spawn(command).unwrap().wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{script}\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
