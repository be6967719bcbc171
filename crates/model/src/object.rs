//! Kernel objects: what the planner wants and what the kernel has, under the same keys.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::nft::write_range;
use crate::{IfName, MacAddr, NftRules, NftSet, Sysctl};

/// Identifies a kernel object. The order of the variants is the order in which objects are made: what
/// comes later may use what comes before. They are taken away in the reverse order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A device: a tunnel device of ours, or a pod's host veth.
    Link(IfName),
    /// A setting below /proc/sys.
    Sysctl(Sysctl),
    /// Whether a device of ours leaves the checksums of what it sends to the device below (TX checksum offload).
    ChecksumOffload(IfName),
    /// An address on a device of ours.
    Address {
        /// The device.
        link: IfName,
        /// The address with its prefix length.
        address: IpNet,
    },
    /// Our nft table, with its sets.
    NftTable,
    /// An element of a set of our nft table.
    NftElement {
        /// The set; its family is that of the addresses.
        set: NftSet,
        /// First address.
        first: IpAddr,
        /// Last address; of a node, its only one.
        last: IpAddr,
    },
    /// The chains and rules of our nft table, all of them. They come after what they look up.
    NftRules,
    /// A forwarding entry of a VXLAN device: which underlay address a VTEP MAC is behind.
    Fdb {
        /// The VXLAN device.
        link: IfName,
        /// The remote VTEP's MAC address.
        mac: MacAddr,
    },
    /// A permanent neighbour on a VXLAN device.
    Neighbour {
        /// The VXLAN device.
        link: IfName,
        /// The remote tunnel address.
        address: IpAddr,
    },
    /// A nexthop object; which id it has is the kernel crate's affair.
    Nexthop {
        /// The device it leaves through.
        link: IfName,
        /// The gateway.
        gateway: IpAddr,
    },
    /// A nexthop object that carries our protocol and is none that could be wanted (another shape, or a
    /// second one for the same gateway).
    StrayNexthop {
        /// Its id.
        id: u32,
    },
    /// A route in the main table.
    Route {
        /// Its destination.
        destination: IpNet,
        /// Its metric: 0 in IPv4; in IPv6 as the kernel stores it, 1024 by default.
        metric: u32,
    },
}

/// The kinds of kernel objects, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the variant of Key with its name")]
pub enum Kind {
    Link,
    Sysctl,
    ChecksumOffload,
    Address,
    NftTable,
    NftElement,
    NftRules,
    Fdb,
    Neighbour,
    Nexthop,
    Route,
}

impl Kind {
    /// All of them, in the order in which objects are made.
    pub const ALL: [Kind; 11] = [
        Kind::Link,
        Kind::Sysctl,
        Kind::ChecksumOffload,
        Kind::Address,
        Kind::NftTable,
        Kind::NftElement,
        Kind::NftRules,
        Kind::Fdb,
        Kind::Neighbour,
        Kind::Nexthop,
        Kind::Route,
    ];

    /// The word for it in logs, metrics and docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Sysctl => "sysctl",
            Self::ChecksumOffload => "checksum_offload",
            Self::Address => "address",
            Self::NftTable => "nft_table",
            Self::NftElement => "nft_element",
            Self::NftRules => "nft_rules",
            Self::Fdb => "fdb",
            Self::Neighbour => "neighbour",
            Self::Nexthop => "nexthop",
            Self::Route => "route",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Key {
    /// Metric of our IPv4 routes.
    pub const METRIC_V4: u32 = 0;
    /// Metric of our IPv6 routes: what the kernel makes of 0.
    pub const METRIC_V6: u32 = 1024;

    /// The key of our route to `destination`, with the metric that the kernel stores for the family.
    pub fn route(destination: IpNet) -> Self {
        let metric = match destination {
            IpNet::V4(_) => Self::METRIC_V4,
            IpNet::V6(_) => Self::METRIC_V6,
        };
        Self::Route { destination, metric }
    }

    /// What kind of object it names.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Link(_) => Kind::Link,
            Self::Sysctl(_) => Kind::Sysctl,
            Self::ChecksumOffload(_) => Kind::ChecksumOffload,
            Self::Address { .. } => Kind::Address,
            Self::NftTable => Kind::NftTable,
            Self::NftElement { .. } => Kind::NftElement,
            Self::NftRules => Kind::NftRules,
            Self::Fdb { .. } => Kind::Fdb,
            Self::Neighbour { .. } => Kind::Neighbour,
            Self::Nexthop { .. } | Self::StrayNexthop { .. } => Kind::Nexthop,
            Self::Route { .. } => Kind::Route,
        }
    }

    /// The device that the key itself names, other than as the object: without it, the object cannot be.
    pub fn link(&self) -> Option<IfName> {
        match self {
            Self::Sysctl(sysctl) => sysctl.link,
            Self::ChecksumOffload(link)
            | Self::Address { link, .. }
            | Self::Fdb { link, .. }
            | Self::Neighbour { link, .. }
            | Self::Nexthop { link, .. } => Some(*link),
            Self::Link(_)
            | Self::NftTable
            | Self::NftElement { .. }
            | Self::NftRules
            | Self::StrayNexthop { .. }
            | Self::Route { .. } => None,
        }
    }
}

