//! Ways that are whole: on a node, between nodes, to nodes and out of the cluster, in both families, with the agent and
//! without.

use std::net::IpAddr;
use std::process::Command;

use routelet_lab::skip;
use routelet_model::{Family, vtep_mac};

use crate::stage::{Stage, finding, hops};

const TO_THE_HOST: [&str; 4] = ["host veth", "host route", "gateway", "forwarding"];

/// The hops that come after those to the host, the pod's with the agent left out.
fn after(way: &serde_json::Value) -> Vec<&str> {
    let mut hops = hops(way);
    hops.retain(|hop| *hop != "pod");
    assert_eq!(hops[..4], TO_THE_HOST, "{way:#}");
    hops.split_off(4)
}

fn all_ways(stage: &Stage, with_agent: bool) {
    let outside: [IpAddr; 2] = Family::ALL.map(|family| stage.cluster.lab().address(family));
    for (family, outside) in Family::ALL.into_iter().zip(outside) {
        let way = stage.whole(stage.b(family));
        assert_eq!(hops(&way).contains(&"pod"), with_agent, "{way:#}");
        assert_eq!(after(&way), ["route", "firewall", "other host veth", "way back"]);
        assert_eq!(way["to"]["is"], "a pod of this node");

        let way = stage.whole(stage.c(family));
        let tunnel = [
            "route",
            "firewall",
            "nexthop",
            "tunnel device",
            "neighbour",
            "FDB entry",
            "underlay",
            "tunnel firewall",
            "way back",
        ];
        assert_eq!(after(&way), tunnel);
        let mac = vtep_mac("node-2", family).to_string();
        assert!(finding(&way, "neighbour").contains(&mac), "{way:#}");
        let peer = stage.cluster.nodes()[1].node.address(family).to_string();
        assert!(finding(&way, "FDB entry").contains(&peer), "{way:#}");
        let whose = if with_agent {
            "a pod of node node-2"
        } else {
            "a pod of another node"
        };
        assert_eq!(way["to"]["is"], whose);

        let way = stage.whole(outside);
        assert_eq!(after(&way), ["route", "firewall", "link", "masquerade"]);
        assert_eq!(way["to"]["is"], "outside of the cluster");

        let way = stage.whole(stage.cluster.nodes()[1].node.address(family));
        assert_eq!(after(&way), ["route", "firewall", "link", "way back"]);
        assert_eq!(way["to"]["is"], "another node");
        let device = if family == Family::V4 {
            "vxlan.calico"
        } else {
            "vxlan-v6.calico"
        };
        let back = way["hops"].as_array().unwrap().last().unwrap();
        assert_eq!(back["object"], format!("in by {device}"), "{way:#}");

        let way = stage.whole(stage.node().address(family));
        assert_eq!(after(&way), ["route"]);
        assert_eq!(way["to"]["is"], "this node");
    }
}

#[test]
fn all_ways_are_whole_by_the_agent_and_by_the_kernel_alone() {
    let mut stage = Stage::new();
    all_ways(&stage, true);
    stage.stop_agent();
    all_ways(&stage, false);
}

/// As in the chart's container: root with one capability.
#[test]
fn net_admin_is_all_that_it_takes() {
    let setpriv = || Command::new("setpriv");
    if setpriv().arg("--version").output().is_err() {
        skip!("setpriv is not installed");
    }
    let stage = Stage::new();
    let (a, c) = (stage.a(Family::V4).to_string(), stage.c(Family::V4).to_string());
    let mut command = setpriv();
    command
        .args([
            "--inh-caps=-all,+net_admin",
            "--bounding-set=-all,+net_admin",
            "--no-new-privs",
        ])
        .arg(env!("CARGO_BIN_EXE_routelet"))
        .args(["trace", &a, &c, "--admin-socket"])
        .arg(stage.socket());
    let output = stage.netns().run(|| command.output()).unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("the agent knows default/a"), "{text}");
    assert!(text.contains("whole: each hop is as it should be"), "{text}");
}

#[test]
fn ways_without_a_tunnel_are_whole() {
    for arguments in [
        &["--encapsulation=none"][..],
        &["--encapsulation=vxlan-cross-subnet", "--nexthop-objects=off"],
    ] {
        let mut stage = Stage::with(arguments);
        let nexthop = arguments.len() == 1;
        for with_agent in [true, false] {
            if !with_agent {
                stage.stop_agent();
            }
            for family in Family::ALL {
                let way = stage.whole(stage.c(family));
                let mut wanted = vec!["route", "firewall", "nexthop", "link", "underlay", "way back"];
                wanted.retain(|hop| nexthop || *hop != "nexthop");
                assert_eq!(after(&way), wanted);
            }
        }
    }
}

#[test]
fn a_pod_that_keeps_its_address_outside_has_a_way_back() {
    let stage = Stage::with(&["--masquerade=false"]);
    for family in Family::ALL {
        let node = &stage.cluster.nodes()[0];
        stage
            .cluster
            .lab()
            .route_to(&node.node, node.subnet_of(family))
            .unwrap();
        let way = stage.whole(stage.cluster.lab().address(family));
        assert_eq!(
            after(&way),
            ["route", "firewall", "link", "masquerade", "way back"]
        );
        assert!(
            finding(&way, "masquerade").contains("--masquerade=false"),
            "{way:#}"
        );
    }
}
