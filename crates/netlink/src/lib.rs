//! The only crate that speaks netlink: sockets, batches, dumps, notifications, namespaces, sysctls.
//!
//! Other crates see [`Kernel`], which carries out operations on the objects of `routelet-model`, dumps them, and
//! tells what changes; [`Socket`] is for the odd request beside it.

mod attributes;
mod batch;
mod error;
mod extack;
mod frame;
mod netns;
mod setup;
mod socket;

pub use error::Error;
pub use netns::Netns;
pub use setup::{LinkState, RouteSpec, Setup, VethEnd};
pub use socket::Socket;
