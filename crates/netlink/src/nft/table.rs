//! The table and its sets.

use routelet_model::{Family, NftSet};

use crate::Error;
use crate::attributes::Attributes;
use crate::nft::elements::set_name;
use crate::nft::message::{HEADER, Kind, Message};

const NFTA_TABLE_FLAGS: u16 = 2;

const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_ID: u16 = 10;
const NFT_SET_ANONYMOUS: u32 = 1;
const NFT_SET_INTERVAL: u32 = 4;

/// A set as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SeenSet {
    pub(crate) name: String,
    flags: u32,
    key_type: u32,
    key_len: u32,
}

impl SeenSet {
    /// The set as it should be. The type is nft's number for addresses of the family, by which it shows them.
    fn wanted(set: NftSet, family: Family) -> Self {
        let (key_type, key_len) = match family {
            Family::V4 => (7, 4),
            Family::V6 => (8, 16),
        };
        Self {
            name: set_name(set, family),
            flags: if set.has_ranges() { NFT_SET_INTERVAL } else { 0 },
            key_type,
            key_len,
        }
    }

    /// Whether it is a part of a rule, and goes with it.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.flags & NFT_SET_ANONYMOUS != 0
    }

    /// Reads a message of the answer to [`get_sets`].
    pub(crate) fn read(payload: &[u8]) -> Result<Self, Error> {
        let mut seen = Self::default();
        for attribute in Attributes::after(payload, HEADER)? {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_SET_NAME => seen.name = attribute.text().to_owned(),
                NFTA_SET_FLAGS => seen.flags = attribute.u32_be()?,
                NFTA_SET_KEY_TYPE => seen.key_type = attribute.u32_be()?,
                NFTA_SET_KEY_LEN => seen.key_len = attribute.u32_be()?,
                _ => {}
            }
        }
        Ok(seen)
    }
}

fn wanted_sets() -> impl Iterator<Item = SeenSet> {
    NftSet::ALL
        .into_iter()
        .flat_map(|set| Family::ALL.map(|family| SeenSet::wanted(set, family)))
}

/// Whether all of our sets are there, and are what they should be.
pub(crate) fn are_right(seen: &[SeenSet]) -> bool {
    wanted_sets().all(|wanted| seen.contains(&wanted))
}

/// The sets that are none of ours.
pub(crate) fn surplus(seen: &[SeenSet]) -> impl Iterator<Item = &SeenSet> {
    seen.iter()
        .filter(|seen| !seen.is_anonymous() && wanted_sets().all(|wanted| wanted.name != seen.name))
}

/// The messages that make the table and its sets.
pub(crate) fn create(table: &str) -> Vec<Message> {
    let sets = (1u32..).zip(wanted_sets()).map(|(id, set)| {
        Message::new(Kind::NewSet, table, |message| {
            message.text(NFTA_SET_NAME, &set.name);
            message.u32(NFTA_SET_FLAGS, set.flags);
            message.u32(NFTA_SET_KEY_TYPE, set.key_type);
            message.u32(NFTA_SET_KEY_LEN, set.key_len);
            message.u32(NFTA_SET_ID, id);
        })
    });
    [Message::new(Kind::NewTable, table, |_| {})]
        .into_iter()
        .chain(sets)
        .collect()
}

/// The message that deletes the table with all that is in it.
pub(crate) fn delete(table: &str) -> Message {
    Message::new(Kind::DelTable, table, |_| {})
}

/// The message that deletes a set.
pub(crate) fn delete_set(table: &str, set: &SeenSet) -> Message {
    Message::new(Kind::DelSet, table, |message| {
        message.text(NFTA_SET_NAME, &set.name)
    })
}

/// The request for the table.
pub(crate) fn get(table: &str) -> Message {
    Message::new(Kind::GetTable, table, |_| {})
}

/// The request for the table's sets.
pub(crate) fn get_sets(table: &str) -> Message {
    Message::new(Kind::GetSet, table, |_| {})
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
