//! Links, addresses and routes one at a time: for the CNI plugin and for the lab, which set things up and do
//! not reconcile them. What the agent does in bulk is [`Kernel`](crate::Kernel)'s.
//!
//! Links go by name. An address or route that is there already, or gone already, is no error.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use routelet_model::{IfName, Key, Link, LinkKind, MacAddr};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::attributes::Attributes;
use crate::frame::read_u32;
use crate::link::create_vxlan;
use crate::{Error, Netns, Socket};

/// Sets up links, addresses and routes in the network namespace it was opened in.
#[derive(Debug)]
pub struct Setup {
    socket: Socket,
}

/// One end of a veth pair that is to be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MAC address; the kernel picks one where there is none.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes; 1500 where there is none.
    pub mtu: Option<u32>,
    /// Whether it is set up at once.
    pub up: bool,
}

/// What a link is like at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// Its interface index.
    pub index: u32,
    /// Its MAC address, where it has one.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it carries packets (IFF_RUNNING). A link that comes up gets there in its own time: only then does the
    /// kernel give it a queue, and a bridge forward to it.
    pub running: bool,
    /// Interface index of the bridge that it is a port of.
    pub master: Option<u32>,
}

/// A route in the main table.
#[derive(Debug, Clone, Copy)]
pub struct RouteSpec<'a> {
    destination: IpNet,
    link: Option<&'a str>,
    gateway: Option<IpAddr>,
    onlink: bool,
    protocol: u8,
    metric: Option<u32>,
}

impl<'a> RouteSpec<'a> {
    /// A route straight to a link. Protocol is `boot` (3), as with the `ip` program, until said otherwise.
    pub fn to_link(destination: IpNet, link: &'a str) -> Self {
        Self {
            link: Some(link),
            ..Self::blackhole(destination)
        }
    }

    /// A route by way of a gateway, on a link where one is given.
    pub fn via(destination: IpNet, gateway: IpAddr, link: Option<&'a str>) -> Self {
        Self {
            link,
            gateway: Some(gateway),
            ..Self::blackhole(destination)
        }
    }

    /// A route that drops packets silently.
    pub fn blackhole(destination: IpNet) -> Self {
        let protocol = libc::RTPROT_BOOT;
        Self {
            destination,
            link: None,
            gateway: None,
            onlink: false,
            protocol,
            metric: None,
        }
    }

    /// Takes the gateway for reachable on the link, though no route says so.
    pub fn onlink(self) -> Self {
        Self { onlink: true, ..self }
    }

    /// Marks the route as made by `protocol` (RTPROT_… of linux/rtnetlink.h).
    pub fn protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// Sets the metric; the kernel takes 0 for IPv4 and 1024 for IPv6 where none is said.
    pub fn metric(self, metric: u32) -> Self {
        Self {
            metric: Some(metric),
            ..self
        }
    }
}

