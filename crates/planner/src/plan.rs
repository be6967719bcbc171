//! What the planner answers: changes for the kernel, notices for people.

use std::fmt;
use std::net::IpAddr;

use routelet_model::{Family, IfName, Key, Object};

use crate::{Missing, OverlayChange, Refusal};

/// What follows from an event. Several events may be answered into one plan, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Objects that are wanted from now on (`Some`) or no more (`None`). One event's come as removals, users
    /// before what they use, then the rest in the order in which objects are made; a key at most once, and
    /// only where it differs from before. Of several events' changes of a key, the last one counts.
    pub changes: Vec<(Key, Option<Object>)>,
    /// What an operator wants to know of, once per change.
    pub notices: Vec<Notice>,
    /// What has changed of the tunnel's ends.
    pub overlay: Vec<OverlayChange>,
}

/// Something that an operator wants to know of. Its display is a line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A value of the cluster is not followed.
    Refused(Refusal),
    /// What was refused is so no more.
    Resolved(Refusal),
    /// A fact of this node was known and is no more; the last one known stays in force.
    Vanished(Missing),
    /// A fact of this node that had vanished is known again.
    Back(Missing),
    /// A peer has no route of ours, by the settings, and none had so before.
    LeftToOthers {
        /// The peer's name.
        peer: String,
        /// Its underlay address.
        address: IpAddr,
        /// Of which pods.
        family: Family,
    },
    /// A tunnel device, or what travels without one, sends through another underlay than before, or for the first
    /// time.
    Underlay {
        /// The tunnel device, if there is one.
        device: Option<IfName>,
        /// Of which pods.
        family: Family,
        /// Underlay address that it sends from.
        local: IpAddr,
        /// Link that holds the address.
        parent: IfName,
        /// MTU of the tunnel device, or of pods, in bytes.
        mtu: u32,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "refused: {}", refusal.message),
            Self::Resolved(refusal) => write!(f, "no longer refused: {}", refusal.message),
            Self::Vanished(missing) => write!(f, "what was planned stays in force, although {missing}"),
            Self::Back(missing) => write!(f, "no longer so: {missing}"),
            Self::LeftToOthers {
                peer,
                address,
                family,
            } => write!(
                f,
                "the {family} pods of node {peer} get no route from here: its address {address} is in no network of \
                 this node's, and the encapsulation has no tunnel to it. A BGP daemon may bring the route; \
                 routelet_peer_ways{{way=\"others\"}} counts such nodes"
            ),
            Self::Underlay {
                device: Some(device),
                local,
                parent,
                mtu,
                ..
            } => {
                write!(f, "{device} sends from {local} on {parent}, its MTU is {mtu}")
            }
            Self::Underlay {
                device: None,
                family,
                local,
                parent,
                mtu,
            } => {
                write!(
                    f,
                    "{family} pods' packets leave without a tunnel, from {local} on {parent}, their MTU is {mtu}"
                )
            }
        }
    }
}
