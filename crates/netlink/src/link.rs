//! Devices: the messages that make, change, delete and show them.
//!
//! Layout of what is read: `struct ifinfomsg` and IFLA_… of linux/if_link.h.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};
use routelet_model::{DEVICE_ALIAS, IfName, Link, LinkKind, MacAddr, Vxlan, given_addresses};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVxlan};

use crate::Error;
use crate::attributes::{Attribute, Attributes};
use crate::frame::read_u32;
use crate::links::Links;

const HEADER: usize = 16;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_AGEING: u16 = 8;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_UDP_CSUM: u16 = 18;
const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;
const IFLA_VXLAN_LOCALBYPASS: u16 = 31;
const IFLA_VXLAN_RESERVED_BITS: u16 = 33;
/// The last that is known here.
const IFLA_VXLAN_MC_ROUTE: u16 = 34;
const IFLA_IPTUN_LOCAL: u16 = 2;
const IFLA_IPTUN_REMOTE: u16 = 3;

/// A link as a message shows it.
#[derive(Debug, Clone)]
pub(crate) struct SeenLink {
    pub(crate) index: u32,
    pub(crate) name: IfName,
    /// Administratively up.
    pub(crate) up: bool,
    /// Up and with carrier: else the kernel removes the nexthops on it.
    pub(crate) running: bool,
    pub(crate) mtu: u32,
    enslaved: bool,
    mac: Option<MacAddr>,
    given: Vec<IpAddr>,
    /// Whether the alias is that of our devices.
    ours: bool,
    kind: SeenKind,
}

#[derive(Debug, Clone)]
enum SeenKind {
    Vxlan {
        vni: u32,
        port: u16,
        local: IpAddr,
        parent: Option<u32>,
        learning: bool,
        odd: bool,
    },
    /// With neither a local nor a remote address.
    Ipip,
    Veth,
    Other,
}

impl SeenLink {
    /// Reads RTM_NEWLINK and RTM_DELLINK. `None` where the message is not about a link itself but about its
    /// place in a bridge (AF_BRIDGE), or where the link has a name that we cannot hold.
    pub(crate) fn read(payload: &[u8]) -> Result<Option<Self>, Error> {
        let attributes = Attributes::after(payload, HEADER)?;
        if payload[0] != libc::AF_UNSPEC as u8 {
            return Ok(None);
        }
        let index = read_u32(payload, 4).unwrap_or_default();
        let flags = read_u32(payload, 8).unwrap_or_default();
        let (mut name, mut mtu, mut enslaved, mut mac, mut given, mut ours, mut kind) =
            (None, 0, false, None, Vec::new(), false, SeenKind::Other);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                libc::IFLA_IFNAME => name = attribute.name(),
                libc::IFLA_MTU => mtu = attribute.u32()?,
                libc::IFLA_MASTER => enslaved = attribute.u32()? != 0,
                libc::IFLA_ADDRESS => mac = attribute.mac(),
                libc::IFLA_IFALIAS => {
                    given = given_addresses(attribute.text());
                    ours = attribute.text() == DEVICE_ALIAS;
                }
                libc::IFLA_LINKINFO => kind = read_kind(&attribute)?,
                _ => {}
            }
        }
        let up = flags & libc::IFF_UP as u32 != 0;
        let carrier = flags & (libc::IFF_RUNNING | libc::IFF_LOWER_UP) as u32 != 0;
        Ok(name.map(|name| Self {
            index,
            name,
            up,
            running: up && carrier,
            mtu,
            enslaved,
            mac,
            given,
            ours,
            kind,
        }))
    }

    /// The link as an object; its parent gets its name from `links`.
    pub(crate) fn object(&self, links: &Links) -> Link {
        let kind = match self.kind {
            SeenKind::Vxlan {
                vni,
                port,
                local,
                parent,
                learning,
                odd,
            } => {
                let parent = parent.and_then(|index| links.name(index));
                LinkKind::Vxlan(Vxlan {
                    vni,
                    port,
                    local,
                    parent,
                    learning,
                    odd,
                })
            }
            SeenKind::Ipip => LinkKind::Ipip { ours: self.ours },
            SeenKind::Veth => LinkKind::Veth,
            SeenKind::Other => LinkKind::Other,
        };
        Link {
            kind,
            // The hardware address of a tunnel is four bytes long: none that we know.
            mac: self.mac,
            mtu: Some(self.mtu),
            up: self.up,
            running: self.running,
            enslaved: self.enslaved,
            given: self.given.clone(),
            index: self.index,
        }
    }
}

fn read_kind(info: &Attribute<'_>) -> Result<SeenKind, Error> {
    let (mut kind, mut data) = ("", None);
    for attribute in info.nested() {
        let attribute = attribute?;
        match attribute.kind {
            libc::IFLA_INFO_KIND => kind = attribute.text(),
            libc::IFLA_INFO_DATA => data = Some(attribute.nested()),
            _ => {}
        }
    }
    match (kind, data) {
        ("vxlan", Some(data)) => read_vxlan(data),
        ("ipip", Some(data)) => read_ipip(data),
        ("veth", _) => Ok(SeenKind::Veth),
        _ => Ok(SeenKind::Other),
    }
}

