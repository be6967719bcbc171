//! The Helm chart: what it renders, what it refuses, and that a real API server takes it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod condition;
#[path = "../common/helm.rs"]
mod helm;
mod install;
#[path = "../common/pages.rs"]
mod pages;
mod render;
mod security;
mod test_hook;
