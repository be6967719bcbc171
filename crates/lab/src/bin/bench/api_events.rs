//! From the API server's write to the kernel: one node more, one pod more, with many nodes present.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use nix::libc;
use routelet_lab::Pod;
use routelet_lab::api::Resource;
use routelet_model::{Family, host_prefix};

use crate::Plan;
use crate::agent::{Rig, create, pause};
use crate::listener::{Change, Listener};
use crate::message;
use crate::peer::Peer;
use crate::programming::{DEVICE, node_messages};
use crate::raw::{RawSocket, batches};
use crate::report::{LATENCY, Report, Table, Target, grouped, latency};
use crate::statistics::{Samples, millis};

/// Numbers of the nodes that come and go: none of those that are there.
const FIRST_GUEST: u16 = 40_000;
/// Number of the nexthop of a node that the raw writer adds: one that the agent has not come to.
const GUEST_NEXTHOP: u32 = 0x4000_0000;
/// Between two samples, for the agent and the machine to fall idle.
pub(crate) const BETWEEN: Duration = Duration::from_millis(5);

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut table = Table::new("From the API server's write to the kernel", &LATENCY);
    let mut few = Vec::new();
    for nodes in plan.event_nodes {
        let (mut node_events, mut pod_events) = (Samples::default(), Samples::default());
        let (mut raw_node, mut raw_pod) = (Samples::default(), Samples::default());
        for _ in 0..plan.repeats {
            let mut rig = Rig::new(*nodes, 0)?;
            let pods = waiting_pods(&mut rig, plan.samples)?;
            rig.start()?;
            rig.netns().run(|| {
                one_node_more(&rig, plan.samples, &mut node_events)?;
                one_pod_more(&rig, &pods, &mut pod_events)
            })??;
            // What it has made stays, for the raw writer to work amidst.
            rig.stop_in_sync()?;
            rig.netns().run(|| {
                raw_node_more(&rig, plan.samples, &mut raw_node)?;
                raw_pod_more(&rig, &pods, &mut raw_pod)
            })??;
        }
        for (event, samples, raw) in [("node", node_events, raw_node), ("pod", pod_events, raw_pod)] {
            table.row(latency(&format!("one {event} more"), *nodes, &samples, &raw));
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
        let route = route_of(pod)?;
        pause(BETWEEN);
        let published = create(&rig.api, Resource::Pods, object)?;
        let there = listener.wait(Change::Route(route, libc::RTN_UNICAST))?;
        samples.push(there.saturating_duration_since(published));
    }
    Ok(())
}

/// The same objects as [`one_node_more`]'s, by a raw writer.
fn raw_node_more(rig: &Rig, count: usize, samples: &mut Samples) -> Result<()> {
    let (mut socket, mut listener) = (RawSocket::open()?, Listener::open()?);
    let device = rig.index(DEVICE)?;
    for number in (FIRST_GUEST..).take(count) {
        let peer = Peer::number(number);
        let messages = batches(node_messages(device, GUEST_NEXTHOP, std::slice::from_ref(&peer)));
        pause(BETWEEN);
        let began = Instant::now();
        socket.write(&messages)?;
        let there = listener.wait(Change::Route(peer.subnet, libc::RTN_UNICAST))?;
        samples.push(there.duration_since(began));
        // The nexthop takes the route along.
        socket.request(message::delete_nexthop(GUEST_NEXTHOP))?;
        let gone = libc::RTM_DELNEIGH;
        socket.request(message::neighbour(gone, 0, device, peer.gateway(), peer.mac()))?;
        socket.request(message::fdb(gone, 0, device, peer.mac(), peer.underlay))?;
    }
    Ok(())
}

/// The same route as [`one_pod_more`]'s, by a raw writer; the veth's settings stay as they are.
fn raw_pod_more(rig: &Rig, pods: &[Pod], samples: &mut Samples) -> Result<()> {
    let (mut socket, mut listener) = (RawSocket::open()?, Listener::open()?);
    for pod in pods {
        let route = route_of(pod)?;
        let message = batches(vec![message::route_to(
            route,
            rig.index(pod.host_veth().as_str())?,
        )]);
        socket.request(message::delete_route(route))?;
        listener.empty()?;
        pause(BETWEEN);
        let began = Instant::now();
        socket.write(&message)?;
        let there = listener.wait(Change::Route(route, libc::RTN_UNICAST))?;
        samples.push(there.duration_since(began));
    }
    Ok(())
}

/// Destination of the route to a pod.
pub(crate) fn route_of(pod: &Pod) -> Result<Ipv4Net> {
    let address = pod.address(Family::V4).context("a pod without an IPv4 address")?;
    match host_prefix(address) {
        IpNet::V4(prefix) => Ok(prefix),
        IpNet::V6(prefix) => bail!("{prefix}: not IPv4"),
    }
}
