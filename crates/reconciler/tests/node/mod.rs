//! A node in a network namespace of its own: planner and reconciler as the agent joins them, and two others who
//! meddle with its kernel: one who uses our protocol number, and one who uses another.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

pub(crate) mod cluster;
pub(crate) mod meddle;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use routelet_model::{ClusterEvent, Family, IfName, Key, Kind, Object, Resource, RouteTarget, Source};
use routelet_netlink::setup::VethEnd;
use routelet_netlink::{Config, Kernel, Netns, Setup};
use routelet_planner::{Plan, Planner, Settings};
use routelet_reconciler::{Ownership, Progress, Reconciler, Report};

pub(crate) use cluster::{Peer, Pod, own_node, settings, veth};
pub(crate) use meddle::{By, Meddle};

/// The protocol number on what is ours, and on what is someone else's.
pub(crate) const OURS: u8 = 80;
pub(crate) const FOREIGN: u8 = 4;
/// The link that holds the node's underlay addresses.
pub(crate) const UNDERLAY: &str = "eth0";
/// What is wanted for the node's own pod subnets.
const BLACKHOLE: Object = Object::Route(RouteTarget::Blackhole);
/// How long the kernel may take to do what it does by itself, as after a link went down.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far the clock is moved on in the hope that what is refused will be taken.
const HORIZON: Duration = Duration::from_secs(90);

/// Runs a test on a thread in a fresh network namespace.
pub(crate) fn in_netns(test: impl FnOnce() + Send) {
    match Netns::new() {
        Ok(netns) => netns.run(test).unwrap(),
        Err(error) if error.errno() == Some(nix::libc::EPERM) => routelet_lab::skip!("needs root: {error}"),
        Err(error) => panic!("{error}"),
    }
}

/// The same where there are the programs that [`run`] runs.
pub(crate) fn with_programs(test: impl FnOnce() + Send) {
    for program in ["ip", "bridge"] {
        if let Err(error) = Command::new(program).arg("-V").output() {
            routelet_lab::skip!("the program {program} (Debian: iproute2) does not start: {error}");
        }
    }
    in_netns(test);
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs one of the programs ip and bridge; what it says where it fails.
pub(crate) fn run(line: &str) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    output
        .status
        .success()
        .then_some(())
        .ok_or(format!("{line}: {told}"))
}

/// The VXLAN device of a family.
pub(crate) fn device(family: Family) -> IfName {
    *settings(true).vxlan.device.get(family)
}

/// Adds a veth, both ends here, up and with carrier.
pub(crate) fn add_veth(setup: &mut Setup, near: VethEnd<'_>) {
    let far = format!("far{}", &near.name[near.name.len().saturating_sub(10)..]);
    let end = VethEnd {
        name: &far,
        ..VethEnd::default()
    };
    setup.add_veth(near, end, &Netns::current().unwrap()).unwrap();
    setup.set_up(&far).unwrap();
}

/// Makes the link that holds the node's underlay addresses.
pub(crate) fn add_underlay(setup: &mut Setup) {
    let end = VethEnd {
        name: UNDERLAY,
        up: true,
        ..VethEnd::default()
    };
    add_veth(setup, end);
    for address in ["192.0.2.1/24", "2001:db8::1/64"] {
        setup.add_address(UNDERLAY, net(address)).unwrap();
    }
}

fn open(
    protocol: u8,
    devices: &[IfName],
    (prefix, nft_table): (&str, &str),
    receive_buffer: usize,
) -> Kernel {
    let config = Config {
        protocol,
        devices: devices.to_vec(),
        interface_prefix: prefix.to_owned(),
        nft_table: nft_table.to_owned(),
        receive_buffer,
    };
    Kernel::open(config).unwrap()
}

/// Opens the kernel as the agent does.
pub(crate) fn open_ours(receive_buffer: usize) -> Kernel {
    open(
        OURS,
        &Family::ALL.map(device),
        ("cali", "routelet"),
        receive_buffer,
    )
}

/// Opens the kernel as one whose objects are not ours, and whose link is the underlay's.
fn open_foreign(receive_buffer: usize) -> Kernel {
    open(FOREIGN, &[name(UNDERLAY)], ("none", "others"), receive_buffer)
}

