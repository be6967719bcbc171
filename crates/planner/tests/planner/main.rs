//! What the planner wants, by table and by property, through its public face.

#![expect(
    clippy::unwrap_used,
    reason = "the makers of facts panic where a test is wrong"
)]

mod flannel;
mod modes;
mod nft;
mod overlay;
mod own;
mod peers;
mod pods;
mod properties;
mod support;
mod underlay;
mod views;
