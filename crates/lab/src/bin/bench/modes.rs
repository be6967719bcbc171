//! Programming and comparing in each encapsulation: what a remote node is made of differs, and so does what it costs.
//! Beside it the very same objects as messages that were ready beforehand.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use nix::libc;
use routelet_model::ClusterEvent;
use routelet_netlink::setup::VethEnd;
use routelet_netlink::{Netns, Setup, knows_link_kind};
use routelet_planner::Encapsulation;

use crate::Plan;
use crate::dataplane::Dataplane;
use crate::listener::Listener;
use crate::message::{self, Message, NDMSG, NHMSG, RTMSG};
use crate::peer::Peer;
use crate::programming::{
    COLUMNS, DEVICE, ENOUGH, HEARD_COLUMNS, OWN_SUBNET, PARENT, RESYNCS, UNDERLAY, node_messages, ratio, row,
};
use crate::raw::{RawSocket, batches};
use crate::report::{Cell, Report, Table, grouped};
use crate::statistics::{Took, Watch, millis};

/// The IPIP device, which is the kernel's own.
pub(crate) const IPIP_DEVICE: &str = "tunl0";

/// What is measured: the settings, each with the word for it, and the tunnel that it has.
const MODES: [Mode; 5] = [
    Mode("vxlan", Encapsulation::Vxlan, Some(DEVICE)),
    Mode(
        "vxlan-cross-subnet",
        Encapsulation::VxlanCrossSubnet,
        Some(DEVICE),
    ),
    Mode("ipip", Encapsulation::Ipip, Some(IPIP_DEVICE)),
    Mode(
        "ipip-cross-subnet",
        Encapsulation::IpipCrossSubnet,
        Some(IPIP_DEVICE),
    ),
    Mode("none", Encapsulation::None, None),
];

/// A setting, the word for it, and its tunnel device.
#[derive(Debug, Clone, Copy)]
struct Mode(&'static str, Encapsulation, Option<&'static str>);

/// One mode's measurements with so many nodes.
#[derive(Debug, Default)]
struct Outcome {
    programming: Took,
    raw_programming: Took,
    raw_heard: Took,
    resync: Took,
    raw_dump: Took,
}

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let has_ipip = Netns::new()?.run(|| knows_link_kind("ipip"))??;
    let title = "Each mode, programming from empty";
    let mut programming = Table::new(title, &[&COLUMNS[..], &HEARD_COLUMNS].concat());
    let mut resync = Table::new("Each mode, clean comparison with the kernel", &COLUMNS);
    for mode in MODES {
        for count in plan.mode_nodes.iter().copied() {
            let what = format!("{}, {} nodes", mode.0, grouped(count));
            if mode.2 == Some(IPIP_DEVICE) && !has_ipip {
                let reason = "not available on this kernel, which knows no devices of the kind ipip";
                programming.row(absent(&what, reason, COLUMNS.len() + HEARD_COLUMNS.len()));
                resync.row(absent(&what, reason, COLUMNS.len()));
                continue;
            }
            let mut outcome = Outcome::default();
            for _ in 0..plan.repeats * (ENOUGH / count).max(1) {
                take_turns(mode, count, &mut outcome).with_context(|| what.clone())?;
            }
            let heard = &outcome.raw_heard.wall;
            let mut cells = row(&what, count, &outcome.programming, &outcome.raw_programming).to_vec();
            cells.push(Cell::Number(millis(heard.median()), 2));
            cells.push(Cell::Number(ratio(&outcome.programming.wall, heard), 2));
            programming.row(cells);
            resync.row(row(&what, count, &outcome.resync, &outcome.raw_dump));
        }
    }
    report.table(programming);
    report.table(resync);
    Ok(())
}

/// A row of what cannot be measured here.
fn absent(what: &str, reason: &str, columns: usize) -> Vec<Cell> {
    let mut cells = vec![Cell::None; columns];
    cells[0] = Cell::Text(format!("{what}: {reason}"));
    cells
}

/// Measures each once. Fails where the raw writer's objects are others than routelet's.
fn take_turns(mode: Mode, count: usize, outcome: &mut Outcome) -> Result<()> {
    let ours = Place::new(mode, count)?.run(|place| place.ours(outcome))?;
    for heard in [true, false] {
        let raw = Place::new(mode, count)?.run(|place| place.raw(heard, outcome))?;
        ensure!(raw == ours, "the raw writer made {raw:#?}, routelet {ours:#?}");
    }
    Ok(())
}

/// A node's namespace with its parent device.
struct Place {
    netns: Netns,
    mode: Mode,
    peers: Vec<Peer>,
    /// Holds the other end.
    _far: Netns,
}

