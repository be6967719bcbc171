//! The planner: which objects an event may touch, and the difference that it makes to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use routelet_model::{ClusterEvent, Family, Host, Node, Pod, PodId, Resource, Source};
use rustc_hash::FxBuildHasher;

use crate::claims::Claims;
use crate::own::{self, NoPodNetwork, Own, PodNetwork};
use crate::pods::{Judged, Pods};
use crate::vtep::made_usable;
use crate::wanted::{Going, Known, Wanted};
use crate::{Missing, Notice, OverlayChange, Plan, Refusal, Settings, Way};
use crate::{overlay, peers};

/// Follows the cluster and the host, and says what the kernel shall hold.
#[derive(Debug)]
pub struct Planner {
    settings: Settings,
    own: Own,
    /// All Nodes but this one.
    nodes: HashMap<String, Arc<Node>, FxBuildHasher>,
    /// How many of them are peers.
    peers: usize,
    /// How many are reached in which way, for each family of pods.
    ways: BTreeMap<(Family, Way), usize>,
    claims: Claims,
    pods: Pods,
    pods_synced: bool,
    nodes_synced: bool,
    nodes_of_store: bool,
    refusals: BTreeSet<Refusal>,
}

/// Those whose objects an event may touch.
#[derive(Debug, Default)]
struct Touched {
    own: bool,
    peers: Names<String>,
    pods: Names<PodId>,
}

