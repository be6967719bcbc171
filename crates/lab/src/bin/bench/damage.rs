//! What someone does to a node's kernel, how it shows that all is as it was, and what puts it right.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use nix::libc;
use routelet_model::{Family, HOST_VETH_MAC, IfName, MacAddr, vtep_mac};

use crate::agent::Rig;
use crate::api_events::route_of;
use crate::listener::Change;
use crate::message::{self, CREATE, Message, NHA_GATEWAY, NHA_ID, NHMSG, REPLACE};
use crate::nft::{self, NftChange};
use crate::peer::Peer;
use crate::programming::DEVICE;
use crate::raw::{Batch, RawSocket, batches};

/// MTU of the VXLAN device.
const MTU: u32 = 1450;

/// One that nothing of ours has.
const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

/// What someone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    NexthopDeleted,
    RouteDeleted,
    RouteChanged,
    NeighbourDeleted,
    NeighbourChanged,
    FdbDeleted,
    FdbChanged,
    NexthopChanged,
    PodRouteDeleted,
    VethDown,
    VethMacChanged,
    SysctlChanged,
    NftElementDeleted,
    BlackholeDeleted,
    NftRulesDeleted,
    NftTableDeleted,
    MacChanged,
    MtuChanged,
    AddressDeleted,
    DeviceDown,
    DeviceDeleted,
}

impl Damage {
    /// In this order. What there is only one of comes last.
    pub(crate) const ALL: [Self; 21] = [
        Self::NexthopDeleted,
        Self::RouteDeleted,
        Self::RouteChanged,
        Self::NeighbourDeleted,
        Self::NeighbourChanged,
        Self::FdbDeleted,
        Self::FdbChanged,
        Self::NexthopChanged,
        Self::PodRouteDeleted,
        Self::VethDown,
        Self::VethMacChanged,
        Self::SysctlChanged,
        Self::NftElementDeleted,
        Self::BlackholeDeleted,
        Self::NftRulesDeleted,
        Self::NftTableDeleted,
        Self::MacChanged,
        Self::MtuChanged,
        Self::AddressDeleted,
        Self::DeviceDown,
        Self::DeviceDeleted,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NexthopDeleted => "nexthop deleted, until its route is back",
            Self::RouteDeleted => "node's route deleted",
            Self::RouteChanged => "node's route changed",
            Self::NeighbourDeleted => "neighbour deleted",
            Self::NeighbourChanged => "neighbour changed",
            Self::FdbDeleted => "FDB entry deleted",
            Self::FdbChanged => "FDB entry changed",
            Self::NexthopChanged => "nexthop changed",
            Self::PodRouteDeleted => "pod's route deleted",
            Self::VethDown => "pod's veth down, until its route is back",
            Self::VethMacChanged => "pod's veth, MAC changed",
            Self::SysctlChanged => "sysctl of a veth changed",
            Self::NftElementDeleted => "nft element deleted",
            Self::BlackholeDeleted => "blackhole of the own subnet deleted",
            Self::NftRulesDeleted => "nft rules of a chain deleted",
            Self::NftTableDeleted => "nft table deleted",
            Self::MacChanged => "VXLAN device, MAC changed",
            Self::AddressDeleted => "tunnel address deleted",
            Self::MtuChanged => "VXLAN device, MTU changed",
            Self::DeviceDown => "VXLAN device down, until it is up",
            Self::DeviceDeleted => "VXLAN device deleted, until it is back",
        }
    }

    /// What it takes along of every node, where it does. The kernel takes the longer for it the more nodes there are, and
    /// many milliseconds for a device with none: it waits until no CPU uses the device any more (`synchronize_net` in
    /// dev_close and unregister_netdevice), and has the lock meanwhile that a repair needs.
    pub(crate) fn along(self) -> Option<Along> {
        match self {
            // The kernel drops the neighbours of a link that has lost its last IPv4 address.
            Self::AddressDeleted => Some(Along {
                name: "tunnel address deleted, until all neighbours are back",
                is_one: |change| matches!(change, Change::Neighbour(..)),
            }),
            Self::DeviceDown => Some(Along {
                name: "VXLAN device down, until all routes are back",
                is_one: is_nodes_route,
            }),
            Self::DeviceDeleted => Some(Along {
                name: "VXLAN device deleted, until all routes are back",
                is_one: is_nodes_route,
            }),
            _ => None,
        }
    }

    /// Whether there is but one such object on a node.
    pub(crate) fn is_single(self) -> bool {
        self.along().is_some()
            || matches!(
                self,
                Self::BlackholeDeleted
                    | Self::NftRulesDeleted
                    | Self::NftTableDeleted
                    | Self::MacChanged
                    | Self::MtuChanged
            )
    }

    /// Whether the raw writer has a repair of it: it writes no nft rules.
    pub(crate) fn is_repaired_by_raw_writer(self) -> bool {
        !matches!(self, Self::NftRulesDeleted | Self::NftTableDeleted)
    }
}

