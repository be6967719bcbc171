//! Chains that drop by policy what the host forwards, as Docker sets them up: found, and opened for pod subnets.
//!
//! Found without any program, in nftables (which holds what iptables-nft writes, too) and in the tables of
//! iptables-legacy. Opened only in nftables, by rules that carry our mark.

mod chains;
mod expressions;
mod legacy;
mod passage;
mod port;
mod rules;
mod tunnel;

use std::fmt;

use ipnet::IpNet;
use routelet_model::Family;

use crate::frame::Frames;
use crate::monitor::{Monitor, Received};
use crate::{Error, Socket};
use chains::ForwardChain;

pub use passage::Passage;
pub use tunnel::Against;

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;

/// Receive buffer of the socket that hears of rules and chains, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A base chain at the forward hook whose policy is to drop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DroppingChain {
    /// Where it is.
    pub firewall: Firewall,
    /// Whose packets pass through it.
    pub family: ChainFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

/// The kernel's two packet filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firewall {
    /// nf_tables: what nft, iptables-nft and firewalld write.
    Nftables,
    /// The older tables, which iptables-legacy writes.
    IptablesLegacy,
}

/// The families of tables whose chains see IP packets that are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Firewall {
    /// Both of them.
    pub const ALL: [Firewall; 2] = [Firewall::Nftables, Firewall::IptablesLegacy];

    /// Whether [`Forwarding::open_for`] opens its chains.
    pub fn is_opened_by_us(self) -> bool {
        self == Self::Nftables
    }

    /// The word for it in logs, metrics and docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }
}

impl ChainFamily {
    /// Whether packets of the family pass through.
    pub fn sees(self, family: Family) -> bool {
        match self {
            Self::Ip => family == Family::V4,
            Self::Ip6 => family == Family::V6,
            Self::Inet => true,
        }
    }

    /// As nft says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }

    /// The kernel's number (`NFPROTO_…`).
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    fn of_number(number: u8) -> Option<Self> {
        [Self::Ip, Self::Ip6, Self::Inet]
            .into_iter()
            .find(|family| family.number() == number)
    }
}

/// As `nftables chain ip filter FORWARD`.
impl fmt::Display for DroppingChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (firewall, family) = (self.firewall.as_str(), self.family.as_str());
        write!(f, "{firewall} chain {family} {} {}", self.table, self.chain)
    }
}

/// What became of one chain's rules of ours.
#[derive(Debug)]
pub struct Opening {
    /// A chain of nftables that drops by policy or held rules of ours.
    pub chain: DroppingChain,
    /// How many rules were added.
    pub added: usize,
    /// How many rules were removed.
    pub removed: usize,
    /// Why the rules are not as they should be; the kernel refused it, and the chain is as it was.
    pub failed: Option<Error>,
}

/// The forward hook of the network namespace in which this was opened.
#[derive(Debug)]
pub struct Forwarding {
    /// `None` where the kernel has no netfilter.
    nftables: Option<(Socket, Monitor)>,
}

impl Forwarding {
    /// Opens the sockets in the network namespace of the calling thread. The tables of iptables-legacy are those of
    /// the thread that uses it: keep it on a thread of the same namespace.
    pub fn open() -> Result<Self, Error> {
        let socket = match Socket::open_netfilter() {
            Err(error) if error.errno() == Some(libc::EPROTONOSUPPORT) => return Ok(Self { nftables: None }),
            result => result?,
        };
        let monitor = Monitor::open_nft(RECEIVE_BUFFER, socket.port())?;
        Ok(Self {
            nftables: Some((socket, monitor)),
        })
    }

    /// All chains that drop by policy what is forwarded, in order.
    pub fn dropping(&mut self) -> Result<Vec<DroppingChain>, Error> {
        let mut found = legacy::dropping()?;
        if let Some((socket, _)) = &mut self.nftables {
            let chains = chains::forward_chains(socket)?;
            found.extend(
                chains
                    .into_iter()
                    .filter(|chain| chain.drops)
                    .map(ForwardChain::into_dropping),
            );
        }
        found.sort();
        Ok(found)
    }

    /// Makes the rules that carry our mark what they should be: at the head of each chain of nftables that drops by
    /// policy, packets from and to the subnets are accepted; elsewhere, and of other subnets, there are none. Tells of
    /// the chains that were changed or should have been, each by itself; writes nothing where all is right.
    pub fn open_for(&mut self, subnets: &[IpNet]) -> Result<Vec<Opening>, Error> {
        let Some((socket, _)) = &mut self.nftables else {
            return Ok(Vec::new());
        };
        let mut openings = Vec::new();
        for chain in chains::forward_chains(socket)? {
            let outcome = rules::bring_about(socket, &chain, subnets);
            let (added, removed, failed) = match outcome {
                Ok((0, 0)) => continue,
                Ok((added, removed)) => (added, removed, None),
                Err(error) => (0, 0, Some(error)),
            };
            openings.push(Opening {
                chain: chain.into_dropping(),
                added,
                removed,
                failed,
            });
        }
        Ok(openings)
    }

    /// Whether someone else has since the last call changed a chain at the forward hook, a table, or a rule that
    /// carries our mark; also where notifications were lost. The tables of iptables-legacy change without a word.
    pub fn changed(&mut self) -> bool {
        let Some((_, monitor)) = &mut self.nftables else {
            return false;
        };
        let mut changed = false;
        loop {
            match monitor.receive() {
                Received::Nothing => return changed,
                Received::Lost => changed = true,
                Received::Datagram(datagram) => {
                    changed |= Frames::new(datagram).any(|frame| {
                        frame.is_ok_and(|frame| chains::concerns(&frame) || rules::concerns(&frame))
                    });
                }
            }
        }
    }

    /// Waits until there is something for [`Forwarding::changed`] to read. Must be called within a tokio runtime with
    /// I/O, always the same one. May be dropped at any time.
    pub async fn ready(&mut self) {
        let waited = match &mut self.nftables {
            Some((_, monitor)) => monitor.ready().await,
            None => std::future::pending().await,
        };
        if let Err(error) = waited {
            tracing::error!(%error, "waiting for changes of nftables is impossible: they are only found by the periodic audit");
            std::future::pending::<()>().await;
        }
    }
}
