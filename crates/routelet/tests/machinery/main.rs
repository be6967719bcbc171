//! Agents, and the chart's admission policy, on an API server of Kubernetes' own packages: streaming lists, watches that
//! expire, and admission are those of the real code here. `crates/lab/apiserver` has the server.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics where it fails; clippy allows this by itself only inside the test functions"
)]

mod condition;
mod fence;
#[path = "../common/helm.rs"]
mod helm;
mod lists;
mod policy;
#[path = "../common/api.rs"]
mod support;

use routelet_lab::{ApiServer, Cluster, KubeApi};

/// The API server of a cluster on the API machinery.
fn server(cluster: &mut Cluster) -> &mut ApiServer {
    match cluster.api() {
        KubeApi::Real(server) => server,
        KubeApi::Memory(..) => unreachable!(),
    }
}
