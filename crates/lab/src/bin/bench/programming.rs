//! Programming an empty kernel, and comparing it when it is as it should be: planner, reconciler and kernel in
//! this process, against messages that were ready beforehand.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use nix::libc;
use routelet_model::{ClusterEvent, IfName, Key, Link, LinkKind, Object, RouteTarget, Vxlan};
use routelet_netlink::setup::VethEnd;
use routelet_netlink::{Netns, Setup};
use routelet_planner::Encapsulation;

use crate::Plan;
use crate::dataplane::Dataplane;
use crate::listener::Listener;
use crate::message::{self, CREATE, EXCL, Message, NDMSG, REPLACE, RTMSG};
use crate::peer::Peer;
use crate::raw::{RawSocket, batches};
use crate::report::{Cell, Report, Table, Target, grouped};
use crate::statistics::{Samples, Took, Watch, micros, millis};

/// This node.
pub(crate) const HERE: &str = "here";
pub(crate) const OWN_SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
pub(crate) const UNDERLAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
pub(crate) const DEVICE: &str = "vxlan.calico";
pub(crate) const PARENT: &str = "eth0";

/// Host veths that pod routes are spread over, at most.
const VETHS: usize = 8;
/// Where the pods' addresses begin; any number of them, for this node's subnet is not asked.
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 0);
/// Clean comparisons for each programming.
pub(crate) const RESYNCS: usize = 5;
/// What takes less than a few milliseconds is measured more often: until so many objects were programmed.
pub(crate) const ENOUGH: usize = 1_000;

/// Columns of all tables. CPU time is that of all threads.
pub(crate) const COLUMNS: [&str; 8] = [
    "what",
    "routelet ms",
    "raw ms",
    "ratio",
    "routelet CPU ms",
    "raw CPU ms",
    "CPU ratio",
    "routelet µs each",
];

/// What programming has beside: the raw writer while someone listens to what it changes.
pub(crate) const HEARD_COLUMNS: [&str; 2] = ["raw heard ms", "ratio to heard"];

/// Columns of what the nft table costs. Without it is what the tables above have.
const NFT_COLUMNS: [&str; 8] = [
    "what",
    "with ms",
    "without ms",
    "ratio",
    "with CPU ms",
    "without CPU ms",
    "CPU ratio",
    "with, µs each",
];

/// What an empty kernel is programmed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// Remote nodes: FDB entry, neighbour, nexthop and route each; from cluster events on.
    Nodes(usize),
    /// Pod routes; from the reconciler on.
    Pods(usize),
}

/// One case's measurements.
#[derive(Debug, Default)]
struct Outcome {
    programming: Took,
    raw_programming: Took,
    /// Where someone listens to what the raw writer changes, as the agent has to.
    raw_heard: Took,
    resync: Took,
    raw_dump: Took,
    /// Where the nft table is programmed along: each node is then an element more for its underlay address, and one
    /// for its pod subnet. Pod routes are none of its matter.
    nft_programming: Took,
    nft_resync: Took,
}

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let nodes = plan.programmed_nodes.iter().map(|count| Load::Nodes(*count));
    let loads: Vec<Load> = nodes
        .chain(plan.programmed_pods.iter().map(|count| Load::Pods(*count)))
        .collect();
    let mut outcomes: Vec<Outcome> = loads.iter().map(|_| Outcome::default()).collect();
    for _ in 0..plan.repeats {
        for (load, outcome) in loads.iter().zip(&mut outcomes) {
            for _ in 0..(ENOUGH / load.count()).max(1) {
                Place::new(*load)?
                    .run(|place| place.ours(false, &mut outcome.programming, &mut outcome.resync))
                    .with_context(|| format!("{load:?}"))?;
                if matches!(load, Load::Nodes(_)) {
                    Place::new(*load)?
                        .run(|place| place.ours(true, &mut outcome.nft_programming, &mut outcome.nft_resync))
                        .with_context(|| format!("{load:?}, with the nft table"))?;
                }
                Place::new(*load)?
                    .run(|place| place.raw_programming(&mut outcome.raw_heard, true))
                    .with_context(|| format!("{load:?}, raw and heard"))?;
                Place::new(*load)?
                    .run(|place| place.raw(outcome))
                    .with_context(|| format!("{load:?}, raw"))?;
            }
        }
    }
    tell(&loads, &outcomes, report);
    Ok(())
}