/// All objects that a kernel shows; settings are not among them.
pub(crate) fn dump(kernel: &mut Kernel) -> BTreeMap<Key, Object> {
    let mut found = BTreeMap::new();
    for kind in Kind::ALL {
        kernel
            .dump(kind, None, &mut |key, object| _ = found.insert(key, object))
            .unwrap();
    }
    found
}

/// The node's kernel, with an underlay link and things in it that are none of ours.
pub(crate) struct Node {
    pub(crate) setup: Setup,
    /// Someone who uses our protocol number.
    pub(crate) twin: Kernel,
    /// Someone who uses another, and to whom the underlay link belongs.
    pub(crate) foreign: Kernel,
}

/// An agent on it, with a clock that is moved on as it wants.
pub(crate) struct Agent {
    pub(crate) reconciler: Reconciler<Kernel>,
    pub(crate) planner: Planner,
    /// What the planner's changes add up to.
    pub(crate) wanted: BTreeMap<Key, Object>,
    /// What happened since it was last taken.
    pub(crate) reports: Vec<Report>,
    now: Instant,
}

impl Node {
    pub(crate) fn new() -> Self {
        let mut setup = Setup::open().unwrap();
        add_underlay(&mut setup);
        Self {
            setup,
            twin: open_ours(4 << 20),
            foreign: open_foreign(4 << 20),
        }
    }

    /// What is there and is not ours.
    pub(crate) fn others(&mut self) -> BTreeMap<Key, Object> {
        dump(&mut self.foreign)
    }
}

impl Agent {
    /// An agent that has just started and knows its node, and no pods or peers.
    pub(crate) fn start(nexthop_objects: bool, receive_buffer: usize) -> Self {
        Self::start_with(settings(nexthop_objects), receive_buffer)
    }

    /// The same, with these settings.
    pub(crate) fn start_with(settings: Settings, receive_buffer: usize) -> Self {
        let ownership = Ownership {
            protocol: OURS,
            devices: Family::ALL.map(device).to_vec(),
            interface_prefix: "cali".to_owned(),
        };
        let now = Instant::now();
        let mut agent = Self {
            reconciler: Reconciler::new(open_ours(receive_buffer), ownership, now),
            planner: Planner::new(settings),
            wanted: BTreeMap::new(),
            reports: Vec::new(),
            now,
        };
        agent.tell(ClusterEvent::NodeApplied(own_node(0)));
        agent
    }

    /// Tells it that it has been told everything.
    pub(crate) fn tell_synced(&mut self) {
        self.tell(ClusterEvent::Synced(Resource::Nodes, Source::Store));
        self.tell(ClusterEvent::Synced(Resource::Pods, Source::Store));
    }

    pub(crate) fn tell(&mut self, event: ClusterEvent) {
        let mut plan = Plan::default();
        self.planner.cluster(event, &mut plan);
        self.follow(plan);
    }

    fn follow(&mut self, plan: Plan) {
        for (key, object) in plan.changes {
            match &object {
                Some(object) => self.wanted.insert(key, object.clone()),
                None => self.wanted.remove(&key),
            };
            self.reconciler.want(key, object);
        }
    }

    /// One round of the agent's loop.
    pub(crate) fn step(&mut self) -> Progress {
        if self.planner.missing().is_empty() {
            self.reconciler.allow_removal();
        }
        let mut progress = self.reconciler.step(self.now);
        if let Some(host) = self.reconciler.host_if_changed(self.now).unwrap() {
            let mut plan = Plan::default();
            self.planner.host(&host, &mut plan);
            if !plan.changes.is_empty() {
                progress = Progress::More;
            }
            self.follow(plan);
        }
        self.reports.push(self.reconciler.take_report());
        progress
    }

    /// Steps until there is nothing left to do, now or later.
    pub(crate) fn settle(&mut self) {
        let end = self.now + HORIZON;
        for _ in 0..10_000 {
            let before = self.operations_so_far();
            match self.step() {
                Progress::More => {}
                // What it wrote may have brought about more.
                Progress::Idle(_) if self.operations_so_far() != before => {}
                Progress::Idle(Some(next)) if next <= end => self.now = self.now.max(next),
                Progress::Idle(_) => return,
            }
        }
        panic!("no rest after 10,000 steps");
    }

