//! A kernel in memory that fails on demand: for the faults that a real one won't produce when asked.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use routelet_model::{
    Family, Host, IfName, Key, Kind, Link, LinkKind, MacAddr, NftRules, NftSet, Object, PerFamily,
    RouteTarget, Sysctl, SysctlName, Vxlan,
};
use routelet_netlink::{Error, Failure, Flushed, Hint, Operation, Verb};
use routelet_reconciler::{Kernel, Ownership, Progress, Reconciler, Report};

pub(crate) const PROTOCOL: u8 = 80;

/// What the kernel does in place of carrying an operation out.
type Script = Box<dyn FnMut(&Operation) -> Option<Error> + Send>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<Key, Object>,
    pub(crate) hints: Vec<Hint>,
    /// All operations that arrived, failed ones too.
    pub(crate) operations: Vec<Operation>,
    pub(crate) script: Option<Script>,
    /// Whether an operation that a script answers is carried out all the same, as where the answer is lost.
    pub(crate) carries_out_the_scripted: bool,
    /// Dumps of this kind show half of what there is and fail.
    pub(crate) interrupted: Option<Kind>,
    pub(crate) dumps: u32,
    /// Whether the host's links cannot be read.
    pub(crate) host_fails: bool,
    pub(crate) host_reads: u32,
    /// The addresses of each call that was to forget their flows, with the objects that there were by then.
    pub(crate) flushes: Vec<(Vec<IpAddr>, BTreeMap<Key, Object>)>,
    /// What forgetting flows fails with.
    pub(crate) flush_error: Option<i32>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeKernel(pub(crate) Arc<Mutex<State>>);

impl Kernel for FakeKernel {
    fn apply(&mut self, operations: &[Operation], failures: &mut Vec<Failure>) {
        let mut state = self.0.lock().unwrap();
        for (index, operation) in operations.iter().enumerate() {
            state.operations.push(operation.clone());
            let mut script = state.script.take();
            let scripted = script.as_mut().and_then(|script| script(operation));
            state.script = script;
            let carried_out = match scripted.is_none() || state.carries_out_the_scripted {
                true => state.carry_out(operation),
                false => None,
            };
            if let Some(error) = scripted.or(carried_out) {
                failures.push(Failure { index, error });
            }
        }
    }

    fn dump(
        &mut self,
        kind: Kind,
        link: Option<IfName>,
        visit: &mut dyn FnMut(Key, Object),
    ) -> Result<(), Error> {
        let mut state = self.0.lock().unwrap();
        state.dumps += 1;
        let shown: Vec<_> = state
            .objects
            .iter()
            .filter(|(key, object)| {
                // A dump filters by protocol what has one.
                let foreign = matches!(object, Object::Foreign { protocol } if *protocol != PROTOCOL)
                    && !matches!(key, Key::NftTable | Key::NftRules);
                let on = match object {
                    Object::Route(target) => target.link(),
                    _ => key.link(),
                };
                key.kind() == kind && !foreign && (link.is_none() || on == link)
            })
            .map(|(key, object)| (*key, object.clone()))
            .collect();
        let interrupted = state.interrupted == Some(kind);
        let count = if interrupted { shown.len() / 2 } else { shown.len() };
        for (key, object) in shown.into_iter().take(count) {
            visit(key, object);
        }
        if interrupted {
            Err(Error::Interrupted(3))
        } else {
            Ok(())
        }
    }

    fn dump_others(&mut self, visit: &mut dyn FnMut(Key, Object)) -> Result<(), Error> {
        for (key, object) in &self.0.lock().unwrap().objects {
            if matches!((key, object), (Key::Route { .. }, Object::Foreign { protocol }) if *protocol != PROTOCOL)
            {
                visit(*key, object.clone());
            }
        }
        Ok(())
    }

