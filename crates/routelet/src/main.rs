//! routelet: a node-local routing daemon for Kubernetes.

fn main() {}