/// Objects of all nodes that go with one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Along {
    pub(crate) name: &'static str,
    /// Whether the kernel tells by this that one of them is back.
    pub(crate) is_one: fn(Change) -> bool,
}

fn is_nodes_route(change: Change) -> bool {
    matches!(change, Change::Route(to, libc::RTN_UNICAST) if to.prefix_len() == 24)
}

/// A piece of work on the kernel that is ready to be done.
pub(crate) enum Act {
    Messages(Vec<Batch>),
    /// A value to be written to a file.
    Write(String, &'static str),
}

impl Act {
    fn messages(messages: impl IntoIterator<Item = Message>) -> Self {
        Self::Messages(batches(messages.into_iter().collect()))
    }

    pub(crate) fn carry_out(&self, socket: &mut RawSocket) -> Result<()> {
        match self {
            Self::Messages(batches) => socket.write(batches),
            Self::Write(path, value) => {
                std::fs::write(path, value).with_context(|| format!("writing {path}"))
            }
        }
    }
}

/// Damage to certain objects.
pub(crate) struct Orders {
    pub(crate) harm: Act,
    /// By this the kernel tells that the object is as it was.
    pub(crate) restored: Change,
    /// What makes it so, and puts right what the harm took along.
    pub(crate) repair: Act,
}

/// What the orders are about: a node with its device.
pub(crate) struct Victim<'a> {
    rig: &'a Rig,
    device: u32,
    name: IfName,
    /// The pod subnet.
    subnet: Ipv4Net,
    tunnel_address: Ipv4Net,
    /// Numbers of the nexthops by their gateways.
    nexthops: HashMap<Ipv4Addr, u32>,
}

impl<'a> Victim<'a> {
    /// As it is now. The calling thread is in the node's namespace.
    pub(crate) fn of(rig: &'a Rig, socket: &mut RawSocket) -> Result<Self> {
        let IpNet::V4(subnet) = rig.cluster.nodes()[0].subnet else {
            bail!("the lab's nodes have IPv4 subnets")
        };
        let mut nexthops = HashMap::new();
        socket.dump(&message::dump_nexthops(), |message| {
            nexthops.extend(
                message
                    .address(NHMSG, NHA_GATEWAY)
                    .zip(message.number(NHMSG, NHA_ID)),
            );
        })?;
        Ok(Self {
            rig,
            device: rig.index(DEVICE)?,
            name: DEVICE.parse()?,
            subnet,
            tunnel_address: Ipv4Net::new_assert(subnet.network(), 32),
            nexthops,
        })
    }

