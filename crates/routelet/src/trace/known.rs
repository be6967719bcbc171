//! What the agent on this node knows, by its unix socket.

use std::path::Path;

use routelet_model::PodId;

use super::observed::{Known, KnownPeer, KnownPod};
use crate::args::Setting;
use crate::ask::{self, AskError};
use crate::state::{PeerState, PodState, State};

/// Asks the agent behind the socket what it knows and what its settings are; else says why it does not tell.
pub(crate) fn ask(socket: &Path) -> Result<(Known, Vec<Setting>), String> {
    match ask::state(socket) {
        Ok((mut state, _)) => {
            let settings = std::mem::take(&mut state.settings);
            Ok((known(state), settings))
        }
        Err(AskError::NoAgent { socket, source }) => {
            Err(format!("--admin-socket {}: {source}", socket.display()))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn known(state: State) -> Known {
    Known {
        own_subnets: state
            .dataplane
            .networks
            .into_iter()
            .flat_map(|network| network.pod_subnets)
            .collect(),
        pods: state.dataplane.pods.into_iter().map(pod).collect(),
        peers: state.dataplane.peers.into_iter().flat_map(peers).collect(),
    }
}

fn pod(pod: PodState) -> KnownPod {
    // That a route is missing is seen in the kernel.
    let addresses = pod.addresses.into_iter();
    let addresses = addresses.map(|own| (own.address, own.why.filter(|_| own.route == "refused")));
    KnownPod {
        id: PodId {
            namespace: pod.namespace,
            name: pod.name,
        },
        veth: pod.host_veth.and_then(|veth| veth.parse().ok()),
        addresses: addresses.collect(),
    }
}

fn peers(peer: PeerState) -> impl Iterator<Item = KnownPeer> {
    let PeerState {
        name,
        networks,
        refusals,
        ..
    } = peer;
    networks.into_iter().map(move |network| KnownPeer {
        name: name.clone(),
        subnets: network.pod_subnets,
        underlay: network.underlay,
        vtep_mac: network.vtep_mac.parse().ok(),
        way: network.way,
        device: network.device.and_then(|device| device.parse().ok()),
        refusals: refusals.clone(),
    })
}
