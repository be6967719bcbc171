//! Addresses of links: `struct ifaddrmsg` and IFA_… of linux/if_addr.h.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use routelet_model::Family;

use crate::Error;
use crate::attributes::{Attributes, family_number};
use crate::frame::read_u32;

const HEADER: usize = 8;

/// An address as a message shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeenAddress {
    pub(crate) index: u32,
    pub(crate) address: IpNet,
}

impl SeenAddress {
    /// Reads RTM_NEWADDR and RTM_DELADDR. `None` for an IPv6 link-local address, which the kernel makes by itself.
    pub(crate) fn read(payload: &[u8]) -> Result<Option<Self>, Error> {
        let (mut local, mut address) = (None, None);
        for attribute in Attributes::after(payload, HEADER)? {
            let attribute = attribute?;
            match attribute.kind {
                libc::IFA_LOCAL => local = Some(attribute.address()?),
                libc::IFA_ADDRESS => address = Some(attribute.address()?),
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the peer's.
        let address = local
            .or(address)
            .ok_or(Error::Decode("an address message without address"))?;
        if matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
            return Ok(None);
        }
        let address = IpNet::new(address, payload[1])
            .map_err(|_| Error::Decode("an address with a prefix length beyond its family's"))?;
        Ok(Some(Self {
            index: read_u32(payload, 4).unwrap_or_default(),
            address,
        }))
    }
}

/// Names an address of a link, to add or delete it.
pub(crate) fn message(index: u32, address: IpNet) -> AddressMessage {
    let family = Family::of_net(address);
    let mut message = get(family, index);
    message.header.prefix_len = address.prefix_len();
    if family == Family::V6 {
        // Nobody else has a tunnel address: it may be used at once, without a probe for duplicates.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ];
    message
}

/// Asks for the addresses of one link (index 0: of all).
pub(crate) fn get(family: Family, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::from(family_number(family));
    message.header.index = index;
    message
}
