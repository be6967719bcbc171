//! Rules and chains of others that stand in the way of VXLAN: rules that drop its UDP port, as far as they name it plainly,
//! and chains that drop by policy what the host receives or sends.

use super::chains::{self, BaseChain};
use super::port::{self, Drops};
use super::rules::{NFT_MSG_GETRULE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE};
use super::{ChainFamily, DroppingChain, Firewall, Forwarding, NFTABLES};
use crate::attributes::Attributes;
use crate::nfnl::{HEADER, NfMessage};
use crate::{Error, Socket};

/// A chain of nftables that stands in the tunnel's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Against {
    /// The chain.
    pub chain: DroppingChain,
    /// Whether it is sure that it drops the tunnel's packets: a rule drops all of the port, in a chain at a hook, or a chain
    /// drops by policy and has no rules. Else other rules, or what else the rule asks for, decide.
    pub sure: bool,
    /// Whether it is a rule that drops the port; else the chain's policy.
    pub by_rule: bool,
}

impl Forwarding {
    /// The chains, of tables other than `own`, that stand in the way of packets to a UDP port of this host or from it. Of
    /// iptables-legacy nothing is known.
    pub fn against_port(&mut self, port: u16, own: &str) -> Result<Vec<Against>, Error> {
        let Some((socket, _)) = &mut self.nftables else {
            return Ok(Vec::new());
        };
        let bases = chains::base_chains(socket)?;
        let rules = rules(socket, port)?;
        let mut found = Vec::new();
        for rule in rules.iter().filter(|rule| rule.table != own) {
            let base = bases.iter().find(|base| rule.is_in(base));
            if base.is_some_and(|base| base.dormant) {
                continue;
            }
            if let Some(drops) = rule.drops {
                found.push(Against {
                    chain: rule.chain(),
                    sure: drops == Drops::All && base.is_some_and(BaseChain::is_passed_by_own),
                    by_rule: true,
                });
            }
        }
        for base in bases.into_iter().filter(|base| base.table != own) {
            if base.drops && !base.dormant && base.is_passed_by_own() {
                let sure = !rules.iter().any(|rule| rule.is_in(&base));
                found.push(Against {
                    chain: base.into_dropping(),
                    sure,
                    by_rule: false,
                });
            }
        }
        Ok(found)
    }
}

/// A rule.
struct Rule {
    family: ChainFamily,
    table: String,
    chain: String,
    /// What it drops of the port's packets, if it does.
    drops: Option<Drops>,
}

impl Rule {
    fn is_in(&self, base: &BaseChain) -> bool {
        (self.family, &self.table, &self.chain) == (base.family, &base.table, &base.chain)
    }

    fn chain(&self) -> DroppingChain {
        DroppingChain {
            firewall: Firewall::Nftables,
            family: self.family,
            table: self.table.clone(),
            chain: self.chain.clone(),
        }
    }
}

fn rules(socket: &mut Socket, port: u16) -> Result<Vec<Rule>, Error> {
    let mut found = Vec::new();
    let request = NfMessage::new(NFTABLES, NFT_MSG_GETRULE, 0);
    match socket.dump(&request, &mut found, |_, payload| read(payload, port)) {
        // A kernel without nf_tables.
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        result => result.map(|()| found),
    }
}

fn read(payload: &[u8], number: u16) -> Result<Option<Rule>, Error> {
    let attributes = Attributes::after(payload, HEADER)?;
    let Some(family) = ChainFamily::of_number(payload[0]) else {
        return Ok(None);
    };
    let (mut table, mut chain, mut drops) = ("", "", None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_RULE_TABLE => table = attribute.text(),
            NFTA_RULE_CHAIN => chain = attribute.text(),
            NFTA_RULE_EXPRESSIONS => drops = port::read(attribute.nested(), number)?,
            _ => {}
        }
    }
    Ok(Some(Rule {
        family,
        table: table.to_owned(),
        chain: chain.to_owned(),
        drops,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read(payload in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = read(&payload, 4789);
        }
    }
}