    fn sysctl(&mut self, sysctl: Sysctl) -> Result<Option<u32>, Error> {
        let state = self.0.lock().unwrap();
        if sysctl
            .link
            .is_some_and(|link| !state.objects.contains_key(&Key::Link(link)))
        {
            return Ok(None);
        }
        Ok(match state.objects.get(&Key::Sysctl(sysctl)) {
            Some(Object::Sysctl(value)) => Some(*value),
            _ => Some(0),
        })
    }

    fn checksum_offload(&mut self, link: IfName) -> Result<Option<bool>, Error> {
        let state = self.0.lock().unwrap();
        if !state.objects.contains_key(&Key::Link(link)) {
            return Ok(None);
        }
        // A device of ours is made with it.
        Ok(match state.objects.get(&Key::ChecksumOffload(link)) {
            Some(Object::ChecksumOffload(on)) => Some(*on),
            _ => Some(true),
        })
    }

    fn host(&mut self) -> Result<Host, Error> {
        let mut state = self.0.lock().unwrap();
        state.host_reads += 1;
        if state.host_fails {
            return Err(kernel_error(nix::libc::ENOBUFS));
        }
        Ok(Host::default())
    }

    fn flush_flows(&mut self, addresses: Vec<IpAddr>) {
        let mut state = self.0.lock().unwrap();
        let objects = state.objects.clone();
        state.flushes.push((addresses.clone(), objects));
        let result = match state.flush_error {
            Some(errno) => Err(kernel_error(errno).to_string()),
            None => Ok(addresses.len()),
        };
        state.hints.push(Hint::Flushed(Flushed { addresses, result }));
    }

    fn drain(&mut self, hints: &mut Vec<Hint>) {
        hints.append(&mut self.0.lock().unwrap().hints);
    }
}

impl State {
    /// What goes with a link or a nexthop that is deleted.
    fn take_along(&mut self, gone: Key) {
        self.objects.retain(|key, object| match (gone, &*object) {
            (Key::Link(link), Object::Route(target)) => target.link() != Some(link),
            (Key::Link(link), _) => key.link() != Some(link),
            (Key::Nexthop { link, gateway }, Object::Route(target)) => {
                *target != RouteTarget::Nexthop { link, gateway }
            }
            _ => true,
        });
    }

    fn carry_out(&mut self, operation: &Operation) -> Option<Error> {
        let key = operation.key;
        let in_table = |key: &Key| matches!(key, Key::NftElement { .. } | Key::NftRules);
        if operation.verb == Verb::Delete {
            self.objects.remove(&key);
            if key == Key::NftTable {
                self.objects.retain(|key, _| !in_table(key));
            }
            self.take_along(key);
            return None;
        }
        if (operation.verb, key) == (Verb::Replace, Key::NftTable) {
            self.objects.retain(|key, _| !in_table(key));
        }
        if in_table(&key) && !self.objects.contains_key(&Key::NftTable) {
            return Some(Error::NoNftTable);
        }
        if key
            .link()
            .is_some_and(|link| !self.objects.contains_key(&Key::Link(link)))
        {
            return Some(kernel_error(nix::libc::ENODEV));
        }
        if let Object::Route(RouteTarget::Nexthop { link, gateway }) = operation.object
            && !self.objects.contains_key(&Key::Nexthop { link, gateway })
        {
            return Some(Error::NoSuchNexthop { link, gateway });
        }
        let is_in_the_way = match (key.kind(), self.objects.get(&key)) {
            (Kind::Link | Kind::Route, there) => there.is_some(),
            // One of ours is found to be just what is wanted.
            (Kind::Nexthop, there) => there.is_some_and(|there| *there != Object::Nexthop),
            _ => false,
        };
        if operation.verb == Verb::Create && is_in_the_way {
            return Some(kernel_error(nix::libc::EEXIST));
        }
        let mut object = operation.object.clone();
        if let Object::Link(link) = &mut object {
            link.index = match self.objects.get(&key) {
                Some(Object::Link(old)) => old.index,
                _ => 100 + self.operations.len() as u32,
            };
        }
        self.objects.insert(key, object);
        None
    }
}

