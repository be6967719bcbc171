//! What others do with the programs ip and bridge, and the kernel says little of.

#![allow(clippy::unwrap_used, reason = "clippy does not take the helpers for tests")]

mod node;

use node::{Agent, Meddle, Node, Peer, Pod, device, run, veth, with_programs};
use routelet_model::{Family, vtep_mac};

const BUFFER: usize = 8 << 20;

const PEER: Peer = Peer {
    underlay: 2,
    subnet: 1,
    v6: true,
};

/// An agent that is at rest, with a peer.
fn with_peer() -> (Node, Agent) {
    let node = Node::new();
    let mut agent = Agent::start(true, BUFFER);
    agent.tell(Peer::event(1, Some(PEER)));
    agent.tell_synced();
    agent.converge(|_| false);
    (node, agent)
}

/// A second look finds nothing to do.
fn assert_rest(agent: &mut Agent) {
    agent.take_operations();
    agent.audit();
    assert_eq!(agent.take_operations(), 0);
}

#[test]
fn an_fdb_entry_that_no_replacement_reaches_is_made_anew() {
    with_programs(|| {
        let (_node, mut agent) = with_peer();
        run("ip nexthop add id 901 via 192.0.2.9 fdb").unwrap();
        run("ip nexthop add id 902 group 901 fdb").unwrap();
        run("ip nexthop add id 903 via 2001:db8::9 fdb").unwrap();
        run("ip nexthop add id 904 group 903 fdb").unwrap();
        for (family, group, other) in [(Family::V4, 902, "192.0.2.9"), (Family::V6, 904, "2001:db8::9")] {
            let entry = format!("{} dev {} self", vtep_mac("node-1", family), device(family));
            // To the nexthop group, to another address, to another port.
            for deed in [
                vec![
                    format!("del {entry}"),
                    format!("add {entry} nhid {group} permanent"),
                ],
                vec![format!("replace {entry} dst {other} permanent")],
                vec![format!("replace {entry} dst {other} port 4790 permanent")],
            ] {
                for words in &deed {
                    run(&format!("bridge fdb {words}")).unwrap();
                }
                agent.settle();
                assert_eq!(agent.faults(|_| false), [""; 0], "{deed:?}");
                assert_rest(&mut agent);
                // The same, found by a comparison only.
                for words in &deed {
                    run(&format!("bridge fdb {words}")).unwrap();
                }
                let mut late = Agent::start(true, BUFFER);
                late.tell(Peer::event(1, Some(PEER)));
                late.tell_synced();
                late.settle();
                assert_eq!(late.faults(|_| false), [""; 0], "at the start: {deed:?}");
            }
        }
    });
}

#[test]
fn a_device_with_an_option_that_is_never_set_is_made_anew_and_one_without_is_left() {
    with_programs(|| {
        let (mut node, mut agent) = with_peer();
        for family in Family::ALL {
            let index = |node: &mut Node| node.setup.link(device(family).as_str()).unwrap().unwrap().index;
            for option in ["maxaddress 1", "ttl 3", "l3miss", "udp6zerocsumtx"] {
                node.meddle(&Meddle::MakeOddDevice(family, option));
                let before = index(&mut node);
                agent.converge(|_| false);
                assert_ne!(index(&mut node), before, "{option}");
                assert_rest(&mut agent);
            }
            for option in ["ttl 3", "tos 4", "df set"] {
                let before = index(&mut node);
                run(&format!("ip link set {} type vxlan {option}", device(family))).unwrap();
                agent.converge(|_| false);
                assert_ne!(index(&mut node), before, "{option} in place");
                assert_rest(&mut agent);
            }
            // As ip makes it, so does Calico: no option more.
            node.meddle(&Meddle::MakeOddDevice(family, ""));
            let before = index(&mut node);
            agent.converge(|_| false);
            assert_eq!(index(&mut node), before);
        }
    });
}

/// Has someone make links of ours part of another, on a running agent and before one starts.
fn enslave_all_to(master: &str) {
    let mut node = Node::new();
    node.meddle(&Meddle::MakeVeth(1, true));
    run(&format!("ip link set {master} up")).unwrap();
    let links = [device(Family::V4), device(Family::V6), veth(1)];
    let start = || {
        let mut agent = Agent::start(true, BUFFER);
        agent.tell(Peer::event(1, Some(PEER)));
        agent.tell(Pod::event(1, Some(Pod { address: 5, v6: true })));
        agent.tell_synced();
        agent.converge(|_| false);
        agent
    };
    let mut agent = start();
    for link in links {
        let before = node.setup.link(link.as_str()).unwrap();
        run(&format!("ip link set {link} master {master}")).unwrap();
        agent.converge(|_| false);
        assert_eq!(node.setup.link(link.as_str()).unwrap(), before, "{link}");
        assert_rest(&mut agent);
        run(&format!("ip link set {link} master {master}")).unwrap();
        let mut late = start();
        assert_eq!(
            node.setup.link(link.as_str()).unwrap(),
            before,
            "{link} at the start"
        );
        assert_rest(&mut late);
        agent.converge(|_| false);
    }
}

#[test]
fn links_that_someone_makes_ports_of_a_bridge_are_taken_out_of_it() {
    with_programs(|| {
        run("ip link add br9 type bridge").unwrap();
        enslave_all_to("br9");
    });
}

/// The kernel takes most of what is on a link away when it goes into a VRF, and when it leaves it.
#[test]
fn links_that_someone_puts_into_a_vrf_are_taken_out_of_it() {
    routelet_lab::kernel_lacks!(vrf);
    with_programs(|| {
        run("ip link add vrf9 type vrf table 909").unwrap();
        enslave_all_to("vrf9");
    });
}
