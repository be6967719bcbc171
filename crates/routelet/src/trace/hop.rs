//! What is found at one hop of a packet's way.

use std::fmt;

/// How a hop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Packets pass.
    Ok,
    /// They may not pass, and the kernel's tables do not say.
    Doubt,
    /// They do not pass, or not all of them.
    Broken,
}

impl Verdict {
    /// The word for it in the output.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Doubt => "doubt",
            Self::Broken => "broken",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The hops, in the order in which a packet passes them. Their words are part of the output: see docs/troubleshooting.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The agent's knowledge of the pod.
    Pod,
    /// The host's end of the pod's veth pair.
    HostVeth,
    /// The host's route to the pod.
    HostRoute,
    /// What answers for the pod's gateway.
    Gateway,
    /// Whether the host forwards.
    Forwarding,
    /// The kernel's routing decision.
    Route,
    /// Chains at the forward hook.
    Firewall,
    /// The nexthop object.
    Nexthop,
    /// The host veth of the pod that the packet is for.
    OtherVeth,
    /// The tunnel's device.
    TunnelDevice,
    /// The link that packets leave the node by.
    Link,
    /// The neighbour entry of the peer's tunnel address.
    Neighbour,
    /// The FDB entry of the peer's VTEP.
    Fdb,
    /// The way to the peer's node.
    Underlay,
    /// Rules that stand in the tunnel's way.
    TunnelFirewall,
    /// The node's address in place of the pod's.
    Masquerade,
    /// The way of the answer.
    WayBack,
}

impl Place {
    /// The word for it in the output.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::HostVeth => "host veth",
            Self::HostRoute => "host route",
            Self::Gateway => "gateway",
            Self::Forwarding => "forwarding",
            Self::Route => "route",
            Self::Firewall => "firewall",
            Self::Nexthop => "nexthop",
            Self::OtherVeth => "other host veth",
            Self::TunnelDevice => "tunnel device",
            Self::Link => "link",
            Self::Neighbour => "neighbour",
            Self::Fdb => "FDB entry",
            Self::Underlay => "underlay",
            Self::TunnelFirewall => "tunnel firewall",
            Self::Masquerade => "masquerade",
            Self::WayBack => "way back",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A hop, and what is found there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hop {
    /// Which it is.
    pub(crate) place: Place,
    /// The object that was looked at.
    pub(crate) object: String,
    /// How it stands.
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) finding: String,
    /// What to do, where there is anything to do.
    pub(crate) remedy: Option<String>,
}

impl Hop {
    /// A hop that packets pass.
    pub(crate) fn ok(place: Place, object: impl fmt::Display, finding: impl Into<String>) -> Self {
        Self {
            place,
            object: object.to_string(),
            verdict: Verdict::Ok,
            finding: finding.into(),
            remedy: None,
        }
    }

    /// A hop that they do not pass.
    pub(crate) fn broken(
        place: Place,
        object: impl fmt::Display,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Broken,
            remedy: Some(remedy.into()),
            ..Self::ok(place, object, finding)
        }
    }

    /// A hop that they may not pass.
    pub(crate) fn doubt(
        place: Place,
        object: impl fmt::Display,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Doubt,
            ..Self::broken(place, object, finding, remedy)
        }
    }

    /// Whether packets do not pass.
    pub(crate) fn is_broken(&self) -> bool {
        self.verdict == Verdict::Broken
    }
}
