//! Links, addresses and routes one at a time: for the CNI plugin and for the lab, which set things up and do
//! not reconcile them. What the agent does in bulk is [`Kernel`](crate::Kernel)'s.
//!
//! Links go by name. An address or route that is there already, or gone already, is no error.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use routelet_model::{IfName, Key, Link, LinkKind, MacAddr};
use rtnetlink::{LinkBridge, LinkUnspec};

use crate::link::create_vxlan;
pub use crate::link_state::LinkState;
use crate::route::is_no_way;
pub use crate::veth::VethEnd;
use crate::{Error, Netns, Socket};

/// Sets up links, addresses and routes in the network namespace it was opened in.
#[derive(Debug)]
pub struct Setup {
    pub(crate) socket: Socket,
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

    /// Notes a text on a link (IFLA_IFALIAS, at most 254 bytes), which the kernel keeps and shows.
    pub fn set_alias(&mut self, link: &str, alias: &str) -> Result<(), Error> {
        let mut message = LinkUnspec::new_with_name(link).build();
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.change(message)
    }

    /// Gives a link another name. Kernels before 6.2 want it down for that: there, one that is up goes down for a moment.
    pub fn rename(&mut self, link: &str, name: &str) -> Result<(), Error> {
        let index = self.index(link)?;
        let renamed = LinkUnspec::new_with_index(index).name(name).build();
        match self.change(renamed.clone()) {
            Err(error) if error.errno() == Some(libc::EBUSY) => {
                self.set_down(link)?;
                self.change(renamed)?;
                self.set_up(name)
            }
            done => done,
        }
    }

    /// Deletes a link, and with a veth its other end.
    pub fn delete_link(&mut self, link: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_name(link).build();
        gone_is_fine(self.socket.request(&RouteNetlinkMessage::DelLink(message), 0))
    }

    /// Deletes this very link, by its index: another may have its name by now.
    pub fn delete(&mut self, link: &LinkState) -> Result<(), Error> {
        self.delete_index(link.index)
    }

    /// The same by the index alone.
    pub fn delete_index(&mut self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).build();
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

    /// Adds a route beside those that there are with this destination and metric: before them (IPv4), or behind.
    pub fn add_route_beside(&mut self, route: RouteSpec, before: bool) -> Result<(), Error> {
        let message = self.route(route)?;
        let flags = if before {
            NLM_F_CREATE
        } else {
            NLM_F_CREATE | NLM_F_APPEND
        };
        there_is_fine(
            self.socket
                .request(&RouteNetlinkMessage::NewRoute(message), flags),
        )
    }

    /// Deletes the route to `destination` from the main table, whoever made it and wherever it leads: of several
    /// with different metrics, one.
    pub fn delete_route(&mut self, destination: IpNet) -> Result<(), Error> {
        let mut message = route_to(destination);
        message.header.scope = RouteScope::NoWhere;
        gone_is_fine(self.socket.request(&RouteNetlinkMessage::DelRoute(message), 0))
    }

    /// Whether packets to `address` that come in on a link are for this host. For an address that has just been given
    /// they are not at once: with IPv6, the kernel makes its local route, and joins the group in which neighbours ask
    /// for it, in its own time.
    pub fn is_local(&mut self, link: &str, address: IpAddr) -> Result<bool, Error> {
        let link = self.index(link)?;
        Ok(self.way_to(address, Some(link))? == Some(libc::RTN_LOCAL))
    }

    /// Whether this host would send packets to `address` on to others.
    pub fn has_route(&mut self, address: IpAddr) -> Result<bool, Error> {
        Ok(self.way_to(address, None)? == Some(libc::RTN_UNICAST))
    }

    /// Whether packets to `address` reach anything: another host, a link, this host itself. They do not where a route is
    /// there to drop them.
    pub fn leads_anywhere(&mut self, address: IpAddr) -> Result<bool, Error> {
        let way = self.way_to(address, None)?;
        Ok(matches!(way, Some(libc::RTN_UNICAST | libc::RTN_LOCAL)))
    }

    /// The kind of route (RTN_…) that leads to `address`, where one does.
    fn way_to(&mut self, address: IpAddr, link: Option<u32>) -> Result<Option<u8>, Error> {
        let mut message = route_to(IpNet::from(address));
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.attributes.extend(link.map(RouteAttribute::Oif));
        let kind = |payload: &[u8]| {
            payload
                .get(7)
                .copied()
                .ok_or(Error::Decode("a route message shorter than its header"))
        };
        match self.socket.get(&RouteNetlinkMessage::GetRoute(message), kind) {
            Ok(kind) => Ok(Some(kind)),
            Err(error) if is_no_way(&error) => Ok(None),
            Err(error) => Err(error),
        }
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
