//! Measures routelet in network namespaces and prints each figure beside that of a raw writer of netlink batches.
//! What the figures mean is told in docs/performance.md.
#![expect(clippy::print_stdout, reason = "the table is what the program is for")]

mod agent;
mod api_events;
mod cni;
mod damage;
mod dataplane;
mod listener;
mod message;
mod modes;
mod nft;
mod overlay;
mod peer;
mod programming;
mod raw;
mod repair;
mod report;
mod rest;
mod start;
mod statistics;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use report::{Report, Target};
use routelet_lab::privilege;
use serde_json::json;

/// Measures routelet in network namespaces, beside a raw writer of netlink batches.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// Everything once and in small, to see that it works; the figures are worth little.
    #[arg(long)]
    quick: bool,

    /// Write all figures to this file, too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Measure this only; may be given more than once.
    #[arg(long, value_name = "NAME", value_enum)]
    only: Vec<Section>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Programming an empty kernel, and comparing it when it is clean.
    Programming,
    /// The same in each encapsulation.
    Modes,
    /// From an event of the API to the kernel.
    Events,
    /// Repair of what someone deleted or changed.
    Repair,
    /// From the start of the agent until it is in sync.
    Start,
    /// Memory, CPU and API traffic of an agent that has nothing to do.
    Rest,
    /// ADD and DEL of the CNI plugin.
    Cni,
    /// Throughput and round trips from pod to pod.
    Overlay,
    /// Size of the program.
    Binary,
}

/// How much is measured.
pub(crate) struct Plan {
    /// How often everything is repeated.
    repeats: usize,
    /// Samples of a latency in each repeat.
    samples: usize,
    /// The same of what there is only one of on a node.
    few: usize,
    /// Numbers of remote nodes that an empty kernel is programmed with.
    programmed_nodes: &'static [usize],
    /// Numbers of pod routes likewise.
    programmed_pods: &'static [usize],
    /// Numbers of remote nodes that it is programmed with in each encapsulation.
    mode_nodes: &'static [usize],
    /// Numbers of nodes that are there when an event comes.
    event_nodes: &'static [usize],
    /// Numbers of nodes that are there when an object is repaired.
    repair_nodes: &'static [usize],
    /// Numbers of nodes that the agent starts with.
    start_nodes: &'static [usize],
    /// Numbers of nodes around an agent at rest.
    rest_nodes: &'static [usize],
    /// How long an agent at rest is looked at.
    window: Duration,
    /// How often traffic from pod to pod is measured over each network.
    overlay_rounds: usize,
    /// How long streams send each time.
    overlay_time: Duration,
    /// Round trips each time.
    overlay_trips: usize,
}

const FULL: Plan = Plan {
    repeats: 3,
    samples: 200,
    few: 5,
    programmed_nodes: &[100, 1_000, 5_000, 15_000],
    programmed_pods: &[110, 1_000, 65_536],
    mode_nodes: &[1_000, 5_000],
    event_nodes: &[0, 1_000, 5_000],
    repair_nodes: &[100, 5_000],
    start_nodes: &[1_000, 5_000],
    rest_nodes: &[100, 1_000, 5_000],
    window: Duration::from_secs(20),
    overlay_rounds: 9,
    overlay_time: Duration::from_secs(1),
    overlay_trips: 5_000,
};

const QUICK: Plan = Plan {
    repeats: 1,
    samples: 10,
    few: 2,
    programmed_nodes: &[100, 1_000],
    programmed_pods: &[110, 1_000],
    mode_nodes: &[1_000],
    event_nodes: &[0, 100],
    repair_nodes: &[100],
    start_nodes: &[200],
    rest_nodes: &[100],
    window: Duration::from_secs(2),
    overlay_rounds: 2,
    overlay_time: Duration::from_millis(200),
    overlay_trips: 200,
};

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    privilege::enter_user_namespace_if_needed()?;
    let plan = if arguments.quick { QUICK } else { FULL };
    let wanted = |section| arguments.only.is_empty() || arguments.only.contains(&section);

    let before = machine()?;
    println!("{before}\n");
    let mut report = Report::default();
    if wanted(Section::Programming) {
        programming::measure(&plan, &mut report)?;
    }
    if wanted(Section::Modes) {
        modes::measure(&plan, &mut report)?;
    }
    if wanted(Section::Events) {
        api_events::measure(&plan, &mut report)?;
    }
    if wanted(Section::Repair) {
        repair::measure(&plan, &mut report)?;
    }
    if wanted(Section::Start) {
        start::measure(&plan, &mut report)?;
    }
    if wanted(Section::Rest) {
        rest::measure(&plan, &mut report)?;
    }
    if wanted(Section::Cni) {
        cni::measure(&plan, &mut report)?;
    }
    if wanted(Section::Overlay) {
        overlay::measure(&plan, &mut report)?;
    }
    if wanted(Section::Binary) {
        binary(&mut report)?;
    }
    report.print_targets();
    let after = machine()?;
    println!("{after}");
    if let Some(path) = &arguments.json {
        let machine = json!({ "before": before, "after": after });
        let document = json!({ "quick": arguments.quick, "machine": machine, "figures": report.to_json() });
        std::fs::write(path, format!("{document:#}\n"))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The machine in a line, and how busy it is.
fn machine() -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let cores = std::thread::available_parallelism().context("counting the cores")?;
    let release = read("/proc/sys/kernel/osrelease")?;
    let load = read("/proc/loadavg")?;
    let load: Vec<&str> = load.split(' ').take(3).collect();
    Ok(format!(
        "{cores} cores, Linux {}, load {}",
        release.trim(),
        load.join(" ")
    ))
}

fn binary(report: &mut Report) -> Result<()> {
    let path = agent::program()?;
    let size = std::fs::metadata(&path)
        .with_context(|| format!("reading {}", path.display()))?
        .len();
    let size = size as f64 / report::MIB;
    report.target(Target {
        what: "release binary, MiB".to_owned(),
        limit: 12.0,
        measured: size,
    });
    Ok(())
}
