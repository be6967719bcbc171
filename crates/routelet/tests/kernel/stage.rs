//! A node with a real agent, its pods, peers that are nothing but Node objects, and a look at the node's kernel that
//! shares no process and no memory with the agent's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use routelet_lab::api::objects;
use routelet_lab::{Agent, Backend, Cluster, Pod, wait};
use routelet_model::{
    Family, HOST_VETH_MAC, IfName, Key, Kind, Link, LinkKind, NftRules, NftSet, Object, PerFamily,
    RouteTarget, Sysctl, SysctlName, Vxlan, host_prefix, vtep_mac,
};
use routelet_netlink::{Config, Hint, Kernel, Netns, Operation, Setup, Verb};

/// The agent's routing protocol number.
pub(crate) const OURS: u8 = 80;
/// No audit comes to help: what is repaired is repaired because the kernel told of it.
pub(crate) const NO_AUDIT: &[&str] = &["--audit-interval", "24h"];
/// The VXLAN device.
pub(crate) const DEVICE: &str = "vxlan.calico";

/// Kernel objects by key. Links have no index: one made anew is as good as the first.
pub(crate) type Tables = BTreeMap<Key, Object>;

/// A cluster of one node whose agent runs, and of peers without agents.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) nexthop_objects: bool,
    /// MTU that the device should have.
    pub(crate) device_mtu: u32,
    /// Link that the device should send through.
    pub(crate) parent: IfName,
    peers: BTreeSet<u8>,
    pods: BTreeMap<String, Pod>,
}

impl Stage {
    /// A node without an agent.
    pub(crate) fn without_agent(peers: u8) -> Self {
        Self::without_agent_on(Backend::from_env().unwrap(), peers)
    }

    /// The same, on one of the APIs.
    pub(crate) fn without_agent_on(backend: Backend, peers: u8) -> Self {
        let mut cluster = Cluster::new(backend).unwrap();
        cluster.add_node().unwrap();
        let mut stage = Self {
            cluster,
            nexthop_objects: true,
            device_mtu: 1450,
            parent: "eth0".parse().unwrap(),
            peers: BTreeSet::new(),
            pods: BTreeMap::new(),
        };
        (1..=peers).for_each(|number| stage.add_peer(number));
        stage
    }

    /// A node with an agent that has brought the kernel to what it should be.
    pub(crate) fn new(peers: u8, arguments: &[&str]) -> Self {
        let mut stage = Self::without_agent(peers);
        stage.start_agent(arguments);
        stage.wait_right("the agent became ready");
        stage
    }

    /// One with three peers and the pod `web`, and without audits.
    pub(crate) fn with_web() -> Self {
        let mut stage = Self::new(3, NO_AUDIT);
        stage.add_pod("web", 2);
        stage.wait_right("the pod was added");
        stage
    }

    /// One whose agent does not become ready, for the node has no Node object.
    pub(crate) fn without_its_node_object() -> Self {
        let mut stage = Self::without_agent(0);
        let object = stage.cluster.node_object(0).build();
        stage.cluster.api().delete(&object).unwrap();
        stage.cluster.start_agent(0, NO_AUDIT).unwrap();
        stage
    }

    /// Starts the agent, anew where one runs, and waits until it is ready.
    pub(crate) fn start_agent(&mut self, arguments: &[&str]) {
        // An agent still running would send the new one away.
        self.cluster.node(0).agent = None;
        self.cluster.start_agent(0, arguments).unwrap();
        self.cluster.wait_ready().unwrap();
    }

    pub(crate) fn agent(&mut self) -> &mut Agent {
        self.cluster.node(0).agent().unwrap()
    }

    pub(crate) fn netns(&self) -> &Netns {
        self.cluster.nodes()[0].node.netns()
    }

    pub(crate) fn setup(&self) -> Setup {
        self.cluster.nodes()[0].node.setup().unwrap()
    }

    /// Adds the Node object of a peer: peer-NUMBER, with the pod subnet 10.128.NUMBER.0/24.
    pub(crate) fn add_peer(&mut self, number: u8) {
        self.cluster.api().apply(&peer(number).build()).unwrap();
        self.peers.insert(number);
    }

    pub(crate) fn remove_peer(&mut self, number: u8) {
        self.cluster.api().delete(&peer(number).build()).unwrap();
        self.peers.remove(&number);
    }

