//! Node and Pod objects as a cluster really has them, small or at full size.

mod node;
mod pod;

pub use node::{NodeBuilder, node};
pub use pod::{PodBuilder, pod};

pub(crate) use node::beat;
