//! The networks that are compared: two nodes on a LAN, two pods on the first of them and one on the second.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use ipnet::{IpNet, Ipv4Net};
use routelet_lab::{Backend, Cluster, Lab, Node, Pod};
use routelet_model::{
    Family, IfName, Key, Kind, Link, LinkKind, Object, Sysctl, SysctlName, Vxlan, host_prefix, pod_gateway,
    tunnel_address, vtep_mac,
};
use routelet_netlink::setup::{RouteSpec, VethEnd};
use routelet_netlink::{Config, Kernel, Netns, Operation, Setup, Verb, sysctl};

use super::Way;
use super::devices::Device;
use crate::message::PROTOCOL;
use crate::programming::DEVICE;

const NODES: usize = 2;
/// The nodes' and the pods' device.
const ETH0: &str = "eth0";
/// MTU of pods and VXLAN devices: what the LAN leaves.
const MTU: u32 = 1450;
/// The pods: each one's node, and its number in the node's subnet.
const PODS: [(usize, u8); 3] = [(0, 2), (0, 3), (1, 2)];

/// From one pod to another.
#[derive(Debug)]
pub(crate) struct Road {
    pub(crate) from: Netns,
    pub(crate) to: Netns,
    /// The other pod's.
    pub(crate) address: IpAddr,
}

/// A network's roads and the devices on them.
#[derive(Debug)]
pub(crate) struct Network {
    across_nodes: Road,
    on_one_node: Road,
    pub(crate) devices: Vec<Device>,
}

impl Network {
    /// Of nodes, pods with their addresses, and the pods' host veths, in the order of [`PODS`].
    fn new(nodes: [&Node; NODES], pods: [(&Netns, IpAddr, String); PODS.len()]) -> Self {
        let [web, beside, elsewhere] = &pods;
        let road = |to: &(&Netns, IpAddr, String)| Road {
            from: web.0.clone(),
            to: to.0.clone(),
            address: to.1,
        };
        let mut devices = Vec::new();
        let mut add = |role, netns: &Netns, name: &str| {
            devices.push(Device {
                role,
                netns: netns.clone(),
                name: name.to_owned(),
            });
        };
        for (roles, (node, pod)) in [
            (
                [
                    "VXLAN device, sending",
                    "node's eth0, sending",
                    "host veth, sending",
                    "pod's eth0, sending",
                ],
                (nodes[0], web),
            ),
            (
                [
                    "VXLAN device, receiving",
                    "node's eth0, receiving",
                    "host veth, receiving",
                    "pod's eth0, receiving",
                ],
                (nodes[1], elsewhere),
            ),
        ] {
            add(roles[0], node.netns(), DEVICE);
            add(roles[1], node.netns(), ETH0);
            add(roles[2], node.netns(), &pod.2);
            add(roles[3], pod.0, ETH0);
        }
        add("host veth, the other one", nodes[0].netns(), &beside.2);
        add("pod's eth0, the other one", beside.0, ETH0);
        Self {
            across_nodes: road(elsewhere),
            on_one_node: road(beside),
            devices,
        }
    }

    pub(crate) fn road(&self, way: Way) -> &Road {
        match way {
            Way::AcrossNodes => &self.across_nodes,
            Way::OnOneNode => &self.on_one_node,
        }
    }
}

/// What real agents and the real plugin have set up.
pub(crate) struct Routelet {
    pub(crate) network: Network,
    _pods: Vec<Pod>,
    _cluster: Cluster,
}

impl Routelet {
    /// With the nft table as it is by default, or without: there is no setting for that, so the agents are killed first,
    /// who would put it back.
    pub(crate) fn new(nft_table: bool) -> Result<Self> {
        let mut cluster = Cluster::with_agents(Backend::Memory, NODES)?;
        let add = |(node, host): &(usize, u8)| cluster.add_pod(*node, &format!("pod-{node}-{host}"), *host);
        let pods: Vec<Pod> = PODS.iter().map(add).collect::<Result<_>>()?;
        for index in 0..NODES {
            if !nft_table {
                cluster.node(index).agent()?.kill()?;
            }
            let netns = cluster.nodes()[index].node.netns();
            netns.run(|| set_table(nft_table))??;
        }
        let ends = pods.iter().map(|pod| {
            let address = pod.address(Family::V4).context("a pod without an address")?;
            Ok((pod.netns(), address, pod.host_veth().to_string()))
        });
        let ends: Vec<_> = ends.collect::<Result<_>>()?;
        let ends = ends.try_into().ok().context("as many pods as were made")?;
        let nodes = [&cluster.nodes()[0].node, &cluster.nodes()[1].node];
        Ok(Self {
            network: Network::new(nodes, ends),
            _pods: pods,
            _cluster: cluster,
        })
    }
}

