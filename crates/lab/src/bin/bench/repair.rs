//! Repair of what someone else deletes or changes, by the real agent.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net};
use nix::libc;
use routelet_model::{MacAddr, host_prefix};

use crate::Plan;
use crate::agent::{Rig, pause};
use crate::api_events::{self, BETWEEN};
use crate::listener::{Change, Listener};
use crate::message::{self, CREATE, NHA_GATEWAY, NHA_ID, NHMSG, REPLACE};
use crate::programming::DEVICE;
use crate::raw::RawSocket;
use crate::report::{Cell, Report, Table, Target};
use crate::statistics::{Samples, micros, millis};

/// Pods on the node.
const PODS: u8 = 110;
/// Samples in each repeat of what there is only one of: an object that someone touches more than ten times in ten
/// seconds is fought about, and repaired ever more rarely.
const FEW: usize = 3;
/// After this long a fight is over.
const TRUCE: Duration = Duration::from_millis(10_500);

/// What someone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    NexthopDeleted,
    RouteDeleted,
    RouteChanged,
    NeighbourDeleted,
    NeighbourChanged,
    FdbDeleted,
    FdbChanged,
    PodRouteDeleted,
    SysctlChanged,
    AddressDeleted,
    MtuChanged,
    DeviceDown,
    DeviceDeleted,
}

impl Damage {
    /// In this order. What concerns the device comes last, after a truce.
    const ALL: [Self; 13] = [
        Self::NexthopDeleted,
        Self::RouteDeleted,
        Self::RouteChanged,
        Self::NeighbourDeleted,
        Self::NeighbourChanged,
        Self::FdbDeleted,
        Self::FdbChanged,
        Self::PodRouteDeleted,
        Self::SysctlChanged,
        Self::AddressDeleted,
        Self::MtuChanged,
        Self::DeviceDown,
        Self::DeviceDeleted,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::NexthopDeleted => "nexthop deleted, until its route is back",
            Self::RouteDeleted => "node's route deleted",
            Self::RouteChanged => "node's route changed",
            Self::NeighbourDeleted => "neighbour deleted",
            Self::NeighbourChanged => "neighbour changed",
            Self::FdbDeleted => "FDB entry deleted",
            Self::FdbChanged => "FDB entry changed",
            Self::PodRouteDeleted => "pod's route deleted",
            Self::SysctlChanged => "sysctl of a veth changed",
            Self::AddressDeleted => "tunnel address deleted",
            Self::MtuChanged => "VXLAN device, MTU changed",
            Self::DeviceDown => "VXLAN device down, until all routes are back",
            Self::DeviceDeleted => "VXLAN device deleted, until all routes are back",
        }
    }

    /// Whether there is but one such object.
    fn is_of_device(self) -> bool {
        matches!(self, Self::AddressDeleted | Self::MtuChanged) || self.is_of_all()
    }

    /// Whether it takes the objects of all nodes along.
    fn is_of_all(self) -> bool {
        matches!(self, Self::DeviceDown | Self::DeviceDeleted)
    }
}

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut table = Table::new(
        "Repair of what someone else deletes or changes",
        &["what", "nodes present", "samples", "p50 µs", "p99 µs", "max µs"],
    );
    let mut row = |what: &str, nodes, samples: &Samples| {
        table.row([
            Cell::Text(what.to_owned()),
            nodes,
            Cell::Count(samples.len()),
            Cell::Number(micros(samples.median()), 0),
            Cell::Number(micros(samples.percentile(0.99)), 0),
            Cell::Number(micros(samples.max()), 0),
        ]);
    };
    let mut floor = Samples::default();
    for _ in 0..plan.repeats {
        api_events::raw(plan.samples, &mut floor)?;
    }
    row("raw writer, a node's four objects", Cell::None, &floor);
    for nodes in plan.repair_nodes {
        let mut all = Damage::ALL.map(|damage| (damage, Samples::default()));
        for _ in 0..plan.repeats {
            let mut rig = Rig::new(*nodes, PODS)?;
            rig.start()?;
            rig.netns().run(|| -> Result<()> {
                let mut scene = Scene::open(&rig)?;
                for (damage, samples) in &mut all {
                    if *damage == Damage::AddressDeleted {
                        pause(TRUCE);
                    }
                    let count = if damage.is_of_device() { FEW } else { plan.samples };
                    for number in 0..count {
                        pause(BETWEEN);
                        samples.push(scene.damage(*damage, number).context(damage.name())?);
                    }
                }
                Ok(())
            })??;
        }
        let (mut p50, mut p99) = (Duration::ZERO, Duration::ZERO);
        for (damage, samples) in &all {
            row(damage.name(), Cell::Count(*nodes), samples);
            if !damage.is_of_all() {
                p50 = p50.max(samples.median());
                p99 = p99.max(samples.percentile(0.99));
            }
        }
        let what = |value| format!("repair of an object, {nodes} nodes present, slowest kind, {value}, ms");
        report.target(Target {
            what: what("p50"),
            limit: 1.0,
            measured: millis(p50),
        });
        report.target(Target {
            what: what("p99"),
            limit: 10.0,
            measured: millis(p99),
        });
    }
    report.table(table);
    Ok(())
}

