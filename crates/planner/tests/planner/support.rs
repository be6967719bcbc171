//! Small makers of facts, and a world that follows a planner's changes and checks each.

use std::collections::{BTreeMap, BTreeSet};

use routelet_model::{
    ClusterEvent, Host, HostLink, IfName, Key, Node, NodeAddress, NodeAddressKind, Object, PerFamily, Pod,
    PodId, Resource, RouteTarget, Source,
};
use routelet_planner::{
    Encapsulation, NftSettings, Notice, Plan, Planner, Reason, Settings, UnderlayRule, VxlanSettings,
};

pub(crate) const OWN: &str = "node-a";

pub(crate) fn ifname(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

pub(crate) fn mk_settings() -> Settings {
    Settings {
        node_name: OWN.to_owned(),
        encapsulation: Encapsulation::Vxlan,
        underlay: UnderlayRule::InternalIp,
        ipip_device: "tunl0".parse().unwrap(),
        vxlan: VxlanSettings {
            device: PerFamily {
                v4: ifname("vxlan.calico"),
                v6: ifname("vxlan-v6.calico"),
            },
            vni: 4096,
            port: 4789,
            checksum_offload: None,
        },
        mtu: None,
        interface_prefix: "cali".to_owned(),
        nexthop_objects: true,
        allow_any_pod_address: false,
        overlay_check: false,
        nft: None,
    }
}

/// The same, with an nft table.
pub(crate) fn mk_nft_settings(masquerade: bool) -> Settings {
    let nft = NftSettings {
        masquerade,
        masquerade_except: vec!["100.64.0.0/10".parse().unwrap(), "100.65.0.0/16".parse().unwrap()],
    };
    Settings {
        nft: Some(nft),
        ..mk_settings()
    }
}

/// A Node that is the older the smaller `created` is; its uid follows its name.
pub(crate) fn mk_node(name: &str, created: i64, internal: &[&str], subnets: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        created,
        addresses: internal
            .iter()
            .map(|address| mk_address(NodeAddressKind::Internal, address))
            .collect(),
        pod_subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        overrides: PerFamily::default(),
        ipip_address: None,
        flannel: None,
        unreadable: Vec::new(),
    }
}

pub(crate) fn mk_address(kind: NodeAddressKind, address: &str) -> NodeAddress {
    NodeAddress {
        kind,
        address: address.parse().unwrap(),
    }
}

pub(crate) fn mk_pod(name: &str, created: i64, addresses: &[&str]) -> Pod {
    Pod {
        id: mk_pod_id(name),
        uid: format!("uid-{name}"),
        created,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        host_network: false,
        terminal: false,
        unreadable: Vec::new(),
    }
}

