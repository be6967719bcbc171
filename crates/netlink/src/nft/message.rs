//! Messages of nfnetlink as bytes: `struct nfgenmsg` of linux/netfilter/nfnetlink.h, then attributes.
//!
//! The attributes are written by hand. What is read back is compared with what was written (see compare.rs), for
//! which the bytes are wanted, and half of the expressions in use have no type in netlink-packet-netfilter.

use netlink_packet_core::NetlinkSerializable;

use crate::frame::align;

/// Bytes of `struct nfgenmsg`.
pub(crate) const HEADER: usize = 4;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`: the family of our table, which holds rules of both.
pub(crate) const INET: u8 = 1;
/// The bit that marks attributes as nested (`NLA_F_NESTED`).
pub(crate) const NESTED: u16 = 1 << 15;

/// Types of messages: enum nf_tables_msg_types of linux/netfilter/nf_tables.h, by their names there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    DelChain = 5,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    GetSet = 10,
    DelSet = 11,
    NewElement = 12,
    GetElement = 13,
    DelElement = 14,
}

/// A message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    kind: u16,
    family: u8,
    resource: u16,
    attributes: Vec<u8>,
}

impl Message {
    /// A message about what is in our table or the table itself: their first attribute is its name.
    pub(crate) fn new(kind: Kind, table: &str, write: impl FnOnce(&mut Writer)) -> Self {
        let mut writer = Writer::default();
        writer.text(NFTA_TABLE, table);
        write(&mut writer);
        Self {
            kind: SUBSYSTEM << 8 | kind as u16,
            family: INET,
            resource: 0,
            attributes: writer.0,
        }
    }

    /// What a transaction begins with.
    pub(crate) fn begin() -> Self {
        Self::bound(libc::NFNL_MSG_BATCH_BEGIN)
    }

    /// What a transaction ends with: without it, nothing is done.
    pub(crate) fn end() -> Self {
        Self::bound(libc::NFNL_MSG_BATCH_END)
    }

    fn bound(kind: i32) -> Self {
        Self {
            kind: kind as u16,
            family: libc::AF_UNSPEC as u8,
            resource: SUBSYSTEM,
            attributes: Vec::new(),
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[0] = self.family;
        buffer[1] = libc::NFNETLINK_V0 as u8;
        buffer[2..HEADER].copy_from_slice(&self.resource.to_be_bytes());
        buffer[HEADER..].copy_from_slice(&self.attributes);
    }
}

/// The attribute that names the table, the same in all messages (`NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, …).
pub(crate) const NFTA_TABLE: u16 = 1;

/// Whether a notification is about something in the table of this name.
pub(crate) fn is_about(kind: u16, payload: &[u8], table: &str) -> bool {
    /// `NFT_MSG_NEWGEN`: a transaction has ended; it names no table.
    const NEWGEN: u16 = 15;
    kind >> 8 == SUBSYSTEM
        && kind & 0xff != NEWGEN
        && payload.first() == Some(&INET)
        && crate::attributes::Attributes::after(payload, HEADER).is_ok_and(|attributes| {
            attributes
                .flatten()
                .any(|attribute| attribute.kind == NFTA_TABLE && attribute.text() == table)
        })
}

/// Attributes that are being written. Numbers are big-endian, as netfilter wants them.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.0.extend_from_slice(value);
        self.close(start);
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Text with the zero that ends it.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        let start = self.open(kind);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self.close(start);
    }

    /// An attribute that holds attributes.
    pub(crate) fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.open(kind | NESTED);
        write(self);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(align(self.0.len()), 0);
    }
}
