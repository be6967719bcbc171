//! From cluster facts and host facts to the wanted kernel objects; pure and incremental.
//!
//! [`Planner`] takes [`ClusterEvent`](routelet_model::ClusterEvent)s and the [`Host`](routelet_model::Host)
//! and answers each with the wanted objects that changed. It does no I/O and keeps no clock: the same
//! cluster and the same host give the same wanted objects, in whatever order their parts were told.
//!
//! How it works: what may be held by one only (a pod subnet, a tunnel address, a VTEP MAC, a pod address)
//! is *claimed*, and a contest ranks who claims it. Wanted objects are not stored. They follow from the
//! facts; an event names those whose objects it may touch, and the difference between their objects before
//! and after it is the answer. So an event costs what it touches, and a node costs little memory.
//!
//! One thing has a memory on purpose: facts of this node that vanish (see `own.rs`).

mod claims;
mod contest;
mod flannel;
mod missing;
mod nft;
mod overlay;
mod own;
mod peers;
mod plan;
mod planner;
mod pods;
mod refusal;
mod settings;
mod underlay;
mod underlay_rule;
mod view;
mod vtep;
mod wanted;
mod way;

pub use missing::Missing;
pub use overlay::{OverlayChange, OverlayEnd};
pub use own::{NoPodNetwork, PodNetwork};
pub use plan::{Notice, Plan};
pub use planner::Planner;
pub use refusal::{Reason, Refusal};
pub use settings::{NftSettings, Settings, VxlanSettings};
pub use underlay_rule::{LinkPattern, UnderlayRule};
pub use view::{OwnNetwork, OwnUnderlay, PeerNetwork, PeerView, PodAddress, PodView};
pub use way::{Encapsulation, Way};
