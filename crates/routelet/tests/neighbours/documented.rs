//! The pages on moving from Calico and from flannel: the commands that they give for a node do what they say.

use std::time::Duration;

use routelet_lab::{Ping, wait};
use routelet_model::{Family, host_prefix, vtep_mac};

use crate::network::{Network, run};
use crate::pages::Script;
use crate::stage::{Stage, works};

/// What kube-proxy has, in short, and must keep.
const KUBE_PROXY: &str = "
    iptables -N KUBE-FORWARD
    iptables -A KUBE-FORWARD -m comment --comment 'kubernetes forwarding rules' -m mark --mark 0x4000/0x4000 -j ACCEPT
    iptables -A FORWARD -m comment --comment 'kubernetes forwarding rules' -j KUBE-FORWARD
";

/// What Felix has, in short: packets from interfaces that it does not know are dropped.
const FELIX: &str = "
    for program in iptables ip6tables; do
        $program -N cali-FORWARD
        $program -N cali-from-wl-dispatch
        $program -I FORWARD -m comment --comment 'cali:wUHhoiAYhphO9Mso' -j cali-FORWARD
        $program -A cali-FORWARD -i cali+ -m comment --comment 'cali:8ZoYfO5HKXWbB3pk' -j cali-from-wl-dispatch
        $program -A cali-from-wl-dispatch -m comment --comment 'cali:zTj6P0TIgYvgz-md' \
            -m comment --comment 'Unknown interface' -j DROP
    done
";

/// What flannel has, in short: it masquerades what comes to pods from outside.
const FLANNEL: &str = "
    iptables -t nat -N FLANNEL-POSTRTG
    iptables -t nat -I POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG
    iptables -t nat -A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment 'flanneld masq' -j MASQUERADE
    iptables -N FLANNEL-FWD
    iptables -I FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD
    ip6tables -N FLANNEL-FWD
    ip6tables -I FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD
";

#[test]
fn calicos_firewall_rules_go_with_the_documented_commands() {
    let mut stage = Stage::new(Network::Calico, 2, &[0, 1]);
    for index in 0..2 {
        stage.start_other(index);
    }
    run(stage.node(0), KUBE_PROXY);
    run(stage.node(0), FELIX);
    stage.start_agent(0, &[]);
    let other = stage.pod(1, "other", 2);
    let new = stage.cluster.add_pod_of(0, "new", 2, &Family::ALL).unwrap();
    for family in Family::ALL {
        let ping = Ping::to(other.address(family)).patience(Duration::from_millis(300));
        assert_eq!(ping.run(new.netns()).unwrap().received(), 0, "Felix drops it");
    }
    let mut script =
        Script::of("neighbours/documented.rs: calicos_firewall_rules_go_with_the_documented_commands");
    for command in script.rest_of("docs/from-calico.md") {
        run(stage.node(0), &command.text);
    }
    for family in Family::ALL {
        works("from a new pod", new.netns(), other.address(family));
        works("to a new pod", &other.netns, new.address(family).unwrap());
    }
    let left = run(stage.node(0), "iptables-save; ip6tables-save");
    assert!(!left.contains("cali"), "{left}");
    assert_eq!(left.matches("-j KUBE-FORWARD").count(), 1, "{left}");
}

#[test]
fn flannels_firewall_rules_go_with_the_documented_commands() {
    let mut stage = Stage::new(Network::Flannel, 1, &[0]);
    // Its plugin makes the bridge.
    let _pod = stage.pod(0, "pod", 2);
    run(stage.node(0), KUBE_PROXY);
    run(stage.node(0), FLANNEL);
    assert!(stage.view(0).link("cni0").is_some());
    let mut script =
        Script::of("neighbours/documented.rs: flannels_firewall_rules_go_with_the_documented_commands");
    for command in script.rest_of("docs/from-flannel.md") {
        run(stage.node(0), &command.text);
    }
    assert!(stage.view(0).link("cni0").is_none());
    let left = run(stage.node(0), "iptables-save; ip6tables-save");
    assert!(!left.to_lowercase().contains("flannel"), "{left}");
    assert_eq!(left.matches("-j KUBE-FORWARD").count(), 1, "{left}");
}

/// The last step on each page.
#[test]
fn the_annotations_may_go_after_the_move() {
    for network in [Network::Calico, Network::Canal] {
        let mut stage = Stage::new(network, 2, &[0, 1]);
        for index in 0..2 {
            stage.start_other(index);
        }
        let [a, b] = [(0, "a"), (1, "b")].map(|(index, name)| stage.pod(index, name, 2));
        for index in 0..2 {
            stage.start_agent(index, &network.arguments_on_its_node());
        }
        for index in 0..2 {
            let plain = stage.cluster.node_object_of(index, &Family::ALL, &Family::ALL);
            stage.cluster.api().apply(&plain.build()).unwrap();
        }
        for (index, other) in [(0, 1), (1, 0)] {
            for family in Family::ALL {
                wait::until(wait::LONG, "what follows from the names", || {
                    is_derived(&stage, index, other, family)
                })
                .unwrap();
            }
        }
        for family in Family::ALL {
            works("without annotations", &a.netns, b.address(family));
            works("and back", &b.netns, a.address(family));
        }
    }
}

/// Whether a node's own VTEP, and what it knows of the other's, follow from names and pod subnets.
fn is_derived(stage: &Stage, index: usize, other: usize, family: Family) -> bool {
    let nodes = stage.cluster.nodes();
    let (view, device) = (stage.view(index), stage.network.device(family).unwrap());
    let mac = |index: usize| vtep_mac(nodes[index].node.name(), family);
    let subnet = nodes[other].subnet_of(family);
    let gateway = view.route(subnet).and_then(|route| route.gateway);
    view.link(device).and_then(|link| link.mac) == Some(mac(index))
        && view.has_address(device, host_prefix(nodes[index].subnet_of(family).network()))
        && view.fdb_remote(device, mac(other)) == Some(nodes[other].node.address(family))
        && gateway == Some(subnet.network())
        && view.neighbour(device, subnet.network()).and_then(|row| row.mac) == Some(mac(other))
}
