//! Settings that come with a new version of the DaemonSet, node by node.

use routelet_lab::wait;
use routelet_model::Family;

use crate::support::World;

/// One node after the other gets an agent with these arguments.
fn roll(world: &mut World, arguments: &[&str], mut after_each: impl FnMut()) {
    for index in 0..3 {
        let agent = world.cluster.node(index).agent().unwrap();
        assert_eq!(agent.stop().unwrap().code(), Some(0));
        world.cluster.start_agent(index, arguments).unwrap();
        world.cluster.wait_ready().unwrap();
        after_each();
    }
}

#[test]
fn another_mtu_loses_no_packet() {
    let mut world = World::new(&[]);
    let flows = world.flows();
    for (setting, v4, v6) in [("1400", 1400, 1400), ("auto", 1450, 1430)] {
        roll(&mut world, &["--mtu", setting], || flows.go_on());
        for node in 0..3 {
            let view = world.view(node);
            for (device, mtu) in [("vxlan.calico", v4), ("vxlan-v6.calico", v6)] {
                assert_eq!(view.link(device).unwrap().mtu, mtu, "{device}: {view}");
            }
        }
    }
    flows.have_lost_nothing();
}

/// VNI and port are what two nodes must agree on: those that differ do not reach each other. Within each node all goes on,
/// and when all nodes have the new number, everything works and nothing of the old one is left.
#[test]
fn another_vni_parts_the_nodes_only_until_all_have_it() {
    let mut world = World::new(&[]);
    let flows = world.flows_on_a_node();
    roll(&mut world, &["--vxlan-vni", "5000"], || flows.go_on());
    world.wait_connected();
    flows.have_lost_nothing();
    for node in 0..3 {
        let view = world.view(node);
        let devices: Vec<_> = view.links.iter().filter(|link| link.kind == "vxlan").collect();
        assert_eq!(devices.len(), Family::ALL.len(), "{view}");
        let agent = world.cluster.node(node).agent().unwrap();
        wait::until(wait::LONG, "all to be in sync", || {
            let text = agent.metrics().unwrap();
            let mut lines = text
                .lines()
                .filter(|line| line.starts_with("routelet_objects_out_of_sync{"));
            lines.all(|line| line.ends_with(" 0"))
        })
        .unwrap();
    }
}
