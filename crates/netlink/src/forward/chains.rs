//! The base chains of nftables: those at the forward hook, and all.
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
pub(super) const NF_DROP: u32 = 0;

/// A base chain at any hook of IP packets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) family: ChainFamily,
    pub(super) table: String,
    pub(super) chain: String,
    /// `NF_INET_…`.
    hook: u32,
    /// Whether its policy is to drop.
    pub(super) drops: bool,
    /// Whether its table is not in force.
    pub(super) dormant: bool,
}

impl BaseChain {
    /// Whether it sees packets that the host itself sends or receives.
    pub(super) fn is_passed_by_own(&self) -> bool {
        self.hook != NF_INET_FORWARD
    }

    pub(super) fn into_dropping(self) -> DroppingChain {
        DroppingChain {
            firewall: Firewall::Nftables,
            family: self.family,
            table: self.table,
            chain: self.chain,
        }
    }
}

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

/// Those at the forward hook.
pub(super) fn forward_chains(socket: &mut Socket) -> Result<Vec<ForwardChain>, Error> {
    let chains = base_chains(socket)?.into_iter();
    let forward = chains.filter(|chain| chain.hook == NF_INET_FORWARD);
    Ok(forward
        .map(|chain| ForwardChain {
            drops: chain.drops && !chain.dormant,
            family: chain.family,
            table: chain.table,
            chain: chain.chain,
        })
        .collect())
}

/// Those at any hook.
pub(super) fn base_chains(socket: &mut Socket) -> Result<Vec<BaseChain>, Error> {
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
            chain.dormant = dormant
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
        [NFTABLES, NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN] => match read_chain(frame.payload) {
            Ok(chain) => chain.is_some_and(|chain| chain.hook == NF_INET_FORWARD),
            Err(_) => true,
        },
        _ => false,
    }
}

/// Reads a chain; `None` for one that is at no hook of IP packets.
fn read_chain(payload: &[u8]) -> Result<Option<BaseChain>, Error> {
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
    match (table, chain, hook) {
        (Some(table), Some(chain), Some(hook)) => Ok(Some(BaseChain {
            family,
            table: table.to_owned(),
            chain: chain.to_owned(),
            hook,
            drops: policy == Some(NF_DROP),
            dormant: false,
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