impl Setup {
    /// Opens it in the namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open()?,
        })
    }

    /// Opens it in `netns`; the calling thread stays where it is.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    /// The link of this name, or `None`.
    pub fn link(&mut self, name: &str) -> Result<Option<LinkState>, Error> {
        let message = LinkUnspec::new_with_name(name).build();
        match self
            .socket
            .get(&RouteNetlinkMessage::GetLink(message), decode_link)
        {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a veth pair: `near` in this namespace, `far` in another.
    pub fn add_veth(&mut self, near: VethEnd, far: VethEnd, far_netns: &Netns) -> Result<(), Error> {
        let fd = far_netns.fd().as_raw_fd();
        let peer = end(LinkUnspec::new_with_name(far.name), far)
            .setns_by_fd(fd)
            .build();
        let mut pair = end(LinkVeth::new(near.name, far.name), near);
        if near.up {
            pair = pair.up();
        }
        let pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
        self.socket
            .request(&RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL)?;
        if far.up {
            // Not with the pair: the kernel makes the far end first, and one alone cannot be up (ENOTCONN).
            Self::open_in(far_netns)?.set_up(far.name)?;
        }
        Ok(())
    }

    /// Makes a bridge, up.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        let bridge = LinkBridge::new(name).build();
        self.socket
            .request(&RouteNetlinkMessage::NewLink(bridge), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a VXLAN device.
    pub fn add_vxlan(&mut self, name: IfName, link: &Link) -> Result<(), Error> {
        let LinkKind::Vxlan(vxlan) = &link.kind else {
            return Err(Error::Unsupported(Key::Link(name)));
        };
        let parent = vxlan
            .parent
            .map(|parent| self.index(parent.as_str()))
            .transpose()?;
        let message = create_vxlan(name, link, vxlan, parent);
        self.socket
            .request(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a link a port of a bridge.
    pub fn set_master(&mut self, link: &str, bridge: &str) -> Result<(), Error> {
        let bridge = self.index(bridge)?;
        self.change(LinkUnspec::new_with_name(link).controller(bridge).build())
    }

    /// Sets a link up.
    pub fn set_up(&mut self, link: &str) -> Result<(), Error> {
        self.change(LinkUnspec::new_with_name(link).up().build())
    }

    /// Sets a link down.
    pub fn set_down(&mut self, link: &str) -> Result<(), Error> {
        self.change(LinkUnspec::new_with_name(link).down().build())
    }

    /// Takes a link's carrier away, as a cable that is pulled out does, or gives it back. (VXLAN and macvlan can.)
    pub fn set_protodown(&mut self, link: &str, down: bool) -> Result<(), Error> {
        let mut message = LinkUnspec::new_with_name(link).build();
        message.attributes.push(LinkAttribute::ProtoDown(u8::from(down)));
        self.change(message)
    }

    /// Sets a link's MTU in bytes.
    pub fn set_mtu(&mut self, link: &str, mtu: u32) -> Result<(), Error> {
        self.change(LinkUnspec::new_with_name(link).mtu(mtu).build())
    }

    /// Sets a link's MAC address.
    pub fn set_mac(&mut self, link: &str, mac: MacAddr) -> Result<(), Error> {
        self.change(LinkUnspec::new_with_name(link).address(mac.0.to_vec()).build())
    }

    /// Gives a link another name. Kernels before 6.2 want it down for that.
    pub fn rename(&mut self, link: &str, name: &str) -> Result<(), Error> {
        let index = self.index(link)?;
        self.change(LinkUnspec::new_with_index(index).name(name).build())
    }

    /// Deletes a link, and with a veth its other end.
    pub fn delete_link(&mut self, link: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_name(link).build();
        gone_is_fine(self.socket.request(&RouteNetlinkMessage::DelLink(message), 0))
    }

    /// Gives a link an address, ready for use at once: who sets up a namespace knows that no one else has it.
    pub fn add_address(&mut self, link: &str, address: IpNet) -> Result<(), Error> {
        let message = self.address(link, address)?;
        there_is_fine(self.socket.request(
            &RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        ))
    }

    /// Takes an address from a link.
    pub fn delete_address(&mut self, link: &str, address: IpNet) -> Result<(), Error> {
        let message = self.address(link, address)?;
        gone_is_fine(self.socket.request(&RouteNetlinkMessage::DelAddress(message), 0))
    }

    /// Adds a route.
    pub fn add_route(&mut self, route: RouteSpec) -> Result<(), Error> {
        let message = self.route(route)?;
        there_is_fine(
            self.socket
                .request(&RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL),
        )
    }

    /// Adds a route, in place of one with this destination and metric if there is one.
    pub fn replace_route(&mut self, route: RouteSpec) -> Result<(), Error> {
        let message = self.route(route)?;
        self.socket.request(
            &RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Deletes the route to `destination` from the main table, whoever made it and wherever it leads: of several
    /// with different metrics, one.
    pub fn delete_route(&mut self, destination: IpNet) -> Result<(), Error> {
        let mut message = route_to(destination);
        message.header.scope = RouteScope::NoWhere;
        gone_is_fine(self.socket.request(&RouteNetlinkMessage::DelRoute(message), 0))
    }

    /// Sets a permanent neighbour entry.
    pub fn replace_neighbour(&mut self, link: &str, address: IpAddr, mac: MacAddr) -> Result<(), Error> {
        let mut message = self.neighbour(link, address)?;
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.socket.request(
            &RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Deletes a neighbour entry.
    pub fn delete_neighbour(&mut self, link: &str, address: IpAddr) -> Result<(), Error> {
        let message = self.neighbour(link, address)?;
        gone_is_fine(
            self.socket
                .request(&RouteNetlinkMessage::DelNeighbour(message), 0),
        )
    }

    /// Sets the underlay address behind a MAC address in a VXLAN device's FDB.
    pub fn replace_fdb(&mut self, link: &str, mac: MacAddr, remote: IpAddr) -> Result<(), Error> {
        let mut message = self.fdb(link, mac)?;
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::Destination(neighbour_address(remote)));
        self.socket.request(
            &RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Deletes a MAC address from a VXLAN device's FDB.
    pub fn delete_fdb(&mut self, link: &str, mac: MacAddr) -> Result<(), Error> {
        let message = self.fdb(link, mac)?;
        gone_is_fine(
            self.socket
                .request(&RouteNetlinkMessage::DelNeighbour(message), 0),
        )
    }

    fn change(&mut self, message: LinkMessage) -> Result<(), Error> {
        self.socket.request(&RouteNetlinkMessage::SetLink(message), 0)
    }

    fn index(&mut self, name: &str) -> Result<u32, Error> {
        match self.link(name)? {
            Some(link) => Ok(link.index),
            None => Err(IfName::new(name).map_or(
                Error::Refused {
                    errno: libc::ENODEV,
                    message: None,
                },
                Error::NoSuchLink,
            )),
        }
    }

    fn address(&mut self, link: &str, address: IpNet) -> Result<AddressMessage, Error> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = self.index(link)?;
        message.header.scope = AddressScope::Universe;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
        Ok(message)
    }

    fn route(&mut self, route: RouteSpec) -> Result<RouteMessage, Error> {
        let mut message = route_to(route.destination);
        message.header.protocol = route.protocol.into();
        message.header.kind = RouteType::Unicast;
        match (route.link, route.gateway) {
            (None, None) => message.header.kind = RouteType::BlackHole,
            (Some(_), None) if route.destination.addr().is_ipv4() => message.header.scope = RouteScope::Link,
            _ => {}
        }
        if let Some(link) = route.link {
            message.attributes.push(RouteAttribute::Oif(self.index(link)?));
        }
        if let Some(gateway) = route.gateway {
            message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        if let Some(metric) = route.metric {
            message.attributes.push(RouteAttribute::Priority(metric));
        }
        if route.onlink {
            message.header.flags |= RouteFlags::Onlink;
        }
        Ok(message)
    }

    fn neighbour(&mut self, link: &str, address: IpAddr) -> Result<NeighbourMessage, Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.index(link)?;
        message
            .attributes
            .push(NeighbourAttribute::Destination(neighbour_address(address)));
        Ok(message)
    }

    fn fdb(&mut self, link: &str, mac: MacAddr) -> Result<NeighbourMessage, Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = self.index(link)?;
        message.header.flags = NeighbourFlags::Own;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        Ok(message)
    }
}

fn end<T>(mut builder: LinkMessageBuilder<T>, end: VethEnd) -> LinkMessageBuilder<T> {
    if let Some(mac) = end.mac {
        builder = builder.address(mac.0.to_vec());
    }
    if let Some(mtu) = end.mtu {
        builder = builder.mtu(mtu);
    }
    builder
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn neighbour_address(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }
}

fn route_to(destination: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.addr());
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.destination_prefix_length = destination.prefix_len();
    message
        .attributes
        .push(RouteAttribute::Destination(RouteAddress::from(
            destination.network(),
        )));
    message
}

/// `struct ifinfomsg` of linux/rtnetlink.h and the attributes of linux/if_link.h.
fn decode_link(payload: &[u8]) -> Result<LinkState, Error> {
    const HEADER: usize = 16;
    let field = |at| read_u32(payload, at).ok_or(Error::Decode("a link message shorter than its header"));
    let flags = field(8)?;
    let has = |flag: i32| flags & flag.cast_unsigned() != 0;
    let mut link = LinkState {
        index: field(4)?,
        mac: None,
        mtu: 0,
        up: has(libc::IFF_UP),
        running: has(libc::IFF_RUNNING),
        master: None,
    };
    for attribute in Attributes::after(payload, HEADER)? {
        let attribute = attribute?;
        match attribute.kind {
            libc::IFLA_ADDRESS => link.mac = attribute.mac(),
            libc::IFLA_MTU => link.mtu = attribute.u32()?,
            libc::IFLA_MASTER => link.master = Some(attribute.u32()?),
            _ => {}
        }
    }
    Ok(link)
}

fn there_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_already_exists() => Ok(()),
        result => result,
    }
}

fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result.as_ref().map_err(Error::errno) {
        Err(Some(libc::ENODEV | libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL)) => Ok(()),
        _ => result,
    }
}