impl Place {
    fn new(mode: Mode, count: usize) -> Result<Self> {
        let (netns, far) = (Netns::new()?, Netns::new()?);
        let mut setup = Setup::open_in(&netns)?;
        let end = || VethEnd {
            name: PARENT,
            up: true,
            ..VethEnd::default()
        };
        setup.add_veth(end(), end(), &far)?;
        setup.add_address(PARENT, Ipv4Net::new_assert(UNDERLAY, 16).into())?;
        Ok(Self {
            netns,
            mode,
            peers: peers(mode.1, count),
            _far: far,
        })
    }

    /// Runs `work` in the namespace, and empties the namespace then: the kernel would do that later, in the way of
    /// the next measurement.
    fn run<T: Send>(self, work: impl FnOnce(&Self) -> Result<T> + Send) -> Result<T> {
        let outcome = self.netns.run(|| work(&self))??;
        let mut setup = Setup::open_in(&self.netns)?;
        if self.mode.2 == Some(IPIP_DEVICE) {
            setup.set_down(IPIP_DEVICE)?;
        }
        for link in [DEVICE, PARENT] {
            setup.delete_link(link)?;
        }
        Ok(outcome)
    }

    fn index(&self, link: &str) -> Result<u32> {
        let link = Setup::open_in(&self.netns)?
            .link(link)?
            .with_context(|| format!("no link {link}"))?;
        Ok(link.index)
    }

    /// Measures routelet; what the kernel holds then.
    fn ours(&self, outcome: &mut Outcome) -> Result<Vec<String>> {
        let mut dataplane = Dataplane::open(self.mode.1, false)?;
        let events: Vec<ClusterEvent> = self
            .peers
            .iter()
            .map(|peer| ClusterEvent::NodeApplied(peer.node()))
            .collect();
        let watch = Watch::start()?;
        dataplane.take(events);
        dataplane.settle()?;
        watch.stop(&mut outcome.programming)?;
        dataplane.take_written();
        for _ in 0..RESYNCS {
            let watch = Watch::start()?;
            dataplane.audit();
            dataplane.settle()?;
            watch.stop(&mut outcome.resync)?;
        }
        ensure!(
            dataplane.take_written() == 0,
            "a clean comparison has written: {}",
            dataplane.last_written()
        );
        self.held()
    }

    /// Measures the raw writer; what the kernel holds then. `heard` is whether someone listens.
    fn raw(&self, heard: bool, outcome: &mut Outcome) -> Result<Vec<String>> {
        // The device is as routelet makes it.
        drop(Dataplane::open(self.mode.1, false)?);
        let mut socket = RawSocket::open()?;
        let batches = batches(self.messages()?);
        let listener = heard.then(Listener::open).transpose()?;
        let watch = Watch::start()?;
        socket.write(&batches)?;
        watch.stop(match heard {
            true => &mut outcome.raw_heard,
            false => &mut outcome.raw_programming,
        })?;
        drop(listener);
        let mut dumps = vec![message::dump_routes(), message::dump_nexthops()];
        if self.mode.2 == Some(DEVICE) {
            dumps.extend([libc::AF_BRIDGE, libc::AF_INET].map(message::dump_neighbours));
        }
        for _ in 0..RESYNCS {
            let watch = Watch::start()?;
            for dump in &dumps {
                socket.receive_dump(dump)?;
            }
            watch.stop(&mut outcome.raw_dump)?;
        }
        self.held()
    }

    /// What makes the peers reachable, in the order in which it has to be made.
    fn messages(&self) -> Result<Vec<Message>> {
        let (near, far): (Vec<Peer>, Vec<Peer>) = self.peers.iter().cloned().partition(is_near);
        let first_near = far.len() as u32 + 1;
        let mut messages = match self.mode.2 {
            Some(DEVICE) => node_messages(self.index(DEVICE)?, 1, &far),
            Some(device) => {
                let index = self.index(device)?;
                through((1..).zip(&far), |id, peer| {
                    message::nexthop(message::CREATE | message::EXCL, id, index, peer.underlay)
                })
            }
            None => Vec::new(),
        };
        let parent = self.index(PARENT)?;
        messages.extend(through((first_near..).zip(&near), |id, peer| {
            message::direct_nexthop(message::CREATE | message::EXCL, id, parent, peer.underlay)
        }));
        Ok(messages)
    }

