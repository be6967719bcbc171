//! What may leave a pod and how, what may enter by the tunnel, and whose address it then has: masquerade, spoofing,
//! injection. In both families, with real agents on two nodes, and a machine outside of the cluster.
//!
//! That a packet does not arrive is seen by another one, sent after it on the same way, that arrives first.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod beside;
mod injection;
mod masquerade;
mod packets;
mod spoofing;
mod stage;
