//! Our rules in the chains at the forward hook: those that carry our mark.
//!
//! The mark is the rule's comment. iptables-restore writes it in another place than we do, so that it counts wherever
//! it is in the rule.

use ipnet::IpNet;
use netlink_packet_core::NLM_F_CREATE;
use routelet_model::Family;

use super::NFTABLES;
use super::chains::ForwardChain;
use super::expressions::{self, Accept, Direction};
use crate::attributes::Attributes;
use crate::frame::Frame;
use crate::nfnl::{HEADER, NfAttributes, NfMessage};
use crate::{Error, Socket};

/// The comment of our rules.
const MARK: &str = "routelet: pod subnet";

const NFT_MSG_NEWRULE: u8 = 6;
pub(super) const NFT_MSG_GETRULE: u8 = 7;
const NFT_MSG_DELRULE: u8 = 8;

pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;

/// `NFTNL_UDATA_RULE_COMMENT`: where nft looks for a rule's comment.
const COMMENT: u8 = 0;

/// A rule that carries our mark.
struct Marked {
    handle: Vec<u8>,
    /// What it accepts; `None` where someone has changed what it says.
    accept: Option<Accept>,
}

/// Adds the rules that are missing in a chain and removes those that should not be there; returns how many of each.
pub(super) fn bring_about(
    socket: &mut Socket,
    chain: &ForwardChain,
    subnets: &[IpNet],
) -> Result<(usize, usize), Error> {
    let mut missing: Vec<Accept> = subnets
        .iter()
        .filter(|subnet| chain.drops && chain.family.sees(Family::of_net(**subnet)))
        .flat_map(|subnet| {
            let subnet = subnet.trunc();
            Direction::ALL.map(|direction| Accept { direction, subnet })
        })
        .collect();
    let mut changes = Vec::new();
    for rule in marked(socket, chain)? {
        // A second one of a kind is not missing any more, and goes.
        match missing.iter().position(|accept| rule.accept == Some(*accept)) {
            Some(place) => _ = missing.remove(place),
            None => {
                let rule = in_chain(chain).put(NFTA_RULE_HANDLE, &rule.handle);
                changes.push((message(chain, NFT_MSG_DELRULE).with(rule), 0));
            }
        }
    }
    let removed = changes.len();
    let added = missing.len();
    let comment = [&[COMMENT, MARK.len() as u8 + 1], MARK.as_bytes(), &[0]].concat();
    for accept in missing {
        let rule = in_chain(chain)
            .nest(NFTA_RULE_EXPRESSIONS, expressions::write(chain.family, accept))
            .put(NFTA_RULE_USERDATA, &comment);
        // Without NLM_F_APPEND it becomes the chain's first.
        changes.push((message(chain, NFT_MSG_NEWRULE).with(rule), NLM_F_CREATE));
    }
    let [begin, end] = NfMessage::bounds(NFTABLES);
    let changes = changes.iter().map(|(message, flags)| (message, *flags));
    socket.transact(&begin, &end, changes)?;
    Ok((added, removed))
}

/// Whether a notification is about the end of a rule that carries our mark.
pub(super) fn concerns(frame: &Frame<'_>) -> bool {
    frame.kind.to_be_bytes() == [NFTABLES, NFT_MSG_DELRULE] && carries_mark(frame.payload)
}

fn message(chain: &ForwardChain, kind: u8) -> NfMessage {
    NfMessage::new(NFTABLES, kind, chain.family.number())
}

fn in_chain(chain: &ForwardChain) -> NfAttributes {
    NfAttributes::default()
        .text(NFTA_RULE_TABLE, &chain.table)
        .text(NFTA_RULE_CHAIN, &chain.chain)
}

/// What our rules in a chain accept.
pub(super) fn accepted(socket: &mut Socket, chain: &ForwardChain) -> Result<Vec<Accept>, Error> {
    let rules = marked(socket, chain)?;
    Ok(rules.into_iter().filter_map(|rule| rule.accept).collect())
}

/// Whether a chain has any rule.
pub(super) fn any(socket: &mut Socket, chain: &ForwardChain) -> Result<bool, Error> {
    let request = message(chain, NFT_MSG_GETRULE).with(in_chain(chain));
    let mut found = Vec::new();
    let dumped = socket.dump(&request, &mut found, |_, payload| {
        let mut names = Attributes::after(payload, HEADER)?.flatten();
        // A kernel before 4.10 tells the rules of other chains, too.
        let is_of_it = payload[0] == chain.family.number()
            && names.any(|attribute| attribute.kind == NFTA_RULE_CHAIN && attribute.text() == chain.chain);
        Ok(is_of_it.then_some(()))
    });
    match dumped {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
        result => result.map(|()| !found.is_empty()),
    }
}

/// The rules of a chain that carry our mark.
fn marked(socket: &mut Socket, chain: &ForwardChain) -> Result<Vec<Marked>, Error> {
    let request = message(chain, NFT_MSG_GETRULE).with(in_chain(chain));
    let mut found = Vec::new();
    match socket.dump(&request, &mut found, |_, payload| read(chain, payload)) {
        // The chain has gone, and its rules with it.
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        result => result.map(|()| found),
    }
}

/// Reads a rule; `None` for one of another chain (a kernel before 4.10 tells them, too), and for one without our mark.
fn read(chain: &ForwardChain, payload: &[u8]) -> Result<Option<Marked>, Error> {
    let attributes = Attributes::after(payload, HEADER)?;
    if payload[0] != chain.family.number() || !carries_mark(payload) {
        return Ok(None);
    }
    let (mut handle, mut accept) = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_RULE_TABLE if attribute.text() != chain.table => return Ok(None),
            NFTA_RULE_CHAIN if attribute.text() != chain.chain => return Ok(None),
            NFTA_RULE_HANDLE => handle = Some(attribute.value.to_vec()),
            NFTA_RULE_EXPRESSIONS => accept = expressions::read(chain.family, attribute.nested())?,
            _ => {}
        }
    }
    let handle = handle.ok_or(Error::Decode("a rule without a handle"))?;
    Ok(Some(Marked { handle, accept }))
}

fn carries_mark(rule: &[u8]) -> bool {
    rule.windows(MARK.len()).any(|part| part == MARK.as_bytes())
}
