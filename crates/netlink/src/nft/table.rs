//! The table itself.

use crate::Error;
use crate::attributes::Attributes;
use crate::nft::message::{HEADER, Kind, Message};
use crate::nft::set::Set;

const NFTA_TABLE_FLAGS: u16 = 2;

/// The messages that make the table and the sets that it has always.
pub(crate) fn create(table: &str) -> Vec<Message> {
    let sets = (1u32..).zip(Set::always()).map(|(id, set)| set.create(table, id));
    [Message::new(Kind::NewTable, table, |_| {})]
        .into_iter()
        .chain(sets)
        .collect()
}

/// The message that deletes the table with all that is in it.
pub(crate) fn delete(table: &str) -> Message {
    Message::new(Kind::DelTable, table, |_| {})
}

/// The request for the table.
pub(crate) fn get(table: &str) -> Message {
    Message::new(Kind::GetTable, table, |_| {})
}

/// Reads the answer to [`get`]: the table's flags. One with flags is none of ours: it sleeps, or dies with who made it.
pub(crate) fn read_flags(payload: &[u8]) -> Result<u32, Error> {
    let mut flags = 0;
    for attribute in Attributes::after(payload, HEADER)? {
        let attribute = attribute?;
        if attribute.kind == NFTA_TABLE_FLAGS {
            flags = attribute.u32_be()?;
        }
    }
    Ok(flags)
}
