//! The CNI plugin: how long a runtime waits for ADD and DEL, beside the IPAM program that the plugin runs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use routelet_lab::Lab;
use routelet_lab::process::built_program;
use routelet_netlink::Netns;
use serde_json::{Value, json};

use crate::Plan;
use crate::report::{Cell, Report, Table, Target};
use crate::statistics::{Samples, millis};

/// Fewer would say little of what is typical, and each takes only some milliseconds.
const LEAST: usize = 50;

/// One verb's times.
#[derive(Debug, Default)]
struct Verb {
    plugin: Samples,
    ipam: Samples,
}

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = Runtime::new()?;
    let (mut add, mut del) = (Verb::default(), Verb::default());
    for number in 0..plan.samples.max(LEAST) {
        let netns = Netns::new()?;
        let sandbox = format!("sandbox-{number}");
        let run = |name, verb: &mut Verb| -> Result<()> {
            verb.plugin
                .push(runtime.run(&runtime.plugin, name, &sandbox, &netns)?);
            // Alone, and as the plugin runs it.
            verb.ipam
                .push(runtime.run(&runtime.ipam, name, &sandbox, &netns)?);
            Ok(())
        };
        run("ADD", &mut add)?;
        run("DEL", &mut del)?;
    }
    let mut table = Table::new(
        "The CNI plugin, from the start of the program until its end",
        &[
            "verb",
            "samples",
            "p50 ms",
            "max ms",
            "IPAM alone, p50 ms",
            "IPAM alone, max ms",
            "p50 less IPAM's, ms",
        ],
    );
    for (name, verb) in [("ADD", &add), ("DEL", &del)] {
        table.row([
            Cell::Text(name.to_owned()),
            Cell::Count(verb.plugin.len()),
            Cell::Number(millis(verb.plugin.median()), 2),
            Cell::Number(millis(verb.plugin.max()), 2),
            Cell::Number(millis(verb.ipam.median()), 2),
            Cell::Number(millis(verb.ipam.max()), 2),
            Cell::Number(verb.less_ipam(), 2),
        ]);
    }
    report.table(table);
    report.target(Target {
        what: "ADD of the CNI plugin less its IPAM program, p50, ms".to_owned(),
        limit: 10.0,
        measured: add.less_ipam(),
    });
    Ok(())
}

impl Verb {
    /// In milliseconds.
    fn less_ipam(&self) -> f64 {
        millis(self.plugin.median()) - millis(self.ipam.median())
    }
}

/// What a container runtime has: a node, and the programs.
struct Runtime {
    node: routelet_lab::Node,
    plugin: PathBuf,
    ipam: PathBuf,
    config: Value,
    /// What the node is connected to.
    _lab: Lab,
}

impl Runtime {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        Ok(Self {
            node: lab.node("node-1")?,
            plugin: built_program("routelet-cni", "ROUTELET_CNI_BIN")?,
            ipam: built_program("lab-ipam", "ROUTELET_LAB_IPAM_BIN")?,
            config: json!({
                "cniVersion": "1.0.0",
                "name": "pods",
                "type": "routelet-cni",
                "mtu": 1450,
                "ipam": { "type": "lab-ipam", "addresses": ["10.244.1.5/32"] },
            }),
            _lab: lab,
        })
    }

    /// Runs a CNI program to its end, and says how long that took.
    fn run(&self, program: &Path, verb: &str, sandbox: &str, netns: &Netns) -> Result<Duration> {
        let mut command = Command::new(program);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", self.ipam.parent().unwrap_or(Path::new("/")))
            .env("CNI_CONTAINERID", sandbox)
            .env("CNI_NETNS", netns.path())
            .env("CNI_IFNAME", "eth0")
            .env(
                "CNI_ARGS",
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={sandbox}"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let config = self.config.to_string();
        let began = Instant::now();
        let mut child = self.node.netns().spawn(command)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(config.as_bytes())?;
        }
        let output = child
            .wait_with_output()
            .with_context(|| format!("waiting for {}", program.display()))?;
        let took = began.elapsed();
        ensure!(
            output.status.success(),
            "{verb} of {} failed: {}",
            program.display(),
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(took)
    }
}
