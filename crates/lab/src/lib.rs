//! Test kit and demo: nodes and pods as network namespaces, an in-memory Kubernetes API, a fake kernel.

mod agent;
pub mod api;
pub mod api_machinery;
pub mod apiserver;
pub mod capture;
mod cluster;
mod cni;
pub mod http;
mod kernel_view;
pub mod ping;
pub mod privilege;
pub mod process;
pub mod skip;
mod temp;
mod topology;
pub mod wait;

pub use agent::Agent;
pub use apiserver::ApiServer;
pub use capture::{Capture, Packet};
pub use cluster::{Backend, Cluster, ClusterNode, KubeApi, agent_rules};
pub use kernel_view::KernelView;
pub use ping::{Ping, PingReport, Pinger, ping};
pub use temp::TempDir;
pub use topology::{Lab, Node, Pod};
