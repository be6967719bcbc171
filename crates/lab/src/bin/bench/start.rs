//! Cold start: an agent on a node whose kernel is empty, with a cluster of some size.

use anyhow::Result;

use crate::Plan;
use crate::agent::Rig;
use crate::programming;
use crate::report::{Cell, MIB, Report, Table};
use crate::statistics::{Samples, millis};

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut table = Table::new(
        "Cold start, from the start of the program until /readyz says yes",
        &[
            "nodes",
            "samples",
            "median ms",
            "max ms",
            "raw writer's median ms, the kernel's part only",
            "MiB read from the API",
        ],
    );
    for nodes in plan.start_nodes {
        let (mut samples, mut raw, mut bytes) = (Samples::default(), Samples::default(), 0);
        for _ in 0..plan.repeats {
            let mut rig = Rig::new(*nodes, 0)?;
            rig.api.reset_counters();
            samples.push(rig.start()?);
            raw.append(programming::raw_nodes(*nodes)?);
            bytes = rig.api.counters().total_bytes_sent();
        }
        table.row([
            Cell::Count(*nodes),
            Cell::Count(samples.len()),
            Cell::Number(millis(samples.median()), 0),
            Cell::Number(millis(samples.max()), 0),
            Cell::Number(millis(raw.median()), 1),
            Cell::Number(bytes as f64 / MIB, 1),
        ]);
    }
    report.table(table);
    Ok(())
}
