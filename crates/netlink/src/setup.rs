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
use netlink_packet_route::link::{InfoData, InfoVeth, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use routelet_model::{IfName, MacAddr};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::attributes::Attributes;
use crate::frame::read_u32;
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
        let peer = end(LinkUnspec::new_with_name(far.name), far).setns_by_fd(fd).build();
        let mut pair = end(LinkVeth::new(near.name, far.name), near);
        if near.up {
            pair = pair.up();
        }
        let pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
        self.socket.request(&RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL)?;
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

    /// Sets a link's MTU in bytes.
    pub fn set_mtu(&mut self, link: &str, mtu: u32) -> Result<(), Error> {
        self.change(LinkUnspec::new_with_name(link).mtu(mtu).build())
    }

    /// Sets a link's MAC address.
    pub fn set_mac(&mut self, link: &str, mac: MacAddr) -> Result<(), Error> {
        self.change(LinkUnspec::new_with_name(link).address(mac.0.to_vec()).build())
    }

    /// Gives a link, which must be down on kernels before 6.6, another name.
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
    let up = field(8)? & libc::IFF_UP as u32 != 0;
    let mut link = LinkState {
        index: field(4)?,
        mac: None,
        mtu: 0,
        up,
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0xee; 6]);

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// A namespace with `a0`, whose other end is `b0` in another.
    fn pair() -> (Netns, Setup, Setup) {
        let [near, far] = [Netns::new().unwrap(), Netns::new().unwrap()];
        let mut setup = Setup::open_in(&near).unwrap();
        let a = VethEnd {
            name: "a0",
            mac: Some(MAC),
            mtu: Some(1400),
            up: true,
        };
        let b = VethEnd {
            name: "b0",
            mtu: Some(1450),
            ..VethEnd::default()
        };
        setup.add_veth(a, b, &far).unwrap();
        let far = Setup::open_in(&far).unwrap();
        (near, setup, far)
    }

    #[test]
    fn a_veth_pair_over_two_namespaces() {
        let (_near, mut near, mut far) = pair();
        let a = near.link("a0").unwrap().unwrap();
        assert_eq!((a.mac, a.mtu, a.up, a.master), (Some(MAC), 1400, true, None));
        assert_eq!(near.link("b0").unwrap(), None);
        let b = far.link("b0").unwrap().unwrap();
        assert_eq!((b.mtu, b.up), (1450, false));

        far.set_up("b0").unwrap();
        far.set_mtu("b0", 1300).unwrap();
        far.set_mac("b0", MacAddr([2, 0, 0, 0, 0, 1])).unwrap();
        far.rename("b0", "eth0").unwrap();
        let b = far.link("eth0").unwrap().unwrap();
        assert_eq!(
            (b.mtu, b.up, b.mac),
            (1300, true, Some(MacAddr([2, 0, 0, 0, 0, 1])))
        );

        far.delete_link("eth0").unwrap();
        assert_eq!(near.link("a0").unwrap(), None, "a veth goes with its other end");
        near.delete_link("a0").unwrap();
    }

    #[test]
    fn a_bridge_and_its_ports() {
        let (_near, mut near, _far) = pair();
        near.add_bridge("br0").unwrap();
        near.set_master("a0", "br0").unwrap();
        let bridge = near.link("br0").unwrap().unwrap();
        assert!(bridge.up);
        assert_eq!(near.link("a0").unwrap().unwrap().master, Some(bridge.index));
        assert!(near.add_bridge("br0").unwrap_err().is_already_exists());
    }

    #[test]
    fn a_missing_link_is_named() {
        let (_near, mut near, _far) = pair();
        let error = near.add_address("nope0", net("10.0.0.1/24")).unwrap_err();
        assert!(
            error.is_missing_link() && error.to_string().contains("nope0"),
            "{error}"
        );
        assert!(near.set_up("nope0").unwrap_err().is_missing_link());
    }

    #[test]
    fn addresses_can_be_used_at_once() {
        let (netns, mut near, mut far) = pair();
        far.set_up("b0").unwrap();
        for address in ["10.0.0.1/24", "fd00::1/64"] {
            near.add_address("a0", net(address)).unwrap();
            near.add_address("a0", net(address)).unwrap();
            let bind = || std::net::UdpSocket::bind((net(address).addr(), 0));
            netns.run(bind).unwrap().unwrap();
            near.delete_address("a0", net(address)).unwrap();
            near.delete_address("a0", net(address)).unwrap();
            assert!(netns.run(bind).unwrap().is_err());
        }
    }

    #[test]
    fn routes_of_every_shape() {
        let (netns, mut near, mut far) = pair();
        far.set_up("b0").unwrap();
        near.add_address("a0", net("10.0.0.1/24")).unwrap();
        near.add_address("a0", net("fd00::1/64")).unwrap();
        let mut leads_somewhere = |destination: &str| {
            let address = net(destination).addr();
            netns
                .run(|| {
                    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    std::net::UdpSocket::bind(any)
                        .unwrap()
                        .connect((address, 9))
                        .is_ok()
                })
                .unwrap()
        };
        for (destination, gateway) in [("10.9.0.0/16", "10.0.0.2"), ("fd09::/64", "fd00::2")] {
            let to = net(destination);
            let gateway = gateway.parse().unwrap();
            for route in [
                RouteSpec::to_link(to, "a0"),
                RouteSpec::via(to, gateway, None).protocol(80),
                RouteSpec::via(to, "10.77.0.1".parse().unwrap(), Some("a0")).onlink(),
                RouteSpec::via(to, gateway, Some("a0")).metric(50),
            ] {
                if route
                    .gateway
                    .is_some_and(|gateway| gateway.is_ipv4() != to.addr().is_ipv4())
                {
                    continue;
                }
                assert!(!leads_somewhere(destination));
                near.add_route(route).unwrap();
                near.add_route(route).unwrap();
                assert!(leads_somewhere(destination), "{route:?}");
                near.delete_route(to).unwrap();
            }
            near.delete_route(to).unwrap();
            near.add_route(RouteSpec::to_link(to, "a0")).unwrap();
            near.replace_route(RouteSpec::blackhole(to)).unwrap();
            assert!(!leads_somewhere(destination));
        }
    }

    #[test]
    fn neighbours_come_and_go() {
        let (netns, mut near, _far) = pair();
        let listed = || {
            let table = netns
                .run(|| std::fs::read_to_string("/proc/thread-self/net/arp"))
                .unwrap()
                .unwrap();
            table.contains("10.0.0.2") && table.contains("66:00:00:00:00:01")
        };
        let address = "10.0.0.2".parse().unwrap();
        near.replace_neighbour("a0", address, MacAddr([0x66, 0, 0, 0, 0, 1]))
            .unwrap();
        assert!(listed());
        near.delete_neighbour("a0", address).unwrap();
        near.delete_neighbour("a0", address).unwrap();
        assert!(!listed());
    }
}