/// Makes sure that the agent's nft table is in the calling thread's namespace, and takes it away unless it is wanted.
fn set_table(wanted: bool) -> Result<()> {
    let mut kernel = Kernel::open(Config {
        protocol: PROTOCOL,
        devices: vec![DEVICE.parse()?],
        interface_prefix: "cali".to_owned(),
        nft_table: "routelet".to_owned(),
        receive_buffer: 1 << 20,
    })?;
    let count = |kernel: &mut Kernel| -> Result<usize> {
        let mut count = 0;
        kernel.dump(Kind::NftRules, None, &mut |_, _| count += 1)?;
        Ok(count)
    };
    ensure!(count(&mut kernel)? > 0, "the agent has made no nft table");
    if !wanted {
        let delete = Operation {
            verb: Verb::Delete,
            key: Key::NftTable,
            object: Object::NftTable,
        };
        let mut failures = Vec::new();
        kernel.apply(&[delete], &mut failures);
        ensure!(
            failures.is_empty(),
            "the nft table cannot be deleted: {failures:?}"
        );
        ensure!(count(&mut kernel)? == 0, "the nft table is still there");
    }
    Ok(())
}

/// Devices, addresses and plain routes, and nothing else.
pub(crate) struct HandMade {
    pub(crate) network: Network,
    _pods: Vec<Netns>,
    _nodes: Vec<Node>,
    _lab: Lab,
}

impl HandMade {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let nodes = lab.nodes(NODES)?;
        let [one, other] = [0, 1].map(|index| Member::of(&nodes[index], index));
        one.connect(&other)?;
        other.connect(&one)?;
        let members = [&one, &other];
        let mut pods = Vec::new();
        for (node, number) in PODS {
            pods.push(members[node].add_pod(number)?);
        }
        let ends: Vec<_> = PODS
            .iter()
            .zip(&pods)
            .map(|((node, number), netns)| (netns, members[*node].address(*number), host_veth(*number)))
            .collect();
        let ends = ends.try_into().ok().context("as many pods as were made")?;
        Ok(Self {
            network: Network::new([&nodes[0], &nodes[1]], ends),
            _pods: pods,
            _nodes: nodes,
            _lab: lab,
        })
    }
}

fn host_veth(number: u8) -> String {
    format!("pod{number}")
}

/// A node of the network that is made by hand.
struct Member<'a> {
    node: &'a Node,
    subnet: Ipv4Net,
}

impl<'a> Member<'a> {
    /// The subnets are as the lab's clusters have them.
    fn of(node: &'a Node, index: usize) -> Self {
        let number = index as u8 + 1;
        Self {
            node,
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, number, 0), 24),
        }
    }

    fn address(&self, number: u8) -> IpAddr {
        Ipv4Addr::from_bits(self.subnet.network().to_bits() + u32::from(number)).into()
    }

    fn tunnel(&self) -> IpAddr {
        tunnel_address(self.subnet.into())
    }

    /// Makes the VXLAN device, and the way to another node.
    fn connect(&self, other: &Self) -> Result<()> {
        let forward = Sysctl::host(SysctlName::Ipv4IpForward);
        self.node.netns().run(|| sysctl::write(forward, 1))??;
        let mut setup = self.node.setup()?;
        let device: IfName = DEVICE.parse()?;
        let link = Link {
            kind: LinkKind::Vxlan(Vxlan {
                vni: 4096,
                port: 4789,
                local: self.node.address(Family::V4),
                parent: Some(ETH0.parse()?),
                learning: false,
                odd: false,
            }),
            mac: Some(vtep_mac(self.node.name(), Family::V4)),
            mtu: Some(MTU),
            up: true,
            running: true,
            enslaved: false,
            given: Vec::new(),
            index: 0,
        };
        setup.add_vxlan(device, &link)?;
        setup.add_address(DEVICE, host_prefix(self.tunnel()))?;
        let mac = vtep_mac(other.node.name(), Family::V4);
        setup.replace_fdb(DEVICE, mac, other.node.address(Family::V4))?;
        setup.replace_neighbour(DEVICE, other.tunnel(), mac)?;
        setup.add_route(RouteSpec::via(IpNet::V4(other.subnet), other.tunnel(), Some(DEVICE)).onlink())?;
        Ok(())
    }

    /// Makes a pod: its gateway is an address that the host veth really has.
    fn add_pod(&self, number: u8) -> Result<Netns> {
        let netns = Netns::new()?;
        let name = host_veth(number);
        let (gateway, address) = (pod_gateway(Family::V4), self.address(number));
        let end = |name| VethEnd {
            name,
            mtu: Some(MTU),
            up: true,
            ..VethEnd::default()
        };
        let mut host = self.node.setup()?;
        host.add_veth(end(&name), end(ETH0), &netns)?;
        host.add_address(&name, host_prefix(gateway))?;
        host.add_route(RouteSpec::to_link(host_prefix(address), &name))?;
        let mut inside = Setup::open_in(&netns)?;
        inside.add_address(ETH0, host_prefix(address))?;
        inside.add_route(RouteSpec::to_link(host_prefix(gateway), ETH0))?;
        let everywhere = IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0);
        inside.add_route(RouteSpec::via(everywhere, gateway, Some(ETH0)))?;
        Ok(netns)
    }
}
