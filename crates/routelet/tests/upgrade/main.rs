//! From one version of the agent to the next, and back: pods do not notice, nodes of both versions understand each other,
//! and what an earlier agent has left in the kernel is taken over as it is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod layout;
mod rolling;
mod settings;
mod support;
