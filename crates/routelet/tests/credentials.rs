//! How the agent finds the API and proves who it is: the service account of its pod, or a kubeconfig, and another address
//! of the API where the one that these name is out of reach.
//!
//! On the real kube-apiserver: what a pod is given leads to one over TLS, with a token.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use routelet_lab::process::{Process, built_program};
use routelet_lab::{Backend, Cluster, KernelView, KubeApi, TempDir, apiserver, http, skip, wait};
use routelet_netlink::setup::RouteSpec;
use serde_json::Value;

/// An address that Kubernetes gives to its API, and that leads nowhere before kube-proxy is up.
const SERVICE: &str = "10.96.0.1";
/// Where the agent answers.
const ADMIN: &str = "127.0.0.1:9099";

/// Runs a program as a pod does, with the files of its service account in their place: in mounts of its own, so that
/// nothing of it is seen outside.
const IN_A_POD: &str = "\
    account=/var/run/secrets/kubernetes.io/serviceaccount
    mount -t tmpfs none /var/run && mkdir -p $account && cp -r \"$1\"/. $account && shift && exec \"$@\"";

/// A cluster on the real kube-apiserver: node-1 has no agent, each agent that is started gets a node of its own.
struct Stage {
    cluster: Cluster,
    /// token, ca.crt and namespace, as kubelet puts them into each pod.
    account: TempDir,
    api: (IpAddr, u16),
}

impl Stage {
    fn new() -> Self {
        let mut cluster = Cluster::new(Backend::KubeApiserver).unwrap();
        let KubeApi::Real(server) = cluster.api() else {
            unreachable!()
        };
        let api = (server.address().ip(), server.address().port());
        cluster.add_node().unwrap();
        let kubeconfig = kubeconfig(&cluster);
        let text = |pointer: &str| kubeconfig.pointer(pointer).unwrap().as_str().unwrap();
        let account = TempDir::new().unwrap();
        account.write("token", text("/users/0/user/token")).unwrap();
        let ca = std::fs::read(text("/clusters/0/cluster/certificate-authority")).unwrap();
        account.write("ca.crt", ca).unwrap();
        account.write("namespace", "kube-system").unwrap();
        Self {
            cluster,
            account,
            api,
        }
    }

    /// Starts an agent on a new node, in a pod; it has no variables but these.
    fn start(&mut self, variables: &[(&str, &str)], arguments: &[&str]) -> Started {
        let index = self.cluster.add_node().unwrap();
        let node = &self.cluster.nodes()[index].node;
        // So that it is out of reach at once, whatever this machine does with packets to it.
        let service = format!("{SERVICE}/32").parse().unwrap();
        node.setup()
            .unwrap()
            .add_route(RouteSpec::blackhole(service))
            .unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", IN_A_POD, "sh"]);
        command.arg(self.account.path());
        command.arg(built_program("routelet", "ROUTELET_BIN").unwrap());
        command.args(["run", "--node-name", node.name(), "--admin-address", ADMIN]);
        command.args(arguments);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", path)
            .envs(variables.iter().copied());
        let process = Process::start("the agent in a pod", node.netns(), command).unwrap();
        Started { index, process }
    }

    fn get(&self, agent: &Started, path: &str) -> Option<http::Response> {
        let netns = self.cluster.nodes()[agent.index].node.netns();
        http::get(netns, ADMIN.parse().unwrap(), path).ok()
    }

    /// Waits until the agent has read the API: it is ready, and its kernel has the route to node-1's pods.
    fn expect_ready(&self, mut agent: Started) {
        let what = "the agent to be ready";
        wait::until(wait::LONG, what, || {
            assert!(agent.process.is_running(), "the agent has ended");
            self.get(&agent, "/readyz")
                .is_some_and(|answer| answer.status == 200)
        })
        .unwrap();
        let view = KernelView::of(self.cluster.nodes()[agent.index].node.netns()).unwrap();
        let subnet = self.cluster.nodes()[0].subnet;
        assert!(view.route(subnet).is_some(), "no route to {subnet} in\n{view}");
    }

    /// The API's host and port, as text.
    fn address(&self) -> (String, String) {
        (self.api.0.to_string(), self.api.1.to_string())
    }
}

/// An agent, on the node of this index.
struct Started {
    index: usize,
    process: Process,
}

/// The kubeconfig that the lab gives to agents. JSON is YAML too.
fn kubeconfig(cluster: &Cluster) -> Value {
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The same, naming the service address in place of the API's own.
fn kubeconfig_of_service(stage: &Stage) -> std::path::PathBuf {
    let mut kubeconfig = kubeconfig(&stage.cluster);
    kubeconfig["clusters"][0]["cluster"]["server"] = format!("https://{SERVICE}:443").into();
    stage
        .account
        .write("service.kubeconfig", kubeconfig.to_string())
        .unwrap()
}

#[test]
fn a_pods_service_account_and_the_override_of_the_apis_address() {
    if let Err(reason) = apiserver::assets() {
        skip!("{reason}");
    }
    let mut stage = Stage::new();
    let (host, port) = stage.address();
    let (host, port) = (host.as_str(), port.as_str());
    let overridden = ["--api-server-host", host, "--api-server-port", port];
    let service = |host, port| {
        [
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT", port),
        ]
    };

    // As in every pod.
    let agent = stage.start(&service(host, port), &[]);
    stage.expect_ready(agent);

    // Out of reach, and nothing in its place: so the others are not ready by some other road.
    let agent = stage.start(&service(SERVICE, "443"), &[]);
    agent
        .process
        .wait_log("lost the watch; the node stays as it is", wait::LONG)
        .unwrap();
    assert_eq!(stage.get(&agent, "/readyz").unwrap().status, 503);

    let agent = stage.start(&service(SERVICE, "443"), &overridden);
    stage.expect_ready(agent);

    // Host only, by its variable; the port is the service's.
    let [host_variable, port_variable] = service(SERVICE, port);
    let variables = [host_variable, port_variable, ("ROUTELET_API_SERVER_HOST", host)];
    let agent = stage.start(&variables, &[]);
    stage.expect_ready(agent);

    let path = kubeconfig_of_service(&stage);
    let arguments = [&["--kubeconfig", text(&path)], &overridden[..]].concat();
    let agent = stage.start(&[], &arguments);
    stage.expect_ready(agent);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
