//! What the agent knows, as it tells root on its node (`GET /state` on the unix socket) and `routelet status` shows it:
//! the shape of the JSON, for the side that writes it and for those that read it. docs/operations.md describes it.
//!
//! A field may come in a later version, and none goes or changes its meaning: who reads it passes over what it does not
//! know.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::args::Setting;

/// All that the agent knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The agent's version.
    pub(crate) version: String,
    /// Name of this node's Node.
    pub(crate) node: String,
    /// The setting of --encapsulation.
    pub(crate) encapsulation: String,
    /// Every setting of the agent that has a value, by the name of its flag.
    pub(crate) settings: Vec<Setting>,
    /// When the agent started.
    pub(crate) started: Moment,
    /// Whether the kernel has been brought to the wanted state since then.
    pub(crate) ready: bool,
    /// What is between this node and a network that works, one sentence each.
    pub(crate) not_ready: Vec<String>,
    /// The watches of Pods and of Nodes.
    pub(crate) watches: Vec<WatchState>,
    /// What the dataplane knows.
    #[serde(flatten)]
    pub(crate) dataplane: DataplaneState,
}

/// A time in the past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// By the node's clock, in UTC (RFC 3339).
    pub(crate) at: String,
    /// How long before the answer, by a clock that is never set.
    pub(crate) seconds_ago: f64,
}

impl Moment {
    /// The moment of an instant in the past.
    pub(crate) fn of(instant: Instant) -> Self {
        let ago = instant.elapsed();
        let at = SystemTime::now()
            .checked_sub(ago)
            .and_then(|at| Timestamp::try_from(at).ok());
        Self {
            at: at.map(|at| format!("{at:.3}")).unwrap_or_default(),
            seconds_ago: ago.as_secs_f64(),
        }
    }
}

/// How a watch stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WatchState {
    /// `pods` (of this node) or `nodes`.
    pub(crate) resource: String,
    /// `connecting`, `listing`, `watching` or `failing`.
    pub(crate) state: String,
    /// Of one that fails: the latest error.
    pub(crate) error: Option<String>,
    /// Of one that fails: since when.
    pub(crate) failing_since: Option<Moment>,
    /// Whether there has been a complete list.
    pub(crate) synced: bool,
    /// When the API server last sent anything.
    pub(crate) last_contact: Option<Moment>,
    /// Objects known.
    pub(crate) objects: usize,
    /// Complete lists after the first.
    pub(crate) relists: u64,
}

/// What the dataplane knows: one moment's view, taken between two batches; of peers beyond some hundreds, between several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataplaneState {
    /// What the kernel can do.
    pub(crate) kernel: KernelState,
    /// Numbers of kernel objects, by kind.
    pub(crate) objects: Vec<ObjectCount>,
    /// Objects that the kernel refuses, the first of them.
    pub(crate) troubles: Vec<Trouble>,
    /// Repairs since the start.
    pub(crate) repairs: u64,
    /// The last of them.
    pub(crate) last_repair: Option<RepairState>,
    /// The last comparison of everything.
    pub(crate) last_resync: Option<ResyncState>,
    /// Chains of the host's firewalls that drop by policy what is forwarded.
    pub(crate) forward_drop_chains: Vec<ChainState>,
    /// This node's pod networks by family.
    pub(crate) networks: Vec<OwnNetworkState>,
    /// What Pods and Nodes say and the agent does not follow.
    pub(crate) refusals: Vec<RefusalState>,
    /// The other nodes, by name.
    pub(crate) peers: Vec<PeerState>,
    /// This node's pods, by namespace and name; without those of the host's network.
    pub(crate) pods: Vec<PodState>,
}

/// What the kernel can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KernelState {
    /// Its release.
    pub(crate) release: String,
    /// Whether routes to peers use nexthop objects.
    pub(crate) nexthop_objects: bool,
    /// Whether it has nf_tables.
    pub(crate) nftables: bool,
}