    /// The damage to the object of this number, and its repair.
    pub(crate) fn orders(&self, damage: Damage, number: usize) -> Result<Orders> {
        let peer = &self.rig.peers[number % self.rig.peers.len()];
        let pod = &self.rig.pods[number % self.rig.pods.len()];
        let device = self.device;
        let (mac, gateway, underlay) = (peer.mac(), peer.gateway(), peer.underlay);
        let (gone, replace) = (libc::RTM_DELNEIGH, CREATE | REPLACE);
        let route = Change::Route(peer.subnet, libc::RTN_UNICAST);
        let (harm, restored, repair) = match damage {
            Damage::NexthopDeleted => {
                let harm = message::delete_nexthop(self.nexthop(peer)?);
                (harm, route, self.route_and_nexthop(peer)?.to_vec())
            }
            Damage::RouteDeleted => {
                let harm = message::delete_route(peer.subnet);
                (harm, route, vec![self.route(peer)?])
            }
            Damage::RouteChanged => {
                let harm = message::blackhole(peer.subnet, libc::RTPROT_STATIC);
                (harm, route, vec![self.route(peer)?])
            }
            Damage::NeighbourDeleted => {
                let harm = message::neighbour(gone, 0, device, gateway, mac);
                (harm, Change::Neighbour(gateway, mac), vec![self.neighbour(peer)])
            }
            Damage::NeighbourChanged => {
                let harm = message::neighbour(libc::RTM_NEWNEIGH, replace, device, gateway, OTHER_MAC);
                (harm, Change::Neighbour(gateway, mac), vec![self.neighbour(peer)])
            }
            Damage::FdbDeleted => {
                let harm = message::fdb(gone, 0, device, mac, underlay);
                (harm, Change::Fdb(mac, underlay), vec![self.fdb(peer)])
            }
            Damage::FdbChanged => {
                let other = Ipv4Addr::new(172, 30, 255, 254);
                let harm = message::fdb(libc::RTM_NEWNEIGH, replace, device, mac, other);
                (harm, Change::Fdb(mac, underlay), vec![self.fdb(peer)])
            }
            Damage::PodRouteDeleted => {
                let (to, veth) = (route_of(pod)?, self.rig.index(pod.host_veth().as_str())?);
                let restored = Change::Route(to, libc::RTN_UNICAST);
                (
                    message::delete_route(to),
                    restored,
                    vec![message::route_to(to, veth)],
                )
            }
            Damage::NexthopChanged => {
                let (id, other) = (self.nexthop(peer)?, Ipv4Addr::new(10, 255, 255, 0));
                let nexthop = |gateway| message::nexthop(CREATE | REPLACE, id, device, gateway);
                (nexthop(other), Change::Nexthop(gateway), vec![nexthop(gateway)])
            }
            Damage::VethDown => {
                let (to, veth) = (route_of(pod)?, self.rig.index(pod.host_veth().as_str())?);
                let repair = vec![message::set_up(veth, true), message::route_to(to, veth)];
                let restored = Change::Route(to, libc::RTN_UNICAST);
                (message::set_up(veth, false), restored, repair)
            }
            Damage::VethMacChanged => {
                let veth = self.rig.index(pod.host_veth().as_str())?;
                let repair = vec![message::set_mac(veth, HOST_VETH_MAC)];
                let restored = Change::Link {
                    name: pod.host_veth(),
                    mac: HOST_VETH_MAC,
                    mtu: MTU,
                    up: true,
                };
                (message::set_mac(veth, OTHER_MAC), restored, repair)
            }
            Damage::NftElementDeleted => {
                return Ok(Orders {
                    harm: Act::Messages(vec![nft::delete_subnet(peer.subnet)]),
                    restored: Change::Nft(NftChange::Element),
                    repair: Act::Messages(vec![nft::add_subnet(peer.subnet)]),
                });
            }
            Damage::NftRulesDeleted | Damage::NftTableDeleted => {
                let (harm, restored) = match damage {
                    Damage::NftRulesDeleted => (nft::delete_rules(), NftChange::Rule),
                    _ => (nft::delete_table(), NftChange::Table),
                };
                return Ok(Orders {
                    harm: Act::Messages(vec![harm]),
                    restored: Change::Nft(restored),
                    repair: Act::Messages(Vec::new()),
                });
            }
            Damage::BlackholeDeleted => {
                let restored = Change::Route(self.subnet, libc::RTN_BLACKHOLE);
                let repair = vec![message::blackhole(self.subnet, message::PROTOCOL)];
                (message::delete_route(self.subnet), restored, repair)
            }
            Damage::MacChanged => {
                let repair = vec![message::set_mac(device, self.mac())];
                (message::set_mac(device, OTHER_MAC), self.link(), repair)
            }
            Damage::SysctlChanged => {
                let veth = pod.host_veth();
                let path = format!("/proc/sys/net/ipv4/conf/{veth}/rp_filter");
                return Ok(Orders {
                    harm: Act::Write(path.clone(), "0"),
                    restored: Change::RpFilter(self.rig.index(veth.as_str())?, 1),
                    repair: Act::Write(path, "1"),
                });
            }
            Damage::AddressDeleted => {
                let harm = message::address(libc::RTM_DELADDR, 0, device, self.tunnel_address);
                let repair = [self.address()].into_iter().chain(self.neighbours());
                (
                    harm,
                    Change::Address(self.tunnel_address.addr()),
                    repair.collect(),
                )
            }
            Damage::MtuChanged => {
                let harm = message::set_mtu(device, 1400);
                (harm, self.link(), vec![message::set_mtu(device, MTU)])
            }
            Damage::DeviceDown => {
                let repair = [message::set_up(device, true)].into_iter();
                let repair = repair.chain(self.neighbours()).chain(self.routes()?);
                (message::set_up(device, false), self.link(), repair.collect())
            }
            Damage::DeviceDeleted => {
                let fdb = self.rig.peers.iter().map(|peer| self.fdb(peer));
                let repair = [self.new_device()?, self.address()].into_iter().chain(fdb);
                let repair = repair.chain(self.neighbours()).chain(self.routes()?);
                (message::delete_link(device), self.link(), repair.collect())
            }
        };
        Ok(Orders {
            harm: Act::messages([harm]),
            restored,
            repair: Act::messages(repair),
        })
    }

