//! Agents of two versions in one cluster. It takes the program of an earlier one, so it runs only where it is named:
//! `cargo xtask test --upgrade-from COMMIT`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../upgrade/support.rs"]
mod support;

use std::path::PathBuf;

use routelet_lab::Agent;

use support::{World, state};

/// Names the earlier agent's program.
const EARLIER: &str = "ROUTELET_EARLIER_BIN";

/// Replaces a node's agent by the present one, or by that of `program`; the kernel's state stays as it is, and pods do not
/// notice.
fn replace(world: &mut World, index: usize, program: Option<&PathBuf>) {
    let before = state(&world.view(index));
    let agent = world.cluster.node(index).agent().unwrap();
    assert_eq!(agent.stop().unwrap().code(), Some(0));
    start(world, index, program);
    world.cluster.wait_ready().unwrap();
    assert_eq!(state(&world.view(index)), before, "node {index}");
}

fn start(world: &mut World, index: usize, program: Option<&PathBuf>) {
    let Some(program) = program else {
        return world.cluster.start_agent(index, &[]).unwrap();
    };
    let (node, kubeconfig) = (&world.cluster.nodes()[index].node, world.cluster.kubeconfig());
    let agent = Agent::start_program(program.clone(), node, kubeconfig, &[]).unwrap();
    world.cluster.node(index).agent = Some(agent);
}

#[test]
fn an_upgrade_and_a_rollback_lose_no_packet_and_both_versions_understand_each_other() {
    let earlier = std::env::var_os(EARLIER).map(PathBuf::from);
    let earlier = earlier.unwrap_or_else(|| panic!("{EARLIER} names no program"));
    let mut world = World::without_agents();
    for index in 0..3 {
        start(&mut world, index, Some(&earlier));
    }
    world.cluster.wait_ready().unwrap();
    world.wait_connected();
    let flows = world.flows();
    flows.go_on();
    for program in [None, Some(&earlier)] {
        for index in 0..3 {
            replace(&mut world, index, program);
            // What one version makes of what the other has made, in each mixture of the two.
            world.wait_connected();
            flows.go_on();
        }
    }
    flows.have_lost_nothing();
}
