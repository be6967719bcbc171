//! `routelet install-cni` beside a real agent, and the agent's `/cni` that it asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use routelet_lab::process::Process;
use routelet_lab::{TempDir, wait};
use routelet_netlink::Netns;

use crate::stage::{NO_AUDIT, Stage};

/// Directories of a node, and the program's arguments.
struct Node {
    directory: TempDir,
    netns: Netns,
    socket: PathBuf,
}

impl Node {
    fn new(netns: &Netns, socket: PathBuf) -> Self {
        let directory = TempDir::new().unwrap();
        for name in ["bin", "net.d"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        directory.write("built", "the plugin\n").unwrap();
        Self {
            directory,
            netns: netns.clone(),
            socket,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn conflist(&self) -> PathBuf {
        self.path("net.d/10-routelet.conflist")
    }

    fn install(&self, timeout: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
        command.env_clear().arg("install-cni");
        for (flag, path) in [
            ("--cni-bin-dir", self.path("bin")),
            ("--cni-conf-dir", self.path("net.d")),
            ("--cni-binary", self.path("built")),
            ("--admin-socket", self.socket.clone()),
        ] {
            command.arg(flag).arg(path);
        }
        command.arg("--timeout").arg(timeout);
        Process::start("install-cni", &self.netns, command).unwrap()
    }
}

/// Its exit code, and what it has told.
fn ended(mut program: Process) -> (Option<i32>, String) {
    let status = program.wait_exit(wait::LONG).unwrap();
    (status.code(), program.log().join("\n"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn it_waits_until_the_agent_is_ready_and_writes_what_the_agent_knows() {
    let mut stage = Stage::without_agent(1);
    let address = stage.cluster.nodes()[0]
        .node
        .address_with_prefix(routelet_model::Family::V4);
    let mut setup = stage.setup();
    setup.delete_address("eth0", address).unwrap();
    // The API is reached by another address meanwhile.
    setup
        .add_address("eth0", "172.30.200.1/16".parse().unwrap())
        .unwrap();
    stage.cluster.start_agent(0, NO_AUDIT).unwrap();
    let socket = stage.agent().socket();
    let node = Node::new(stage.netns(), socket);
    let program = node.install("1h");
    let told = program
        .wait_log("waiting for the agent: this node's address", wait::LONG)
        .unwrap();
    assert!(told.contains("is on no link of the host"), "{told}");
    assert!(!node.conflist().exists() && !node.path("bin/routelet-cni").exists());
    let (code, told) = ended(node.install("0s"));
    assert_eq!(code, Some(4), "{told}");
    assert!(
        told.contains("--timeout 0s") && told.contains("is on no link"),
        "{told}"
    );

    setup.add_address("eth0", address).unwrap();
    let (code, told) = ended(program);
    assert_eq!(code, Some(0), "{told}");
    let text = read(&node.conflist());
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["plugins"][0]["mtu"], 1450);
    let subnet = &list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"];
    assert_eq!(subnet, "10.244.1.0/24");
    assert_eq!(list["plugins"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(read(&node.path("bin/routelet-cni")), "the plugin\n");
    let answer = routelet_cni::agent::get(&node.socket, "/cni").unwrap();
    assert_eq!((answer.status, answer.body), (200, text.clone()));
    assert_eq!(
        stage.agent().get("/cni").unwrap().status,
        404,
        "not for everyone who reaches the port"
    );

    let (code, told) = ended(node.install("0s"));
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("in place already"), "{told}");
    // Which plugins are there, it sees for itself.
    fs::write(node.path("bin/portmap"), "").unwrap();
    let (code, told) = ended(node.install("0s"));
    assert_eq!(code, Some(0), "{told}");
    assert!(read(&node.conflist()).contains("portmap"));
}

#[test]
fn what_cannot_be_written_and_an_agent_that_is_not_there_are_told_with_path_flag_and_remedy() {
    let mut stage = Stage::new(0, NO_AUDIT);
    let socket = stage.agent().socket();
    let mut node = Node::new(stage.netns(), socket);
    fs::remove_dir(node.path("net.d")).unwrap();
    let (code, told) = ended(node.install("1h"));
    assert_eq!(code, Some(1), "{told}");
    for part in [
        "net.d/10-routelet.conflist",
        "No such file",
        "--cni-conf-dir",
        "writable",
    ] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    node.socket = node.path("none.sock");
    let (code, told) = ended(node.install("0s"));
    assert_eq!(code, Some(4), "{told}");
    for part in ["none.sock", "--admin-socket", "see that it runs"] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
}
