//! docs/operations.md: each command on the page does what the page shows, on a node of the lab.

use std::net::IpAddr;
use std::process::{Command, Output};

use routelet_lab::wait;
use routelet_model::{Key, Object, RouteTarget};

use crate::pages::Script;
use crate::stage::{DEVICE, NO_AUDIT, OURS, Stage, create, delete, peer_subnet};

/// What stands before each command on the page: another test has kubectl carry it to the node.
const IN_POD: &str = "kubectl --namespace kube-system exec daemonset/routelet -- ";

/// Lines without what differs from run to run: a word with a digit stands for any number of them, and spaces do not count.
fn shape<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let line = |line: &str| {
        let words =
            line.split_whitespace().map(
                |word| match word.contains(|letter: char| letter.is_ascii_digit()) {
                    true => "N",
                    false => word,
                },
            );
        let mut words: Vec<_> = words.collect();
        words.dedup_by(|one, other| (*one, *other) == ("N", "N"));
        words.join(" ")
    };
    lines.into_iter().map(line).collect()
}

struct Node {
    stage: Stage,
    script: Script,
}

impl Node {
    /// Runs a command of the page, and compares its exit code, and what it shows with the page.
    fn run(&mut self, line: &str, code: i32) {
        let (found, stdout) = self.output(line);
        let command = self.script.take(&format!("{IN_POD}{line}"));
        assert_eq!(command.text, format!("{IN_POD}{line}"));
        let shown = command.shown.iter().map(String::as_str);
        assert_eq!(shape(stdout.lines()), shape(shown), "{line}:\n{stdout}");
        assert_eq!(found, code, "{line}");
    }

    fn output(&mut self, line: &str) -> (i32, String) {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("routelet"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_routelet"));
        command.env_clear().args(words);
        command.env("ROUTELET_ADMIN_SOCKET", self.stage.agent().socket());
        command.env("ROUTELET_NODE_NAME", "node-1");
        command.env("ROUTELET_KUBECONFIG", self.stage.cluster.kubeconfig());
        let netns = self.stage.netns();
        let Output { status, stdout, .. } = netns.run(|| command.output().unwrap()).unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap())
    }
}

#[test]
fn each_command_of_the_page_does_what_the_page_shows() {
    let mut stage = Stage::with_web();
    stage.wait_noticed();
    let stranger = stage
        .cluster
        .pod_object(0, "stranger", 4)
        .unwrap()
        .ips([IpAddr::from([192, 0, 2, 7])]);
    let mut node = Node {
        script: Script::of("kernel/operations.rs: each_command_of_the_page_does_what_the_page_shows"),
        stage,
    };
    let in_sync = node.output("routelet diff");
    assert_eq!(in_sync, (0, String::new()));
    node.stage.cluster.api().apply(&stranger.build()).unwrap();
    wait::until(wait::LONG, "the pod to be refused", || {
        node.output("routelet status").0 == 5
    })
    .unwrap();
    node.run("routelet status", 5);

    node.run("routelet log-level", 0);
    node.run("routelet log-level info,routelet_watcher=debug", 0);
    node.run("routelet log-level --reset", 0);

    // Without the agent, which would put it right.
    node.stage.agent().kill().unwrap();
    let device = DEVICE.parse().unwrap();
    let nexthop = |number| RouteTarget::Nexthop {
        link: device,
        gateway: peer_subnet(number).addr(),
    };
    let surplus = "10.128.9.0/24".parse().unwrap();
    node.stage.meddle(
        OURS,
        &[
            delete(Key::route(peer_subnet(2)), Object::Route(nexthop(2))),
            create(Key::route(surplus), Object::Route(RouteTarget::Blackhole)),
        ],
    );
    node.stage.setup().set_mtu(DEVICE, 1400).unwrap();
    node.run("routelet diff", 1);
    node.stage.start_agent(NO_AUDIT);
}
