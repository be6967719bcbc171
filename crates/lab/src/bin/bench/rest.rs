//! An agent that has nothing to do: its memory, its CPU and what it reads from the API while the nodes' heartbeats
//! go on.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use routelet_lab::api::Api;

use crate::Plan;
use crate::agent::{Rig, pause};
use crate::peer::Peer;
use crate::report::{Cell, MIB, Report, Table, Target, grouped};

/// Pods on the node.
const PODS: u8 = 110;
/// After a start, for the agent to fall idle.
const SETTLING: Duration = Duration::from_secs(1);
/// How often each node's status is written. 300 s: what a kubelet does that has nothing new to tell
/// (nodeStatusReportFrequency); its heartbeats proper go to Leases, which routelet does not watch. 10 s: what one
/// does whose status changes each time that it looks (nodeStatusUpdateFrequency).
const INTERVALS: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(10)];

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut table = Table::new(
        "At rest, with 110 pods",
        &[
            "nodes",
            "status every s",
            "RSS MiB",
            "peak RSS MiB",
            "CPU %",
            "MiB/min from the API",
        ],
    );
    for nodes in plan.rest_nodes {
        let mut worst = 0.0_f64;
        let mut cells = Vec::new();
        for _ in 0..plan.repeats {
            let mut rig = Rig::new(*nodes, PODS)?;
            rig.start()?;
            pause(SETTLING);
            let pid = rig.agent()?.pid();
            for (which, interval) in INTERVALS.iter().enumerate() {
                rig.api.reset_counters();
                let before = cpu_time(pid)?;
                let began = Instant::now();
                heartbeats(&rig.api, &rig.peers, *interval, plan.window)?;
                let took = began.elapsed();
                let cpu = (cpu_time(pid)? - before).as_secs_f64() / took.as_secs_f64();
                let bytes = rig.api.counters().total_bytes_sent() as f64;
                let resident = memory(pid, "VmRSS:")?;
                worst = worst.max(resident);
                let minutes = took.as_secs_f64() / 60.0;
                cells.push((
                    which,
                    [
                        resident,
                        memory(pid, "VmHWM:")?,
                        cpu * 100.0,
                        bytes / MIB / minutes,
                    ],
                ));
            }
        }
        for (which, interval) in INTERVALS.iter().enumerate() {
            let median = |figure: usize| {
                let of_interval = cells.iter().filter(|(of, _)| *of == which);
                let mut values: Vec<f64> = of_interval.map(|(_, values)| values[figure]).collect();
                values.sort_unstable_by(f64::total_cmp);
                values[values.len() / 2]
            };
            table.row([
                Cell::Count(*nodes),
                Cell::Count(interval.as_secs() as usize),
                Cell::Number(median(0), 1),
                Cell::Number(median(1), 1),
                Cell::Number(median(2), 2),
                Cell::Number(median(3), 2),
            ]);
        }
        let limit = if *nodes <= 100 { 16.0 } else { 40.0 };
        let what = format!("resident memory, {} nodes, 110 pods, MiB", grouped(*nodes));
        report.target(Target {
            what,
            limit,
            measured: worst,
        });
    }
    report.table(table);
    Ok(())
}

/// Lets each node write its status every `interval`, one after the other, for as long as `window`.
fn heartbeats(api: &Api, nodes: &[Peer], interval: Duration, window: Duration) -> Result<()> {
    let between = interval.div_f64(nodes.len() as f64);
    let began = Instant::now();
    let mut next = began;
    for node in nodes.iter().cycle() {
        next += between;
        let until = next.min(began + window);
        pause(until.saturating_duration_since(Instant::now()));
        if until < next {
            break;
        }
        api.heartbeat(&node.name)
            .map_err(|status| anyhow::anyhow!("a heartbeat: {status:?}"))?;
    }
    Ok(())
}

/// CPU time of all threads of a process.
fn cpu_time(pid: u32) -> Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut total = Duration::ZERO;
    for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let nanoseconds = text.split(' ').next().unwrap_or_default();
        total += Duration::from_nanos(
            nanoseconds
                .parse()
                .with_context(|| format!("{}: {text}", path.display()))?,
        );
    }
    Ok(total)
}

/// A field of /proc/PID/status, in MiB.
fn memory(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    let kib: f64 = line
        .with_context(|| format!("no {field} in {path}"))?
        .trim()
        .parse()?;
    Ok(kib / 1024.0)
}