pub(crate) fn mk_pod_id(name: &str) -> PodId {
    PodId {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn mk_host(links: &[(&str, u32, &[&str])]) -> Host {
    let mk_link = |(name, mtu, addresses): &(&str, u32, &[&str])| HostLink {
        name: ifname(name),
        mtu: *mtu,
        up: true,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    Host {
        links: links.iter().map(mk_link).collect(),
        sources: BTreeMap::new(),
    }
}

/// A host and a Node for this node, with both families of addresses and of pod subnets.
pub(crate) fn own_host() -> Host {
    mk_host(&[("eth0", 1500, &["192.168.0.1/24", "fd00::1/64"])])
}

pub(crate) fn own_node() -> Node {
    mk_node(
        OWN,
        100,
        &["192.168.0.1", "fd00::1"],
        &["10.1.0.0/24", "fd10:1::/64"],
    )
}

/// A planner, with the wanted objects that its changes add up to.
pub(crate) struct World {
    pub(crate) planner: Planner,
    pub(crate) wanted: BTreeMap<Key, Object>,
}

impl World {
    pub(crate) fn empty(settings: Settings) -> Self {
        Self {
            planner: Planner::new(settings),
            wanted: BTreeMap::new(),
        }
    }

    /// One where this node is known and both lists have been told.
    pub(crate) fn ready() -> Self {
        Self::ready_with(mk_settings())
    }

    pub(crate) fn ready_with(settings: Settings) -> Self {
        let mut world = Self::empty(settings);
        world.host(&own_host());
        world.node(own_node());
        world.cluster(ClusterEvent::Synced(Resource::Nodes, Source::Store));
        world.cluster(ClusterEvent::Synced(Resource::Pods, Source::Store));
        assert_eq!(world.planner.missing(), []);
        world
    }

    pub(crate) fn cluster(&mut self, event: ClusterEvent) -> Plan {
        let mut plan = Plan::default();
        self.planner.cluster(event, &mut plan);
        self.follow(&plan);
        plan
    }

    pub(crate) fn node(&mut self, node: Node) -> Plan {
        self.cluster(ClusterEvent::NodeApplied(node))
    }

    pub(crate) fn node_gone(&mut self, name: &str) -> Plan {
        self.cluster(ClusterEvent::NodeDeleted(name.to_owned()))
    }

    pub(crate) fn pod(&mut self, pod: Pod) -> Plan {
        self.cluster(ClusterEvent::PodApplied(pod))
    }

    pub(crate) fn pod_gone(&mut self, name: &str) -> Plan {
        self.cluster(ClusterEvent::PodDeleted(mk_pod_id(name)))
    }

    pub(crate) fn host(&mut self, host: &Host) -> Plan {
        let mut plan = Plan::default();
        self.planner.host(host, &mut plan);
        self.follow(&plan);
        plan
    }

    /// Applies the changes of one event; each must be one, in the promised order, a key at most once.
    fn follow(&mut self, plan: &Plan) {
        let removals = plan
            .changes
            .iter()
            .take_while(|(_, object)| object.is_none())
            .count();
        let (removed, set) = plan.changes.split_at(removals);
        assert!(
            removed.is_sorted_by(|a, b| a.0 > b.0),
            "removals, users before what they use: {removed:?}"
        );
        assert!(
            set.is_sorted_by(|a, b| a.0 < b.0),
            "then the rest in order: {set:?}"
        );
        let keys: BTreeSet<_> = plan.changes.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), plan.changes.len(), "a key at most once");
        for (key, object) in &plan.changes {
            assert_ne!(self.wanted.get(key), object.as_ref(), "{key} does not change");
            match object {
                Some(object) => self.wanted.insert(*key, object.clone()),
                None => self.wanted.remove(key),
            };
        }
        self.check_refusals(&plan.notices);
    }

    /// What is told as refused stands, what is told as resolved does not.
    fn check_refusals(&self, notices: &[Notice]) {
        for notice in notices {
            match notice {
                Notice::Refused(refusal) => assert!(self.planner.refusals().any(|r| r == refusal)),
                Notice::Resolved(refusal) => assert!(self.planner.refusals().all(|r| r != refusal)),
                _ => {}
            }
        }
    }

    pub(crate) fn route(&self, destination: &str) -> Option<RouteTarget> {
        match self.wanted.get(&Key::route(destination.parse().unwrap())) {
            Some(Object::Route(target)) => Some(*target),
            None => None,
            Some(other) => panic!("{other:?} under a route's key"),
        }
    }

    /// Who is refused, and why.
    pub(crate) fn refusals(&self) -> Vec<(String, Reason)> {
        self.planner
            .refusals()
            .map(|refusal| (refusal.subject.to_string(), refusal.reason))
            .collect()
    }

    /// The wanted objects as text, one a line, without those that `other` has too.
    pub(crate) fn lines_beyond(&self, other: &World) -> Vec<String> {
        let beyond = self
            .wanted
            .iter()
            .filter(|(key, object)| other.wanted.get(key) != Some(object));
        beyond.map(|(key, object)| format!("{key} {object}")).collect()
    }
}

pub(crate) fn refused(subject: &str, reason: Reason) -> (String, Reason) {
    (subject.to_owned(), reason)
}
