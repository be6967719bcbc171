//! A node joins and a node leaves, while all else runs.

use anyhow::{Result, ensure};
use routelet_model::Object;

use crate::observer::State;
use crate::pings::{self, End, TTL_ACROSS_NODES};
use crate::screen::{Screen, micros};
use crate::world::World;

/// Index of the node that leaves: node-3.
const LEAVING: usize = 2;

pub(crate) fn show(screen: &mut Screen, world: &mut World) -> Result<()> {
    screen.step("A node joins, and a node leaves")?;
    let joining = join(screen, world)?;
    world.start_agent(screen, joining)?;
    let [pod, _, _, _, _] = world.add_pod(joining, "web", 2)?;
    screen.say(&format!("and its first pod: {pod}\n"))?;
    let mut rows = Vec::new();
    for family in &world.families {
        for (from, to) in [(0, joining), (joining, 1)] {
            let (from, to) = (
                End::of(world.pod(from, 0)?, *family)?,
                End::of(world.pod(to, 0)?, *family)?,
            );
            rows.push(pings::row("across nodes", &from, &to, TTL_ACROSS_NODES)?);
        }
    }
    screen.table(pings::HEADINGS, &rows)?;
    screen.say("")?;
    leave(screen, world)?;
    let expected = world.objects_of_peer(joining)?;
    world.ensure_present(&expected)
}

/// Adds a node; returns its index.
fn join(screen: &mut Screen, world: &mut World) -> Result<usize> {
    let index = world.cluster.add_unregistered_node()?;
    let expected = world.objects_of_peer(index)?;
    let object = world.node_object(index).build();
    let api = world.cluster.api();
    let ((), timing) = world.observer.time_until_seen(&expected, || api.apply(&object))?;
    let name = world.cluster.nodes()[index].node.name();
    let after = micros(timing.total);
    screen.say(&format!(
        "Node {name} written to the API; {after} later, node-1's kernel has told of"
    ))?;
    list(screen, &expected)?;
    Ok(index)
}

/// Deletes a node.
fn leave(screen: &mut Screen, world: &mut World) -> Result<()> {
    let unwanted = world.objects_of_peer(LEAVING)?;
    world.ensure_present(&unwanted)?;
    let object = world.node_object(LEAVING).build();
    let api = world.cluster.api();
    let ((), timing) = world
        .observer
        .time_until_gone(&unwanted, || api.delete(&object))?;
    let name = world.cluster.nodes()[LEAVING].node.name();
    let after = micros(timing.total);
    screen.say(&format!(
        "Node {name} deleted from the API; {after} later, gone from node-1's kernel are"
    ))?;
    list(screen, &unwanted)?;
    let state = world.observer.state()?;
    let stale = unwanted.keys().find(|key| state.contains_key(key));
    ensure!(stale.is_none(), "still there: {stale:?}");
    let status = world.cluster.node(LEAVING).agent()?.stop()?;
    ensure!(status.success(), "the agent of the node that left: {status}");
    screen.say(&format!(
        "Its agent was asked to end (SIGTERM), and did: {status}"
    ))
}

fn list(screen: &mut Screen, objects: &State) -> Result<()> {
    for (key, object) in objects {
        match object {
            Object::Nexthop => screen.say(&format!("  {key}"))?,
            _ => screen.say(&format!("  {key} {object}"))?,
        }
    }
    screen.say("")
}
