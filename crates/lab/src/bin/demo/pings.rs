//! Pings over one road, as rows of a table.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use routelet_lab::{Ping, PingReport, Pod, wait};
use routelet_model::Family;
use routelet_netlink::Netns;

/// Requests of each ping.
const COUNT: u64 = 50;
/// Time between them.
const INTERVAL: Duration = Duration::from_millis(2);
/// A packet starts with 64, and each node that forwards it takes one off.
pub(crate) const TTL_OVER_ONE_NODE: u8 = 63;
/// See [`TTL_OVER_ONE_NODE`].
pub(crate) const TTL_ACROSS_NODES: u8 = 62;

/// One end of a road.
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) netns: &'a Netns,
    pub(crate) address: IpAddr,
}

impl<'a> End<'a> {
    /// A pod.
    pub(crate) fn of(pod: &'a Pod, family: Family) -> Result<Self> {
        Ok(Self {
            name: &pod.id().name,
            netns: pod.netns(),
            address: pod
                .address(family)
                .with_context(|| format!("{} has no {family} address", pod.id()))?,
        })
    }
}

/// Of a table of [`row`]s.
pub(crate) const HEADINGS: [&str; 9] = [
    "road",
    "from",
    "to",
    "address",
    ">sent",
    ">lost",
    ">ttl",
    ">rtt best",
    ">rtt mean",
];

/// Pings; fails where a reply is missing or came another way than it should.
pub(crate) fn row(road: &str, from: &End<'_>, to: &End<'_>, ttl: u8) -> Result<[String; 9]> {
    wait_reply_of(from, to)?;
    let report = Ping::to(to.address)
        .count(COUNT)
        .interval(INTERVAL)
        .run(from.netns)?;
    let what = format!("{road}: pinging {} ({}) from {}", to.name, to.address, from.name);
    ensure!(report.lost.is_empty(), "{what}: {report}");
    ensure!(
        report.ttl == Some(ttl),
        "{what}: {report}; the ttl should be {ttl}"
    );
    let (best, mean) = round_trips(&report).context("no replies")?;
    let time = |time: Duration| format!("{} µs", time.as_micros());
    Ok([
        road.to_owned(),
        from.name.to_owned(),
        to.name.to_owned(),
        to.address.to_string(),
        report.sent.to_string(),
        report.lost.len().to_string(),
        ttl.to_string(),
        time(best),
        time(mean),
    ])
}

/// Waits for a reply over IPv4: the agents of other nodes hear of a new pod or node at a time of their own.
pub(crate) fn wait_reply(from: &Pod, to: &Pod) -> Result<()> {
    wait_reply_of(&End::of(from, Family::V4)?, &End::of(to, Family::V4)?)
}

fn wait_reply_of(from: &End<'_>, to: &End<'_>) -> Result<()> {
    let what = format!("a reply of {} ({}) to {}", to.name, to.address, from.name);
    let one = Ping::to(to.address).patience(Duration::from_millis(50));
    wait::until(wait::LONG, &what, || {
        one.clone()
            .run(from.netns)
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
