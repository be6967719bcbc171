//! The pods of this node: a host veth, its sysctls and a route for each address.
//!
//! An address goes to the newest live pod that claims it. Two pods whose names give one host veth name are
//! not told apart: the second one's veth cannot be made in the first place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use routelet_model::{
    Family, HOST_VETH_MAC, IfName, Key, Link, LinkKind, Object, Pod, PodId, RouteTarget, Sysctl, host_prefix,
    host_veth_name, host_veth_sysctls,
};
use rustc_hash::FxBuildHasher;

use crate::Reason;
use crate::contest::Contest;
use crate::vtep::is_routable;
use crate::wanted::{Known, Wanted};

/// A pod, ranked by age: the newer comes first.
#[derive(Debug, Clone)]
struct ByYouth(Arc<Pod>);

impl ByYouth {
    fn rank(&self) -> (i64, &str, &PodId) {
        (self.0.created, &self.0.uid, &self.0.id)
    }
}

impl Ord for ByYouth {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.rank().cmp(&self.rank())
    }
}

impl PartialOrd for ByYouth {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByYouth {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByYouth {}

/// The addresses that the pod claims: none for one without a network of its own.
fn claimed(pod: &Pod) -> &[IpAddr] {
    if pod.host_network || pod.terminal {
        &[]
    } else {
        &pod.addresses
    }
}

/// The pods that were told, and who claims which address.
#[derive(Debug)]
pub(crate) struct Pods {
    by_id: HashMap<PodId, Arc<Pod>, FxBuildHasher>,
    addresses: Contest<IpAddr, ByYouth>,
    networked: usize,
}

impl Pods {
    pub(crate) fn new() -> Self {
        Self {
            by_id: HashMap::default(),
            addresses: Contest::new(),
            networked: 0,
        }
    }

    /// How many claim an address.
    pub(crate) fn networked(&self) -> usize {
        self.networked
    }