/// Numbers of kernel objects of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectCount {
    /// The kind.
    pub(crate) kind: String,
    /// How many the cluster asks for.
    pub(crate) wanted: usize,
    /// How many the kernel has that are wanted or carry the agent's mark.
    pub(crate) actual: usize,
    /// How many are wanted and missing or otherwise.
    pub(crate) out_of_sync: usize,
}

/// An object that the kernel refuses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// The object.
    pub(crate) object: String,
    /// The kernel's latest error.
    pub(crate) error: String,
    /// Tries that failed in a row.
    pub(crate) attempts: u32,
    /// When the first of them failed.
    pub(crate) since: Moment,
}

/// A repair of what someone else had done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RepairState {
    /// When.
    pub(crate) when: Moment,
    /// The object's kind.
    pub(crate) kind: String,
    /// What someone had done: `deleted`, `changed`, or added what was not wanted (`surplus`).
    pub(crate) cause: String,
    /// The object.
    pub(crate) object: String,
}

/// A comparison of everything with the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResyncState {
    /// When it ended.
    pub(crate) when: Moment,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// A chain that drops by policy what is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainState {
    /// The chain.
    pub(crate) chain: String,
    /// Whether rules of the agent let this node's pods through.
    pub(crate) open: bool,
    /// Why it could not be opened, where it should have been.
    pub(crate) error: Option<String>,
}

/// This node's pods of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnNetworkState {
    /// `IPv4` or `IPv6`.
    pub(crate) family: String,
    /// This node's pod subnets.
    pub(crate) pod_subnets: Vec<IpNet>,
    /// This node's tunnel address.
    pub(crate) tunnel_address: Option<IpAddr>,
    /// MAC address of its VXLAN device.
    pub(crate) vtep_mac: String,
    /// Its underlay address, with the prefix length that the host has it with.
    pub(crate) underlay: Option<IpNet>,
    /// The link that holds it.
    pub(crate) parent: Option<String>,
    /// The tunnel device.
    pub(crate) device: Option<String>,
    /// MTU of the tunnel device, or of pods, in bytes.
    pub(crate) mtu: Option<u32>,
}

/// A claim that is not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusalState {
    /// `node NAME` or `pod NAMESPACE/NAME`.
    pub(crate) subject: String,
    /// Why, in a word: that of `routelet_refused`.
    pub(crate) reason: String,
    /// Names the thing, the value and the remedy.
    pub(crate) message: String,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerState {
    /// Its name.
    pub(crate) name: String,
    /// By family of its pod subnets.
    pub(crate) networks: Vec<PeerNetworkState>,
    /// Why something of it is refused.
    pub(crate) refusals: Vec<String>,
    /// Objects for it that the kernel does not have as it should.
    pub(crate) out_of_sync: Vec<String>,
}

/// The pods of one family behind another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerNetworkState {
    /// `IPv4` or `IPv6`.
    pub(crate) family: String,
    /// Its pod subnets.
    pub(crate) pod_subnets: Vec<IpNet>,
    /// Its address on the underlay that this node sends through.
    pub(crate) underlay: Option<IpAddr>,
    /// Its tunnel address.
    pub(crate) tunnel_address: Option<IpAddr>,
    /// MAC address of its VXLAN device.
    pub(crate) vtep_mac: String,
    /// `vxlan`, `ipip`, `direct`, `others` (the route is not the agent's to make); `none` where it is not reached, for
    /// the reasons in the peer's `refusals` or because the tunnel does not carry the family.
    pub(crate) way: String,
    /// The device that its routes lead over.
    pub(crate) device: Option<String>,
    /// What the overlay check holds of the way: `unknown`, `reachable`, `large_lost` or `unreachable`; nothing where it is
    /// not tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) overlay: Option<String>,
}

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodState {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its host veth.
    pub(crate) host_veth: Option<String>,
    /// Its addresses.
    pub(crate) addresses: Vec<PodAddressState>,
}

/// An address of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodAddressState {
    /// The address.
    pub(crate) address: IpAddr,
    /// The route to it: `in_place`, `missing` or `refused`.
    pub(crate) route: String,
    /// Where it is not in place: why.
    pub(crate) why: Option<String>,
}
