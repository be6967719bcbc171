//! Messages of nf_tables as bytes (linux/netfilter/nf_tables.h), as far as damage to the agent's table takes them.

use ipnet::Ipv4Net;

use crate::message::{CREATE, Message, Received, attribute};
use crate::raw::Batch;

/// The agent's table and its chain of masquerading rules, by default.
const TABLE: &[u8] = b"routelet\0";
const CHAIN: &[u8] = b"postrouting\0";

/// Multicast group of nf_tables (NFNLGRP_NFTABLES) as a mask.
pub(crate) const GROUP: u32 = 1 << 6;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
/// Bytes of the header `nfgenmsg`.
const NFGENMSG: usize = 4;
/// Family inet, of tables that see both (NFPROTO_INET).
const INET: u8 = 1;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// What the kernel tells of the agent's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NftChange {
    Table,
    Rule,
    Element,
}

/// The end of the table.
pub(crate) fn delete_table() -> Batch {
    transaction(message(DELETE_TABLE, 0, &attribute(1, TABLE)))
}

/// The end of all rules of the chain.
pub(crate) fn delete_rules() -> Batch {
    let attributes = [attribute(1, TABLE), attribute(2, CHAIN)];
    transaction(message(DELETE_RULE, 0, &attributes.concat()))
}

/// A pod subnet, which goes out of the set that is asked for what to masquerade.
pub(crate) fn delete_subnet(subnet: Ipv4Net) -> Batch {
    transaction(message(DELETE_ELEMENT, 0, &element(subnet)))
}

/// The same, back in.
pub(crate) fn add_subnet(subnet: Ipv4Net) -> Batch {
    transaction(message(NEW_ELEMENT, CREATE, &element(subnet)))
}

fn element(subnet: Ipv4Net) -> Vec<u8> {
    let set = format!("pods_v4_{}\0", subnet.prefix_len());
    let value = attribute(1, &subnet.network().octets());
    let key = attribute(1 | NESTED, &value);
    let elements = attribute(1 | NESTED, &key);
    [
        attribute(1, TABLE),
        attribute(2, set.as_bytes()),
        attribute(3 | NESTED, &elements),
    ]
    .concat()
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Message {
    let header = [INET, 0, 0, 0];
    Message::new(SUBSYSTEM << 8 | kind, flags, &[&header, attributes].concat())
}

/// One message in a transaction of its own; the kernel answers to it, not to the transaction's ends.
fn transaction(message: Message) -> Batch {
    let subsystem = SUBSYSTEM.to_be_bytes();
    let end = |kind| Message::new(kind, 0, &[0, 0, subsystem[0], subsystem[1]]);
    Batch::around(&end(BATCH_BEGIN), message, &end(BATCH_END))
}

/// What a notification tells of the agent's table.
pub(crate) fn read(message: &Received<'_>) -> Option<NftChange> {
    let change = match message.kind.checked_sub(SUBSYSTEM << 8)? {
        NEW_TABLE => NftChange::Table,
        NEW_RULE => NftChange::Rule,
        NEW_ELEMENT => NftChange::Element,
        _ => return None,
    };
    (message.attribute(NFGENMSG, 1)? == TABLE).then_some(change)
}
