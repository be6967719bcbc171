//! What links are like at the moment, one of them or all.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use routelet_model::{IfName, MacAddr};
use rtnetlink::LinkUnspec;

use crate::attributes::Attributes;
use crate::frame::read_u32;
use crate::{Error, Setup, link};

/// What a link is like at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// Its interface index.
    pub index: u32,
    /// Its name; `None` where it is one that we cannot hold.
    pub name: Option<IfName>,
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
    /// The text that has been noted on it (IFLA_IFALIAS).
    pub alias: Option<String>,
}

impl Setup {
    /// The link of this name, or `None`.
    pub fn link(&mut self, name: &str) -> Result<Option<LinkState>, Error> {
        self.find(LinkUnspec::new_with_name(name).build())
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<LinkState>, Error> {
        let mut found = Vec::new();
        let request = RouteNetlinkMessage::GetLink(link::get_all());
        self.socket
            .dump(&request, &mut found, |_, payload| decode(payload).map(Some))?;
        Ok(found)
    }

    fn find(&mut self, message: LinkMessage) -> Result<Option<LinkState>, Error> {
        match self.socket.get(&RouteNetlinkMessage::GetLink(message), decode) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// `struct ifinfomsg` of linux/rtnetlink.h and the attributes of linux/if_link.h.
fn decode(payload: &[u8]) -> Result<LinkState, Error> {
    const HEADER: usize = 16;
    let field = |at| read_u32(payload, at).ok_or(Error::Decode("a link message shorter than its header"));
    let flags = field(8)?;
    let has = |flag: i32| flags & flag.cast_unsigned() != 0;
    let mut link = LinkState {
        index: field(4)?,
        name: None,
        mac: None,
        mtu: 0,
        up: has(libc::IFF_UP),
        running: has(libc::IFF_RUNNING),
        master: None,
        alias: None,
    };
    for attribute in Attributes::after(payload, HEADER)? {
        let attribute = attribute?;
        match attribute.kind {
            libc::IFLA_IFNAME => link.name = attribute.name(),
            libc::IFLA_ADDRESS => link.mac = attribute.mac(),
            libc::IFLA_MTU => link.mtu = attribute.u32()?,
            libc::IFLA_MASTER => link.master = Some(attribute.u32()?),
            libc::IFLA_IFALIAS => link.alias = Some(attribute.text().to_owned()),
            _ => {}
        }
    }
    Ok(link)
}