    /// All that the kernel holds of peers, but for nexthops' ids, in words.
    fn held(&self) -> Result<Vec<String>> {
        let mut socket = RawSocket::open()?;
        let mut lines = Vec::new();
        let mut nexthops = BTreeMap::new();
        socket.dump(&message::dump_nexthops(), |message| {
            let onlink = message::read_u32(message.payload, 4).unwrap_or_default() & message::RTNH_F_ONLINK;
            let (gateway, link) = (
                message.address(NHMSG, message::NHA_GATEWAY),
                message.number(NHMSG, message::NHA_OIF),
            );
            let id = message.number(NHMSG, message::NHA_ID);
            nexthops.insert(id, format!("{gateway:?} dev {link:?} onlink {onlink}"));
        })?;
        socket.dump(&message::dump_routes(), |message| {
            let is_ours = message.payload.get(5) == Some(&message::PROTOCOL);
            let to = message.address(RTMSG, libc::RTA_DST).filter(|_| is_ours);
            // This node's own subnet has a route as well, before there is a peer.
            if let Some(to) = to.filter(|to| !OWN_SUBNET.contains(to)) {
                let id = message.number(RTMSG, message::RTA_NH_ID);
                lines.push(format!("{to} via {:?}", nexthops.get(&id)));
            }
        })?;
        ensure!(
            lines.len() == self.peers.len() && nexthops.len() == self.peers.len(),
            "{} routes and {} nexthops for {} peers",
            lines.len(),
            nexthops.len(),
            self.peers.len()
        );
        for family in [libc::AF_BRIDGE, libc::AF_INET] {
            socket.dump(&message::dump_neighbours(family), |message| {
                let permanent = message.payload.get(8) == Some(&(libc::NUD_PERMANENT as u8));
                if let Some(to) = message.address(NDMSG, libc::NDA_DST).filter(|_| permanent) {
                    let mac = message.attribute(NDMSG, libc::NDA_LLADDR);
                    lines.push(format!("family {family}: {to} {mac:?}"));
                }
            })?;
        }
        lines.sort_unstable();
        Ok(lines)
    }
}

/// A nexthop for each, and a route through it.
fn through<'a>(
    peers: impl Iterator<Item = (u32, &'a Peer)> + Clone,
    nexthop: impl Fn(u32, &Peer) -> Message,
) -> Vec<Message> {
    let nexthops = peers.clone().map(|(id, peer)| nexthop(id, peer));
    let flags = message::CREATE | message::EXCL;
    let routes = peers.map(|(id, peer)| message::route_via(flags, peer.subnet, id));
    nexthops.chain(routes).collect()
}

/// So many remote nodes: all elsewhere where all are reached by the tunnel, every second one in this node's network
/// where the mode tells them apart, and all of them where there is no tunnel.
fn peers(encapsulation: Encapsulation, count: usize) -> Vec<Peer> {
    let is_near = |number: usize| match encapsulation {
        Encapsulation::Vxlan | Encapsulation::Ipip => false,
        Encapsulation::VxlanCrossSubnet | Encapsulation::IpipCrossSubnet => number.is_multiple_of(2),
        Encapsulation::None => true,
    };
    let peers = Peer::several(count).into_iter().enumerate();
    peers
        .map(|(number, peer)| match is_near(number) {
            true => peer.in_network_of(UNDERLAY),
            false => peer,
        })
        .collect()
}

/// Whether the peer is in this node's network.
fn is_near(peer: &Peer) -> bool {
    Ipv4Net::new_assert(UNDERLAY, 16).contains(&peer.underlay)
}

#[cfg(test)]
mod tests {
    use routelet_lab::kernel_lacks;

    use super::*;

    /// Programs few nodes; each comparison of objects is one of `take_turns`.
    fn take_turns_in(mode: Mode) {
        let mut outcome = Outcome::default();
        take_turns(mode, 20, &mut outcome).unwrap();
        assert_eq!(outcome.programming.wall.len(), 1, "{mode:?}");
        assert_eq!(outcome.raw_dump.wall.len(), 2 * RESYNCS, "{mode:?}");
    }

    #[test]
    fn the_raw_writer_makes_the_same_objects_in_each_mode_without_ipip() {
        let modes = MODES.into_iter().filter(|mode| mode.2 != Some(IPIP_DEVICE));
        modes.for_each(take_turns_in);
    }

    #[test]
    fn the_raw_writer_makes_the_same_objects_in_the_modes_of_ipip() {
        kernel_lacks!(ipip);
        let modes = MODES.into_iter().filter(|mode| mode.2 == Some(IPIP_DEVICE));
        modes.for_each(take_turns_in);
    }

    #[test]
    fn half_of_the_peers_are_near_where_the_mode_tells_them_apart() {
        let near = |encapsulation| {
            peers(encapsulation, 1_000)
                .iter()
                .filter(|peer| is_near(peer))
                .count()
        };
        let counts = MODES.map(|mode| near(mode.1));
        assert_eq!(counts, [0, 500, 0, 500, 1_000]);
    }
}
