//! Nodes that run another network beside nodes with the agent, their tables written by the `ip` and `bridge` programs as
//! Calico and flannel write them, and known to the agent by their annotations alone; and the move from one to the other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod documented;
mod moving;
mod network;
#[path = "../common/pages.rs"]
mod pages;
mod peers;
mod pod;
mod stage;
