//! Host ports: the portmap plugin behind ours in one list, called as a runtime calls them.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use routelet_lab::api::objects;
use routelet_lab::process::built_program;
use routelet_lab::{Backend, TempDir, skip};
use routelet_netlink::Netns;
use serde_json::{Value, json};

use crate::support::{World, call, reach, serve, set};

const PLUGINS: &str = "/usr/lib/cni";
const PORT: u16 = 8080;
const HOST_PORT: u16 = 18080;

/// Calls one plugin on the first node for the pod; returns its answer.
fn plugin(world: &World, program: &Path, verb: &str, pod: &Netns, config: &Value) -> Value {
    let directory = TempDir::new().unwrap();
    let stdin = directory.write("stdin", config.to_string()).unwrap();
    let mut command = Command::new(program);
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", "id-of-web")
        .env("CNI_NETNS", pod.path())
        .env("CNI_IFNAME", "eth0")
        .env(
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
        )
        .env("CNI_PATH", PLUGINS)
        .stdin(File::open(stdin).unwrap());
    let output = world.node(0).run(|| command.output().unwrap()).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{verb} of {}: {text}", program.display());
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
fn a_host_port_of_the_portmap_plugin_leads_to_the_pod_and_goes_with_it() {
    for file in ["host-local", "portmap"].map(|name| Path::new(PLUGINS).join(name)) {
        if !file.is_file() {
            skip!("{} is not there", file.display());
        }
    }
    if Command::new("iptables").arg("--version").output().is_err() {
        skip!("iptables is not installed");
    }
    let mut world = World::new(Backend::Memory);
    let leases = TempDir::new().unwrap();
    let range = json!({"subnet": world.cluster.nodes()[0].subnet, "rangeStart": "10.244.1.100"});
    let ours = built_program("routelet-cni", "ROUTELET_CNI_BIN").unwrap();
    let portmap = Path::new(PLUGINS).join("portmap");
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "routelet-cni",
        "mtu": 1450,
        "ipam": {"type": "host-local", "dataDir": leases.path(), "ranges": [[range]]},
    });
    let mut mapping = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "portmap",
        "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": [{"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}]},
    });

    let pod = Netns::new().unwrap();
    let result = plugin(&world, &ours, "ADD", &pod, &config);
    mapping["prevResult"] = result;
    let result = plugin(&world, &portmap, "ADD", &pod, &mapping);
    assert_eq!(result["ips"][0]["address"], "10.244.1.100/32", "{result}");
    let object = objects::pod("default", "web").node("node-1");
    let address: std::net::IpAddr = "10.244.1.100".parse().unwrap();
    let object = object.ips([address]).phase("Running").build();
    world.cluster.api().apply(&object).unwrap();

    serve(&pod, PORT);
    let host_port = SocketAddr::new(world.node_address(0), HOST_PORT);
    let lan = world.lan().clone();
    let lan_address = world.cluster.lab().address(routelet_model::Family::V4);
    assert_eq!(reach(&lan, host_port), lan_address, "from outside");
    assert_eq!(
        reach(world.node(1), host_port),
        world.node_address(1),
        "from another node"
    );
    // A pod's packet to a node comes over the LAN, and the reply, once its address is the pod's, takes the tunnel: on
    // both nodes another way than the filter expects.
    let other = world.pods[1].netns();
    assert!(call(other, host_port).is_err(), "the filter is strict");
    (0..2).for_each(|index| set(world.node(index), "ipv4/conf/all/rp_filter", "2"));
    assert_eq!(
        reach(other, host_port),
        world.pod_address(1),
        "from another node's pod"
    );

    plugin(&world, &portmap, "DEL", &pod, &mapping);
    plugin(&world, &ours, "DEL", &pod, &config);
    assert!(call(&lan, host_port).is_err());
}