    /// Adds a pod with the address number `host` of the node's subnet: first its links, then its Pod object.
    pub(crate) fn add_pod(&mut self, name: &str, host: u8) {
        let pod = self.cluster.add_pod(0, name, host).unwrap();
        self.pods.insert(name.to_owned(), pod);
    }

    /// Deletes a pod's Pod object, then its links.
    pub(crate) fn remove_pod(&mut self, name: &str) {
        let object = self.cluster.pod_object(0, name, 0).unwrap().build();
        self.cluster.api().delete(&object).unwrap();
        self.pods.remove(name).unwrap().delete().unwrap();
    }

    /// Makes a pod's links, but no route to it, without telling the API, or after it was told.
    pub(crate) fn add_pod_links(&mut self, name: &str, host: u8) {
        self.connect_pod(name, host);
        let pod = self.pods.remove(name).unwrap().without_host_routes().unwrap();
        self.pods.insert(name.to_owned(), pod);
    }

    /// Connects a pod, as the CNI plugin does it, without telling the API; returns its route.
    pub(crate) fn connect_pod(&mut self, name: &str, host: u8) -> Key {
        let address = self.cluster.pod_address(0, host).unwrap();
        let pod = self.cluster.nodes()[0].node.pod(name, &[address]).unwrap();
        self.pods.insert(name.to_owned(), pod);
        Key::route(host_prefix(address))
    }

    /// Takes a pod's links away without telling the API.
    pub(crate) fn remove_pod_links(&mut self, name: &str) {
        self.pods.remove(name).unwrap().delete().unwrap();
    }

    /// The host veth of a pod.
    pub(crate) fn veth(&self, name: &str) -> IfName {
        self.pods[name].host_veth()
    }

