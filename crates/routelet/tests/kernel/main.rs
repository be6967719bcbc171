//! The agent and one node's kernel: whatever of its objects others delete, change or add to, object by object and in
//! bulk, is put right, also when the agent was away; and what is not the agent's stays.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bulk;
mod cleanup;
mod cni;
mod device;
mod diff;
mod install_cni;
mod log_level;
mod objects;
mod offload;
mod operations;
#[path = "../common/pages.rs"]
mod pages;
mod pods;
#[path = "../common/program.rs"]
mod program;
mod readiness;
mod restart;
mod settings;
mod stage;
mod state;
mod status;
mod sweep;
mod underlay;
