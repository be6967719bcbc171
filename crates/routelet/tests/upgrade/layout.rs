//! What the first version holds in a node's kernel, word for word, and what the present one makes of it.
//!
//! nft's rules are not part of it: those of an earlier version are replaced, in one transaction.

use std::process::Command;

use routelet_lab::skip;

use crate::support::{World, state};

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
