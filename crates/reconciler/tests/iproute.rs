//! What others do with the programs ip and bridge, and the kernel says little of.

mod node;

use node::{Agent, Meddle, Node, Peer, device, run, with_programs};
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
