//! The binary from outside: exit codes, and what it says to whoever started it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "common/program.rs"]
mod program;

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use program::told;

/// How long anything may take before the test fails; it never takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program with nothing but these variables in its environment.
fn routelet(words: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = program::routelet(words);
    command.envs(variables.iter().copied());
    command
}

/// Asserts that the program ends with exit code 2 and an error that has all `parts`; returns the error.
fn refused(words: &[&str], variables: &[(&str, &str)], parts: &[&str]) -> String {
    let (code, stdout, stderr) = told(&mut routelet(words, variables));
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in: {stderr}");
    }
    stderr
}

#[test]
fn version_and_help_go_to_standard_output() {
    let (code, stdout, stderr) = told(&mut routelet(&["--version"], &[]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("routelet {}\n", env!("CARGO_PKG_VERSION")));

    let (code, stdout, _) = told(&mut routelet(&["run", "--help"], &[]));
    assert_eq!(code, 0);
    assert!(stdout.contains("[env: ROUTELET_NODE_NAME=]"), "{stdout}");
    assert!(stdout.contains("3  another agent runs on this node"), "{stdout}");
}

#[test]
fn without_a_subcommand_the_usage_is_shown() {
    refused(&[], &[], &["Usage: routelet <COMMAND>"]);
    refused(&["fly"], &[], &["unrecognized subcommand 'fly'"]);
    refused(&["run", "--node-nam=x"], &[], &["'--node-nam'", "'--node-name'"]);
}

#[test]
fn a_missing_node_name_is_told_by_flag_and_variable() {
    refused(&["run"], &[], &["--node-name <NAME>", "ROUTELET_NODE_NAME"]);
}

/// Settings of the agent, a value that each refuses, and words of what is allowed.
const REFUSED: &[(&str, &str, &str)] = &[
    ("ROUTELET_NODE_NAME", "$(NODE_NAME)", "the name of a Node object"),
    ("ROUTELET_API_SERVER_HOST", "https://10.0.0.1", "without scheme"),
    ("ROUTELET_API_SERVER_PORT", "0", "from 1 to 65535"),
    (
        "ROUTELET_ENCAPSULATION",
        "gre",
        "[possible values: vxlan, vxlan-cross-subnet, ipip, ipip-cross-subnet, none]",
    ),
    ("ROUTELET_VXLAN_DEVICE", "vxlan/0", "1 to 15"),
    ("ROUTELET_VXLAN_DEVICE_V6", "", "1 to 15"),
    ("ROUTELET_VXLAN_VNI", "16777216", "from 0 to 16777215"),
    ("ROUTELET_VXLAN_PORT", "http", "from 1 to 65535"),
    ("ROUTELET_MTU", "100", "from 576 to 65535"),
    ("ROUTELET_INTERFACE_PREFIX", "calico", "1 to 4"),
    ("ROUTELET_ROUTE_PROTOCOL", "4", "an administrator"),
    ("ROUTELET_NEXTHOP_OBJECTS", "yes", "[possible values: auto, off]"),
    (
        "ROUTELET_ALLOW_ANY_POD_ADDRESS",
        "1",
        "[possible values: true, false]",
    ),
    ("ROUTELET_RECEIVE_BUFFER", "8M", "from 65536 to 1073741824"),
    ("ROUTELET_AUDIT_INTERVAL", "0s", "from 1s to 24h"),
    ("ROUTELET_INSTALL_CNI", "yes", "[possible values: true, false]"),
    ("ROUTELET_CNI_BIN_DIR", "bin", "an absolute path"),
    ("ROUTELET_CNI_CONF_DIR", "", "an absolute path"),
    ("ROUTELET_CNI_CONF_NAME", "net.d/a.conflist", "without '/'"),
    ("ROUTELET_CNI_LEASE_DIR", "networks", "an absolute path"),
    ("ROUTELET_CNI_BINARY", "routelet-cni", "an absolute path"),
    ("ROUTELET_ADMIN_ADDRESS", "localhost", "127.0.0.1:9099"),
    ("ROUTELET_ADMIN_SOCKET", "routelet.sock", "an absolute path"),
    ("ROUTELET_LOG_FORMAT", "xml", "[possible values: text, json]"),
    (
        "ROUTELET_LOG_LEVEL",
        "loud",
        "off, error, warn, info, debug, trace",
    ),
    ("ROUTELET_UNDERLAY", "eth0", "interface=NAME"),
    ("ROUTELET_OVERLAY_CHECK", "1001", "from 1 to 1000"),
    (
        "ROUTELET_VXLAN_CHECKSUM_OFFLOAD",
        "no",
        "[possible values: auto, on, off]",
    ),
    ("ROUTELET_OPEN_FORWARD", "1", "[possible values: true, false]"),
    ("ROUTELET_NODE_CONDITION", "yes", "[possible values: true, false]"),
    ("ROUTELET_SAVED_SYSCTLS", "saved", "an absolute path"),
    ("ROUTELET_MASQUERADE", "off", "[possible values: true, false]"),
    ("ROUTELET_MASQUERADE_EXCEPT", "10.0.0.1/8", "begins at 10.0.0.0/8"),
    ("ROUTELET_POD_CIDRS", "10.244.0.0/33", "as in 10.0.0.0/8"),
    ("ROUTELET_NFT_TABLE", "filter", "have other users"),
    ("ROUTELET_CNI_SWEEP_AFTER", "0s", "from 1s to 24h"),
];

/// Settings that take any text: what it leads to is looked at later.
const FREE: [&str; 1] = ["ROUTELET_KUBECONFIG"];

#[test]
fn a_wrong_value_is_told_by_flag_and_variable_with_what_is_allowed() {
    for (variable, value, allowed) in REFUSED {
        let flag = flag_of(variable);
        let words: &[&str] = match *variable {
            "ROUTELET_NODE_NAME" => &["run"],
            _ => &["run", "--node-name=node-1"],
        };
        let quoted = format!("'{value}'");
        refused(words, &[(variable, value)], &[variable, &flag, &quoted, allowed]);
        let given = format!("{flag}={value}");
        refused(&[words, &[&given]].concat(), &[], &[&flag, &quoted, allowed]);
    }
}

#[test]
fn each_setting_of_the_agent_is_among_those() {
    let (_, help, _) = told(&mut routelet(&["run", "--help"], &[]));
    let settings: Vec<&str> = help
        .split("[env: ")
        .skip(1)
        .filter_map(|rest| rest.split('=').next())
        .collect();
    let tried =
        |variable: &&str| FREE.contains(variable) || REFUSED.iter().any(|(tried, ..)| tried == variable);
    let untried: Vec<&str> = settings
        .iter()
        .copied()
        .filter(|variable| !tried(variable))
        .collect();
    assert_eq!(untried, Vec::<&str>::new());
    assert!(settings.len() >= REFUSED.len() + FREE.len(), "{help}");
}

fn flag_of(variable: &str) -> String {
    let name = variable.trim_start_matches("ROUTELET_").to_lowercase();
    format!("--{}", name.replace('_', "-"))
}

#[test]
fn settings_of_install_cni_are_told_likewise() {
    for (variable, value, allowed) in [
        ("ROUTELET_TIMEOUT", "25h", "from 0s to 24h"),
        ("ROUTELET_ADMIN_SOCKET", "off", "an absolute path"),
        ("ROUTELET_CNI_BIN_DIR", "bin", "an absolute path"),
    ] {
        let parts = [variable, &format!("'{value}'"), allowed];
        refused(&["install-cni"], &[(variable, value)], &parts);
    }
    let (code, stdout, _) = told(&mut routelet(&["install-cni", "--help"], &[]));
    assert_eq!(code, 0);
    assert!(stdout.contains("4  the agent was not ready within"), "{stdout}");
    assert!(
        stdout.contains("--cni-conf-dir") && !stdout.contains("--node-name"),
        "{stdout}"
    );
}

#[test]
fn trace_tells_its_exit_codes_and_refuses_what_is_no_end() {
    let (code, stdout, _) = told(&mut routelet(&["trace", "--help"], &[]));
    assert_eq!(code, 0);
    assert!(stdout.contains("1  it is broken; the output names"), "{stdout}");
    refused(&["trace", "default/a"], &[], &["<TO>"]);
    let parts = ["'a' for '<TO>'", "NAMESPACE/NAME or an IP address"];
    refused(&["trace", "default/a", "a"], &[], &parts);
    let variables = [("ROUTELET_OUTPUT", "xml")];
    let parts = ["ROUTELET_OUTPUT", "[possible values: table, json]"];
    refused(&["trace", "default/a", "10.0.0.1"], &variables, &parts);
}

#[test]
fn a_flag_wins_over_its_variable() {
    let variables = [("ROUTELET_VXLAN_VNI", "wrong")];
    let stderr = refused(
        &["run", "--node-name=a", "--vxlan-vni=7", "--mtu=1"],
        &variables,
        &["--mtu"],
    );
    assert!(!stderr.contains("vni"), "{stderr}");

    let variables = [("ROUTELET_MTU", "1400")];
    let stderr = refused(
        &["run", "--node-name=a", "--mtu=1"],
        &variables,
        &["'1' for '--mtu"],
    );
    assert!(!stderr.contains("ROUTELET_MTU"), "{stderr}");
}

#[test]
fn settings_that_contradict_each_other_are_told_by_name() {
    let words = [
        "run",
        "--node-name=a",
        "--vxlan-device=vx0",
        "--vxlan-device-v6=vx0",
    ];
    refused(
        &words,
        &[],
        &["--vxlan-device and --vxlan-device-v6 both name vx0"],
    );
}

/// Runs `test` on a thread in a network namespace of its own, which the programs that it starts share.
fn in_fresh_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A kubeconfig file that names an API server which no one can reach from a fresh namespace.
fn kubeconfig() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unreachable-api.kubeconfig");
    let beside = path.with_extension(format!("{:?}", thread::current().id()));
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
                clusters: [{name: a, cluster: {server: 'http://192.0.2.1:6443'}}]\n\
                contexts: [{name: a, context: {cluster: a, user: a}}]\n\
                users: [{name: a, user: {}}]\n";
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, &path).unwrap();
    path
}

