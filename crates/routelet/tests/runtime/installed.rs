//! A runtime whose pods have the network that the agent has installed: from the configuration that it wrote to the end of
//! the last pod, with the agent gone.

use std::fs;
use std::process::Command;

use routelet_lab::process::{Process, built_program};
use routelet_lab::{skip, wait};

use crate::containerd::missing;
use crate::pods::World;

/// Runs `routelet cleanup` on the first node; what it tells.
fn clean_up(world: &World) -> String {
    let mut command = Command::new(built_program("routelet", "ROUTELET_BIN").unwrap());
    command.env_clear().arg("cleanup").args(world.directories(0));
    for (flag, file) in [
        ("--admin-socket", "run/socket"),
        ("--saved-sysctls", "run/sysctls"),
    ] {
        command.arg(flag).arg(world.runtimes[0].file(file));
    }
    let netns = world.cluster.nodes()[0].node.netns();
    let mut program = Process::start("cleanup", netns, command).unwrap();
    let status = program.wait_exit(wait::LONG).unwrap();
    let told = program.log().join("\n");
    assert!(status.success(), "{told}");
    told
}

/// Files of the first node's runtime that are configurations.
fn configurations(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.runtimes[0].file("conf")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

#[test]
fn pods_run_on_the_agents_own_configuration_and_leave_nothing() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut world = World::installed();
    let pods = [(0, "a"), (0, "b"), (1, "c")].map(|(node, name)| world.run(node, name, 0));
    let [a, b, c] = &pods;
    assert!(world.ping(a, b.address).contains("ttl=63"));
    assert!(world.ping(a, c.address).contains("ttl=62"));
    assert!(world.ping(c, b.address).contains("ttl=62"));
    for pod in &pods {
        assert!(world.has_veth(pod) && world.has_lease(pod), "{}", pod.name);
        world.stop(pod);
        assert!(!world.has_veth(pod) && !world.has_lease(pod), "{}", pod.name);
    }
}

#[test]
fn pods_that_outlive_the_agent_can_be_deleted_and_none_can_be_started() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut world = World::installed();
    let [a, b] = ["a", "b"].map(|name| world.run(0, name, 0));
    world.ping(&a, b.address);
    world.cluster.node(0).agent().unwrap().stop().unwrap();
    let told = clean_up(&world);
    assert!(told.contains("2 pod networks that are left"), "{told}");
    world.stop(&a);
    assert!(!world.has_veth(&a) && !world.has_lease(&a));
    assert!(world.has_veth(&b) && world.has_lease(&b));

    let config = world.sandbox(0, "late", 0);
    let error = world.runtimes[0].cri.run_sandbox(&config).unwrap_err();
    assert!(
        format!("{error:#}").contains("routelet has been uninstalled"),
        "{error:#}"
    );
    world.stop(&b);
    assert!(!world.has_veth(&b) && !world.has_lease(&b));
    assert_eq!(configurations(&world), ["zz-routelet-uninstalled.conflist"]);
    clean_up(&world);
    assert_eq!(configurations(&world), [""; 0]);
    assert!(!world.runtimes[0].file("bin/routelet-cni").exists());
}
