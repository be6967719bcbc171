//! The commands for a node, and for a machine outside.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use routelet_lab::{Backend, Cluster, Ping, Pod, http, skip, wait};
use routelet_model::Family;
use routelet_netlink::Netns;

use crate::host::Host;
use crate::pages::{ROOT, Script};

/// Ends a test where a program is missing.
macro_rules! need {
    ($($program:literal)+) => {
        for program in [$($program),+] {
            if Command::new(program).arg("--version").output().is_err() {
                skip!("{program} is not installed");
            }
        }
    };
}

/// Two nodes with agents, pods a and b on the first, c on the second.
struct Pair {
    cluster: Cluster,
    pods: [Pod; 3],
    host: Host,
}

impl Pair {
    /// The first node's agent installs the CNI plugin, as the chart has it do.
    fn new() -> Self {
        let mut cluster = Cluster::new(Backend::Memory).unwrap();
        for index in 0..2 {
            cluster.add_unregistered_node().unwrap();
            let object = cluster.node_object_of(index, &Family::ALL, &Family::ALL);
            cluster.api().apply(&object.build()).unwrap();
        }
        let host = Host::new(cluster.nodes()[0].node.netns());
        let at = |flag: &str, directory: &str| format!("{flag}={}", host.file(directory).display());
        let arguments = [
            "--install-cni=true".to_owned(),
            at("--cni-bin-dir", "opt/cni/bin"),
            at("--cni-conf-dir", "etc/cni/net.d"),
            at("--cni-lease-dir", "var/lib/cni/networks"),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        cluster.start_agent(0, &arguments).unwrap();
        cluster.start_agent(1, &[]).unwrap();
        host.link(
            "run/routelet",
            cluster.node(0).agent().unwrap().socket().parent().unwrap(),
        );
        cluster.wait_ready().unwrap();
        let pods = [(0, "a", 2), (0, "b", 3), (1, "c", 2)];
        let pods =
            pods.map(|(node, name, number)| cluster.add_pod_of(node, name, number, &Family::ALL).unwrap());
        for (index, count) in [(0, 2.0), (1, 1.0)] {
            let agent = cluster.node(index).agent().unwrap();
            wait::until(wait::LONG, "the agents to know the pods", || {
                agent.metric("routelet_pods").unwrap() == count
            })
            .unwrap();
        }
        let pair = Self { cluster, pods, host };
        for to in &pair.pods[1..] {
            for family in Family::ALL {
                let to = to.address(family).unwrap();
                wait::until(wait::LONG, "pods to reach each other", || {
                    reaches(pair.pods[0].netns(), to)
                })
                .unwrap();
            }
        }
        pair
    }
}

fn reaches(from: &Netns, to: IpAddr) -> bool {
    let ping = Ping::to(to).patience(Duration::from_millis(200));
    ping.run(from).unwrap().received() == 1
}

/// What each command is to show, among other things.
const SHOWN: &[(&str, &[&str])] = &[
    (
        "routelet status",
        &["ready, in sync; version", "node-2", "default/b"],
    ),
    ("routelet log-level debug", &["debug (until "]),
    ("routelet log-level --reset", &["info\n"]),
    (
        "routelet trace default/a default/c",
        &["10.244.2.2", "fd00:244:2::2", "FDB entry"],
    ),
    ("routelet trace 10.244.1.2 10.244.1.3", &["other host veth"]),
    (
        "routelet trace default/a 172.30.0.1 --output json",
        &["\"whole\"", "\"masquerade\""],
    ),
    (
        "ip route show proto 80",
        &["10.244.2.0/24 nhid", "10.244.1.2 dev cali"],
    ),
    (
        "ip -6 route show proto 80",
        &["fd00:244:2::/64 nhid", "fd00:244:1::2 dev cali"],
    ),
    ("ip nexthop show proto 80", &["via 10.244.2.0 dev vxlan.calico"]),
    ("ip neighbour show dev vxlan.calico", &["10.244.2.0 lladdr"]),
    (
        "bridge fdb show dev vxlan.calico",
        &["dst 172.30.0.3 self permanent"],
    ),
    (
        "ip -details link show dev vxlan.calico",
        &["vxlan id 4096 local 172.30.0.2 dev eth0", "dstport 4789"],
    ),
    ("ip -details link show type veth", &["default/a", "default/b"]),
    ("nft list table inet routelet", &["masquerade", "172.30.0.3"]),
    ("ip link show type veth", &["mtu 1430", "cali"]),
    ("ip link show dev vxlan.calico", &["mtu 1450"]),
    ("ip link show dev eth0", &["mtu 1500"]),
    (
        "ls /etc/cni/net.d /opt/cni/bin",
        &["10-routelet.conflist", "routelet-cni"],
    ),
    ("ethtool -k vxlan.calico", &["tx-checksumming: o"]),
];

#[test]
fn a_node_is_looked_at_as_the_pages_say() {
    need!("ip" "bridge" "nft" "ethtool");
    let mut script = Script::of("pages/node.rs: a_node_is_looked_at_as_the_pages_say");
    let pair = Pair::new();
    let mut commands = script.rest_of("docs/troubleshooting.md");
    commands.extend(script.rest_of("docs/modes.md"));
    for command in commands {
        let told = pair.host.run(&command.text);
        match SHOWN.iter().find(|(text, _)| *text == command.text) {
            Some((_, parts)) => {
                for part in *parts {
                    assert!(
                        told.contains(part),
                        "{part:?} is not in {}:\n{told}",
                        command.place()
                    );
                }
            }
            // Where nothing differs, there is nothing to tell.
            None => assert_eq!((command.text.as_str(), told.as_str()), ("routelet diff", "")),
        }
    }
}

#[test]
fn tunnel_packets_are_seen() {
    need!("tcpdump");
    let mut script = Script::of("pages/node.rs: tunnel_packets_are_seen");
    let command = script.take("tcpdump").text;
    let pair = Pair::new();
    let other = Host::new(pair.cluster.nodes()[1].node.netns());
    let captures = [&pair.host, &other].map(|host| host.start(&command, &[]));
    for capture in &captures {
        capture.wait_log("listening on eth0", wait::LONG).unwrap();
    }
    // Into a pipe it writes once it has enough to tell.
    let c = pair.pods[2].address(Family::V4).unwrap();
    let pings = Ping::to(c).count(200).interval(Duration::from_millis(1));
    assert_eq!(pings.run(pair.pods[0].netns()).unwrap().received(), 200);
    for capture in &captures {
        capture
            .wait_log("10.244.1.2 > 10.244.2.2: ICMP echo request", wait::LONG)
            .unwrap();
        let log = capture.log();
        let outer = log.iter().find(|line| line.contains("VXLAN")).unwrap();
        for part in ["IP 172.30.0.", "4789: VXLAN", "vni 4096"] {
            assert!(outer.contains(part), "{outer}");
        }
    }
}

#[test]
fn a_machine_outside_reaches_pods() {
    need!("ip");
    let mut script = Script::of("pages/node.rs: a_machine_outside_reaches_pods");
    let pair = Pair::new();
    let lan = pair.cluster.lab().netns();
    let machine = Host::new(lan);
    let [a, _, c] = &pair.pods;
    let commands = script.rest_of("docs/outside.md");
    assert_eq!(commands.len(), 2);
    for (command, pod) in commands.iter().zip([a, c]) {
        let address = pod.address(Family::V4).unwrap();
        assert!(!reaches(lan, address), "{address} is reached before");
        machine.run(&command.text);
        assert!(reaches(lan, address), "{address} is not reached");
    }
}

/// Two nodes, of which the first has no agent yet, with a pod each.
fn before_the_agent() -> (Cluster, [Pod; 2], Host) {
    let mut cluster = Cluster::new(Backend::Memory).unwrap();
    for _ in 0..2 {
        cluster.add_node().unwrap();
    }
    cluster.start_agent(1, &[]).unwrap();
    cluster.wait_ready().unwrap();
    let pods = [0, 1].map(|index| cluster.add_pod(index, &format!("pod-{index}"), 2).unwrap());
    let host = Host::new(cluster.nodes()[0].node.netns());
    (cluster, pods, host)
}

/// What the agent's pod has in its environment.
fn variables(cluster: &Cluster) -> [(&'static str, &Path); 2] {
    [
        ("ROUTELET_NODE_NAME", Path::new("node-1")),
        ("ROUTELET_KUBECONFIG", cluster.kubeconfig()),
    ]
}

#[test]
fn a_host_that_drops_is_opened() {
    need!("iptables" "iptables-save");
    let mut script = Script::of("pages/node.rs: a_host_that_drops_is_opened");
    let (cluster, [a, b], host) = before_the_agent();
    let there = host.run("iptables --version");
    if !there.contains("nf_tables") {
        skip!("iptables is {there}");
    }
    host.run("iptables -P FORWARD DROP");
    let agent = host.start(&script.take("routelet run").text, &variables(&cluster));
    agent.wait_log("in sync", wait::LONG).unwrap();
    let to = b.address(Family::V4).unwrap();
    wait::until(wait::LONG, "pods to reach each other", || reaches(a.netns(), to)).unwrap();
    let saved = script.take("iptables-save");
    assert_eq!(host.run(&saved.text).lines().collect::<Vec<_>>(), saved.shown);
}

#[test]
fn the_overlay_is_checked() {
    let mut script = Script::of("pages/node.rs: the_overlay_is_checked");
    let (cluster, _pods, host) = before_the_agent();
    let _agent = host.start(&script.take("routelet run").text, &variables(&cluster));
    let reached = "routelet_overlay_peers{family=\"ipv4\",state=\"reachable\"} 1";
    let netns = cluster.nodes()[0].node.netns();
    wait::until(wait::LONG, reached, || {
        let answer = http::get(netns, "127.0.0.1:9099".parse().unwrap(), "/metrics");
        answer.is_ok_and(|answer| answer.body.lines().any(|line| line == reached))
    })
    .unwrap();
}

#[test]
fn files_are_put_in_place_and_taken_away() {
    let mut script = Script::of("pages/node.rs: files_are_put_in_place_and_taken_away");
    let host = Host::new(&Netns::new().unwrap());
    for command in script.rest_of("docs/bgp.md") {
        host.run(&command.text);
    }
    for file in ["bird.conf", "node.conf"] {
        let ours = fs::read(Path::new(ROOT).join("deploy/bird").join(file)).unwrap();
        assert_eq!(
            fs::read(host.file("etc/bird").join(file)).unwrap(),
            ours,
            "{file}"
        );
    }
    // As Debian's unit of systemd takes it.
    assert_eq!(host.run(". /etc/bird/envvars; echo $BIRD_ARGS"), "-R\n");

    let calicos = host.file("etc/cni/net.d/10-calico.conflist");
    let ours = host.file("etc/cni/net.d/05-routelet.conflist");
    for page in ["docs/from-calico.md", "docs/from-flannel.md"] {
        fs::write(&ours, "{}").unwrap();
        fs::write(&calicos, "{}").unwrap();
        for command in script.rest_of(page) {
            host.run(&command.text);
        }
        assert!(!ours.exists() && calicos.exists());
    }
}
