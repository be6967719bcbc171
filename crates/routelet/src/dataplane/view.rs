//! The dataplane's answer to who asks what it knows.

use std::net::IpAddr;

use routelet_model::{IfName, Key, Kind, host_prefix};
use routelet_planner::{OwnNetwork, PeerNetwork, PeerView, PodAddress, PodView};

use crate::dataplane::Dataplane;
use crate::firewall::Standing;
use crate::inquiry::Inquiry;
use crate::state::{
    ChainState, DataplaneState, Moment, ObjectCount, OwnNetworkState, PeerNetworkState, PeerState,
    PodAddressState, PodState, RefusalState, RepairState, ResyncState, Trouble,
};

/// As many of the objects that the kernel refuses are named.
const TROUBLES_AT_MOST: usize = 100;

/// As many peers are looked at before the loop goes on with its work.
const PEERS_AT_ONCE: usize = 256;

/// An answer in the making.
pub(super) struct Answer {
    inquiry: Inquiry,
    /// Names of the peers that are yet to be looked at, the first one last.
    left: Vec<String>,
    peers: Vec<PeerState>,
}

impl Dataplane {
    /// Begins an answer.
    pub(super) fn begin_answer(&mut self, inquiry: Inquiry) {
        let mut left: Vec<_> = self.planner.peer_names().map(str::to_owned).collect();
        left.sort_unstable_by(|one, other| other.cmp(one));
        self.answer = Some(Answer {
            inquiry,
            left,
            peers: Vec::new(),
        });
    }

    /// Goes on with the answer that was begun, or begins one where someone waits: a bounded piece of work, so that a look at
    /// thousands of peers holds up nothing.
    pub(super) fn go_on_answering(&mut self) {
        if self.answer.is_none()
            && let Ok(inquiry) = self.inputs.inquiries.try_recv()
        {
            self.begin_answer(inquiry);
        }
        // Of who has stopped waiting nothing is left to do.
        let Some(mut answer) = self.answer.take().filter(|answer| !answer.inquiry.is_closed()) else {
            return;
        };
        let rest = answer.left.len().saturating_sub(PEERS_AT_ONCE);
        for name in answer.left.drain(rest..).rev() {
            let view = self.planner.peer_view(&name);
            answer.peers.extend(view.map(|view| self.peer_state(view)));
        }
        if answer.left.is_empty() {
            let _ = answer.inquiry.send(self.state(answer.peers));
        } else {
            self.answer = Some(answer);
        }
    }

    fn state(&self, peers: Vec<PeerState>) -> DataplaneState {
        let (repairs, last_repair) = self.story.repairs();
        DataplaneState {
            kernel: self.features.clone(),
            objects: Kind::ALL.map(|kind| self.object_count(kind)).into(),
            troubles: self.trouble_states(),
            repairs,
            last_repair: last_repair.map(|(at, repair)| RepairState {
                when: Moment::of(*at),
                kind: repair.key.kind().to_string(),
                cause: repair.cause.as_str().to_owned(),
                object: repair.key.to_string(),
            }),
            last_resync: self.story.last_resync().map(|(at, took)| ResyncState {
                when: Moment::of(at),
                seconds: took.as_secs_f64(),
            }),
            forward_drop_chains: self.chain_states(),
            networks: self.planner.own_networks().into_iter().map(own_network).collect(),
            refusals: self.refusal_states(),
            peers,
            pods: self.pod_states(),
        }
    }

    fn object_count(&self, kind: Kind) -> ObjectCount {
        let count = self.reconciler.count(kind);
        ObjectCount {
            kind: kind.to_string(),
            wanted: count.wanted,
            actual: count.actual,
            out_of_sync: count.out_of_sync,
        }
    }

    fn trouble_states(&self) -> Vec<Trouble> {
        let mut troubles: Vec<_> = self.reconciler.troubles().collect();
        troubles.sort_unstable_by_key(|(key, _)| **key);
        let first = troubles.into_iter().take(TROUBLES_AT_MOST);
        let states = first.map(|(key, trouble)| Trouble {
            object: key.to_string(),
            error: trouble.error.clone(),
            attempts: trouble.attempts,
            since: Moment::of(trouble.since),
        });
        states.collect()
    }

