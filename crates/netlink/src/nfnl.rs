//! Messages of netfilter's subsystems: `struct nfgenmsg` and attributes, of which netlink-packet-route knows nothing.
//!
//! Layout: linux/netfilter/nfnetlink.h. Numbers within the attributes are in network byte order, as netfilter wants
//! them wherever its headers do not say otherwise.

use netlink_packet_core::{NLA_F_NESTED, NetlinkSerializable};

use crate::frame::align;

/// `struct nfgenmsg`.
pub(crate) const HEADER: usize = 4;

/// The beginning and the end of a transaction.
const NFNL_MSG_BATCH_BEGIN: u8 = 0x10;
const NFNL_MSG_BATCH_END: u8 = 0x11;

/// A request to a subsystem of netfilter.
#[derive(Debug, Clone)]
pub(crate) struct NfMessage {
    kind: u16,
    family: u8,
    resource: u16,
    attributes: NfAttributes,
}

/// Attributes, written one after another.
#[derive(Debug, Clone, Default)]
pub(crate) struct NfAttributes(Vec<u8>);

impl NfMessage {
    /// A message of the subsystem (`NFNL_SUBSYS_…`) about a family (`NFPROTO_…`, or 0 for all).
    pub(crate) fn new(subsystem: u8, message: u8, family: u8) -> Self {
        Self {
            kind: u16::from_be_bytes([subsystem, message]),
            family,
            resource: 0,
            attributes: NfAttributes::default(),
        }
    }

    /// The messages between which a transaction of the subsystem stands.
    pub(crate) fn bounds(subsystem: u8) -> [Self; 2] {
        [NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END].map(|kind| Self {
            resource: subsystem.into(),
            ..Self::new(0, kind, 0)
        })
    }

    /// The same with these attributes.
    pub(crate) fn with(self, attributes: NfAttributes) -> Self {
        Self { attributes, ..self }
    }
}

impl NfAttributes {
    /// The attributes as they are sent.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds an attribute.
    pub(crate) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let length = 4 + value.len();
        self.0.extend((length as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(align(self.0.len()), 0);
        self
    }

    /// Adds a 32-bit number.
    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds text with its closing zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute that holds others.
    pub(crate) fn nest(self, kind: u16, inner: Self) -> Self {
        self.nest_bytes(kind, &inner.0)
    }

    /// Adds an attribute that holds others, as they were read.
    pub(crate) fn nest_bytes(self, kind: u16, inner: &[u8]) -> Self {
        self.put(kind | NLA_F_NESTED, inner)
    }
}

impl NetlinkSerializable for NfMessage {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let [high, low] = self.resource.to_be_bytes();
        buffer[..HEADER].copy_from_slice(&[self.family, 0, high, low]);
        buffer[HEADER..].copy_from_slice(&self.attributes.0);
    }
}
