//! A real container runtime on two nodes: containerd, asked as the kubelet asks it, calls the plugin.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chart;
mod containerd;
mod cri;
#[path = "../common/helm.rs"]
mod helm;
mod image;
mod installed;
mod message;
#[path = "../common/pages.rs"]
mod pages;
mod pods;
mod status;
