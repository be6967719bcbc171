//! Whose address a pod's packets have where they arrive.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use routelet_lab::{ping, skip, wait};
use routelet_model::Family;

use crate::stage::*;

#[test]
fn pods_reach_the_outside_under_their_nodes_address_and_get_answers() {
    let stage = Stage::new(&[]);
    for family in Family::ALL {
        let outside = stage.outside(family);
        for (pod, node) in [(A, ONE), (B, ONE), (C, TWO)] {
            let seen = stage.source_seen(pod, stage.outside_netns(), outside);
            assert_eq!(seen, stage.node(node, family));
            let interval = std::time::Duration::from_millis(1);
            let report = ping(stage.pods[pod].netns(), outside, 5, interval).unwrap();
            assert_eq!(report.received(), 5, "{report}");
        }
    }
}

#[test]
fn pods_keep_their_address_towards_pods_and_nodes() {
    let stage = Stage::new(&[]);
    for family in Family::ALL {
        for to in [B, C] {
            let seen = stage.source_seen(A, stage.pods[to].netns(), stage.pod(to, family));
            assert_eq!(seen, stage.pod(A, family));
        }
        for node in [ONE, TWO] {
            let seen = stage.source_seen(A, stage.node_netns(node), stage.node(node, family));
            assert_eq!(seen, stage.pod(A, family));
        }
    }
}

#[test]
fn pods_keep_their_address_towards_what_is_excepted() {
    for flag in ["--masquerade-except", "--pod-cidrs"] {
        let stage = Stage::new(&[flag, "172.30.0.0/24,172.30.0.0/16,fd00:30::/64"]);
        for family in Family::ALL {
            let seen = stage.source_seen(A, stage.outside_netns(), stage.outside(family));
            assert_eq!(seen, stage.pod(A, family));
        }
    }
}

/// Switched by a restart, as all settings are: what the other setting has made is taken away.
#[test]
fn pods_keep_their_address_everywhere_where_masquerade_is_off() {
    let mut stage = Stage::new(&[]);
    for masquerade in [false, true] {
        stage.start_agents(&[&format!("--masquerade={masquerade}")]);
        assert_eq!(stage.rules(ONE).map(|rules| rules.masquerade), Some(masquerade));
        for family in Family::ALL {
            let seen = stage.source_seen(A, stage.outside_netns(), stage.outside(family));
            let own = if masquerade {
                stage.node(ONE, family)
            } else {
                stage.pod(A, family)
            };
            assert_eq!(seen, own);
        }
    }
}

/// Answers to the VXLAN port would be taken for tunnel packets.
#[test]
fn no_masqueraded_packet_leaves_from_the_vxlan_port_or_below() {
    let stage = Stage::new(&[]);
    for family in Family::ALL {
        let (outside, pod) = (stage.outside(family), stage.pod(A, family));
        let listener = Listener::at(stage.outside_netns(), family);
        let mut ports = BTreeSet::new();
        for from in (4689..4889).chain(30_000..30_100) {
            let from = SocketAddr::new(pod, from);
            send(
                stage.pods[A].netns(),
                Some(from),
                listener.address(outside),
                "hello",
            );
            let (_, seen) = listener.next();
            assert!(seen.port() > 4789, "{from} became {seen}");
            ports.insert((from.port(), seen.port()));
        }
        let kept = ports.iter().filter(|(from, seen)| from == seen).count();
        assert!(kept < 10, "ports are drawn, not kept: {kept} of {}", ports.len());

        let netns = stage.outside_netns();
        let listener = netns.run(|| TcpListener::bind((outside, 0))).unwrap().unwrap();
        let to = listener.local_addr().unwrap();
        for _ in 0..50 {
            let connect = || TcpStream::connect_timeout(&to, wait::LONG);
            let mut near = stage.pods[A].netns().run(connect).unwrap().unwrap();
            let (mut far, seen) = listener.accept().unwrap();
            assert!(
                seen.port() > 4789 && seen.ip() == stage.node(ONE, family),
                "{seen}"
            );
            far.write_all(b"answer").unwrap();
            let mut answer = [0; 6];
            near.read_exact(&mut answer).unwrap();
        }
    }
}

/// As a firewall's restart does it.
#[test]
fn what_someone_flushed_is_back_at_once() {
    let mut stage = Stage::new(&["--audit-interval", "24h"]);
    for deed in [
        "flush ruleset",
        "flush table inet routelet",
        "flush set inet routelet own_pods_v4",
    ] {
        if run(stage.node_netns(ONE), "nft", &[deed]).is_none() {
            skip!("the program nft (Debian: nftables) does not run");
        }
        let agent = stage.cluster.node(ONE).agent().unwrap();
        agent
            .wait_log("repaired what someone deleted: nft", wait::LONG)
            .unwrap();
        stage.wait_rules(ONE);
        let agent = stage.cluster.node(ONE).agent().unwrap();
        let out_of_sync = || {
            ["nft_table", "nft_element", "nft_rules"].iter().any(|kind| {
                let series = format!("routelet_objects_out_of_sync{{kind=\"{kind}\"}}");
                agent.metric(&series).unwrap() > 0.5
            })
        };
        wait::until(wait::LONG, "all to be in sync", || !out_of_sync()).unwrap();
        let family = Family::V4;
        let seen = stage.source_seen(A, stage.outside_netns(), stage.outside(family));
        assert_eq!(seen, stage.node(ONE, family), "after {deed}");
    }
}
