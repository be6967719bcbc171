//! The agent and one node's kernel: whatever of its objects others delete, change or add to, object by object and in
//! bulk, is put right, also when the agent was away; and what is not the agent's stays.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bulk;
mod cleanup;
mod cni;
mod device;
mod install_cni;
mod objects;
mod offload;
mod pods;
mod readiness;
mod restart;
mod settings;
mod stage;
mod underlay;
