//! The only crate that speaks netlink: sockets, batches, dumps, notifications, namespaces, sysctls.
//!
//! Other crates see [`Kernel`], which carries out operations on the objects of `routelet-model`, dumps them, and
//! tells what changes; [`Socket`] is for the odd request beside it.

mod address;
mod apply;
mod attributes;
mod batch;
mod conntrack;
mod directories;
mod dump;
mod dump_answer;
pub mod echo;
mod error;
pub mod ethtool;
mod extack;
pub mod fib;
mod filter;
mod flusher;
pub mod forward;
mod frame;
mod hints;
mod host;
pub mod inspect;
mod ipip;
mod kernel;
mod link;
mod link_state;
mod links;
mod monitor;
mod neighbour;
mod neighbour_table;
pub mod netns;
mod nexthop;
mod nfnl;
mod nft;
mod onlink;
mod release;
mod rivals;
mod route;
pub mod setup;
mod socket;
pub mod sysctl;
mod veth;
mod view;

pub use apply::{Failure, Operation, Verb};
pub use conntrack::flush_flows;
pub use directories::DirectoryWatch;
pub use error::Error;
pub use ethtool::Ethtool;
pub use flusher::Flushed;
pub use hints::Hint;
pub use ipip::knows_link_kind;
pub use kernel::{Config, Features, Kernel};
pub use neighbour_table::NeighbourTable;
pub use netns::Netns;
pub use setup::Setup;
pub use socket::Socket;
