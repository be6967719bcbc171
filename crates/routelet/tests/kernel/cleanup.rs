//! `routelet cleanup`: a node is afterwards as it was before the agent came.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use routelet_lab::process::Process;
use routelet_lab::{TempDir, wait};
use routelet_netlink::{Netns, Setup};

use crate::stage::{NO_AUDIT, Stage};

/// What the kernel of a node says of itself: links, addresses, routes, rules, neighbours, nexthops, firewalls, settings.
const LOOKS: [&[&str]; 7] = [
    &["ip", "-d", "link"],
    &["ip", "address"],
    &["ip", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["ip", "nexthop"],
    &["nft", "list", "ruleset"],
    &[
        "cat",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv6/conf/all/forwarding",
    ],
];

/// A file that the lab puts into its directories.
const LABS_OWN: &str = ".lock";

fn told(netns: &Netns, words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let output = netns.run(|| command.output()).unwrap().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn look(netns: &Netns) -> Vec<String> {
    LOOKS.iter().map(|words| told(netns, words)).collect()
}

/// The runtime's directories, and what is in them.
struct Files(TempDir);

/// The agent's own files.
struct Run(PathBuf);

impl Run {
    fn present(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.0) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.retain(|name| name != LABS_OWN);
        names.sort();
        names
    }
}

impl Files {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        for name in ["bin", "net.d"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        directory.write("built", "the plugin\n").unwrap();
        Self(directory)
    }

    fn flags(&self, run: Option<&Run>) -> Vec<String> {
        let of = |flag: &str, name: &str| format!("--{flag}={}", self.0.path().join(name).display());
        let mut flags = vec![
            of("cni-bin-dir", "bin"),
            of("cni-conf-dir", "net.d"),
            of("cni-binary", "built"),
        ];
        if let Some(run) = run {
            flags.push(format!(
                "--admin-socket={}",
                run.0.join("routelet.sock").display()
            ));
            flags.push(format!(
                "--saved-sysctls={}",
                run.0.join("saved-sysctls").display()
            ));
        } else {
            flags.extend(["--install-cni", "--open-forward"].map(str::to_owned));
            flags.extend(NO_AUDIT.iter().map(ToString::to_string));
        }
        flags
    }

    /// Starts the agent, and returns where its own files are.
    fn start_agent(&self, stage: &mut Stage) -> Run {
        let flags = self.flags(None);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        stage.cluster.start_agent(0, &flags).unwrap();
        stage.cluster.wait_ready().unwrap();
        Run(stage.agent().socket().parent().unwrap().to_owned())
    }

    fn present(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut directories = vec![self.0.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with(LABS_OWN) {
                    continue;
                }
                found.push(path.strip_prefix(self.0.path()).unwrap().display().to_string());
                if path.is_dir() {
                    directories.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// Runs the program; its exit code, and what it has told.
    fn clean_up(&self, netns: &Netns, run: &Run) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
        command.env_clear().arg("cleanup").args(self.flags(Some(run)));
        let mut program = Process::start("cleanup", netns, command).unwrap();
        let status = program.wait_exit(wait::LONG).unwrap();
        (status.code(), program.log().join("\n"))
    }
}

#[test]
fn the_node_is_as_it_was_before_the_agent_came() {
    let (mut stage, files) = (Stage::without_agent(3), Files::new());
    let netns = stage.netns().clone();
    for rule in [
        "add table ip filter",
        "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
    ] {
        told(&netns, &["nft", rule]);
    }
    let before = (look(&netns), files.present());
    assert_eq!(before.0[6], "0\n0\n");

    let run = files.start_agent(&mut stage);
    stage.add_pod("web", 2);
    stage.wait_right("the pod was added");
    let opened = || told(&netns, &["nft", "list", "chain", "ip", "filter", "FORWARD"]).contains("accept");
    wait::until(wait::LONG, "the chain to be opened", opened).unwrap();
    let meanwhile = (look(&netns), files.present());
    for (now, before) in meanwhile.0.iter().zip(&before.0) {
        assert_ne!(now, before, "the agent has left its mark on each");
    }
    assert_eq!(
        meanwhile.1,
        [
            "bin",
            "bin/routelet-cni",
            "built",
            "net.d",
            "net.d/10-routelet.conflist"
        ]
    );
    assert_eq!(run.present(), ["routelet.sock", "saved-sysctls"]);

    let (code, log) = files.clean_up(&netns, &run);
    assert_eq!(code, Some(3), "while the agent runs: {log}");
    assert!(log.contains("stop it first"), "{log}");
    assert_eq!((look(&netns), files.present()), meanwhile, "nothing was touched");

    stage.agent().stop().unwrap();
    stage.remove_pod("web");
    let (code, log) = files.clean_up(&netns, &run);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!((look(&netns), files.present()), before);
    assert_eq!(run.present(), [""; 0]);
    let (code, log) = files.clean_up(&netns, &run);
    assert_eq!(code, Some(0), "once more: {log}");
    assert_eq!((look(&netns), files.present()), before);
}

#[test]
fn what_others_made_stays_and_the_plugin_while_pods_need_it() {
    let (mut stage, files) = (Stage::without_agent(1), Files::new());
    let run = files.start_agent(&mut stage);
    stage.add_pod("web", 2);
    stage.wait_right("the pod was added");
    stage.agent().stop().unwrap();
    let netns = stage.netns().clone();
    let mut setup = Setup::open_in(&netns).unwrap();
    let veth = told(&netns, &["ip", "-o", "link", "show", "type", "veth"]);
    let veth = veth
        .split([' ', '@'])
        .find(|word| word.starts_with("cali"))
        .unwrap()
        .to_owned();
    setup
        .set_alias(&veth, "routelet k8s-pod-network 0123 eth0 10.244.1.2 default/web")
        .unwrap();
    told(
        &netns,
        &[
            "ip",
            "route",
            "add",
            "10.99.0.0/24",
            "dev",
            "eth0",
            "proto",
            "static",
        ],
    );

    let (code, log) = files.clean_up(&netns, &run);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("1 pod networks that are left"), "{log}");
    let present = files.present();
    for stays in ["bin/routelet-cni", "net.d/zz-routelet-uninstalled.conflist"] {
        assert!(present.contains(&stays.to_owned()), "{present:?}");
    }
    assert!(
        !present.contains(&"net.d/10-routelet.conflist".to_owned()),
        "{present:?}"
    );
    let routes = told(&netns, &["ip", "route"]);
    assert!(
        routes.contains("10.99.0.0/24") && !routes.contains("proto 80"),
        "{routes}"
    );
    let links = told(&netns, &["ip", "link"]);
    assert!(
        links.contains(&veth) && !links.contains("vxlan.calico"),
        "{links}"
    );
}
