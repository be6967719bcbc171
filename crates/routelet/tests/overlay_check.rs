//! `--overlay-check`: what becomes of the way between nodes is found out and told, with few packets and none where it is
//! off.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use routelet_lab::api::objects;
use routelet_lab::capture::Echo;
use routelet_lab::{Agent, Backend, Capture, Cluster, Packet, ping, wait};
use routelet_model::Family;

const V4: Family = Family::V4;
const DEVICE: &str = "vxlan.calico";
/// More than a few nodes use up: each is asked once a second at most.
const RATE: &[&str] = &["--overlay-check", "100"];

/// Nodes with agents and pod subnets of both families.
fn cluster(nodes: usize, arguments: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(Backend::from_env().unwrap()).unwrap();
    for index in 0..nodes {
        cluster.add_unregistered_node().unwrap();
        let object = cluster.node_object_of(index, &Family::ALL, &Family::ALL).build();
        cluster.api().apply(&object).unwrap();
        cluster.start_agent(index, arguments).unwrap();
    }
    cluster.wait_ready().unwrap();
    cluster
}

fn agent(cluster: &Cluster, index: usize) -> &Agent {
    cluster.nodes()[index].agent.as_ref().unwrap()
}

/// How many peers the first node's agent holds for so.
fn held(cluster: &Cluster, family: Family, state: &str) -> f64 {
    let family = if family == V4 { "ipv4" } else { "ipv6" };
    let series = format!("routelet_overlay_peers{{family=\"{family}\",state=\"{state}\"}}");
    agent(cluster, 0).metric(&series).unwrap_or_default()
}

fn wait_held(cluster: &Cluster, state: &str, peers: f64) {
    for family in Family::ALL {
        wait_held_in(family, cluster, state, peers);
    }
}

fn wait_held_in(family: Family, cluster: &Cluster, state: &str, peers: f64) {
    let what = format!("{peers} peers to be {state} in {family}");
    let are_held = || (held(cluster, family, state) - peers).abs() < 0.1;
    wait::until(wait::LONG, &what, are_held)
        .unwrap_or_else(|error| panic!("{error}: {:#?}", agent(cluster, 0).log()));
}

#[test]
fn a_peer_that_is_cut_off_is_told_once_and_so_is_its_return() {
    let cluster = cluster(3, RATE);
    wait_held(&cluster, "reachable", 2.0);
    let lost = ["does not answer through the tunnel", "peer=node-2"];
    let back = ["answers through the tunnel again", "peer=node-2"];
    agent(&cluster, 0)
        .expect_log_lines(&["through the tunnel"], 0)
        .unwrap();
    for round in 1..=2 {
        let node = &cluster.nodes()[1].node;
        cluster.lab().set_connected(node, false).unwrap();
        wait_held(&cluster, "unreachable", 1.0);
        wait_held(&cluster, "reachable", 1.0);
        // One for each family.
        agent(&cluster, 0).expect_log_lines(&lost, 2 * round).unwrap();
        cluster.lab().set_connected(node, true).unwrap();
        wait_held(&cluster, "reachable", 2.0);
        wait_held(&cluster, "unreachable", 0.0);
        agent(&cluster, 0).expect_log_lines(&back, 2 * round).unwrap();
    }
    agent(&cluster, 0).expect_log_lines(&["peer=node-3"], 0).unwrap();
}

#[test]
fn a_node_that_goes_while_it_is_cut_off_counts_no_more() {
    let mut cluster = cluster(3, RATE);
    wait_held(&cluster, "reachable", 2.0);
    let node = &cluster.nodes()[1].node;
    cluster.lab().set_connected(node, false).unwrap();
    wait_held(&cluster, "unreachable", 1.0);
    let object = cluster.node_object_of(1, &Family::ALL, &Family::ALL).build();
    cluster.api().delete(&object).unwrap();
    wait_held(&cluster, "unreachable", 0.0);
    wait_held(&cluster, "reachable", 1.0);
}

/// A link in the network between carries less than the nodes' own links: small packets pass, and large ones go nowhere
/// without a word.
#[test]
fn large_packets_that_are_lost_are_told_as_such() {
    let cluster = cluster(3, RATE);
    wait_held(&cluster, "reachable", 2.0);
    let told = |count| {
        let line = ["large packets do not arrive there", "peer=node-2"];
        agent(&cluster, 0).expect_log_lines(&line, count).unwrap();
    };
    // The LAN's own end of the second node's cable.
    cluster.lab().setup().unwrap().set_mtu("n2", 1400).unwrap();
    wait_held(&cluster, "large_lost", 1.0);
    wait_held(&cluster, "reachable", 1.0);
    told(2);
    let bytes = agent(&cluster, 0).log();
    for part in ["bytes=1450", "bytes=1430"] {
        assert!(
            bytes
                .iter()
                .any(|line| line.contains("large packets") && line.contains(part)),
            "{part}"
        );
    }
    cluster.lab().setup().unwrap().set_mtu("n2", 1500).unwrap();
    // In IPv6 the bridge has told the nodes what it carries, and their kernels keep to that for ten minutes.
    wait_held_in(V4, &cluster, "reachable", 2.0);
    let back = ["large packets arrive there again", "peer=node-2", "family=IPv4"];
    agent(&cluster, 0).expect_log_lines(&back, 1).unwrap();
    told(2);
}