/// As the `ip` and `bridge` programs would say it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "link {name}"),
            Self::Sysctl(sysctl) => write!(f, "sysctl {sysctl}"),
            Self::ChecksumOffload(link) => write!(f, "checksum offload dev {link}"),
            Self::Address { link, address } => write!(f, "address {address} dev {link}"),
            Self::NftTable => f.write_str("nft table"),
            Self::NftElement { set, first, last } => {
                f.write_str("nft element ")?;
                write_range(f, *first, *last)?;
                write!(f, " of {set}")
            }
            Self::NftRules => f.write_str("nft rules"),
            Self::Fdb { link, mac } => write!(f, "fdb {mac} dev {link}"),
            Self::Neighbour { link, address } => write!(f, "neighbour {address} dev {link}"),
            Self::Nexthop { link, gateway } => write!(f, "nexthop via {gateway} dev {link}"),
            Self::StrayNexthop { id } => write!(f, "nexthop id {id}"),
            Self::Route {
                destination,
                metric: 0 | Self::METRIC_V6,
            } => write!(f, "route {destination}"),
            Self::Route { destination, metric } => write!(f, "route {destination} metric {metric}"),
        }
    }
}

/// State of a kernel object. What an object can't be told by its key stands here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// Of a device.
    Link(Box<Link>),
    /// Value of a setting.
    Sysctl(u32),
    /// Whether TX checksum offload is on.
    ChecksumOffload(bool),
    /// An address is there or not.
    Address,
    /// The nft table and its sets are there, and are as they should be.
    NftTable,
    /// An element is there or not.
    NftElement,
    /// What the rules of the nft table do, where they are just what we would make.
    NftRules(NftRules),
    /// Underlay address behind a VTEP MAC.
    Fdb(IpAddr),
    /// MAC address of a permanent neighbour.
    Neighbour(MacAddr),
    /// A nexthop object of the shape that we make: one gateway, our protocol, onlink over a tunnel device of ours and
    /// nowhere else.
    Nexthop,
    /// Where a route with our protocol leads.
    Route(RouteTarget),
    /// Routes stand under the key that carry our protocol and that we never make: a multipath route, several side by
    /// side, or one of which it is not known whether others stand there too.
    OddRoutes,
    /// Something stands under the key that we never make: a foreign protocol, a multipath route, a neighbour
    /// that is not permanent, other rules. Holds the protocol number where there is one.
    Foreign {
        /// Routing protocol (`rtm_protocol`) of a route or nexthop; 0 where the kind has none.
        protocol: u8,
    },
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteTarget {
    /// Straight to a link (scope link): a local pod.
    Link(IfName),
    /// Through a nexthop object.
    Nexthop {
        /// The nexthop's device.
        link: IfName,
        /// The nexthop's gateway.
        gateway: IpAddr,
    },
    /// To a gateway that is named in the route itself (where the kernel has no nexthop objects), onlink over a tunnel
    /// device of ours and nowhere else.
    Gateway {
        /// The device.
        link: IfName,
        /// The gateway.
        gateway: IpAddr,
    },
    /// Nowhere: packets to it are dropped silently.
    Blackhole,
}

impl RouteTarget {
    /// The device that the route leaves through.
    pub fn link(&self) -> Option<IfName> {
        match self {
            Self::Link(link) | Self::Nexthop { link, .. } | Self::Gateway { link, .. } => Some(*link),
            Self::Blackhole => None,
        }
    }
}

