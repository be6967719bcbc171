//! The commands in the pages of the documentation: each is run, on a node of the lab or against a real API server; and the
//! list that says which test runs which is held against the pages.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod controllers;
#[path = "../common/helm.rs"]
mod helm;
mod host;
mod install;
mod kubelet;
mod list;
mod moves;
mod node;
#[path = "../common/pages.rs"]
mod pages;
mod world;
