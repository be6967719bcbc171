//! The lab's network: a LAN, nodes on it, and pods on the nodes, each a network namespace.
//!
//! ```text
//!   pod        pod            LAN: bridge lan0, 172.30.0.1/16, fd00:30::1/64
//!   eth0       eth0            │ n1            │ n2
//!    │cali…     │cali…         │               │
//!   node-1 ────────────────── eth0            eth0 ─── node-2
//! ```
//!
//! Pods are connected by the real CNI plugin; what is the agent's work on a node is not done here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use anyhow::{Context, Result};
use ipnet::IpNet;
use routelet_model::{Family, IfName, MacAddr, PerFamily, PodId, VXLAN_OVERHEAD, host_prefix};
use routelet_netlink::Netns;
use routelet_netlink::setup::{RouteSpec, Setup, VethEnd};

use crate::cni::Sandbox;
use crate::wait;

/// The LAN's bridge.
const LAN: &str = "lan0";
/// A fixed address: a bridge without one takes that of a port, and changes it with the ports.
const LAN_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x01]);
/// The device that a node or a pod has for its one connection.
const ETH0: &str = "eth0";

/// A second network's bridge: what lies behind the router that the LAN's namespace then is.
const OTHER_LAN: &str = "lan1";

/// A network's address number `number`, with its prefix length: 172.30.0.0/16 and fd00:30::/64 of the LAN, 172.31.0.0/16
/// and fd00:31::/64 of the second one. Number 1 is the network's own.
fn lan_address(lan: usize, family: Family, number: u16) -> IpNet {
    let (v4, v6) = if lan == 0 { (30, 0x30) } else { (31, 0x31) };
    let [high, low] = number.to_be_bytes();
    match family {
        Family::V4 => IpNet::new_assert(Ipv4Addr::new(172, v4, high, low).into(), 16),
        Family::V6 => IpNet::new_assert(Ipv6Addr::new(0xfd00, v6, 0, 0, 0, 0, 0, number).into(), 64),
    }
}

/// A LAN. It is also the outside world: what is on no node is reached through it.
#[derive(Debug)]
pub struct Lab {
    netns: Netns,
    mtu: u32,
    nodes: AtomicU16,
}

impl Lab {
    /// A LAN with an MTU of 1500.
    pub fn new() -> Result<Self> {
        Self::with_mtu(1500)
    }

    /// A LAN of another MTU, in bytes.
    pub fn with_mtu(mtu: u32) -> Result<Self> {
        let netns = new_netns()?;
        let mut setup = Setup::open_in(&netns)?;
        setup.add_bridge(LAN)?;
        setup.set_mac(LAN, LAN_MAC)?;
        setup.set_mtu(LAN, mtu)?;
        for family in Family::ALL {
            setup.add_address(LAN, lan_address(0, family, 1))?;
        }
        Ok(Self {
            netns,
            mtu,
            nodes: AtomicU16::new(0),
        })
    }

    /// The LAN's namespace: for servers that all nodes reach, and for hosts outside the cluster.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The LAN's own address: 172.30.0.1 and fd00:30::1.
    pub fn address(&self, family: Family) -> IpAddr {
        lan_address(0, family, 1).addr()
    }

    /// The router's address in a network, 0 being the LAN: where its nodes send what is for the other.
    pub fn address_in(&self, lan: usize, family: Family) -> IpAddr {
        lan_address(lan, family, 1).addr()
    }

