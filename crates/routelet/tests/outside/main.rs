//! What is outside the cluster and its pods: a machine on the nodes' LAN, the nodes themselves, and the Services and
//! host ports that others' programs make of pods.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host_ports;
mod node_ports;
mod replies;
mod support;