/// A reconciler on a fake kernel, with a clock that the test moves.
pub(crate) struct Bench {
    pub(crate) kernel: FakeKernel,
    pub(crate) reconciler: Reconciler<FakeKernel>,
    pub(crate) now: Instant,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let kernel = FakeKernel::default();
        let now = Instant::now();
        let ownership = Ownership {
            protocol: PROTOCOL,
            devices: vec![vxlan_device()],
            interface_prefix: "cali".to_owned(),
        };
        Self {
            reconciler: Reconciler::new(kernel.clone(), ownership, now),
            kernel,
            now,
        }
    }

    /// One with a VXLAN device and one peer in place, in sync.
    pub(crate) fn with_peer() -> Self {
        let mut bench = Self::new();
        bench.want(device());
        bench.want(peer(1));
        bench.reconciler.allow_removal();
        bench.settle();
        bench.forget_past();
        bench
    }

    pub(crate) fn want(&mut self, objects: impl IntoIterator<Item = (Key, Object)>) {
        for (key, object) in objects {
            self.reconciler.want(key, Some(object));
        }
    }

    pub(crate) fn unwant(&mut self, objects: impl IntoIterator<Item = (Key, Object)>) {
        for (key, _) in objects {
            self.reconciler.want(key, None);
        }
    }

    /// Steps until nothing is left to do at the present; returns when there will be.
    pub(crate) fn settle(&mut self) -> Option<Instant> {
        for _ in 0..1000 {
            let progress = self.reconciler.step(self.now);
            let host = self.reconciler.host_if_changed(self.now);
            if let Progress::Idle(next) = progress
                && host.is_ok()
                && self.kernel.0.lock().unwrap().hints.is_empty()
            {
                return next;
            }
        }
        panic!(
            "no rest after 1000 steps: {:?}",
            self.kernel.0.lock().unwrap().operations
        );
    }

    /// Moves the clock on, to each time at which there is something to do.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.settle().filter(|next| *next <= end) {
            self.now = self.now.max(next);
        }
        self.now = end;
        self.settle();
    }

    pub(crate) fn hint(&self, hint: Hint) {
        self.kernel.0.lock().unwrap().hints.push(hint);
    }

    pub(crate) fn objects(&self) -> BTreeMap<Key, Object> {
        self.kernel.0.lock().unwrap().objects.clone()
    }

    pub(crate) fn holds(&self, objects: impl IntoIterator<Item = (Key, Object)>) -> bool {
        let present = self.objects();
        objects
            .into_iter()
            .all(|(key, object)| present.get(&key).is_some_and(|o| object.satisfied_by(o)))
    }

    /// Changes the kernel behind the reconciler's back, without a word.
    pub(crate) fn meddle(&self, key: Key, object: Option<Object>) {
        let mut state = self.kernel.0.lock().unwrap();
        match object {
            Some(object) => state.objects.insert(key, object),
            None => state.objects.remove(&key),
        };
    }

    pub(crate) fn script(&self, script: impl FnMut(&Operation) -> Option<Error> + Send + 'static) {
        self.kernel.0.lock().unwrap().script = Some(Box::new(script));
    }

    /// Whether what a script answers is carried out all the same.
    pub(crate) fn carry_out_the_scripted(&self, whether: bool) {
        self.kernel.0.lock().unwrap().carries_out_the_scripted = whether;
    }

    /// Takes the operations that arrived since the last call.
    pub(crate) fn operations(&self) -> Vec<(Verb, Key)> {
        std::mem::take(&mut self.kernel.0.lock().unwrap().operations)
            .iter()
            .map(|o| (o.verb, o.key))
            .collect()
    }

    /// Takes what was told to be forgotten by connection tracking since the last call.
    pub(crate) fn flushes(&self) -> Vec<(Vec<IpAddr>, BTreeMap<Key, Object>)> {
        std::mem::take(&mut self.kernel.0.lock().unwrap().flushes)
    }

    pub(crate) fn report(&mut self) -> Report {
        self.reconciler.take_report()
    }

    pub(crate) fn forget_past(&mut self) {
        self.operations();
        self.report();
        self.kernel.0.lock().unwrap().dumps = 0;
    }
}

