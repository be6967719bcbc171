//! Breaks what the first node's agent has made, and shows how long each repair takes.

use anyhow::{Context, Result, bail, ensure};
use routelet_lab::Pod;
use routelet_model::{IfName, Key, Kind, MacAddr, Object, RouteTarget};
use routelet_netlink::{Kernel, Operation, Verb};

use crate::observer::{State, VXLAN, depends_on, kernel, vxlan};
use crate::pings::wait_reply;
use crate::screen::{Screen, micros};
use crate::world::World;

/// An address that no node has.
const WRONG_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x66]);

const EXPLANATION: &str = "\
Measured on node-1, from outside the agent: a netlink listener takes the time from before the system call that
does the damage until it has read the kernel's notification of the last lost object that is back. Then a dump
shows that all is as it was, and a ping to node-2 is answered. \"Doing it\" is what whoever does the damage
waits for it: the agent is often done before, above all where the kernel takes its time to delete a device.";

/// Some damage.
struct Damage {
    title: String,
    operations: Vec<Operation>,
    /// What is lost by it, and has to come back.
    lost: State,
}

pub(crate) fn show(screen: &mut Screen, world: &mut World) -> Result<()> {
    screen.step("Someone breaks things on node-1, and the agent repairs them")?;
    let before = world.observer.state()?;
    screen.say(&line([
        "what is done to the kernel",
        "objects lost",
        "doing it",
        "all is back after",
    ]))?;
    for damage in all(world, &before)? {
        let lost = damage.lost.len();
        let title = damage.title;
        // Opened before, so that it is not measured.
        let mut vandal = kernel(world.cluster.nodes()[0].node.netns())?;
        let ((), timing) = world
            .observer
            .time_until_seen(&damage.lost, || inflict(&mut vandal, &damage.operations))
            .with_context(|| title.clone())?;
        world
            .observer
            .wait_state(&before)
            .with_context(|| title.clone())?;
        screen.say(&line([
            &title,
            &lost.to_string(),
            &micros(timing.work),
            &micros(timing.total),
        ]))?;
        let (from, to): (&Pod, &Pod) = (world.pod(0, 0)?, world.pod(1, 0)?);
        wait_reply(from, to).with_context(|| format!("after this: {title}"))?;
    }
    screen.say("")?;
    screen.say(EXPLANATION)
}

fn line(cells: [&str; 4]) -> String {
    let [title, lost, work, total] = cells;
    format!("{title:<42}{lost:>13}{work:>12}{total:>19}")
}

/// Does the damage as someone else would, who has a socket of his own.
fn inflict(kernel: &mut Kernel, operations: &[Operation]) -> Result<()> {
    let mut failures = Vec::new();
    kernel.apply(operations, &mut failures);
    match failures.into_iter().next() {
        Some(failure) => Err(failure.error).context("the kernel refused the damage"),
        None => Ok(()),
    }
}

fn all(world: &World, state: &State) -> Result<Vec<Damage>> {
    let device = vxlan()?;
    let of_kind = |kind: Kind| -> State {
        state
            .iter()
            .filter(|(key, _)| key.kind() == kind && key.link() == Some(device))
            .map(|(key, object)| (*key, object.clone()))
            .collect()
    };
    let (destination, route) = world.route_to_pod(0)?;
    let mut damages = vec![
        delete(
            format!("deletes the route to pod {}", destination.addr()),
            only(state, &[route])?,
        ),
        delete(format!("flushes the FDB of {VXLAN}"), of_kind(Kind::Fdb)),
    ];

    let neighbours = of_kind(Kind::Neighbour);
    let key = *neighbours.keys().next().context("there is no neighbour")?;
    let changed = Operation {
        verb: Verb::Replace,
        key,
        object: Object::Neighbour(WRONG_MAC),
    };
    damages.push(Damage {
        title: "gives a neighbour a wrong MAC address".to_owned(),
        operations: vec![changed],
        lost: only(state, &[key])?,
    });

    if let Some((key, object)) = of_kind(Kind::Nexthop).pop_first() {
        let Key::Nexthop { gateway, .. } = key else {
            bail!("{key} is none of the agent's nexthops")
        };
        let mut lost = through(state, gateway);
        lost.insert(key, object.clone());
        let operations = vec![Operation {
            verb: Verb::Delete,
            key,
            object,
        }];
        damages.push(Damage {
            title: "deletes a nexthop (its route goes with it)".to_owned(),
            operations,
            lost,
        });
    }

    let key = Key::Link(device);
    let Some(Object::Link(link)) = state.get(&key) else {
        bail!("there is no {VXLAN}")
    };
    let mut down = link.clone();
    down.up = false;
    damages.push(Damage {
        title: format!("sets {VXLAN} down"),
        operations: vec![Operation {
            verb: Verb::Replace,
            key,
            object: Object::Link(down),
        }],
        lost: lost_when_down(state, device),
    });
    damages.push(Damage {
        title: format!("deletes {VXLAN}"),
        operations: vec![Operation {
            verb: Verb::Delete,
            key,
            object: Object::Link(link.clone()),
        }],
        lost: state
            .iter()
            .filter(|(key, object)| depends_on(device, key, object))
            .map(|(key, object)| (*key, object.clone()))
            .collect(),
    });
    for damage in &damages {
        ensure!(
            !damage.lost.is_empty(),
            "{}: there is nothing to lose",
            damage.title
        );
    }
    Ok(damages)
}

/// Deletes each of the objects.
fn delete(title: String, lost: State) -> Damage {
    let operations = lost.iter().map(|(key, object)| Operation {
        verb: Verb::Delete,
        key: *key,
        object: object.clone(),
    });
    Damage {
        title,
        operations: operations.collect(),
        lost,
    }
}

fn only(state: &State, keys: &[Key]) -> Result<State> {
    let find = |key: &Key| {
        state
            .get(key)
            .map(|object| (*key, object.clone()))
            .with_context(|| format!("there is no {key}"))
    };
    keys.iter().map(find).collect()
}

/// The routes through the nexthop to `gateway`.
fn through(state: &State, via: std::net::IpAddr) -> State {
    let uses = |object: &Object| matches!(object, Object::Route(RouteTarget::Nexthop { gateway, .. }) if *gateway == via);
    state
        .iter()
        .filter(|(_, object)| uses(object))
        .map(|(key, object)| (*key, object.clone()))
        .collect()
}

/// What the kernel drops of a device that is set down: its neighbours, nexthops and IPv4 routes, not its addresses and
/// not its FDB.
fn lost_when_down(state: &State, device: IfName) -> State {
    let lost = |key: &Key, object: &Object| {
        depends_on(device, key, object) && !matches!(key.kind(), Kind::Address | Kind::Fdb)
    };
    state
        .iter()
        .filter(|(key, object)| lost(key, object))
        .map(|(key, object)| (*key, object.clone()))
        .collect()
}
