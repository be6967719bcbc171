//! The agent beside netfilter: what connection tracking remembers of pods' addresses, and hosts that drop what they
//! forward. The firewalls here are written by the programs that administrators use: nft, iptables-nft and
//! iptables-legacy.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent_flows;
mod agent_forward;
mod chains;
mod flows;
#[path = "../common/pages.rs"]
mod pages;
mod support;
