//! What becomes of pods' packets at a chain that drops by policy, as far as that can be told without carrying the chain's
//! rules out.

use std::net::IpAddr;

use super::chains::ForwardChain;
use super::expressions::Direction;
use super::{DroppingChain, Firewall, Forwarding, legacy, rules};
use crate::Error;

/// See the file's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Rules of ours at its head let them through.
    Opened,
    /// It has no rule at all, so it drops them.
    Closed,
    /// Its rules, which are others', decide.
    Undecided,
}

impl Forwarding {
    /// How packets from `address`, and to it, pass through a chain of [`Forwarding::dropping`].
    pub fn passage(&mut self, chain: &DroppingChain, address: IpAddr) -> Result<Passage, Error> {
        let decided_by_rules = |are_there: bool| match are_there {
            true => Passage::Undecided,
            false => Passage::Closed,
        };
        let Some((socket, _)) = self
            .nftables
            .as_mut()
            .filter(|_| chain.firewall == Firewall::Nftables)
        else {
            return legacy::has_rules(chain.family).map(decided_by_rules);
        };
        let chain = ForwardChain {
            family: chain.family,
            table: chain.table.clone(),
            chain: chain.chain.clone(),
            drops: true,
        };
        let accepted = rules::accepted(socket, &chain)?;
        let lets = |direction| {
            accepted
                .iter()
                .any(|accept| accept.direction == direction && accept.subnet.contains(&address))
        };
        if Direction::ALL.into_iter().all(lets) {
            return Ok(Passage::Opened);
        }
        rules::any(socket, &chain).map(decided_by_rules)
    }
}
