//! Two nodes with real agents, pods on both, and the program under test.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use routelet_lab::{Backend, Cluster, Node, Ping, Pod, wait};
use routelet_model::{Family, IfName};
use routelet_netlink::{Netns, Setup};
use serde_json::Value;

/// Two nodes, with the pods a and b on the first one and c on the second.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) pods: Vec<Pod>,
    socket: PathBuf,
}

/// What the program has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Stage {
    /// With pods of both families, and agents that have these arguments.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let mut cluster = Cluster::new(Backend::Memory).unwrap();
        for index in 0..2 {
            cluster.add_unregistered_node().unwrap();
            let object = cluster.node_object_of(index, &Family::ALL, &Family::ALL).build();
            cluster.api().apply(&object).unwrap();
        }
        for index in 0..2 {
            cluster.start_agent(index, arguments).unwrap();
        }
        cluster.wait_ready().unwrap();
        let pods: Vec<Pod> = [(0, "a", 2), (0, "b", 3), (1, "c", 2)]
            .into_iter()
            .map(|(node, name, number)| cluster.add_pod_of(node, name, number, &Family::ALL).unwrap())
            .collect();
        let socket = cluster.node(0).agent().unwrap().socket();
        for (index, count) in [(0, 2.0), (1, 1.0)] {
            let agent = cluster.node(index).agent().unwrap();
            wait::until(wait::LONG, "the agents to know the pods", || {
                agent.metric("routelet_pods").unwrap() == count
            })
            .unwrap();
        }
        let stage = Self {
            cluster,
            pods,
            socket,
        };
        for family in Family::ALL {
            for to in [stage.b(family), stage.c(family)] {
                wait::until(wait::LONG, &format!("a reply from {to}"), || stage.ping(to)).unwrap();
            }
        }
        stage
    }

    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// One whose first node's agent has ended, so that it repairs nothing, after `meddling`, which it did not see.
    pub(crate) fn without_agent() -> Self {
        let mut stage = Self::new();
        stage.stop_agent();
        stage
    }

    pub(crate) fn stop_agent(&mut self) {
        assert!(self.cluster.node(0).agent().unwrap().stop().unwrap().success());
    }

    pub(crate) fn node(&self) -> &Node {
        &self.cluster.nodes()[0].node
    }

    /// The unix socket of the first node's agent, also when that has ended.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn netns(&self) -> &Netns {
        self.node().netns()
    }

    pub(crate) fn setup(&self) -> Setup {
        self.node().setup().unwrap()
    }

    pub(crate) fn a(&self, family: Family) -> IpAddr {
        self.pods[0].address(family).unwrap()
    }

    pub(crate) fn b(&self, family: Family) -> IpAddr {
        self.pods[1].address(family).unwrap()
    }

    pub(crate) fn c(&self, family: Family) -> IpAddr {
        self.pods[2].address(family).unwrap()
    }

    /// The host veth of a.
    pub(crate) fn veth(&self) -> IfName {
        self.pods[0].host_veth()
    }

    /// Whether pod a gets a reply from an address.
    pub(crate) fn ping(&self, to: IpAddr) -> bool {
        let ping = Ping::to(to).patience(Duration::from_millis(200));
        ping.run(self.pods[0].netns()).unwrap().received() == 1
    }

    pub(crate) fn write(&self, setting: &str, value: &str) {
        let path = format!("/proc/sys/net/{setting}");
        self.netns()
            .run(|| std::fs::write(&path, value).unwrap())
            .unwrap();
    }

    /// Runs `routelet trace` on the first node.
    pub(crate) fn trace(&self, words: &[&str]) -> Said {
        self.trace_with(words, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn trace_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
        command
            .env_clear()
            .env("ROUTELET_ADMIN_SOCKET", &self.socket)
            .envs(variables.iter().copied())
            .arg("trace")
            .args(words);
        let output = self.netns().run(|| command.output()).unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The one way from pod a's address to another address, as JSON.
    pub(crate) fn way(&self, to: IpAddr) -> Value {
        let family = Family::of(to);
        let said = self.trace(&[&self.a(family).to_string(), &to.to_string(), "--output=json"]);
        let value: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
        assert_eq!(said.code, i32::from(value["whole"] != true), "{said:?}");
        let ways = value["ways"].as_array().unwrap();
        assert_eq!(ways.len(), 1, "{value:#}");
        ways[0].clone()
    }

    /// Asserts that the way is whole, and that packets say so, too; returns it.
    pub(crate) fn whole(&self, to: IpAddr) -> Value {
        let way = self.way(to);
        assert_eq!(way["whole"], true, "{way:#}");
        for hop in way["hops"].as_array().unwrap() {
            assert_eq!(hop["state"], "ok", "{way:#}");
        }
        assert!(
            self.ping(to),
            "{to} does not answer, and the way is whole: {way:#}"
        );
        way
    }

    /// Asserts that the first hop that breaks is this one, and that finding and remedy have these parts.
    pub(crate) fn broken(&self, to: IpAddr, hop: &str, finding: &str, remedy: &str) {
        let way = self.way(to);
        assert_eq!(way["broken"], hop, "{way:#}");
        let hops = way["hops"].as_array().unwrap();
        let first = hops.iter().find(|hop| hop["state"] == "broken").unwrap();
        for (field, part) in [("finding", finding), ("remedy", remedy)] {
            assert!(
                first[field].as_str().unwrap().contains(part),
                "{part:?} is not in {first:#}"
            );
        }
    }

    /// The same, and that no packet comes through.
    pub(crate) fn lost(&self, to: IpAddr, hop: &str, finding: &str, remedy: &str) {
        assert!(!self.ping(to), "{to} answers");
        self.broken(to, hop, finding, remedy);
    }
}

/// The hops of a way, by their names.
pub(crate) fn hops(way: &Value) -> Vec<&str> {
    let hops = way["hops"].as_array().unwrap();
    hops.iter().map(|hop| hop["hop"].as_str().unwrap()).collect()
}

/// What was found at a hop.
pub(crate) fn finding<'a>(way: &'a Value, name: &str) -> &'a str {
    let mut hops = way["hops"].as_array().unwrap().iter();
    hops.find(|hop| hop["hop"] == name).unwrap()["finding"]
        .as_str()
        .unwrap()
}
