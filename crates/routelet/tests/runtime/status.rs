//! STATUS, as far as the runtime asks for it.

use routelet_lab::{skip, wait};

use crate::containerd::{asks_for_status, missing};
use crate::pods::World;

#[test]
fn the_network_is_ready_as_long_as_the_agent_is_where_the_runtime_asks_for_status() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut world = World::new();
    let mut list = world.list(0);
    // Of the plugins in a list of 1.1.0, portmap would have to speak it, too. containerd before 2 does not.
    if asks_for_status() {
        list["cniVersion"] = "1.1.0".into();
        list["plugins"].as_array_mut().unwrap().truncate(1);
    }
    world.runtimes[0].configure(&list).unwrap();
    world.wait_network(0);
    let pod = world.run(0, "web", 0);
    world.cluster.node(0).agent().unwrap().stop().unwrap();
    let is_ready = |world: &World| world.runtimes[0].cri.is_network_ready().unwrap();
    if asks_for_status() {
        wait::until(wait::LONG, "NetworkReady to end", || !is_ready(&world)).unwrap();
    }
    assert_eq!(is_ready(&world), !asks_for_status());
    world.stop(&pod);
    assert!(
        !world.has_veth(&pod) && !world.has_lease(&pod),
        "without the agent"
    );
    world.cluster.start_agent(0, &[]).unwrap();
    world.cluster.wait_ready().unwrap();
    // The agent's socket is another one, of which the configuration has to speak.
    let socket = world.cluster.node(0).agent().unwrap().socket();
    list["plugins"][0]["socket"] = socket.to_str().unwrap().into();
    world.runtimes[0].configure(&list).unwrap();
    world.wait_network(0);
}