impl fmt::Display for RouteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => write!(f, "dev {link}"),
            Self::Nexthop { link, gateway } | Self::Gateway { link, gateway } => {
                write!(f, "via {gateway} dev {link}")
            }
            Self::Blackhole => f.write_str("blackhole"),
        }
    }
}

/// A device. In a wanted one, `None` says that any value will do, `running` is as `up`, `given` is empty,
/// and `index` is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Its MAC address.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is up and has a carrier: only on such a link the kernel holds nexthop objects. No one's to set.
    pub running: bool,
    /// Whether it belongs to a bridge, a bond or a VRF, which then has what arrives on it (IFLA_MASTER); never wanted.
    pub enslaved: bool,
    /// Of a host veth: the addresses that the CNI plugin says it gave to the pod behind it ([`given_addresses`]). None
    /// where it says nothing. No one's to set.
    ///
    /// [`given_addresses`]: crate::given_addresses
    pub given: Vec<IpAddr>,
    /// Its interface index: tells a device from a later one of the same name.
    pub index: u32,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A VXLAN device.
    Vxlan(Vxlan),
    /// An IPIP device without end points of its own, which the kernel makes with its module: each route over it names
    /// the remote end. It cannot be deleted.
    Ipip {
        /// Whether its alias says that it is the agent's ([`DEVICE_ALIAS`](crate::DEVICE_ALIAS)); always wanted.
        ours: bool,
    },
    /// A veth: a pod's host end. Made by the CNI plugin, never by the agent.
    Veth,
    /// Anything else.
    Other,
}

/// What a VXLAN device cannot change while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Underlay address that it sends from.
    pub local: IpAddr,
    /// Device that holds the underlay address; `None` in an actual one whose parent is gone or unset.
    pub parent: Option<IfName>,
    /// Whether it learns FDB entries from traffic; never wanted.
    pub learning: bool,
    /// Whether anything else is set on it than the above, as a limit of its FDB; never wanted.
    pub odd: bool,
}

impl Object {
    /// Whether `actual` is what this, a wanted object, asks for. A blackhole asks only that packets do not loop:
    /// someone else's route in its place does as well.
    pub fn satisfied_by(&self, actual: &Object) -> bool {
        match (self, actual) {
            (Self::Link(wanted), Self::Link(actual)) => {
                wanted.kind == actual.kind
                    && wanted.up == actual.up
                    && wanted.enslaved == actual.enslaved
                    && (wanted.mac.is_none() || wanted.mac == actual.mac)
                    && (wanted.mtu.is_none() || wanted.mtu == actual.mtu)
            }
            (Self::Route(RouteTarget::Blackhole), Self::Foreign { .. }) => true,
            _ => self == actual,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => fmt::Display::fmt(link, f),
            Self::Sysctl(value) => write!(f, "{value}"),
            Self::ChecksumOffload(on) => f.write_str(if *on { "on" } else { "off" }),
            Self::Address | Self::NftTable | Self::NftElement => f.write_str("present"),
            Self::NftRules(rules) => fmt::Display::fmt(rules, f),
            Self::Fdb(remote) => write!(f, "dst {remote}"),
            Self::Neighbour(mac) => write!(f, "lladdr {mac} permanent"),
            Self::Nexthop => f.write_str("present"),
            Self::Route(target) => fmt::Display::fmt(target, f),
            Self::OddRoutes => f.write_str("routes that the agent never makes"),
            Self::Foreign { protocol: 0 } => f.write_str("made by someone else"),
            Self::Foreign { protocol } => write!(f, "made by someone else (proto {protocol})"),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            LinkKind::Vxlan(vxlan) => {
                write!(
                    f,
                    "vxlan id {} dstport {} local {}",
                    vxlan.vni, vxlan.port, vxlan.local
                )?;
                if let Some(parent) = vxlan.parent {
                    write!(f, " dev {parent}")?;
                }
                f.write_str(if vxlan.learning {
                    " learning"
                } else {
                    " nolearning"
                })?;
                if vxlan.odd {
                    f.write_str(" with options that the agent never sets")?;
                }
            }
            LinkKind::Ipip { ours } => f.write_str(if *ours { "ipip" } else { "ipip without our alias" })?,
            LinkKind::Veth => f.write_str("veth")?,
            LinkKind::Other => f.write_str("of another kind")?,
        }
        if let Some(mac) = self.mac {
            write!(f, " address {mac}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if self.enslaved {
            f.write_str(" enslaved")?;
        }
        f.write_str(if self.up { " up" } else { " down" })
    }
}