/// What a raw writer takes to program an empty kernel with so many nodes.
pub(crate) fn raw_nodes(count: usize) -> Result<Samples> {
    let mut outcome = Outcome::default();
    Place::new(Load::Nodes(count))?.run(|place| place.raw(&mut outcome))?;
    Ok(outcome.raw_programming.wall)
}

fn tell(loads: &[Load], outcomes: &[Outcome], report: &mut Report) {
    let mut programming = Table::new("Programming from empty", &[&COLUMNS[..], &HEARD_COLUMNS].concat());
    let mut resync = Table::new("Clean comparison with the kernel", &COLUMNS);
    let mut nft = Table::new("What the nft table adds", &NFT_COLUMNS);
    for (load, outcome) in loads.iter().zip(outcomes) {
        if matches!(load, Load::Nodes(_)) {
            let what = [
                ("programming", &outcome.nft_programming, &outcome.programming),
                ("clean comparison", &outcome.nft_resync, &outcome.resync),
            ];
            for (what, with, without) in what {
                nft.row(row(
                    &format!("{what}, {}", load.name()),
                    load.count(),
                    with,
                    without,
                ));
            }
        }
        let heard = &outcome.raw_heard.wall;
        let (name, count) = (load.name(), load.count());
        let mut cells = row(&name, count, &outcome.programming, &outcome.raw_programming).to_vec();
        cells.push(Cell::Number(millis(heard.median()), 2));
        cells.push(Cell::Number(ratio(&outcome.programming.wall, heard), 2));
        programming.row(cells);
        report.target(Target {
            what: format!("programming {}, times the raw writer", load.name()),
            limit: 1.5,
            measured: ratio(&outcome.programming.wall, &outcome.raw_programming.wall),
        });
        resync.row(row(&name, count, &outcome.resync, &outcome.raw_dump));
        if *load == Load::Pods(65_536) {
            report.target(Target {
                what: format!("clean comparison, {}, times a raw dump", load.name()),
                limit: 3.0,
                measured: ratio(&outcome.resync.wall, &outcome.raw_dump.wall),
            });
        }
    }
    report.table(programming);
    report.table(resync);
    report.table(nft);
    let each = |count| {
        let index = loads.iter().position(|load| *load == Load::Nodes(count))?;
        Some(micros(outcomes[index].programming.wall.median()) / count as f64)
    };
    if let (Some(few), Some(many)) = (each(1_000), each(15_000)) {
        report.target(Target {
            what: "time for a node among 15,000, times that among 1,000".to_owned(),
            limit: 2.0,
            measured: many / few,
        });
    }
}

/// A row of [`COLUMNS`]; `count` is how many were programmed or compared.
pub(crate) fn row(what: &str, count: usize, ours: &Took, raw: &Took) -> [Cell; 8] {
    let number = |samples: &Samples| Cell::Number(millis(samples.median()), 2);
    [
        Cell::Text(what.to_owned()),
        number(&ours.wall),
        number(&raw.wall),
        Cell::Number(ratio(&ours.wall, &raw.wall), 2),
        number(&ours.cpu),
        number(&raw.cpu),
        Cell::Number(ratio(&ours.cpu, &raw.cpu), 2),
        Cell::Number(micros(ours.wall.median()) / count as f64, 2),
    ]
}

pub(crate) fn ratio(ours: &Samples, raw: &Samples) -> f64 {
    ours.median().as_secs_f64() / raw.median().as_secs_f64()
}

impl Load {
    fn count(self) -> usize {
        match self {
            Self::Nodes(count) | Self::Pods(count) => count,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Nodes(count) => format!("{} nodes", grouped(count)),
            Self::Pods(count) => format!("{} pod routes", grouped(count)),
        }
    }
}