    fn nexthop(&self, peer: &Peer) -> Result<u32> {
        let gateway = peer.gateway();
        let id = self.nexthops.get(&gateway).copied();
        id.with_context(|| format!("no nexthop to {gateway}"))
    }

    fn route(&self, peer: &Peer) -> Result<Message> {
        Ok(message::route_via(
            CREATE | REPLACE,
            peer.subnet,
            self.nexthop(peer)?,
        ))
    }

    fn route_and_nexthop(&self, peer: &Peer) -> Result<[Message; 2]> {
        let (id, flags) = (self.nexthop(peer)?, CREATE | REPLACE);
        let nexthop = message::nexthop(flags, id, self.device, peer.gateway());
        Ok([nexthop, self.route(peer)?])
    }

    fn neighbour(&self, peer: &Peer) -> Message {
        let (new, flags) = (libc::RTM_NEWNEIGH, CREATE | REPLACE);
        message::neighbour(new, flags, self.device, peer.gateway(), peer.mac())
    }

    fn fdb(&self, peer: &Peer) -> Message {
        let (new, flags) = (libc::RTM_NEWNEIGH, CREATE | REPLACE);
        message::fdb(new, flags, self.device, peer.mac(), peer.underlay)
    }

    fn neighbours(&self) -> impl Iterator<Item = Message> {
        self.rig.peers.iter().map(|peer| self.neighbour(peer))
    }

    /// Nexthops and routes.
    fn routes(&self) -> Result<Vec<Message>> {
        let of_peers: Result<Vec<_>> = self
            .rig
            .peers
            .iter()
            .map(|peer| self.route_and_nexthop(peer))
            .collect();
        Ok(of_peers?.into_iter().flatten().collect())
    }

    fn address(&self) -> Message {
        message::address(
            libc::RTM_NEWADDR,
            CREATE | REPLACE,
            self.device,
            self.tunnel_address,
        )
    }

    fn link(&self) -> Change {
        Change::Link {
            name: self.name,
            mac: self.mac(),
            mtu: MTU,
            up: true,
        }
    }

    /// MAC of the VXLAN device.
    fn mac(&self) -> MacAddr {
        vtep_mac(self.rig.cluster.nodes()[0].node.name(), Family::V4)
    }

    /// With the number that it has had.
    fn new_device(&self) -> Result<Message> {
        let node = &self.rig.cluster.nodes()[0].node;
        let IpAddr::V4(local) = node.address(Family::V4) else {
            bail!("{}: no IPv4 address", node.name())
        };
        let (mac, parent) = (self.mac(), self.rig.index("eth0")?);
        Ok(message::new_vxlan(
            self.device,
            self.name,
            mac,
            MTU,
            local,
            parent,
        ))
    }
}