    fn operations_so_far(&self) -> u64 {
        let failed: usize = self.reports.iter().map(|report| report.errors.len()).sum();
        failed as u64
            + self
                .reports
                .iter()
                .map(|report| report.operations.total())
                .sum::<u64>()
    }

    /// Takes the number of operations since the last call, failed ones too.
    pub(crate) fn take_operations(&mut self) -> u64 {
        let count = self.operations_so_far();
        self.reports.clear();
        count
    }

    /// Settles until the kernel is as it shall be.
    ///
    /// # Panics
    /// If that does not come to pass.
    pub(crate) fn converge(&mut self, but: impl Fn(&Key) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.settle();
            let faults: Vec<String> = self.faults(&but);
            if faults.is_empty() {
                return;
            }
            let troubles: Vec<_> = self.reconciler.troubles().collect();
            assert!(
                Instant::now() < deadline,
                "not reached: {faults:#?}, in trouble: {troubles:#?}"
            );
        }
    }

    /// Lets time pass, and does what falls due in it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            match self.step() {
                Progress::More => {}
                Progress::Idle(Some(next)) if next <= end => self.now = self.now.max(next),
                Progress::Idle(_) => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("no rest after 10,000 steps");
    }

    /// Compares with the kernel, and settles.
    pub(crate) fn audit(&mut self) {
        self.reconciler.audit(self.now);
        self.settle();
    }

    /// What differs in the kernel from what is wanted, `but` for some keys, as a reader of its own sees it.
    pub(crate) fn faults(&self, but: impl Fn(&Key) -> bool) -> Vec<String> {
        let mut kernel = open_ours(1 << 16);
        let present = dump(&mut kernel);
        let others = dump(&mut open_foreign(1 << 16));
        let mut faults = Vec::new();
        for (key, wanted) in &self.wanted {
            if but(key) || self.waits(key, wanted, &present) {
                continue;
            }
            let actual = match key {
                Key::Sysctl(sysctl) => kernel.sysctl(*sysctl).unwrap().map(Object::Sysctl),
                Key::ChecksumOffload(link) => {
                    let on = kernel.checksum_offload(*link).unwrap();
                    on.map(Object::ChecksumOffload)
                }
                _ => present.get(key).cloned(),
            };
            // Someone else's route to our own pod subnet does as well.
            let serves = *wanted == BLACKHOLE && others.contains_key(key);
            if !serves && !actual.as_ref().is_some_and(|actual| wanted.satisfied_by(actual)) {
                faults.push(format!("{key}: wanted {wanted}, there is {actual:?}"));
            }
        }
        for (key, actual) in &present {
            if !self.wanted.contains_key(key) && !self.may_stay(key, actual) {
                faults.push(format!("{key}: unwanted, there is {actual}"));
            }
        }
        // Nexthops of two owners stand side by side, each under its id.
        for key in others.keys().filter(|key| key.kind() != Kind::Nexthop) {
            let wanted = self
                .wanted
                .get(key)
                .filter(|wanted| !self.waits(key, wanted, &present) && **wanted != BLACKHOLE);
            if wanted.is_some() {
                faults.push(format!("{key}: someone else's stands beside it"));
            }
        }
        faults
    }

    /// Whether the object can't be there yet, as its pod's host veth is not.
    fn waits(&self, key: &Key, wanted: &Object, present: &BTreeMap<Key, Object>) -> bool {
        let link = match (key, wanted) {
            (Key::Link(link), _) => Some(*link),
            (_, Object::Route(target)) => target.link(),
            _ => key.link(),
        };
        link.is_some_and(|link| is_host_veth(link) && !present.contains_key(&Key::Link(link)))
    }

    /// Whether the object stays though it is not wanted: host veths, and a route to one whose pod is not known.
    fn may_stay(&self, key: &Key, actual: &Object) -> bool {
        match (key, actual) {
            (Key::Link(link), _) => is_host_veth(*link),
            (Key::Route { destination, .. }, Object::Route(RouteTarget::Link(link))) => {
                let one = destination.prefix_len() == destination.max_prefix_len();
                one && is_host_veth(*link) && !self.wanted.contains_key(&Key::Link(*link))
            }
            _ => false,
        }
    }
}

fn is_host_veth(link: IfName) -> bool {
    link.as_str().starts_with("cali")
}