    /// Adds a node to the second network, behind a router; what only the LAN's nodes can do it cannot: speak to them
    /// without a hop between.
    pub fn node_behind_router(&self, name: &str) -> Result<Node> {
        let mut setup = self.setup()?;
        if setup.link(OTHER_LAN)?.is_none() {
            setup.add_bridge(OTHER_LAN)?;
            setup.set_mtu(OTHER_LAN, self.mtu)?;
            for family in Family::ALL {
                setup.add_address(OTHER_LAN, lan_address(1, family, 1))?;
            }
            self.netns.run(|| {
                for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                    let path = format!("/proc/sys/net/{path}");
                    std::fs::write(&path, "1").with_context(|| format!("writing {path}"))?;
                }
                anyhow::Ok(())
            })??;
        }
        let node = self.add_node(name, 1)?;
        self.wait_connected(&node)?;
        Ok(node)
    }

    /// Sets up links and routes of the LAN.
    pub fn setup(&self) -> Result<Setup> {
        Ok(Setup::open_in(&self.netns)?)
    }

    /// Adds a node, with eth0 on the LAN and the next address of each family.
    pub fn node(&self, name: &str) -> Result<Node> {
        let node = self.add_node(name, 0)?;
        self.wait_connected(&node)?;
        Ok(node)
    }

    /// Adds `count` nodes, named node-1 and so on.
    pub fn nodes(&self, count: usize) -> Result<Vec<Node>> {
        let nodes: Result<Vec<_>> = (1..=count)
            .map(|number| self.add_node(&format!("node-{number}"), 0))
            .collect();
        let nodes = nodes?;
        nodes.iter().try_for_each(|node| self.wait_connected(node))?;
        Ok(nodes)
    }

    fn wait_connected(&self, node: &Node) -> Result<()> {
        wait_running(&mut self.setup()?, &node.port)?;
        wait_running(&mut node.setup()?, ETH0)?;
        wait_answering(&node.netns, ETH0, node.address(Family::V6))?;
        wait_answering(
            &self.netns,
            bridge(node.lan),
            self.address_in(node.lan, Family::V6),
        )
    }

    fn add_node(&self, name: &str, lan_number: usize) -> Result<Node> {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed) + 1;
        // Number 1 of the LAN's addresses is its own.
        let addresses = PerFamily {
            v4: lan_address(lan_number, Family::V4, number + 1),
            v6: lan_address(lan_number, Family::V6, number + 1),
        };
        let netns = new_netns()?;
        let port = format!("n{number}");
        let near = VethEnd {
            name: &port,
            mtu: Some(self.mtu),
            up: true,
            ..VethEnd::default()
        };
        let far = VethEnd {
            name: ETH0,
            mtu: Some(self.mtu),
            up: true,
            ..VethEnd::default()
        };
        let mut lan = self.setup()?;
        lan.add_veth(near, far, &netns)
            .with_context(|| format!("connecting {name} to the LAN"))?;
        lan.set_master(&port, bridge(lan_number))?;
        let mut setup = Setup::open_in(&netns)?;
        for family in Family::ALL {
            setup.add_address(ETH0, *addresses.get(family))?;
            setup.add_route(RouteSpec::via(
                default_route(family),
                self.address_in(lan_number, family),
                Some(ETH0),
            ))?;
        }
        Ok(Node {
            name: name.to_owned(),
            netns,
            lan: lan_number,
            port,
            addresses,
            mtu: AtomicU32::new(self.mtu),
        })
    }

    /// Sets the MTU, in bytes, of a node's connection, on both ends.
    pub fn set_underlay_mtu(&self, node: &Node, mtu: u32) -> Result<()> {
        self.setup()?.set_mtu(&node.port, mtu)?;
        node.setup()?.set_mtu(ETH0, mtu)?;
        node.mtu.store(mtu, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the LAN lead `subnet` to a node: for hosts outside that talk to pods.
    pub fn route_to(&self, node: &Node, subnet: IpNet) -> Result<()> {
        let gateway = node.address(Family::of_net(subnet));
        Ok(self
            .setup()?
            .replace_route(RouteSpec::via(subnet, gateway, Some(bridge(node.lan))))?)
    }

    /// Pulls a node's cable out, or puts it in again.
    pub fn set_connected(&self, node: &Node, connected: bool) -> Result<()> {
        if !connected {
            return Ok(self.setup()?.set_down(&node.port)?);
        }
        self.setup()?.set_up(&node.port)?;
        self.wait_connected(node)
    }
}

/// A node.
#[derive(Debug)]
pub struct Node {
    name: String,
    netns: Netns,
    /// Which network it is in, 0 being the LAN.
    lan: usize,
    port: String,
    addresses: PerFamily<IpNet>,
    mtu: AtomicU32,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its address on the LAN, on eth0.
    pub fn address(&self, family: Family) -> IpAddr {
        self.addresses.get(family).addr()
    }

    /// The same, with the LAN's prefix length.
    pub fn address_with_prefix(&self, family: Family) -> IpNet {
        *self.addresses.get(family)
    }

    /// Sets up links and routes of the node.
    pub fn setup(&self) -> Result<Setup> {
        Ok(Setup::open_in(&self.netns)?)
    }

    /// Adds a pod in Kubernetes' namespace `default`.
    pub fn pod(&self, name: &str, addresses: &[IpAddr]) -> Result<Pod> {
        self.pod_in("default", name, addresses)
    }

    /// Adds a pod: makes its namespace, and has the CNI plugin connect it. The MTU leaves room for VXLAN.
    pub fn pod_in(&self, namespace: &str, name: &str, addresses: &[IpAddr]) -> Result<Pod> {
        let id = PodId {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let family = match addresses.iter().any(IpAddr::is_ipv6) {
            true => Family::V6,
            false => Family::V4,
        };
        let mtu = self.mtu.load(Ordering::Relaxed) - VXLAN_OVERHEAD.get(family);
        let netns = Netns::new()?;
        let sandbox = Sandbox::new(&self.netns, &netns, &id, ETH0, addresses, mtu)?;
        let host_veth = sandbox
            .add()
            .with_context(|| format!("connecting {id} to {}", self.name))?;
        Ok(Pod {
            id,
            node: self.netns.clone(),
            netns,
            sandbox,
            host_veth,
            addresses: addresses.to_vec(),
        })
    }
}

/// A pod. When this is dropped, the kernel takes the veth pair away in its own time; see [`Pod::delete`].
#[derive(Debug)]
pub struct Pod {
    id: PodId,
    node: Netns,
    netns: Netns,
    sandbox: Sandbox,
    host_veth: IfName,
    addresses: Vec<IpAddr>,
}

impl Pod {
    /// Its namespace and name in Kubernetes.
    pub fn id(&self) -> &PodId {
        &self.id
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The node's end of its veth pair.
    pub fn host_veth(&self) -> IfName {
        self.host_veth
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its first address of the family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }

    /// Sets up links and routes inside the pod.
    pub fn setup(&self) -> Result<Setup> {
        Ok(Setup::open_in(&self.netns)?)
    }

    /// Takes the routes away that the CNI plugin has made on the node: what is left is a pod that waits for the agent.
    pub fn without_host_routes(self) -> Result<Self> {
        let mut setup = Setup::open_in(&self.node)?;
        for address in &self.addresses {
            setup.delete_route(host_prefix(*address))?;
        }
        Ok(self)
    }

    /// Takes the pod away as a runtime does; its host veth is gone when this returns.
    pub fn delete(self) -> Result<()> {
        self.sandbox.del()
    }
}

/// Waits until the link carries packets: before, the first ones would be lost.
fn wait_running(setup: &mut Setup, link: &str) -> Result<()> {
    wait::until_some(wait::LONG, &format!("{link} to carry packets"), || {
        match setup.link(link) {
            Ok(Some(state)) if state.running => Some(Ok(())),
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        }
    })?
}

/// Waits until the link answers who looks for the neighbour `address`. The kernel joins the group that an IPv6 neighbour
/// is looked for in (RFC 4291, solicited-node) some time after the address is there; who asks before asks again only a
/// second later.
fn wait_answering(netns: &Netns, link: &str, address: IpAddr) -> Result<()> {
    let IpAddr::V6(address) = address else {
        return Ok(());
    };
    let [.., a, b, c] = address.octets();
    let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
    let joined = || {
        let groups = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap_or_default();
        groups
            .lines()
            .map(|line| line.split_whitespace().skip(1))
            .any(|fields| fields.take(2).eq([link, &group]))
    };
    netns.run(|| wait::until(wait::LONG, &format!("{link} to answer for {address}"), joined))?
}

fn bridge(lan: usize) -> &'static str {
    if lan == 0 { LAN } else { OTHER_LAN }
}

fn default_route(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

/// A namespace in which IPv6 addresses can be used at once: duplicate address detection would take a second or two,
/// and no address here is a duplicate.
fn new_netns() -> Result<Netns> {
    let netns = Netns::new()?;
    netns.run(|| {
        for scope in ["all", "default"] {
            let path = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
            std::fs::write(&path, "0").with_context(|| format!("writing {path} (the lab needs IPv6)"))?;
        }
        anyhow::Ok(())
    })??;
    Ok(netns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lan_addresses() {
        assert_eq!(lan_address(0, Family::V4, 1).to_string(), "172.30.0.1/16");
        assert_eq!(lan_address(0, Family::V4, 300).to_string(), "172.30.1.44/16");
        assert_eq!(lan_address(0, Family::V6, 2).to_string(), "fd00:30::2/64");
    }
}