pub(crate) fn kernel_error(errno: i32) -> Error {
    Error::Refused { errno, message: None }
}

pub(crate) fn vxlan_device() -> IfName {
    IfName::new("vxlan.calico").unwrap()
}

/// The objects of the node's own VXLAN device.
pub(crate) fn device() -> [(Key, Object); 3] {
    let link = Link {
        kind: LinkKind::Vxlan(Vxlan {
            vni: 4096,
            port: 4789,
            local: [192, 0, 2, 1].into(),
            parent: Some(IfName::new("eth0").unwrap()),
            learning: false,
            odd: false,
        }),
        mac: Some(routelet_model::vtep_mac("node-0", Family::V4)),
        mtu: Some(1450),
        up: true,
        running: true,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    };
    [
        (Key::Link(vxlan_device()), Object::Link(Box::new(link))),
        (
            Key::Sysctl(Sysctl::host(SysctlName::Ipv4IpForward)),
            Object::Sysctl(1),
        ),
        (
            Key::Address {
                link: vxlan_device(),
                address: net("10.0.0.0/32"),
            },
            Object::Address,
        ),
    ]
}

/// The objects of a remote node.
pub(crate) fn peer(n: u8) -> [(Key, Object); 4] {
    let link = vxlan_device();
    let mac = MacAddr([0x66, 0, 0, 0, 0, n]);
    let gateway = [10, 0, n, 0].into();
    [
        (Key::Fdb { link, mac }, Object::Fdb([192, 0, 2, n + 1].into())),
        (
            Key::Neighbour {
                link,
                address: gateway,
            },
            Object::Neighbour(mac),
        ),
        (Key::Nexthop { link, gateway }, Object::Nexthop),
        (
            Key::route(net(&format!("10.0.{n}.0/24"))),
            Object::Route(RouteTarget::Nexthop { link, gateway }),
        ),
    ]
}

/// The objects of the nft table, with one peer.
pub(crate) fn nft_table() -> [(Key, Object); 4] {
    let rules = NftRules {
        interface_prefix: veth("cali"),
        vnis: PerFamily { v4: 4096, v6: 4096 },
        port: 4789,
        masquerade: true,
        vxlan: true,
        ipip: false,
        pod_prefix_lens: PerFamily {
            v4: [24].into_iter().collect(),
            ..PerFamily::default()
        },
    };
    let element = |set, text| (Key::nft_element(set, net(text)), Object::NftElement);
    [
        (Key::NftTable, Object::NftTable),
        element(NftSet::Pods, "10.0.1.0/24"),
        element(NftSet::Nodes, "192.0.2.2/32"),
        (Key::NftRules, Object::NftRules(rules)),
    ]
}

pub(crate) fn veth(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

pub(crate) fn veth_link(up: bool, index: u32) -> Object {
    Object::Link(Box::new(Link {
        kind: LinkKind::Veth,
        mac: Some(routelet_model::HOST_VETH_MAC),
        mtu: None,
        up,
        running: up,
        enslaved: false,
        given: Vec::new(),
        index,
    }))
}

/// The objects of a local pod.
pub(crate) fn pod(name: &str, address: &str) -> [(Key, Object); 3] {
    [
        (Key::Link(veth(name)), veth_link(true, 0)),
        (
            Key::Sysctl(Sysctl::link(SysctlName::Ipv4ProxyArp, veth(name))),
            Object::Sysctl(1),
        ),
        (
            Key::route(net(address)),
            Object::Route(RouteTarget::Link(veth(name))),
        ),
    ]
}

pub(crate) fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}