    /// What the kernel should have, by the documents.
    pub(crate) fn wanted(&self) -> Tables {
        let node = &self.cluster.nodes()[0];
        let (device, local) = (DEVICE.parse().unwrap(), node.node.address(Family::V4));
        let link = Link {
            mtu: Some(self.device_mtu),
            ..vxlan_on(self.parent, node.node.name(), local)
        };
        let mut wanted = Tables::from([
            (
                Key::Sysctl(Sysctl::host(SysctlName::Ipv4IpForward)),
                Object::Sysctl(1),
            ),
            (Key::Link(device), Object::Link(Box::new(link))),
            (
                Key::Address {
                    link: device,
                    address: host_prefix(node.subnet.addr()),
                },
                Object::Address,
            ),
            (Key::route(node.subnet), Object::Route(RouteTarget::Blackhole)),
        ]);
        for number in &self.peers {
            let (gateway, mac) = (
                peer_subnet(*number).addr(),
                vtep_mac(&peer_name(*number), Family::V4),
            );
            wanted.insert(Key::Fdb { link: device, mac }, Object::Fdb(peer_address(*number)));
            wanted.insert(
                Key::Neighbour {
                    link: device,
                    address: gateway,
                },
                Object::Neighbour(mac),
            );
            let target = if self.nexthop_objects {
                wanted.insert(
                    Key::Nexthop {
                        link: device,
                        gateway,
                    },
                    Object::Nexthop,
                );
                RouteTarget::Nexthop {
                    link: device,
                    gateway,
                }
            } else {
                RouteTarget::Gateway {
                    link: device,
                    gateway,
                }
            };
            wanted.insert(Key::route(peer_subnet(*number)), Object::Route(target));
        }
        let rules = NftRules {
            interface_prefix: "cali".parse().unwrap(),
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
        wanted.insert(Key::NftTable, Object::NftTable);
        wanted.insert(Key::NftRules, Object::NftRules(rules));
        let never = ["224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8"];
        let mut elements: Vec<(NftSet, IpNet)> = never
            .iter()
            .map(|net| (NftSet::Except, net.parse().unwrap()))
            .collect();
        elements.push((NftSet::OwnPods, node.subnet));
        elements.push((NftSet::Pods, node.subnet));
        for number in &self.peers {
            elements.push((NftSet::Pods, peer_subnet(*number)));
            elements.push((NftSet::Nodes, peer_address(*number).into()));
        }
        for (set, net) in elements {
            wanted.insert(Key::nft_element(set, net), Object::NftElement);
        }
        for pod in self.pods.values() {
            let link = pod.host_veth();
            wanted.insert(Key::Link(link), Object::Link(Box::new(host_veth())));
            for (name, value) in POD_SYSCTLS {
                wanted.insert(Key::Sysctl(Sysctl::link(name, link)), Object::Sysctl(value));
            }
            for address in pod.addresses() {
                wanted.insert(
                    Key::route(host_prefix(*address)),
                    Object::Route(RouteTarget::Link(link)),
                );
            }
        }
        wanted
    }

    /// What the kernel has of what is the agent's by its marks.
    pub(crate) fn kernel(&self) -> Tables {
        tables_of(self.netns())
    }

    /// Waits until the kernel has what it should have and the agent says so as well.
    pub(crate) fn wait_right(&mut self, after: &str) {
        let wanted = self.wanted();
        let right = wait::until(
            wait::LONG,
            &format!("the kernel to be right after {after}"),
            || self.kernel() == wanted && self.sum("routelet_objects_out_of_sync") == 0,
        );
        if right.is_err() {
            self.assert_right(after);
            panic!(
                "the agent thinks that something is out of sync after {after}:\n{}",
                self.agent().metrics().unwrap()
            );
        }
    }

    /// Fails where the kernel does not have what it should have at this moment.
    pub(crate) fn assert_right(&self, after: &str) {
        let (wanted, actual) = (self.wanted(), self.kernel());
        let only = |one: &Tables, other: &Tables| -> Vec<String> {
            let differing = one.iter().filter(|(key, object)| other.get(key) != Some(object));
            differing
                .map(|(key, object)| format!("{key}: {object}"))
                .collect()
        };
        let (lacks, has) = (only(&wanted, &actual), only(&actual, &wanted));
        assert!(
            lacks.is_empty() && has.is_empty(),
            "after {after} the kernel lacks {lacks:#?} and has {has:#?}"
        );
    }

    /// The sum of the agent's metrics of this name, or of the one series where labels are given; 0 for none.
    pub(crate) fn sum(&mut self, name: &str) -> u64 {
        let text = self.agent().metrics().unwrap();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' '])
                .then(|| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        });
        values.sum()
    }

    /// How many repairs the agent has counted.
    pub(crate) fn repairs(&mut self, kind: Kind, cause: &str) -> u64 {
        self.sum(&format!(
            "routelet_repairs_total{{kind=\"{kind}\",cause=\"{cause}\"}}"
        ))
    }

    /// Runs `meddling`, and waits until the agent has counted a repair for it and the kernel is right again.
    pub(crate) fn repaired(&mut self, kind: Kind, cause: &str, what: &str, meddling: impl FnOnce(&mut Self)) {
        let before = self.repairs(kind, cause);
        meddling(self);
        let counted = format!("a repair of a {kind} {cause} to be counted after {what}");
        wait::until(wait::LONG, &counted, || self.repairs(kind, cause) > before).unwrap();
        self.wait_right(what);
    }

    /// Returns when the agent has dealt with all that the kernel has told so far, by what it tells next: the
    /// blackhole route deleted, and repaired with one operation.
    pub(crate) fn wait_noticed(&mut self) {
        let route = Key::route(self.cluster.nodes()[0].subnet);
        self.wait_noticed_by(route, Object::Route(RouteTarget::Blackhole));
    }

    /// The same by another route, where the blackhole route is not there.
    pub(crate) fn wait_noticed_by(&mut self, route: Key, object: Object) {
        let before = self.repairs(Kind::Route, "deleted");
        self.meddle(OURS, &[delete(route, object)]);
        wait::until(wait::LONG, &format!("the {route} to be repaired"), || {
            self.repairs(Kind::Route, "deleted") > before
        })
        .unwrap();
    }

    /// Does something to the kernel as another program would, under the protocol number.
    pub(crate) fn meddle(&self, protocol: u8, operations: &[Operation]) {
        let failures = in_kernel(self.netns(), protocol, |kernel| {
            let mut failures = Vec::new();
            kernel.apply(operations, &mut failures);
            failures
        });
        assert!(failures.is_empty(), "{failures:?} of {operations:?}");
    }

    /// Does something while the agent stands still, so that it finds it done.
    pub(crate) fn behind_its_back(&mut self, work: impl FnOnce(&mut Self)) {
        let pid = Pid::from_raw(self.agent().pid().cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        work(self);
        kill(pid, Signal::SIGCONT).unwrap();
    }

    /// Listens to the kernel from now on.
    pub(crate) fn listen(&self) -> Listener {
        Listener(self.netns().run(|| Kernel::open(config(OURS)).unwrap()).unwrap())
    }
}

