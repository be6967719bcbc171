//! `routelet trace` on real kernels: whole ways, and ways that are broken at one hop.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod breaks;
mod docs;
mod ends;
#[path = "../common/pages.rs"]
mod pages;
mod stage;
mod tunnel_breaks;
mod whole;
