//! From the API server's write to the kernel: one node more, one pod more, with many nodes present.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::libc;
use routelet_lab::Pod;
use routelet_lab::api::Resource;
use routelet_model::Family;

use crate::Plan;
use crate::agent::{Rig, create, pause};
use crate::listener::{Change, Listener};
use crate::peer::Peer;
use crate::programming::{DEVICE, Place, node_messages};
use crate::raw::{RawSocket, batches};
use crate::report::{Cell, Report, Table, Target, grouped};
use crate::statistics::{Samples, micros, millis};

/// Numbers of the nodes that come and go: none of those that are there.
const FIRST_GUEST: u16 = 40_000;
/// Between two samples, for the agent and the machine to fall idle.
pub(crate) const BETWEEN: Duration = Duration::from_millis(5);

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut table = Table::new(
        "From the API server's write to the kernel",
        &["event", "nodes present", "samples", "p50 µs", "p99 µs", "max µs"],
    );
    let mut row = |event: &str, nodes, samples: &Samples| {
        table.row([
            Cell::Text(event.to_owned()),
            nodes,
            Cell::Count(samples.len()),
            Cell::Number(micros(samples.median()), 0),
            Cell::Number(micros(samples.percentile(0.99)), 0),
            Cell::Number(micros(samples.max()), 0),
        ]);
    };
    let mut floor = Samples::default();
    for _ in 0..plan.repeats {
        raw(plan.samples, &mut floor)?;
    }
    row("raw writer, a node's four objects", Cell::None, &floor);
    let mut few = Vec::new();
    for nodes in plan.event_nodes {
        let (mut node_events, mut pod_events) = (Samples::default(), Samples::default());
        for _ in 0..plan.repeats {
            let mut rig = Rig::new(*nodes, 0)?;
            let pods = waiting_pods(&mut rig, plan.samples)?;
            rig.start()?;
            rig.netns().run(|| {
                one_node_more(&rig, plan.samples, &mut node_events)?;
                one_pod_more(&rig, &pods, &mut pod_events)
            })??;
        }
        for (event, samples) in [("node", node_events), ("pod", pod_events)] {
            row(&format!("one {event} more"), Cell::Count(*nodes), &samples);
            let present = grouped(*nodes);
            let (p50, p99) = (millis(samples.median()), millis(samples.percentile(0.99)));
            let what = |value| format!("one {event} more, {present} nodes present, {value}, ms");
            report.target(Target {
                what: what("p50"),
                limit: 1.0,
                measured: p50,
            });
            report.target(Target {
                what: what("p99"),
                limit: 5.0,
                measured: p99,
            });
            match few.iter().find(|(of, _)| *of == event) {
                Some((_, few)) => {
                    let what =
                        format!("one {event} more, p50 among {present} nodes, times that among the fewest");
                    report.target(Target {
                        what,
                        limit: 1.5,
                        measured: p50 / few,
                    });
                }
                None => few.push((event, p50)),
            }
        }
    }
    report.table(table);
    Ok(())
}

/// The same objects, written by a raw writer to a kernel that has no others.
pub(crate) fn raw(count: usize, samples: &mut Samples) -> Result<()> {
    Place::with_device()?.run(|place| {
        let (mut socket, mut listener) = (RawSocket::open()?, Listener::open()?);
        let device = place.index(DEVICE)?;
        for number in (FIRST_GUEST..).take(count) {
            let peer = Peer::number(number);
            let messages = batches(node_messages(device, std::slice::from_ref(&peer)));
            pause(BETWEEN);
            let began = Instant::now();
            socket.write(&messages)?;
            let there = listener.wait(Change::Route(peer.subnet, libc::RTN_UNICAST))?;
            samples.push(there.duration_since(began));
            // The nexthop takes the route along; the next one has the same number.
            socket.request(crate::message::delete_nexthop(1))?;
        }
        Ok(())
    })
}

fn one_node_more(rig: &Rig, count: usize, samples: &mut Samples) -> Result<()> {
    let mut listener = Listener::open()?;
    for number in (FIRST_GUEST..).take(count) {
        let peer = Peer::number(number);
        let object = peer.object();
        pause(BETWEEN);
        let published = create(&rig.api, Resource::Nodes, object)?;
        // The route is the last of a node's objects.
        let there = listener.wait(Change::Route(peer.subnet, libc::RTN_UNICAST))?;
        samples.push(there.saturating_duration_since(published));
        let gone = rig.api.delete(Resource::Nodes, &peer.name);
        gone.map_err(|status| anyhow::anyhow!("deleting {}: {status:?}", peer.name))?;
        listener.wait(Change::FdbGone(peer.mac()))?;
    }
    Ok(())
}

/// Pods whose links are there, but no routes to them, and that the API does not know yet.
fn waiting_pods(rig: &mut Rig, count: usize) -> Result<Vec<Pod>> {
    let numbers = (1..=u8::MAX).take(count);
    let add = |number| {
        let address = rig.cluster.pod_address(0, number)?;
        let pod = rig
            .cluster
            .node(0)
            .node
            .pod(&format!("pod-{number}"), &[address])?;
        pod.without_host_routes()
    };
    numbers.map(add).collect()
}

fn one_pod_more(rig: &Rig, pods: &[Pod], samples: &mut Samples) -> Result<()> {
    let mut listener = Listener::open()?;
    for (number, pod) in (1..).zip(pods) {
        let object = rig.cluster.pod_object(0, &pod.id().name, number)?.build();
        let address = pod.address(Family::V4).context("a pod without an IPv4 address")?;
        let route = routelet_model::host_prefix(address);
        let ipnet::IpNet::V4(route) = route else { continue };
        pause(BETWEEN);
        let published = create(&rig.api, Resource::Pods, object)?;
        let there = listener.wait(Change::Route(route, libc::RTN_UNICAST))?;
        samples.push(there.saturating_duration_since(published));
    }
    Ok(())
}
