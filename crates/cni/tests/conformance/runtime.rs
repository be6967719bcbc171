//! A container runtime, as far as CNI is concerned: it runs the plugin and reads its answers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use routelet_cni::{CniResult, Lease, read_leases};
use routelet_lab::{KernelView, TempDir};
use routelet_netlink::setup::{RouteSpec, VethEnd};
use routelet_netlink::{Netns, Setup};
use serde_json::{Value, json};

pub(crate) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Those that have CHECK.
pub(crate) const WITH_CHECK: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];
pub(crate) const NEWEST: &str = "1.1.0";
/// The configured MTU.
pub(crate) const MTU: u32 = 1450;
const NETWORK: &str = "pods";
const PLUGIN: &str = env!("CARGO_BIN_EXE_routelet-cni");

/// Where host-local is, or the end of the test.
macro_rules! runtime {
    ($($ranges:expr),+) => {
        match $crate::runtime::Runtime::new(&[$($ranges),+]) {
            Some(runtime) => runtime,
            None => routelet_lab::skip!("no host-local in /usr/lib/cni or /opt/cni/bin"),
        }
    };
}
pub(crate) use runtime;

/// A node, its runtime's configuration, and host-local's leases.
pub(crate) struct Runtime {
    pub(crate) node: Netns,
    /// What the node's eth0 leads to.
    _uplink: Netns,
    directory: TempDir,
    /// The network configuration, without what a runtime adds.
    pub(crate) config: Value,
    /// CNI_PATH.
    pub(crate) path: PathBuf,
    /// A program, and its arguments, that runs the plugin.
    pub(crate) wrapper: Vec<String>,
    calls: AtomicU32,
}

/// A container's sandbox.
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) netns: Netns,
    pub(crate) ifname: String,
    pub(crate) args: String,
    /// What the last ADD answered.
    pub(crate) previous: Option<Value>,
}

/// What the plugin answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) stdout: String,
}

impl Runtime {
    /// A node whose pods get an address out of each of the ranges. `None` where there is no host-local.
    pub(crate) fn new(ranges: &[&str]) -> Option<Self> {
        let path = ["/usr/lib/cni", "/opt/cni/bin"]
            .into_iter()
            .map(Path::new)
            .find(|directory| directory.join("host-local").is_file())?;
        let directory = TempDir::new().unwrap();
        let ranges: Vec<_> = ranges.iter().map(|range| json!([{"subnet": range}])).collect();
        let config = json!({
            "cniVersion": NEWEST,
            "name": NETWORK,
            "type": "routelet-cni",
            "mtu": MTU,
            "socket": directory.path().join("agent.sock"),
            "ipam": {"type": "host-local", "dataDir": directory.path().join("leases"), "ranges": ranges},
        });
        let (node, uplink) = node();
        Some(Self {
            node,
            _uplink: uplink,
            directory,
            config,
            path: path.to_owned(),
            wrapper: Vec::new(),
            calls: AtomicU32::new(0),
        })
    }

    pub(crate) fn of_version(mut self, version: &str) -> Self {
        self.config["cniVersion"] = version.into();
        self
    }

