//! Beside the rules of others: kube-proxy's and the like come by iptables, of either make.

use routelet_lab::{skip, wait};
use routelet_model::Family;

use crate::stage::*;

/// Rules as others have them: their own masquerade, marks, and a FORWARD chain that accepts what it knows.
fn rules() -> Vec<Vec<&'static str>> {
    [
        "-t nat -N KUBE-POSTROUTING",
        "-t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully",
        "-t nat -A POSTROUTING -j KUBE-POSTROUTING",
        "-t nat -A POSTROUTING -s 10.0.0.0/8 ! -d 10.0.0.0/8 -o docker0 -j MASQUERADE",
        "-N KUBE-FORWARD",
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -j KUBE-FORWARD",
        "-A FORWARD -i cali+ -j ACCEPT",
        "-A FORWARD -o cali+ -j ACCEPT",
        "-P FORWARD DROP",
    ]
    .iter()
    .map(|rule| rule.split(' ').collect())
    .collect()
}

/// What the program shows, without counters and times.
fn saved(stage: &Stage, program: &str) -> Vec<String> {
    let text = run(stage.node_netns(ONE), &format!("{program}-save"), &[]).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(" [").next().unwrap().to_owned())
        .collect()
}

fn works_beside(program: &str) {
    let mut stage = Stage::new(&["--audit-interval", "24h"]);
    if run(stage.node_netns(ONE), program, &["-t", "nat", "-S"]).is_none() {
        skip!("{program} does not run here: Debian's package iptables, and the kernel's tables for it");
    }
    for rule in rules() {
        assert!(
            run(stage.node_netns(ONE), program, &rule).is_some(),
            "{program} {rule:?}"
        );
    }
    let before = saved(&stage, program);
    let check = |stage: &Stage, when: &str| {
        for family in Family::ALL {
            let outside = stage.outside(family);
            let seen = stage.source_seen(A, stage.outside_netns(), outside);
            assert_eq!(seen, stage.node(ONE, family), "{when}");
            for to in [B, C] {
                let seen = stage.source_seen(A, stage.pods[to].netns(), stage.pod(to, family));
                assert_eq!(seen, stage.pod(A, family), "{when}");
            }
        }
        assert_eq!(saved(stage, program), before, "{when}");
    };
    check(&stage, "with their rules");
    stage.without_table(ONE, |_| {});
    check(&stage, "after a repair");
    let agent = stage.cluster.node(ONE).agent().unwrap();
    agent.restart().unwrap();
    agent.wait_ready(wait::LONG).unwrap();
    check(&stage, "after a restart");
}

#[test]
fn masquerade_works_beside_iptables_nft_and_leaves_its_rules_alone() {
    works_beside("iptables-nft");
}

#[test]
fn masquerade_works_beside_iptables_legacy_and_leaves_its_rules_alone() {
    works_beside("iptables-legacy");
}