#[derive(Debug)]
enum Names<T> {
    These(BTreeSet<T>),
    All,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Planner {
    /// A planner that knows nothing but its settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            own: Own::default().with_node(None, &settings),
            settings,
            nodes: HashMap::default(),
            peers: 0,
            ways: BTreeMap::new(),
            claims: Claims::new(),
            pods: Pods::new(),
            pods_synced: false,
            nodes_synced: false,
            nodes_of_store: false,
            refusals: BTreeSet::new(),
        }
    }

    /// Follows a change of the cluster. What changes for the kernel is added to `plan`.
    pub fn cluster(&mut self, event: ClusterEvent, plan: &mut Plan) {
        match event {
            ClusterEvent::PodApplied(pod) => self.follow_pod(pod.id.clone(), Some(Arc::new(pod)), plan),
            ClusterEvent::PodDeleted(id) => self.follow_pod(id, None, plan),
            ClusterEvent::NodeApplied(node) if node.name == self.settings.node_name => {
                let node = Arc::new(made_usable(node, &self.settings));
                self.follow_own(self.own.with_node(Some(node), &self.settings), plan);
            }
            ClusterEvent::NodeDeleted(name) if name == self.settings.node_name => {
                self.follow_own(self.own.with_node(None, &self.settings), plan);
            }
            ClusterEvent::NodeApplied(node) => {
                self.follow_node(
                    node.name.clone(),
                    Some(Arc::new(made_usable(node, &self.settings))),
                    plan,
                );
            }
            ClusterEvent::NodeDeleted(name) => self.follow_node(name, None, plan),
            ClusterEvent::Synced(Resource::Pods, _) => self.pods_synced = true,
            ClusterEvent::Synced(Resource::Nodes, source) => {
                self.nodes_of_store |= source == Source::Store;
                self.follow_all_nodes_told(plan);
            }
        }
    }

    /// Follows the host: takes all of its links as they are now.
    pub fn host(&mut self, host: &Host, plan: &mut Plan) {
        self.follow_own(self.own.with_host(host, &self.settings), plan);
    }

    /// What is still unknown of this node. Empty: the wanted objects are complete, and what else the kernel
    /// holds of ours may be swept. What was known and vanished is not missing: it stays in force.
    pub fn missing(&self) -> Vec<Missing> {
        let pods = (!self.pods_synced).then_some(Missing::PodsNotSynced);
        let nodes = (!self.nodes_synced).then_some(Missing::NodesNotSynced);
        pods.into_iter()
            .chain(nodes)
            .chain(self.own.missing().iter().cloned())
            .collect()
    }

    /// Whether the Nodes have been listed as the API server's store has them. Until then a Node that joined lately may be
    /// unknown, and what another agent made for it before this one began look like left over.
    pub fn knows_all_nodes(&self) -> bool {
        self.nodes_of_store
    }

    /// This node's Node, with the pod subnets that are in force.
    pub fn own_node(&self) -> Option<&Node> {
        self.own.facts().map(|facts| facts.node.as_ref())
    }

    /// What this node's pods are to be given, or why that is nothing.
    pub fn pod_network(&self) -> Result<PodNetwork, NoPodNetwork> {
        let facts = self.own.facts().ok_or(NoPodNetwork::Unknown)?;
        facts.pod_network(&self.settings)
    }

    /// How many other Nodes have pod subnets, refused or not.
    pub fn peers(&self) -> usize {
        self.peers
    }

    /// How many peers' pods of a family are reached in this way. A peer that is refused is not among them.
    pub fn peers_by(&self, family: Family, way: Way) -> usize {
        self.ways.get(&(family, way)).copied().unwrap_or_default()
    }

    /// How many live pods of this node have an address of their own, refused or not.
    pub fn pods(&self) -> usize {
        self.pods.networked()
    }

    /// All Pods of this node that the API has, whatever their state.
    pub fn local_pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.all().map(Arc::as_ref)
    }

    /// The refusals that stand.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.refusals.iter()
    }

    fn follow_pod(&mut self, id: PodId, pod: Option<Arc<Pod>>, plan: &mut Plan) {
        let mut touched = BTreeSet::from([id.clone()]);
        for pod in self.pods.get(&id).into_iter().chain(&pod) {
            touched.extend(self.pods.rivals(pod).cloned());
        }
        let touched = Touched {
            pods: Names::These(touched),
            ..Touched::default()
        };
        self.step(&touched, plan, |planner| match pod {
            Some(pod) => planner.pods.insert(pod),
            None => planner.pods.remove(&id),
        });
    }

    fn follow_node(&mut self, name: String, node: Option<Arc<Node>>, plan: &mut Plan) {
        let old = self.nodes.get(&name).cloned();
        let mut peers = BTreeSet::from([name.clone()]);
        let mut pods = BTreeSet::new();
        for node in old.iter().chain(&node) {
            self.claims.touched_by(node, &mut peers);
            for subnet in &node.pod_subnets {
                if subnet.prefix_len() == subnet.max_prefix_len() {
                    pods.extend(self.pods.claimants(subnet.addr()).cloned());
                }
            }
        }
        let own = peers.remove(&self.settings.node_name)
            || old
                .iter()
                .chain(&node)
                .any(|node| self.claims.may_change_prefix_lens(node));
        let touched = Touched {
            own,
            peers: Names::These(peers),
            pods: Names::These(pods),
        };
        self.step(&touched, plan, |planner| {
            if let Some(old) = planner.nodes.remove(&name) {
                planner.peers -= usize::from(peers::is_peer(&old));
                planner.claims.leave(&old);
            }
            if let Some(node) = node {
                planner.peers += usize::from(peers::is_peer(&node));
                planner.claims.enter(&node);
                planner.nodes.insert(name, node);
            }
        });
    }

    fn follow_all_nodes_told(&mut self, plan: &mut Plan) {
        let touched = Touched {
            own: !self.nodes_synced,
            ..Touched::default()
        };
        self.step(&touched, plan, |planner| planner.nodes_synced = true);
    }

    fn follow_own(&mut self, next: Own, plan: &mut Plan) {
        next.notices_since(&self.own, &self.settings, &mut plan.notices);
        for family in Family::ALL.into_iter().filter(|_| self.settings.overlay_check) {
            let end = |own: &Own| overlay::own_end(&self.settings, own.facts(), family);
            let now = end(&next);
            if now != end(&self.own) {
                plan.overlay.push(OverlayChange::Own { family, end: now });
            }
        }
        let touched = match (self.own.facts(), next.facts()) {
            (old, new) if old == new => Touched::default(),
            (Some(old), Some(new)) if old.same_for_others(new, &self.settings) => Touched {
                own: true,
                ..Touched::default()
            },
            _ => Touched {
                own: true,
                peers: Names::All,
                pods: Names::All,
            },
        };
        self.step(&touched, plan, |planner| {
            if let Some(facts) = planner.own.facts() {
                planner.claims.leave(&facts.node);
            }
            planner.own = next;
            if let Some(facts) = planner.own.facts() {
                planner.claims.enter(&facts.node);
            }
        });
    }

    /// Makes a change and adds to `plan` what follows from it for those whom it touches.
    fn step(&mut self, touched: &Touched, plan: &mut Plan, change: impl FnOnce(&mut Self)) {
        let before = self.wanted(touched);
        change(self);
        let after = self.wanted(touched);
        for refusal in &before.refusals {
            self.refusals.remove(refusal);
        }
        self.refusals.extend(after.refusals.iter().cloned());
        self.count_ways(&before, &after, plan);
        if self.settings.overlay_check {
            overlay::peers_changed(&self.settings, &before.ways, &after.ways, &mut plan.overlay);
        }
        before.change_to(after, plan);
    }

    /// Follows the ways to the peers. That one is left to others is told where none was before: with many such peers,
    /// one of them is enough to know of.
    fn count_ways(&mut self, before: &Wanted, after: &Wanted, plan: &mut Plan) {
        let was_left = Family::ALL.map(|family| self.peers_by(family, Way::Others) > 0);
        for going in &before.ways {
            *self.ways.entry((going.family, going.way)).or_default() -= 1;
        }
        for going in &after.ways {
            *self.ways.entry((going.family, going.way)).or_default() += 1;
        }
        for (family, was_left) in Family::ALL.into_iter().zip(was_left) {
            let left = |going: &&Going| going.family == family && going.way == Way::Others;
            if !was_left && let Some(first) = after.ways.iter().find(left) {
                plan.notices.push(Notice::LeftToOthers {
                    peer: first.node.name.clone(),
                    address: first.remote,
                    family,
                });
            }
        }
    }

    pub(crate) fn known(&self) -> Known<'_> {
        Known {
            settings: &self.settings,
            own: self.own.facts(),
            claims: &self.claims,
            all_nodes: self.nodes_synced,
        }
    }

    /// All Nodes but this one.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// A Node other than this one.
    pub(crate) fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// Each pod that has a network of its own, with its host veth and what becomes of its addresses.
    pub(crate) fn judged_pods(&self) -> impl Iterator<Item = Judged<'_>> {
        let known = self.known();
        self.pods
            .all()
            .filter_map(move |pod| self.pods.judged(&known, pod))
    }

    fn wanted(&self, touched: &Touched) -> Wanted {
        let mut wanted = Wanted::default();
        let known = self.known();
        if touched.own {
            own::want(&known, &mut wanted);
        }
        let mut peer = |node| peers::want(&known, node, &mut wanted);
        match &touched.peers {
            Names::All => self.nodes.values().for_each(&mut peer),
            Names::These(names) => names
                .iter()
                .filter_map(|name| self.nodes.get(name))
                .for_each(&mut peer),
        }
        let mut pod = |pod| self.pods.want(&known, pod, &mut wanted);
        match &touched.pods {
            Names::All => self.pods.all().for_each(&mut pod),
            Names::These(ids) => ids.iter().filter_map(|id| self.pods.get(id)).for_each(&mut pod),
        }
        wanted
    }
}