    fn chain_states(&self) -> Vec<ChainState> {
        let chains = self.firewall.dropping_chains().iter();
        let states = chains.map(|(chain, standing)| ChainState {
            chain: chain.to_string(),
            open: *standing == Standing::Open,
            error: match standing {
                Standing::Refused(error) => Some(error.clone()),
                Standing::Open | Standing::Closed => None,
            },
        });
        states.collect()
    }

    fn refusal_states(&self) -> Vec<RefusalState> {
        let states = self.planner.refusals().map(|refusal| RefusalState {
            subject: refusal.subject.to_string(),
            reason: refusal.reason.to_string(),
            message: refusal.message.clone(),
        });
        states.collect()
    }

    fn peer_state(&self, view: PeerView) -> PeerState {
        let out_of_sync = view.keys.iter().filter(|key| !self.reconciler.is_in_place(key));
        let overlay = |family| {
            let verdict = self.overlay_check.as_ref()?.verdicts.get(&view.name, family)?;
            Some(verdict.as_str().to_owned())
        };
        let networks = view.networks.into_iter().map(|network| PeerNetworkState {
            overlay: overlay(network.family),
            ..peer_network(network)
        });
        PeerState {
            networks: networks.collect(),
            refusals: view.refusals.into_iter().map(|refusal| refusal.message).collect(),
            out_of_sync: out_of_sync.map(ToString::to_string).collect(),
            name: view.name,
        }
    }

    fn pod_states(&self) -> Vec<PodState> {
        let views = self.planner.pod_views().into_iter();
        views.map(|view| self.pod_state(view)).collect()
    }

    fn pod_state(&self, view: PodView) -> PodState {
        let addresses = view.addresses.into_iter();
        PodState {
            namespace: view.id.namespace,
            name: view.id.name,
            host_veth: view.host_veth.as_ref().map(ToString::to_string),
            addresses: addresses
                .map(|address| self.pod_address(address, view.host_veth))
                .collect(),
        }
    }

    fn pod_address(&self, claimed: PodAddress, host_veth: Option<IfName>) -> PodAddressState {
        let (route, why) = match claimed.granted {
            Err(message) => ("refused", Some(message)),
            Ok(()) => match self.why_no_route(claimed.address, host_veth) {
                None => ("in_place", None),
                why => ("missing", why),
            },
        };
        PodAddressState {
            address: claimed.address,
            route: route.to_owned(),
            why,
        }
    }

    /// Why the route to an address that is granted is not in place; `None` where it is.
    fn why_no_route(&self, address: IpAddr, host_veth: Option<IfName>) -> Option<String> {
        let key = Key::route(host_prefix(address));
        if self.reconciler.is_in_place(&key) {
            return None;
        }
        if let Some((_, trouble)) = self.reconciler.troubles().find(|(other, _)| **other == key) {
            return Some(format!("the kernel refuses it: {}", trouble.error));
        }
        if let Some(link) = host_veth.filter(|link| self.reconciler.look_up(&Key::Link(*link)).1.is_none()) {
            return Some(format!(
                "its host veth {link} is not on this node: the CNI plugin makes it"
            ));
        }
        let (_, actual) = self.reconciler.look_up(&key);
        Some(match actual {
            Some(actual) => format!("another stands there: {actual}"),
            None => "its host veth is down, or was given another address by the CNI plugin".to_owned(),
        })
    }
}

fn own_network(network: OwnNetwork) -> OwnNetworkState {
    let underlay = network.underlay.as_ref();
    OwnNetworkState {
        family: network.family.to_string(),
        pod_subnets: network.pod_subnets,
        tunnel_address: network.tunnel_address,
        vtep_mac: network.vtep_mac.to_string(),
        underlay: underlay.map(|underlay| underlay.address),
        parent: underlay.map(|underlay| underlay.parent.to_string()),
        device: underlay.and_then(|underlay| underlay.device.as_ref().map(ToString::to_string)),
        mtu: underlay.map(|underlay| underlay.mtu),
    }
}

fn peer_network(network: PeerNetwork) -> PeerNetworkState {
    PeerNetworkState {
        family: network.family.to_string(),
        pod_subnets: network.pod_subnets,
        underlay: network.underlay,
        tunnel_address: network.tunnel_address,
        vtep_mac: network.vtep_mac.to_string(),
        way: network.way.map_or("none", |way| way.as_str()).to_owned(),
        device: network.device.as_ref().map(ToString::to_string),
        overlay: None,
    }
}