/// Hears what happens to objects of the agent's, whoever does it.
pub(crate) struct Listener(Kernel);

impl Listener {
    /// What was heard since the last call.
    pub(crate) fn heard(&mut self) -> Vec<Hint> {
        let mut hints = Vec::new();
        self.0.drain(&mut hints);
        hints
    }
}

pub(crate) fn create(key: Key, object: Object) -> Operation {
    Operation {
        verb: Verb::Create,
        key,
        object,
    }
}

pub(crate) fn replace(key: Key, object: Object) -> Operation {
    Operation {
        verb: Verb::Replace,
        key,
        object,
    }
}

pub(crate) fn delete(key: Key, object: Object) -> Operation {
    Operation {
        verb: Verb::Delete,
        key,
        object,
    }
}

/// The settings of a host veth whose pod has an IPv4 address.
pub(crate) const POD_SYSCTLS: [(SysctlName, u32); 4] = [
    (SysctlName::Ipv4Forwarding, 1),
    (SysctlName::Ipv4ProxyArp, 1),
    (SysctlName::Ipv4RpFilter, 1),
    (SysctlName::Ipv4ProxyDelay, 0),
];

pub(crate) fn peer(number: u8) -> objects::NodeBuilder {
    objects::node(peer_name(number))
        .pod_cidrs([peer_subnet(number)])
        .internal_ip(peer_address(number))
}

pub(crate) fn peer_name(number: u8) -> String {
    format!("peer-{number}")
}

pub(crate) fn peer_subnet(number: u8) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 128, number, 0), 24).into()
}

/// An address on the LAN that no one has.
pub(crate) fn peer_address(number: u8) -> IpAddr {
    Ipv4Addr::new(172, 30, 128, number).into()
}

/// The VXLAN device that the node should have.
pub(crate) fn vxlan(node: &str, local: IpAddr) -> Link {
    vxlan_on("eth0".parse().unwrap(), node, local)
}

fn vxlan_on(parent: IfName, node: &str, local: IpAddr) -> Link {
    Link {
        kind: LinkKind::Vxlan(Vxlan {
            vni: 4096,
            port: 4789,
            local,
            parent: Some(parent),
            learning: false,
            odd: false,
        }),
        mac: Some(vtep_mac(node, Family::V4)),
        mtu: Some(1450),
        up: true,
        running: true,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    }
}

fn host_veth() -> Link {
    Link {
        kind: LinkKind::Veth,
        mac: Some(HOST_VETH_MAC),
        mtu: Some(1450),
        up: true,
        running: true,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    }
}

fn config(protocol: u8) -> Config {
    Config {
        protocol,
        devices: vec![DEVICE.parse().unwrap(), "vxlan-v6.calico".parse().unwrap()],
        interface_prefix: "cali".to_owned(),
        nft_table: "routelet".to_owned(),
        receive_buffer: 8 << 20,
    }
}

fn in_kernel<T: Send>(netns: &Netns, protocol: u8, work: impl FnOnce(&mut Kernel) -> T + Send) -> T {
    netns
        .run(|| work(&mut Kernel::open(config(protocol)).unwrap()))
        .unwrap()
}

fn tables_of(netns: &Netns) -> Tables {
    in_kernel(netns, OURS, |kernel| {
        let mut tables = Tables::new();
        let mut sysctls = vec![Sysctl::host(SysctlName::Ipv4IpForward)];
        for kind in Kind::ALL {
            let visit = &mut |key, mut object| {
                if let Object::Link(link) = &mut object {
                    link.index = 0;
                    link.given.clear();
                    if let (Key::Link(name), LinkKind::Veth) = (key, &link.kind) {
                        sysctls.extend(POD_SYSCTLS.map(|(setting, _)| Sysctl::link(setting, name)));
                    }
                }
                assert_eq!(tables.insert(key, object), None, "{key} is there twice");
            };
            kernel.dump(kind, None, visit).unwrap();
        }
        for sysctl in sysctls {
            if let Some(value) = kernel.sysctl(sysctl).unwrap() {
                tables.insert(Key::Sysctl(sysctl), Object::Sysctl(value));
            }
        }
        tables
    })
}
