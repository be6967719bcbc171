//! What the first version holds in a node's kernel, word for word, and what the present one makes of it.
//!
//! nft's rules are not part of it: those of an earlier version are replaced, in one transaction.

use std::process::Command;

use routelet_lab::{KernelView, skip};
use routelet_netlink::inspect::{LinkRow, NexthopRow, RouteRow};

use crate::support::World;

/// The agent's routing protocol number.
const OURS: u8 = 80;
const FIRST_LAYOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upgrade/first-layout.sh");

/// Lays down the first version's objects on the first node.
fn lay_down(world: &World) {
    let node = &world.cluster.nodes()[0].node;
    let output = node
        .netns()
        .run(|| Command::new("sh").args(["-eu", FIRST_LAYOUT]).output().unwrap());
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

/// What a node's kernel holds that is the agent's, but for nexthops' ids, links' indices and what the kernel adds by itself.
fn state(view: &KernelView) -> Vec<String> {
    let mut lines = Vec::new();
    for link in view.links.iter().filter(|link| link.kind == "vxlan") {
        lines.push(
            LinkRow {
                index: 0,
                ..link.clone()
            }
            .to_string(),
        );
        let addresses = view.addresses.iter().filter(|row| row.link == link.name);
        lines.extend(
            addresses
                .map(ToString::to_string)
                .filter(|line| !line.starts_with("fe80:")),
        );
    }
    for route in view.routes.iter().filter(|route| route.protocol == OURS) {
        let nexthop = route.nexthop.map(|_| 0);
        lines.push(RouteRow { nexthop, ..*route }.to_string());
    }
    lines.extend(
        view.nexthops
            .iter()
            .map(|row| NexthopRow { id: 0, ..*row }.to_string()),
    );
    let neighbours = view.neighbours.iter().filter(|row| row.protocol == OURS);
    lines.extend(neighbours.map(ToString::to_string));
    for row in &view.fdb {
        // Not their state: the program bridge marks what it adds in one more way as lasting.
        lines.extend(
            row.remote
                .map(|remote| format!("{} dev {} dst {remote}", row.mac, row.link)),
        );
    }
    lines.sort();
    lines
}

fn can_lay_down() -> bool {
    let is_there = |program: &&str| Command::new(program).arg("-V").output().is_ok();
    ["ip", "bridge"].iter().all(is_there)
}

#[test]
fn the_first_versions_state_is_taken_over_without_a_write() {
    if !can_lay_down() {
        skip!("ip and bridge (Debian: iproute2) are not installed");
    }
    let mut world = World::without_agents();
    lay_down(&world);
    let before = world.view(0);
    world.cluster.start_agent(0, &[]).unwrap();
    world.cluster.wait_ready().unwrap();
    let written = world.operations(0);
    let but_nft = |line: &&String| !line.contains("kind=\"nft_");
    assert_eq!(written.iter().filter(but_nft).collect::<Vec<_>>(), [""; 0]);
    let after = world.view(0);
    assert_eq!(state(&after), state(&before));
    assert_eq!(after.nexthops, before.nexthops, "with the ids that they had");
}

/// So that a node with a later version finds its peers, and is found by those that have the first one still.
#[test]
fn what_is_made_from_nothing_is_what_the_first_version_makes() {
    if !can_lay_down() {
        skip!("ip and bridge (Debian: iproute2) are not installed");
    }
    let first = World::without_agents();
    lay_down(&first);
    let mut present = World::without_agents();
    present.cluster.start_agent(0, &[]).unwrap();
    present.cluster.wait_ready().unwrap();
    assert_eq!(state(&present.view(0)), state(&first.view(0)));
}
