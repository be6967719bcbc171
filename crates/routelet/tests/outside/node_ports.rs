//! Services: the real kube-proxy on a node, on the real kube-apiserver, beside the agent.

use std::net::SocketAddr;
use std::process::Command;

use routelet_lab::process::Process;
use routelet_lab::{Backend, KubeApi, apiserver, skip};
use routelet_model::tunnel_address;
use serde_json::json;

use crate::support::{World, reach, serve};

const PORT: u16 = 8080;
const NODE_PORT: u16 = 30080;
const CLUSTER_IP: &str = "10.96.0.80";
const CLUSTER_PORT: u16 = 80;

#[test]
fn node_ports_and_cluster_addresses_of_kube_proxy_lead_to_a_pod_of_another_node() {
    let program = match apiserver::assets() {
        Ok(directory) => directory.join("kube-proxy"),
        Err(error) => skip!("{error:#}"),
    };
    if !program.is_file() {
        skip!("{} is not there", program.display());
    }
    if Command::new("iptables").arg("--version").output().is_err() {
        skip!("iptables is not installed");
    }
    let mut world = World::new(Backend::KubeApiserver);
    let pod = world.pod_address(1);
    let KubeApi::Real(server) = world.cluster.api() else {
        panic!("a real server was asked for")
    };
    let metadata = json!({ "name": "web", "namespace": "default" });
    let ports =
        json!([{ "port": CLUSTER_PORT, "protocol": "TCP", "targetPort": PORT, "nodePort": NODE_PORT }]);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": { "type": "NodePort", "clusterIP": CLUSTER_IP, "ports": ports },
    });
    let path = "/api/v1/namespaces/default/services";
    server.request("POST", path, Some(&service)).unwrap();
    let endpoints = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata,
        "subsets": [{ "addresses": [{ "ip": pod }], "ports": [{ "port": PORT }] }],
    });
    let path = "/api/v1/namespaces/default/endpoints";
    server.request("POST", path, Some(&endpoints)).unwrap();

    let mut command = Command::new(program);
    command.arg("--kubeconfig").arg(server.admin_kubeconfig()).args([
        "--hostname-override=node-1",
        "--proxy-mode=iptables",
        "--cluster-cidr=10.244.0.0/16",
        // Nobody makes slices of endpoints here.
        "--feature-gates=EndpointSliceProxying=false",
        // These limits are the machine's.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]);
    let _proxy = Process::start("kube-proxy", world.node(0), command).unwrap();

    serve(world.pods[1].netns(), PORT);
    let cluster_address = SocketAddr::new(CLUSTER_IP.parse().unwrap(), CLUSTER_PORT);
    let seen = reach(world.pods[0].netns(), cluster_address);
    assert_eq!(seen, world.pod_address(0), "a pod keeps its address");
    let node_port = SocketAddr::new(world.node_address(0), NODE_PORT);
    let tunnel = tunnel_address(world.cluster.nodes()[0].subnet);
    assert_eq!(
        reach(world.lan(), node_port),
        tunnel,
        "the node that was called masquerades, so that the reply comes back through it"
    );
    assert_eq!(reach(world.node(0), cluster_address), tunnel, "the node itself");
}