    /// A file or directory of this test.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn sandbox(&self, pod: &str) -> Sandbox {
        Sandbox {
            id: format!("id-of-{pod}"),
            netns: Netns::new().unwrap(),
            ifname: "eth0".to_owned(),
            args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"),
            previous: None,
        }
    }

    /// A connected pod.
    pub(crate) fn pod(&self, name: &str) -> Sandbox {
        let mut sandbox = self.sandbox(name);
        self.add(&mut sandbox).ok();
        sandbox
    }

    pub(crate) fn add(&self, sandbox: &mut Sandbox) -> Answer {
        let answer = self.call("ADD", sandbox, &self.config);
        if answer.success {
            sandbox.previous = Some(serde_json::from_str(&answer.stdout).unwrap());
        }
        answer
    }

    pub(crate) fn del(&self, sandbox: &Sandbox) -> Answer {
        self.call("DEL", sandbox, &self.with_previous(sandbox))
    }

    pub(crate) fn check(&self, sandbox: &Sandbox) -> Answer {
        self.call("CHECK", sandbox, &self.with_previous(sandbox))
    }

    fn with_previous(&self, sandbox: &Sandbox) -> Value {
        let mut config = self.config.clone();
        if let Some(previous) = &sandbox.previous {
            config["prevResult"] = previous.clone();
        }
        config
    }

    pub(crate) fn call(&self, verb: &str, sandbox: &Sandbox, config: &Value) -> Answer {
        let netns = sandbox.netns.path();
        self.call_in(verb, sandbox, netns.to_str().unwrap(), config)
    }

    /// The same with another CNI_NETNS.
    pub(crate) fn call_in(&self, verb: &str, sandbox: &Sandbox, netns: &str, config: &Value) -> Answer {
        let environment = [
            ("CNI_CONTAINERID", sandbox.id.as_str()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", &sandbox.ifname),
            ("CNI_ARGS", &sandbox.args),
        ];
        self.run(verb, &environment, config)
    }

    pub(crate) fn status(&self) -> Answer {
        self.run("STATUS", &[], &self.config)
    }

    pub(crate) fn gc(&self, valid: &[&Sandbox]) -> Answer {
        let valid: Vec<_> = valid
            .iter()
            .map(|sandbox| json!({"containerID": sandbox.id, "ifname": sandbox.ifname}))
            .collect();
        let mut config = self.config.clone();
        config["cni.dev/valid-attachments"] = valid.into();
        self.run("GC", &[], &config)
    }

    pub(crate) fn run(&self, verb: &str, environment: &[(&str, &str)], config: &Value) -> Answer {
        let mut words = self.wrapper.iter().map(String::as_str).chain([PLUGIN]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let stdin = self
            .directory
            .write(&format!("config-{number}"), config.to_string())
            .unwrap();
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", &self.path)
            .envs(environment.iter().copied())
            .stdin(File::open(stdin).unwrap());
        Answer::of(self.node.run(|| command.output()).unwrap().unwrap())
    }

    pub(crate) fn leases(&self) -> Vec<Lease> {
        read_leases(&self.file("leases").join(NETWORK)).unwrap()
    }

    /// Containers that have a lease.
    pub(crate) fn leased(&self) -> Vec<String> {
        let mut containers: Vec<_> = self
            .leases()
            .into_iter()
            .map(|lease| lease.container_id)
            .collect();
        containers.dedup();
        containers
    }

    /// Links of the node that are not its own.
    pub(crate) fn veths(&self) -> Vec<String> {
        let mut links = links(&self.node);
        links.retain(|link| link != "eth0");
        links
    }

    /// Nothing of any pod is there: no link, no route, no lease.
    pub(crate) fn assert_empty(&self, when: &str) {
        assert_eq!(self.veths(), [""; 0], "{when}");
        assert_eq!(self.leases(), [], "{when}");
        let view = KernelView::of(&self.node).unwrap();
        assert!(
            view.routes.iter().all(|route| route.protocol != 80),
            "{when}: {view}"
        );
    }
}

/// A node with an address of each family, and a default route: the kernel's proxy ARP answers only for what the host
/// itself has a way to. The other namespace is where its cable ends.
fn node() -> (Netns, Netns) {
    let [node, uplink] = [Netns::new().unwrap(), Netns::new().unwrap()];
    let end = |name| VethEnd {
        name,
        up: true,
        ..VethEnd::default()
    };
    let mut setup = Setup::open_in(&node).unwrap();
    setup.add_veth(end("eth0"), end("port"), &uplink).unwrap();
    for address in ["172.30.0.2/16", "fd00:30::2/64"] {
        setup.add_address("eth0", address.parse().unwrap()).unwrap();
    }
    for (everywhere, gateway) in [("0.0.0.0/0", "172.30.0.1"), ("::/0", "fd00:30::1")] {
        let (everywhere, gateway) = (everywhere.parse().unwrap(), gateway.parse().unwrap());
        setup
            .add_route(RouteSpec::via(everywhere, gateway, Some("eth0")))
            .unwrap();
    }
    (node, uplink)
}

/// Links beside those that each new namespace has: `lo`, and where the module ipip is loaded `tunl0`.
pub(crate) fn links(netns: &Netns) -> Vec<String> {
    static IN_EACH: LazyLock<Vec<String>> = LazyLock::new(|| all_links(&Netns::new().unwrap()));
    let mut links = all_links(netns);
    links.retain(|link| !IN_EACH.contains(link));
    links
}

fn all_links(netns: &Netns) -> Vec<String> {
    let links = Setup::open_in(netns).unwrap().links().unwrap();
    let names = links.into_iter().filter_map(|link| link.name);
    names.map(|name| name.to_string()).collect()
}

impl Sandbox {
    /// The result of its ADD, in whatever version.
    pub(crate) fn result(&self) -> CniResult {
        serde_json::from_value(self.previous.clone().unwrap()).unwrap()
    }

    pub(crate) fn addresses(&self) -> Vec<std::net::IpAddr> {
        self.result().ips.iter().map(|ip| ip.address.addr()).collect()
    }

    pub(crate) fn host_veth(&self) -> String {
        self.result().interfaces[0].name.clone()
    }

    pub(crate) fn setup(&self) -> Setup {
        Setup::open_in(&self.netns).unwrap()
    }
}

impl Answer {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            success: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
        }
    }

    pub(crate) fn ok(self) -> Self {
        assert!(self.success, "{self:?}");
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// An error of this code, in this version, whose message and details contain `text`.
    pub(crate) fn fails(self, version: &str, code: u32, text: &str) {
        assert!(!self.success, "{self:?}");
        let error = self.json();
        assert_eq!(
            (&error["cniVersion"], &error["code"]),
            (&json!(version), &json!(code)),
            "{error}"
        );
        let told = format!("{} {}", error["msg"], error["details"]);
        assert!(told.contains(text), "{text:?} in {error}");
    }
}