    pub(crate) fn get(&self, id: &PodId) -> Option<&Arc<Pod>> {
        self.by_id.get(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_id.values()
    }

    /// Who claims an address of the pod, or the one address.
    pub(crate) fn rivals(&self, pod: &Pod) -> impl Iterator<Item = &PodId> {
        claimed(pod).iter().flat_map(|address| self.claimants(*address))
    }

    pub(crate) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &PodId> {
        self.addresses.claimants(address).map(|ByYouth(pod)| &pod.id)
    }

    /// Puts the pod in the place of the one of the same name.
    pub(crate) fn insert(&mut self, pod: Arc<Pod>) {
        self.remove(&pod.id);
        for address in claimed(&pod) {
            self.addresses.enter(*address, ByYouth(pod.clone()));
        }
        self.networked += usize::from(!claimed(&pod).is_empty());
        self.by_id.insert(pod.id.clone(), pod);
    }

    pub(crate) fn remove(&mut self, id: &PodId) {
        let Some(pod) = self.by_id.remove(id) else { return };
        self.networked -= usize::from(!claimed(&pod).is_empty());
        let claimant = ByYouth(pod);
        for address in claimed(&claimant.0) {
            self.addresses.leave(*address, &claimant);
        }
    }

    /// Adds what is wanted for a pod, and what of it is refused.
    pub(crate) fn want(&self, known: &Known<'_>, pod: &Arc<Pod>, wanted: &mut Wanted) {
        if pod.host_network || pod.terminal {
            return;
        }
        for bad in &pod.unreadable {
            let message = format!(
                "{} of pod {} is {:?}, not {}; the rest of the Pod is used",
                bad.field, pod.id, bad.value, bad.wanted
            );
            wanted.refuse(pod.as_ref(), Reason::UnreadableValue, message);
        }
        let mut granted = Vec::new();
        for address in claimed(pod) {
            match self.judge(known, pod, *address) {
                Verdict::Granted => granted.push(*address),
                Verdict::Waits => {}
                Verdict::Refused(reason, message) => wanted.refuse(pod.as_ref(), reason, message),
            }
        }
        if granted.is_empty() {
            return;
        }
        match host_veth(known, pod) {
            Ok(veth) => want_network(veth, &granted, wanted),
            Err(message) => wanted.refuse(pod.as_ref(), Reason::NoHostVethName, message),
        }
    }

    /// A pod's host veth and what becomes of its addresses; `None` for one that has no network of its own.
    pub(crate) fn judged<'a>(&self, known: &Known<'_>, pod: &'a Arc<Pod>) -> Option<Judged<'a>> {
        let claimed = claimed(pod).iter();
        let verdicts: Vec<_> = claimed
            .map(|address| (*address, self.judge(known, pod, *address)))
            .collect();
        (!verdicts.is_empty()).then(|| (&pod.id, host_veth(known, pod), verdicts))
    }

    fn judge(&self, known: &Known<'_>, pod: &Pod, address: IpAddr) -> Verdict {
        let id = &pod.id;
        let subnets = known.own.map_or(&[][..], |facts| &facts.node.pod_subnets);
        let inside = subnets.iter().any(|subnet| subnet.contains(&address));
        if !inside && !known.settings.allow_any_pod_address {
            if subnets.is_empty() {
                return Verdict::Waits;
            }
            let list: Vec<_> = subnets.iter().map(ToString::to_string).collect();
            let message = format!(
                "pod {id} has the address {address}, outside of this node's pod subnets {}: it gets no route; \
                 make the pod anew, or allow such addresses if another IPAM gives them",
                list.join(", ")
            );
            return Verdict::Refused(Reason::AddressOutsideSubnets, message);
        }
        // The network address of a pod subnet is the tunnel address; host-local IPAM never gives it to a pod.
        if !is_routable(address) || known.own.is_some_and(|facts| facts.is_own_address(address)) {
            let message = format!(
                "pod {id} has the address {address}, which is this node's own or can be no pod's: it gets no \
                 route; make the pod anew, and keep the address out of the IPAM's range"
            );
            return Verdict::Refused(Reason::UnusableAddress, message);
        }
        if let Some(node) = known
            .claims
            .subnet_holder(host_prefix(address))
            .filter(|_| !inside)
        {
            let message = format!(
                "pod {id} has the address {address}, which is a pod subnet of node {}: it gets no route; make \
                 the pod anew",
                node.name
            );
            return Verdict::Refused(Reason::AddressTaken, message);
        }
        match self.addresses.first(address) {
            Some(ByYouth(first)) if first.id != pod.id => {
                let message = format!(
                    "pod {id} has the address {address} of the newer pod {}, which gets the route: make pod {id} \
                     anew",
                    first.id
                );
                Verdict::Refused(Reason::AddressTaken, message)
            }
            _ => Verdict::Granted,
        }
    }
}

/// A pod, its host veth or why it has none, and what becomes of each of its addresses.
pub(crate) type Judged<'a> = (&'a PodId, Result<IfName, String>, Vec<(IpAddr, Verdict)>);

/// What becomes of a pod's address.
pub(crate) enum Verdict {
    Granted,
    /// This node's pod subnets are not known yet.
    Waits,
    Refused(Reason, String),
}

fn host_veth(known: &Known<'_>, pod: &Pod) -> Result<IfName, String> {
    host_veth_name(&known.settings.interface_prefix, &pod.id.namespace, &pod.id.name)
        .map_err(|error| format!("pod {} gets no route: {error}; choose a shorter prefix", pod.id))
}

fn want_network(veth: IfName, addresses: &[IpAddr], wanted: &mut Wanted) {
    let link = Link {
        kind: LinkKind::Veth,
        mac: Some(HOST_VETH_MAC),
        mtu: None,
        up: true,
        running: true,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    };
    wanted.object(Key::Link(veth), Object::Link(Box::new(link)));
    for address in addresses {
        for (name, value) in host_veth_sysctls(Family::of(*address)) {
            wanted.object(Key::Sysctl(Sysctl::link(*name, veth)), Object::Sysctl(*value));
        }
        wanted.object(
            Key::route(host_prefix(*address)),
            Object::Route(RouteTarget::Link(veth)),
        );
    }
}