/// The MTU of the tunnel is followed: what is smaller on purpose is no black hole.
#[test]
fn the_probes_have_the_size_that_the_tunnel_is_to_carry() {
    let cluster = cluster(2, RATE);
    wait_held(&cluster, "reachable", 1.0);
    for index in 0..2 {
        let node = &cluster.nodes()[index].node;
        cluster.lab().set_underlay_mtu(node, 1400).unwrap();
    }
    let large = "routelet_overlay_probes_total{size=\"large\",outcome=\"answered\"}";
    let before = agent(&cluster, 0).metric(large).unwrap_or_default();
    wait::until(wait::LONG, "large probes to be answered", || {
        agent(&cluster, 0).metric(large).unwrap_or_default() >= before + 6.0
    })
    .unwrap();
    agent(&cluster, 0)
        .expect_log_lines(&["large packets"], 0)
        .unwrap();
}

fn requests(seen: &[Packet]) -> impl Iterator<Item = &Echo> {
    seen.iter().filter_map(|packet| match packet {
        Packet::Echo(echo) if echo.is_request => Some(echo),
        _ => None,
    })
}

/// However many peers there are. They are Node objects without nodes, so nothing answers.
#[test]
fn the_number_of_packets_is_bounded_whatever_the_number_of_peers() {
    const PROBES: usize = 60;
    const A_SECOND: u32 = 20;
    let mut cluster = Cluster::new(Backend::from_env().unwrap()).unwrap();
    cluster.add_node().unwrap();
    for number in 0..=250 {
        let subnet: IpNet = Ipv4Net::new_assert(Ipv4Addr::new(10, 128, number, 0), 24).into();
        let object = objects::node(format!("peer-{number}"))
            .pod_cidrs([subnet])
            .internal_ip(Ipv4Addr::new(172, 30, 128, number).into());
        cluster.api().apply(&object.build()).unwrap();
    }
    cluster
        .start_agent(0, &["--overlay-check", &A_SECOND.to_string()])
        .unwrap();
    cluster.wait_ready().unwrap();
    let from = Instant::now();
    let capture = Capture::start(cluster.nodes()[0].node.netns(), DEVICE).unwrap();
    let seen = capture
        .until(wait::LONG, |seen| requests(seen).count() >= PROBES)
        .unwrap();
    let took = from.elapsed();
    let probes: Vec<_> = requests(&seen).collect();
    assert!(probes.len() >= PROBES, "{}", probes.len());
    // The first may be as old as the capture.
    let allowed = took.as_secs_f64() * f64::from(A_SECOND) + 1.0;
    assert!((probes.len() as f64) <= allowed, "{} in {took:?}", probes.len());
    let own = cluster.nodes()[0].subnet.addr();
    assert!(probes.iter().all(|echo| echo.from == own));
    let asked: BTreeSet<IpAddr> = probes.iter().map(|echo| echo.to).collect();
    // All have their turn before any has its second, save those that are asked again because they do not answer.
    assert!(asked.len() >= PROBES / 3, "{asked:?}");
}

/// Waits until an agent that audits each second has done so twice.
fn wait_two_audits(agent: &Agent) {
    let audits = "routelet_resync_seconds_count";
    let before = agent.metric(audits).unwrap();
    wait::until(wait::LONG, "two audits", || {
        agent.metric(audits).unwrap() >= before + 2.0
    })
    .unwrap();
}

/// What passes the tunnel while agents read the whole kernel twice, and until a ping of the test's own has passed.
fn passing(arguments: &[&str]) -> Vec<Echo> {
    let arguments = [arguments, &["--audit-interval", "1s"]].concat();
    let cluster = cluster(2, &arguments);
    let netns = cluster.nodes()[0].node.netns();
    let capture = Capture::start(netns, DEVICE).unwrap();
    // Of the other node's agent: a capture hears all of its namespace, and asking would fill it.
    wait_two_audits(agent(&cluster, 1));
    let marker: IpAddr = Ipv4Addr::new(10, 244, 2, 99).into();
    ping(netns, marker, 5, Duration::from_millis(1)).unwrap();
    let is_marker = |seen: &[Packet]| requests(seen).any(|echo| echo.to == marker);
    let seen = capture.until(wait::LONG, is_marker).unwrap();
    assert!(is_marker(&seen));
    requests(&seen)
        .filter(|echo| echo.to != marker)
        .copied()
        .collect()
}

#[test]
fn switched_off_not_one_packet_is_sent() {
    assert_eq!(passing(&[]), []);
    assert_eq!(passing(&["--overlay-check", "off"]), []);
    let probes = passing(RATE);
    assert!(!probes.is_empty(), "of an agent that tests, they are seen");
}

/// Without a tunnel there is no end of it: nothing is asked, and nothing is told to be wrong.
#[test]
fn without_encapsulation_nothing_is_tested() {
    let arguments = [RATE, &["--encapsulation", "none", "--audit-interval", "1s"]].concat();
    let cluster = cluster(2, &arguments);
    agent(&cluster, 0)
        .wait_log("the way to the other nodes is tested", wait::LONG)
        .unwrap();
    // In that time each peer would have been asked, and have answered.
    wait_two_audits(agent(&cluster, 0));
    let metrics = agent(&cluster, 0).metrics().unwrap();
    assert!(!metrics.contains("routelet_overlay_probes_total{"), "{metrics}");
}