/// An agent that runs in the namespace of the thread that started it, until this is dropped.
struct Agent {
    child: Child,
    /// Lines of its standard error, then those of its standard output.
    lines: Receiver<String>,
}

impl Agent {
    fn start(words: &[&str]) -> Self {
        Self::start_with_stderr(words, Stdio::piped())
    }

    fn start_with_stderr(words: &[&str], stderr: impl Into<Stdio>) -> Self {
        let mut command = routelet(&["run", "--node-name=node-1", "--admin-socket=off"], &[]);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig())
            .args(words)
            .stdout(Stdio::piped())
            .stderr(stderr);
        #[expect(clippy::disallowed_methods, reason = "the agent is what is tested")]
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let output: Box<dyn Read + Send> = match child.stderr.take() {
            Some(stderr) => Box::new(stderr.chain(stdout)),
            None => Box::new(stdout),
        };
        let (sender, lines) = channel();
        thread::spawn(move || {
            BufReader::new(output)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// Waits for a line with `part` in it.
    fn says(&self, part: &str) -> String {
        let mut heard = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => writeln!(heard, "{line}").unwrap(),
                Err(error) => panic!("{error}: the agent has not said {part:?} but:\n{heard}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end; exit code and the rest of what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => writeln!(said, "{line}").unwrap(),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the agent has not ended but said:\n{said}"),
            }
        }
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn stops_with_0_on_either_signal() {
    in_fresh_namespace(|| {
        for (signal, name) in [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGINT, "SIGINT")] {
            let agent = Agent::start(&["--admin-address=off", "--vxlan-vni=7"]);
            let line = agent.says("routelet starts");
            assert!(line.contains("--node-name=node-1 --kubeconfig="), "{line}");
            assert!(
                line.contains("--vxlan-vni=7 --admin-address=off --admin-socket=off"),
                "{line}"
            );
            assert!(!line.contains("--vxlan-port"), "a default is told: {line}");
            agent.signal(signal);
            let (code, said) = agent.end();
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains(name), "{said}");
        }
    });
}

