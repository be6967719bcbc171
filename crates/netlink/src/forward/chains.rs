//! The base chains of nftables at the forward hook.
//!
//! Layout: linux/netfilter/nf_tables.h.

use super::{ChainFamily, DroppingChain, Firewall, NFTABLES};
use crate::attributes::{Attribute, Attributes};
use crate::frame::Frame;
use crate::nfnl::{HEADER, NfMessage};
use crate::{Error, Socket};

const NFT_MSG_NEWTABLE: u8 = 0;
const NFT_MSG_GETTABLE: u8 = 1;
const NFT_MSG_DELTABLE: u8 = 2;
const NFT_MSG_NEWCHAIN: u8 = 3;
const NFT_MSG_GETCHAIN: u8 = 4;
const NFT_MSG_DELCHAIN: u8 = 5;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
/// The table's chains are not in force.
const NFT_TABLE_F_DORMANT: u32 = 1;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NF_INET_FORWARD: u32 = 2;
const NF_DROP: u32 = 0;

/// A base chain at the forward hook.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ForwardChain {
    pub(super) family: ChainFamily,
    pub(super) table: String,
    pub(super) chain: String,
    /// Whether it is in force and its policy is to drop.
    pub(super) drops: bool,
}

impl ForwardChain {
    pub(super) fn into_dropping(self) -> DroppingChain {
        DroppingChain {
            firewall: Firewall::Nftables,
            family: self.family,
            table: self.table,
            chain: self.chain,
        }
    }
}

/// All of them.
pub(super) fn forward_chains(socket: &mut Socket) -> Result<Vec<ForwardChain>, Error> {
    let mut chains = Vec::new();
    let request = NfMessage::new(NFTABLES, NFT_MSG_GETCHAIN, 0);
    match socket.dump(&request, &mut chains, |_, payload| read_chain(payload)) {
        // A kernel without nf_tables.
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => return Ok(chains),
        result => result?,
    }
    if chains.iter().any(|chain| chain.drops) {
        let mut dormant: Vec<(ChainFamily, String)> = Vec::new();
        let request = NfMessage::new(NFTABLES, NFT_MSG_GETTABLE, 0);
        socket.dump(&request, &mut dormant, |_, payload| read_dormant(payload))?;
        for chain in &mut chains {
            chain.drops &= !dormant
                .iter()
                .any(|(family, table)| *family == chain.family && *table == chain.table);
        }
    }
    Ok(chains)
}

/// Whether a notification is about a table, or about a chain at the forward hook.
pub(super) fn concerns(frame: &Frame<'_>) -> bool {
    match frame.kind.to_be_bytes() {
        [NFTABLES, NFT_MSG_NEWTABLE | NFT_MSG_DELTABLE] => true,
        [NFTABLES, NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN] => !matches!(read_chain(frame.payload), Ok(None)),
        _ => false,
    }
}

/// Reads a chain; `None` for one that is not at the forward hook.
fn read_chain(payload: &[u8]) -> Result<Option<ForwardChain>, Error> {
    let attributes = Attributes::after(payload, HEADER)?;
    let Some(family) = ChainFamily::of_number(payload[0]) else {
        return Ok(None);
    };
    let (mut table, mut chain, mut hook, mut policy) = (None, None, None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_CHAIN_TABLE => table = Some(attribute.text()),
            NFTA_CHAIN_NAME => chain = Some(attribute.text()),
            NFTA_CHAIN_HOOK => hook = read_hook(&attribute)?,
            NFTA_CHAIN_POLICY => policy = Some(attribute.u32_be()?),
            _ => {}
        }
    }
    match (table, chain) {
        (Some(table), Some(chain)) if hook == Some(NF_INET_FORWARD) => Ok(Some(ForwardChain {
            family,
            table: table.to_owned(),
            chain: chain.to_owned(),
            drops: policy == Some(NF_DROP),
        })),
        _ => Ok(None),
    }
}

fn read_hook(hook: &Attribute<'_>) -> Result<Option<u32>, Error> {
    for attribute in hook.nested() {
        let attribute = attribute?;
        if attribute.kind == NFTA_HOOK_HOOKNUM {
            return attribute.u32_be().map(Some);
        }
    }
    Ok(None)
}

/// Reads a table; `None` for one that is in force.
fn read_dormant(payload: &[u8]) -> Result<Option<(ChainFamily, String)>, Error> {
    let attributes = Attributes::after(payload, HEADER)?;
    let (mut name, mut flags) = (None, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_TABLE_NAME => name = Some(attribute.text().to_owned()),
            NFTA_TABLE_FLAGS => flags = attribute.u32_be()?,
            _ => {}
        }
    }
    let family = ChainFamily::of_number(payload[0]).filter(|_| flags & NFT_TABLE_F_DORMANT != 0);
    Ok(family.zip(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read(payload in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = (read_chain(&payload), read_dormant(&payload));
        }
    }
}
