//! Test kit and demo: nodes and pods as network namespaces, an in-memory Kubernetes API, a fake kernel.

pub mod api;
