//! The link that holds the node's underlay address: pulled out, handed to another device, not there yet.

use routelet_lab::wait;
use routelet_model::{Family, Key, Kind, Object, RouteTarget};

use crate::stage::{DEVICE, NO_AUDIT, OURS, Stage, create, peer_subnet};

const ETH0: &str = "eth0";
/// `RTPROT_KERNEL`.
const BY_THE_KERNEL: u8 = 2;

#[test]
fn a_cable_pulled_out_and_put_in_again_loses_nothing() {
    let mut stage = Stage::with_web();
    for _ in 0..3 {
        let node = &stage.cluster.nodes()[0].node;
        stage.cluster.lab().set_connected(node, false).unwrap();
        stage.cluster.lab().set_connected(node, true).unwrap();
        stage.wait_right("the cable was out");
    }
    assert_eq!(stage.sum("routelet_operation_errors_total"), 0);
}

/// As when a NIC becomes a port of a bond or a bridge, which then has its address.
#[test]
fn a_device_follows_its_underlay_address_to_another_link() {
    let mut stage = Stage::with_web();
    let address = stage.cluster.nodes()[0].node.address_with_prefix(Family::V4);
    let mut setup = stage.setup();
    setup.add_bridge("br0").unwrap();
    setup.set_up("br0").unwrap();
    setup.delete_address(ETH0, address).unwrap();
    setup.set_master(ETH0, "br0").unwrap();
    stage.agent().wait_log("stays in force", wait::LONG).unwrap();
    setup.add_address("br0", address).unwrap();
    stage.parent = "br0".parse().unwrap();
    stage.wait_right("the address moved to br0");
    stage.agent().wait_log("on br0", wait::LONG).unwrap();
}

/// A node whose network comes up after the agent: what an agent before it has left stays until it is known what the
/// node needs.
#[test]
fn nothing_is_removed_before_the_underlay_address_is_there() {
    let mut stage = Stage::without_agent(2);
    let address = stage.cluster.nodes()[0].node.address_with_prefix(Family::V4);
    let stale = Key::route(peer_subnet(77));
    stage.meddle(OURS, &[create(stale, Object::Route(RouteTarget::Blackhole))]);
    // The API is reached by another address meanwhile.
    let mut setup = stage.setup();
    setup.delete_address(ETH0, address).unwrap();
    setup
        .add_address(ETH0, "172.30.200.1/16".parse().unwrap())
        .unwrap();
    stage.cluster.start_agent(0, NO_AUDIT).unwrap();
    let missing = format!("this node's address {} is on no link", address.addr());
    wait::until(wait::LONG, "the agent to miss nothing but the address", || {
        let ready = stage.cluster.node(0).agent().unwrap().get("/readyz");
        ready.is_ok_and(|ready| ready.body.contains(&missing) && ready.body.lines().count() == 1)
    })
    .unwrap();
    assert!(stage.kernel().contains_key(&stale));
    setup.add_address(ETH0, address).unwrap();
    stage.cluster.wait_ready().unwrap();
    stage.wait_right("the address was there");
    assert!(!stage.kernel().contains_key(&stale));
}

/// The kernel makes IPv6 routes of its own on every link with an address; they are no one's to sweep.
#[test]
fn the_kernels_own_routes_stay() {
    let mut stage = Stage::with_web();
    let own = |stage: &Stage| {
        let view = routelet_lab::KernelView::of(stage.netns()).unwrap();
        let mut routes: Vec<String> = view
            .routes
            .iter()
            .filter(|row| row.protocol == BY_THE_KERNEL)
            .map(|row| format!("{row:?}"))
            .collect();
        routes.sort();
        routes
    };
    let before = own(&stage);
    assert!(before.iter().any(|route| route.contains("fe80::")), "{before:?}");
    stage.start_agent(&["--audit-interval", "1s"]);
    let resyncs = "routelet_resync_seconds_count";
    let (sum, enough) = (stage.sum(resyncs), stage.sum(resyncs) + 2);
    wait::until(wait::LONG, "two audits", || stage.sum(resyncs) >= enough).unwrap();
    assert!(sum > 0);
    assert_eq!(own(&stage), before);
    assert_eq!(stage.repairs(Kind::Route, "surplus"), 0);
    assert!(stage.setup().link(DEVICE).unwrap().is_some());
}
