//! The plugin as a container runtime meets it: the real program, in namespaces, with the real host-local.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attachments;
mod gc;
mod ipam;
mod killed;
mod network;
mod runtime;
mod status;
mod verbs;