#[test]
fn a_second_agent_says_so_and_ends_with_3() {
    in_fresh_namespace(|| {
        let first = Agent::start(&["--admin-address=off"]);
        first.says("routelet starts");
        let (code, said) = Agent::start(&["--admin-address=off"]).end();
        assert_eq!(code, Some(3), "{said}");
        let process = format!(
            "another routelet agent already runs in this network namespace (process {})",
            first.child.id()
        );
        assert!(said.contains(&process), "{said}");
        assert!(!said.contains("routelet starts"), "{said}");

        // However the first one ends, the next one may run.
        first.signal(Signal::SIGKILL);
        first.end();
        Agent::start(&["--admin-address=off"]).says("routelet starts");
    });
}

#[test]
fn a_failure_ends_with_1_and_names_the_flag() {
    in_fresh_namespace(|| {
        // An address of no interface of a fresh namespace.
        let (code, said) = Agent::start(&["--admin-address=[2001:db8::1]:9099"]).end();
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("--admin-address [2001:db8::1]:9099: Cannot assign requested address"),
            "{said}"
        );
    });
}

#[test]
fn a_kubeconfig_that_cannot_be_used_ends_with_2_and_names_the_flag() {
    in_fresh_namespace(|| {
        let garbage = Path::new(env!("CARGO_TARGET_TMPDIR")).join("garbage.kubeconfig");
        std::fs::write(&garbage, "{").unwrap();
        for path in ["/nowhere/kubeconfig", garbage.to_str().unwrap()] {
            let mut command = routelet(
                &[
                    "run",
                    "--node-name=a",
                    "--admin-socket=off",
                    "--admin-address=off",
                ],
                &[("ROUTELET_KUBECONFIG", path)],
            );
            let output = command.output().unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(
                said.contains("--kubeconfig") && said.contains("ROUTELET_KUBECONFIG") && said.contains(path),
                "{said}"
            );
        }
    });
}

#[test]
fn json_logs_are_json_from_the_first_line_to_the_last() {
    in_fresh_namespace(|| {
        let agent = Agent::start(&["--admin-address=[2001:db8::1]:9099", "--log-format=json"]);
        let (_, said) = agent.end();
        let events: Vec<serde_json::Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        assert_eq!(events.first().unwrap()["message"], "routelet starts");
        assert_eq!(events.last().unwrap()["level"], "ERROR");
    });
}

#[test]
fn outlives_the_reader_of_its_log() {
    in_fresh_namespace(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        // It gets as far as it would get otherwise.
        let agent = Agent::start_with_stderr(&["--admin-address=[2001:db8::1]:9099"], writer);
        assert_eq!(agent.end(), (Some(1), String::new()));
    });
}