fn read_ipip(data: Attributes<'_>) -> Result<SeenKind, Error> {
    for attribute in data {
        let attribute = attribute?;
        let is_end = matches!(attribute.kind, IFLA_IPTUN_LOCAL | IFLA_IPTUN_REMOTE);
        if is_end && !attribute.address()?.is_unspecified() {
            return Ok(SeenKind::Other);
        }
    }
    Ok(SeenKind::Ipip)
}

fn read_vxlan(data: Attributes<'_>) -> Result<SeenKind, Error> {
    let (mut id, mut udp_port, mut source, mut lower, mut learns, mut odd) =
        (0, 0, IpAddr::V4(Ipv4Addr::UNSPECIFIED), None, false, false);
    for attribute in data {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_VXLAN_ID => id = attribute.u32()?,
            IFLA_VXLAN_PORT => udp_port = attribute.u16_be()?,
            IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => source = attribute.address()?,
            IFLA_VXLAN_LINK => lower = Some(attribute.u32()?).filter(|index| *index != 0),
            IFLA_VXLAN_LEARNING => learns = attribute.u8()? != 0,
            _ => odd |= is_option_set(&attribute),
        }
    }
    Ok(SeenKind::Vxlan {
        vni: id,
        port: udp_port,
        local: source,
        parent: lower,
        learning: learns,
        odd,
    })
}

/// Whether an option of a VXLAN device is otherwise than where none is given. What a kernel does not show, as it does not
/// know it or shows it only where it is set, is not.
fn is_option_set(option: &Attribute<'_>) -> bool {
    match option.kind {
        // They matter to entries that are learned, and to packets with bits in their header that the kernel never sets.
        // Who takes packets without checksum takes those with one, too; the agent's first versions set it.
        IFLA_VXLAN_AGEING | IFLA_VXLAN_UDP_ZERO_CSUM6_RX | IFLA_VXLAN_RESERVED_BITS => false,
        IFLA_VXLAN_UDP_CSUM | IFLA_VXLAN_LOCALBYPASS => option.value == [0],
        // A flag has no value, and is there only where it is set.
        ..=IFLA_VXLAN_MC_ROUTE => option.value.is_empty() || option.value.iter().any(|byte| *byte != 0),
        _ => false,
    }
}

/// Makes a VXLAN device with all that it shall have, in one message, so that nobody sees it half done and no
/// one (systemd's MACAddressPolicy) finds a MAC address to replace.
pub(crate) fn create_vxlan(name: IfName, link: &Link, vxlan: &Vxlan, parent: Option<u32>) -> LinkMessage {
    let mut builder = LinkVxlan::new(name.as_str(), vxlan.vni)
        .port(vxlan.port)
        .learning(vxlan.learning);
    builder = match vxlan.local {
        IpAddr::V4(local) => builder.local(local),
        IpAddr::V6(local) => builder.local6(local),
    };
    if let Some(parent) = parent {
        builder = builder.dev(parent);
    }
    with_settings(builder, link, link.mac).build()
}

/// Makes a device of a kind, and says no more of it: an IPIP device is then one without end points. Where its module is
/// not loaded, the request loads it, and with it comes one of the kernel's own, `tunl0`, which is in the way of this and
/// does as well.
pub(crate) fn create(name: &str, kind: InfoKind) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
    ];
    message
}

/// Lays down a device that cannot be deleted: down, and without our alias.
pub(crate) fn lay_down(index: u32) -> LinkMessage {
    let mut message = LinkUnspec::new_with_index(index).down().build();
    message.attributes.push(LinkAttribute::IfAlias(String::new()));
    message
}

/// Gives an existing link the MAC address, MTU and up state that it shall have, and takes it out of a bridge. A MAC address that it has already is
/// left out: the kernel drops all neighbours of a link that is given one, whichever it is (NETDEV_CHANGEADDR).
pub(crate) fn set(seen: &SeenLink, link: &Link) -> LinkMessage {
    let mac = link.mac.filter(|mac| seen.mac != Some(*mac));
    let mut message = with_settings(LinkUnspec::new_with_index(seen.index), link, mac).build();
    if seen.enslaved {
        message.attributes.push(LinkAttribute::Controller(0));
    }
    if link.kind == (LinkKind::Ipip { ours: true }) {
        message
            .attributes
            .push(LinkAttribute::IfAlias(DEVICE_ALIAS.to_owned()));
    }
    message
}

fn with_settings<T>(
    mut builder: LinkMessageBuilder<T>,
    link: &Link,
    mac: Option<MacAddr>,
) -> LinkMessageBuilder<T> {
    if let Some(mac) = mac {
        builder = builder.address(mac.0.to_vec());
    }
    if let Some(mtu) = link.mtu {
        builder = builder.mtu(mtu);
    }
    if link.up { builder.up() } else { builder.down() }
}

impl SeenLink {
    /// Whether it is an IPIP device without end points.
    pub(crate) fn is_ipip(&self) -> bool {
        matches!(self.kind, SeenKind::Ipip)
    }
}

/// Names the link with this index, to delete it.
pub(crate) fn by_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Asks for one link.
pub(crate) fn get(name: IfName) -> LinkMessage {
    let mut message = get_all();
    message
        .attributes
        .push(LinkAttribute::IfName(name.as_str().to_owned()));
    message
}

/// Asks for all links, without the counters, which are the larger part of a link.
pub(crate) fn get_all() -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}