/// A node with an agent, and someone who does damage to it.
struct Scene<'a> {
    rig: &'a Rig,
    socket: RawSocket,
    listener: Listener,
    tunnel_address: Ipv4Net,
}

impl<'a> Scene<'a> {
    /// In the node's namespace, which the calling thread is in.
    fn open(rig: &'a Rig) -> Result<Self> {
        let IpNet::V4(subnet) = rig.cluster.nodes()[0].subnet else {
            anyhow::bail!("the lab's nodes have IPv4 subnets")
        };
        Ok(Self {
            rig,
            socket: RawSocket::open()?,
            listener: Listener::open()?,
            tunnel_address: Ipv4Net::new_assert(subnet.network(), 32),
        })
    }

    /// Does it to one object, and gives the time from just before that until the kernel tells that the object is
    /// as it was.
    fn damage(&mut self, damage: Damage, number: usize) -> Result<Duration> {
        let peer = &self.rig.peers[number % self.rig.peers.len()];
        let pod = &self.rig.pods[number % self.rig.pods.len()];
        let device = self.rig.index(DEVICE)?;
        let (mac, gateway, underlay) = (peer.mac(), peer.gateway(), peer.underlay);
        let route = Change::Route(peer.subnet, libc::RTN_UNICAST);
        let (new, gone, replace) = (libc::RTM_NEWNEIGH, libc::RTM_DELNEIGH, CREATE | REPLACE);
        let (message, restored) = match damage {
            Damage::NexthopDeleted => (message::delete_nexthop(self.nexthop_id(gateway)?), route),
            Damage::RouteDeleted => (message::delete_route(peer.subnet), route),
            Damage::RouteChanged => (message::foreign_blackhole(peer.subnet), route),
            Damage::NeighbourDeleted => (
                message::neighbour(gone, 0, device, gateway, mac),
                Change::Neighbour(gateway, mac),
            ),
            Damage::NeighbourChanged => {
                let other = MacAddr([2, 0, 0, 0, 0, 9]);
                (
                    message::neighbour(new, replace, device, gateway, other),
                    Change::Neighbour(gateway, mac),
                )
            }
            Damage::FdbDeleted => (
                message::fdb(gone, 0, device, mac, underlay),
                Change::Fdb(mac, underlay),
            ),
            Damage::FdbChanged => {
                let other = Ipv4Addr::new(172, 30, 255, 254);
                (
                    message::fdb(new, replace, device, mac, other),
                    Change::Fdb(mac, underlay),
                )
            }
            Damage::PodRouteDeleted => {
                let address = pod.addresses().first().context("a pod without an address")?;
                let IpNet::V4(prefix) = host_prefix(*address) else {
                    anyhow::bail!("{address}: not IPv4")
                };
                (
                    message::delete_route(prefix),
                    Change::Route(prefix, libc::RTN_UNICAST),
                )
            }
            Damage::SysctlChanged => return self.change_sysctl(pod.host_veth().as_str()),
            Damage::AddressDeleted => {
                let address = self.tunnel_address;
                (
                    message::delete_address(device, address),
                    Change::Address(address.addr()),
                )
            }
            Damage::MtuChanged => (message::set_mtu(device, 1400), Change::Link(device, 1450)),
            Damage::DeviceDown => return self.damage_all(message::set_down(device)),
            Damage::DeviceDeleted => return self.damage_all(message::delete_link(device)),
        };
        self.listener.empty()?;
        let began = Instant::now();
        self.socket.request(message)?;
        Ok(self.listener.wait(restored)?.duration_since(began))
    }

    /// Takes the routes of all nodes away.
    fn damage_all(&mut self, message: message::Message) -> Result<Duration> {
        self.listener.empty()?;
        let began = Instant::now();
        self.socket.request(message)?;
        let is_nodes_route =
            |change| matches!(change, Change::Route(to, libc::RTN_UNICAST) if to.prefix_len() == 24);
        let back = self.listener.wait_for(self.rig.peers.len(), is_nodes_route)?;
        // The agent looks a second time a little later.
        pause(Duration::from_millis(200));
        Ok(back.duration_since(began))
    }

    fn change_sysctl(&mut self, veth: &str) -> Result<Duration> {
        let index = self.rig.index(veth)?;
        let path = format!("/proc/sys/net/ipv4/conf/{veth}/rp_filter");
        self.listener.empty()?;
        let began = Instant::now();
        std::fs::write(&path, "0").with_context(|| format!("writing {path}"))?;
        Ok(self
            .listener
            .wait(Change::RpFilter(index, 1))?
            .duration_since(began))
    }

    /// The number that the agent gave to the nexthop of a gateway.
    fn nexthop_id(&mut self, gateway: Ipv4Addr) -> Result<u32> {
        let mut ids = HashMap::new();
        self.socket.dump(&message::dump_nexthops(), |message| {
            ids.extend(
                message
                    .address(NHMSG, NHA_GATEWAY)
                    .zip(message.number(NHMSG, NHA_ID)),
            );
        })?;
        ids.get(&gateway)
            .copied()
            .with_context(|| format!("no nexthop to {gateway}"))
    }
}
