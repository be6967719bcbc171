//! A real container runtime: containerd starts containers on two nodes, asks the CNI plugin to connect them, and the
//! agents carry their packets between the nodes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::{self, ScopedJoinHandle};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use routelet_lab::process::{Process, built_program};
use routelet_lab::{Backend, Cluster, ClusterNode, Ping, skip, wait};
use routelet_netlink::{Netns, Setup};
use serde_json::json;

/// In the containers' file system.
const BUSYBOX: &str = "/bin/busybox";
/// Where the distributions put CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// What is missing here for a containerd.
fn missing() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = |name: &&str| std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if let Some(program) = ["containerd", "ctr", "runc"].iter().find(|name| !in_path(name)) {
        return Some(format!("no {program}"));
    }
    for file in [Path::new(PLUGINS).join("host-local"), BUSYBOX.into()] {
        if !file.is_file() {
            return Some(format!("no {}", file.display()));
        }
    }
    // runc needs the machine's control groups.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_root = map.split_whitespace().eq(["0", "0", "4294967295"]) && nix::unistd::geteuid().is_root();
    (!is_root).then(|| "not root of the machine".to_owned())
}

/// A node's containerd, with directories of its own.
struct Containerd {
    netns: Netns,
    directory: PathBuf,
    _process: Process,
}

impl Containerd {
    fn start(node: &ClusterNode, directory: PathBuf) -> Self {
        for part in ["etc", "opt", "rootfs/bin"] {
            fs::create_dir_all(directory.join(part)).unwrap();
        }
        for part in ["proc", "sys", "dev"] {
            fs::create_dir(directory.join("rootfs").join(part)).unwrap();
        }
        fs::copy(BUSYBOX, directory.join("rootfs/bin/busybox")).unwrap();
        let shown = |part: &str| directory.join(part).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            shown("root"),
            shown("state"),
            shown("sock")
        );
        fs::write(directory.join("config.toml"), config).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(directory.join("config.toml"));
        let containerd = Self {
            netns: node.node.netns().clone(),
            _process: Process::start("containerd", node.node.netns(), command).unwrap(),
            directory,
        };
        containerd.configure_cni(node);
        wait::until(wait::LONG, "containerd to answer", || {
            containerd.ctr(&["version"]).status.success()
        })
        .unwrap();
        containerd
    }

    /// What `routelet install-cni` and the distribution's package bring.
    fn configure_cni(&self, node: &ClusterNode) {
        let (programs, configurations) = (
            self.directory.join("opt/cni/bin"),
            self.directory.join("etc/cni/net.d"),
        );
        fs::create_dir_all(&programs).unwrap();
        fs::create_dir_all(&configurations).unwrap();
        let plugin = built_program("routelet-cni", "ROUTELET_CNI_BIN").unwrap();
        fs::copy(plugin, programs.join("routelet-cni")).unwrap();
        symlink(Path::new(PLUGINS).join("host-local"), programs.join("host-local")).unwrap();
        let conflist = json!({
            "cniVersion": "1.0.0",
            "name": "k8s-pod-network",
            "plugins": [{
                "type": "routelet-cni",
                "mtu": 1450,
                "ipam": {
                    "type": "host-local",
                    "dataDir": self.directory.join("leases"),
                    "ranges": [[{ "subnet": node.subnet }]],
                },
            }],
        });
        fs::write(configurations.join("10-routelet.conflist"), conflist.to_string()).unwrap();
    }

    /// Runs containerd's client in the node, which asks for CNI itself: by /etc/cni/net.d and /opt/cni/bin, so it sees an
    /// /etc and an /opt of its own.
    fn ctr(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.directory.join("sock"))
            .args(arguments);
        let bind = |from: &str, to: &str| {
            mount(
                Some(&self.directory.join(from)),
                to,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .unwrap();
        };
        self.netns
            .run(|| {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
                bind("etc", "/etc");
                bind("opt", "/opt");
                command.output()
            })
            .unwrap()
            .unwrap()
    }

    /// Runs a container until it is dropped. When it has ended, the client, which is the other value, asks for DEL.
    fn run<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        id: &'scope str,
    ) -> (ScopedJoinHandle<'scope, Output>, Container<'scope>) {
        let rootfs = self.directory.join("rootfs");
        let client = scope.spawn(move || {
            let rootfs = rootfs.to_str().unwrap();
            // A container that outlives a test that was killed ends by itself.
            self.ctr(&[
                "run", "--rm", "--cni", "--rootfs", rootfs, id, BUSYBOX, "sleep", "120",
            ])
        });
        let pid = wait::until_some(wait::LONG, "the container to run", || self.pid(id)).unwrap();
        let netns = Netns::open(format!("/proc/{pid}/ns/net")).unwrap();
        let container = Container {
            containerd: self,
            id,
            netns,
        };
        (client, container)
    }

    fn pid(&self, id: &str) -> Option<u32> {
        let tasks = String::from_utf8(self.ctr(&["task", "list"]).stdout).unwrap();
        let task = tasks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&id) && words.get(2) == Some(&"RUNNING"))?;
        task[1].parse().ok()
    }

    /// Addresses that host-local has given.
    fn leases(&self) -> Vec<std::net::IpAddr> {
        let network = self.directory.join("leases/k8s-pod-network");
        let Ok(entries) = fs::read_dir(network) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.parse().ok()).collect()
    }

    fn host_veths(&self) -> usize {
        let links = Setup::open_in(&self.netns).unwrap().links().unwrap();
        let names = links.iter().filter_map(|link| link.name);
        names.filter(|name| name.as_str().starts_with("cali")).count()
    }
}

struct Container<'a> {
    containerd: &'a Containerd,
    id: &'a str,
    netns: Netns,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.containerd
            .ctr(&["task", "kill", "--signal", "SIGKILL", self.id]);
    }
}

#[test]
fn containers_on_two_nodes_reach_each_other() {
    if let Some(missing) = missing() {
        skip!("containerd cannot run here: {missing}");
    }
    let cluster = Cluster::with_agents(Backend::from_env().unwrap(), 2).unwrap();
    let directory = cluster.directory().path();
    let nodes: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| Containerd::start(node, directory.join(node.node.name())))
        .collect();
    let of = |index: usize| (&nodes[index], cluster.pod_address(index, 2).unwrap());
    thread::scope(|scope| {
        let (first_client, first) = nodes[0].run(scope, "first");
        let (second_client, second) = nodes[1].run(scope, "second");
        for (node, address) in [of(0), of(1)] {
            assert_eq!((node.leases(), node.host_veths()), (vec![address], 1));
        }
        for (from, to) in [(&first, of(1).1), (&second, of(0).1)] {
            wait::until(wait::LONG, "the first reply", || {
                Ping::to(to).run(&from.netns).unwrap().received() == 1
            })
            .unwrap();
            let report = Ping::to(to).count(10).run(&from.netns).unwrap();
            assert!(report.lost.is_empty(), "{to}: {report}");
            assert_eq!(report.ttl, Some(62), "through two nodes");
        }
        for (node, container, client) in [
            (&nodes[0], first, first_client),
            (&nodes[1], second, second_client),
        ] {
            drop(container);
            client.join().unwrap();
            assert_eq!((node.leases(), node.host_veths()), (Vec::new(), 0), "after DEL");
        }
    });
}