/// A node's namespace with its parent device and its host veths.
struct Place {
    netns: Netns,
    load: Load,
    veths: Vec<IfName>,
    /// Holds the other ends.
    _far: Netns,
}

impl Place {
    fn new(load: Load) -> Result<Self> {
        let (netns, far) = (Netns::new()?, Netns::new()?);
        let mut setup = Setup::open_in(&netns)?;
        let mut add = |near: &str, far_name: &str| {
            let end = |name| VethEnd {
                name,
                up: true,
                ..VethEnd::default()
            };
            setup.add_veth(end(near), end(far_name), &far)
        };
        add(PARENT, PARENT)?;
        let mut veths = Vec::new();
        if let Load::Pods(count) = load {
            for number in 0..count.min(VETHS) {
                let name = format!("cali{number}");
                add(&name, &name)?;
                veths.push(name.parse()?);
            }
        }
        setup.add_address(PARENT, Ipv4Net::new_assert(UNDERLAY, 16).into())?;
        Ok(Self {
            netns,
            load,
            veths,
            _far: far,
        })
    }

    /// Runs `work` in the namespace, and empties the namespace then: the kernel would do that later, in the way of
    /// the next measurement.
    fn run<T: Send>(self, work: impl FnOnce(&Self) -> Result<T> + Send) -> Result<T> {
        let outcome = self.netns.run(|| work(&self))??;
        let mut setup = Setup::open_in(&self.netns)?;
        for link in self.veths.iter().map(IfName::as_str).chain([DEVICE, PARENT]) {
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

    fn add_device(&self) -> Result<()> {
        let mut setup = Setup::open_in(&self.netns)?;
        let vxlan = Vxlan {
            vni: 4096,
            port: 4789,
            local: UNDERLAY.into(),
            parent: Some(PARENT.parse()?),
            learning: false,
            odd: false,
        };
        let link = Link {
            kind: LinkKind::Vxlan(vxlan),
            mac: None,
            mtu: Some(1450),
            up: true,
            running: true,
            enslaved: false,
            given: Vec::new(),
            index: 0,
        };
        setup.add_vxlan(DEVICE.parse()?, &link)?;
        setup.add_address(DEVICE, Ipv4Net::new_assert(OWN_SUBNET.addr(), 32).into())?;
        Ok(())
    }

    /// Destination and veth of each pod's route.
    fn pod_routes(&self) -> impl Iterator<Item = (Ipv4Net, IfName)> {
        let addresses = (FIRST_POD.to_bits()..).map(Ipv4Addr::from_bits);
        let destinations = addresses.map(|address| Ipv4Net::new_assert(address, 32));
        destinations
            .zip(self.veths.iter().copied().cycle())
            .take(self.load.count())
    }

    fn ours(&self, nft_table: bool, programming: &mut Took, resync: &mut Took) -> Result<()> {
        let mut dataplane = Dataplane::open(Encapsulation::Vxlan, nft_table)?;
        let written = dataplane.take_written();
        ensure!(written > 0, "the device was there already");
        match self.load {
            Load::Nodes(count) => {
                let events = Peer::several(count)
                    .iter()
                    .map(|peer| ClusterEvent::NodeApplied(peer.node()))
                    .collect();
                let events: Vec<ClusterEvent> = events;
                let watch = Watch::start()?;
                dataplane.take(events);
                dataplane.settle()?;
                watch.stop(programming)?;
            }
            Load::Pods(_) => {
                let routes: Vec<_> = self.pod_routes().collect();
                let watch = Watch::start()?;
                for (destination, veth) in routes {
                    dataplane.want(
                        Key::route(destination.into()),
                        Object::Route(RouteTarget::Link(veth)),
                    );
                }
                dataplane.settle()?;
                watch.stop(programming)?;
            }
        }
        self.check()?;
        dataplane.take_written();
        for _ in 0..RESYNCS {
            let watch = Watch::start()?;
            dataplane.audit();
            dataplane.settle()?;
            watch.stop(resync)?;
        }
        ensure!(
            dataplane.take_written() == 0,
            "a clean comparison has written: {}",
            dataplane.last_written()
        );
        Ok(())
    }

    /// What the raw writer takes; `heard` is whether someone listens.
    fn raw_programming(&self, took: &mut Took, heard: bool) -> Result<()> {
        let mut socket = RawSocket::open()?;
        let messages = match self.load {
            Load::Nodes(count) => {
                self.add_device()?;
                node_messages(self.index(DEVICE)?, 1, &Peer::several(count))
            }
            Load::Pods(_) => {
                let mut setup = Setup::open_in(&self.netns)?;
                let mut indexes = Vec::new();
                for veth in &self.veths {
                    indexes.push(
                        setup
                            .link(veth.as_str())?
                            .with_context(|| format!("no link {veth}"))?
                            .index,
                    );
                }
                let routes = self.pod_routes().zip(indexes.into_iter().cycle());
                routes
                    .map(|((destination, _), index)| message::route_to(destination, index))
                    .collect()
            }
        };
        let batches = batches(messages);
        let _listener = heard.then(Listener::open).transpose()?;
        let watch = Watch::start()?;
        socket.write(&batches)?;
        watch.stop(took)?;
        self.check()
    }

    fn raw(&self, outcome: &mut Outcome) -> Result<()> {
        self.raw_programming(&mut outcome.raw_programming, false)?;
        let mut socket = RawSocket::open()?;
        let mut dumps = vec![message::dump_routes()];
        if matches!(self.load, Load::Nodes(_)) {
            dumps.extend([libc::AF_BRIDGE, libc::AF_INET].map(message::dump_neighbours));
            dumps.push(message::dump_nexthops());
        }
        for _ in 0..RESYNCS {
            let watch = Watch::start()?;
            for dump in &dumps {
                socket.receive_dump(dump)?;
            }
            watch.stop(&mut outcome.raw_dump)?;
        }
        Ok(())
    }

    /// Fails unless the kernel holds what it was programmed with.
    fn check(&self) -> Result<()> {
        let mut socket = RawSocket::open()?;
        let count = self.load.count();
        let mut found = 0;
        socket.dump(&message::dump_routes(), |message| {
            let of_ours = message.payload.get(5) == Some(&message::PROTOCOL);
            let to_pods = message
                .address(RTMSG, libc::RTA_DST)
                .is_some_and(|to| !OWN_SUBNET.contains(&to));
            found += usize::from(of_ours && to_pods);
        })?;
        ensure!(found == count, "{found} of {count} routes are there");
        if matches!(self.load, Load::Nodes(_)) {
            for family in [libc::AF_BRIDGE, libc::AF_INET] {
                let mut found = 0;
                socket.dump(&message::dump_neighbours(family), |message| {
                    let permanent = message.payload.get(8) == Some(&(libc::NUD_PERMANENT as u8));
                    found += usize::from(permanent && message.address(NDMSG, libc::NDA_DST).is_some());
                })?;
                ensure!(
                    found == count,
                    "{found} of {count} neighbours of family {family} are there"
                );
            }
        }
        Ok(())
    }
}

/// What makes remote nodes reachable, in the order in which it has to be made. Nexthops are numbered from `first` on.
pub(crate) fn node_messages(device: u32, first: u32, peers: &[Peer]) -> Vec<Message> {
    let mut messages = Vec::new();
    let (new, flags, new_only) = (libc::RTM_NEWNEIGH, CREATE | REPLACE, CREATE | EXCL);
    messages.extend(
        peers
            .iter()
            .map(|peer| message::fdb(new, flags, device, peer.mac(), peer.underlay)),
    );
    messages.extend(
        peers
            .iter()
            .map(|peer| message::neighbour(new, flags, device, peer.gateway(), peer.mac())),
    );
    messages.extend(
        (first..)
            .zip(peers)
            .map(|(id, peer)| message::nexthop(new_only, id, device, peer.gateway())),
    );
    messages.extend(
        (first..)
            .zip(peers)
            .map(|(id, peer)| message::route_via(new_only, peer.subnet, id)),
    );
    messages
}
