//! What the cluster says, and what the kernel makes of it: on the API that ROUTELET_LAB_API names, the in-memory one or
//! a real kube-apiserver. A test of what no real API server lets pass says so, and runs on the in-memory one alone.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics where it fails; clippy allows this by itself only inside the test functions"
)]

mod nodes;
mod own;
mod pods;
mod refused;
#[path = "../common/api.rs"]
mod support;
