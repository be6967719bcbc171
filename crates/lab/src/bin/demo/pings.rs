//! Pings from pod to pod: on one node and across nodes.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use routelet_lab::{Ping, PingReport, Pod, wait};
use routelet_model::Family;

use crate::screen::Screen;
use crate::world::World;

/// Requests of each ping.
const COUNT: u64 = 50;
/// Time between them.
const INTERVAL: Duration = Duration::from_millis(2);
/// A packet starts with 64, and each node that forwards it takes one off.
const TTL_ON_ONE_NODE: u8 = 63;
/// See [`TTL_ON_ONE_NODE`].
const TTL_ACROSS_NODES: u8 = 62;

pub(crate) fn show(screen: &mut Screen, world: &mut World) -> Result<()> {
    screen.step("Pods reach each other")?;
    let mut rows = Vec::new();
    for ((from_node, from), (to_node, to)) in [
        ((0, 0), (0, 1)),
        ((0, 0), (1, 0)),
        ((0, 0), (2, 0)),
        ((1, 1), (2, 2)),
        ((2, 2), (0, 2)),
    ] {
        let (from, to) = (world.pod(from_node, from)?, world.pod(to_node, to)?);
        rows.push(row(from, to, from_node == to_node)?);
    }
    screen.table(HEADINGS, &rows)
}

/// Of a table of [`row`]s.
pub(crate) const HEADINGS: [&str; 8] = [
    "from",
    "to",
    "",
    ">sent",
    ">lost",
    ">ttl",
    ">rtt best",
    ">rtt mean",
];

/// Pings from pod to pod; fails where a reply is missing or came another way than it should.
pub(crate) fn row(from: &Pod, to: &Pod, one_node: bool) -> Result<[String; 8]> {
    wait_reply(from, to)?;
    let report = Ping::to(address(to)?)
        .count(COUNT)
        .interval(INTERVAL)
        .run(from.netns())?;
    let (way, ttl) = match one_node {
        true => ("on one node", TTL_ON_ONE_NODE),
        false => ("across nodes", TTL_ACROSS_NODES),
    };
    let (from, to) = (&from.id().name, &to.id().name);
    ensure!(report.lost.is_empty(), "pinging {to} from {from}: {report}");
    ensure!(
        report.ttl == Some(ttl),
        "pinging {to} from {from}: {report}; the ttl should be {ttl}"
    );
    let (best, mean) = round_trips(&report).context("no replies")?;
    let numbers = [
        report.sent.to_string(),
        report.lost.len().to_string(),
        ttl.to_string(),
    ];
    let [sent, lost, ttl] = numbers;
    let time = |time: Duration| format!("{} µs", time.as_micros());
    Ok([
        from.clone(),
        to.clone(),
        way.to_owned(),
        sent,
        lost,
        ttl,
        time(best),
        time(mean),
    ])
}

/// Waits for a reply: the agents of other nodes hear of a new pod or node at a time of their own.
pub(crate) fn wait_reply(from: &Pod, to: &Pod) -> Result<()> {
    let what = format!("a reply of {} to {}", to.id().name, from.id().name);
    let one = Ping::to(address(to)?).patience(Duration::from_millis(50));
    wait::until(wait::LONG, &what, || {
        one.clone()
            .run(from.netns())
            .is_ok_and(|report| report.lost.is_empty())
    })
}

/// A pod's IPv4 address.
pub(crate) fn address(pod: &Pod) -> Result<IpAddr> {
    pod.address(Family::V4)
        .with_context(|| format!("{} has no IPv4 address", pod.id()))
}

fn round_trips(report: &PingReport) -> Option<(Duration, Duration)> {
    let best = report.round_trips.iter().min()?;
    let count = u32::try_from(report.round_trips.len()).ok()?;
    Some((*best, report.round_trips.iter().sum::<Duration>() / count))
}
