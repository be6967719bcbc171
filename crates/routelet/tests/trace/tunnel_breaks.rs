//! One thing is broken at a time, on a node whose agent has ended: from the routing decision to a pod of another node.

use routelet_lab::skip;
use routelet_model::{Family, MacAddr, tunnel_address, vtep_mac};

use crate::stage::Stage;

fn device(family: Family) -> &'static str {
    match family {
        Family::V4 => "vxlan.calico",
        Family::V6 => "vxlan-v6.calico",
    }
}

#[test]
fn a_missing_fdb_entry_or_one_that_leads_elsewhere() {
    for family in Family::ALL {
        let stage = Stage::without_agent();
        let (device, mac, to) = (device(family), vtep_mac("node-2", family), stage.c(family));
        stage.setup().delete_fdb(device, mac).unwrap();
        let finding = format!("there is none on {device}, so that the device drops the packets");
        stage.lost(
            to,
            "FDB entry",
            &finding,
            &format!("bridge fdb replace {mac} dev {device}"),
        );
        let wrong = stage.cluster.lab().address(family);
        stage.setup().replace_fdb(device, mac, wrong).unwrap();
        let finding = format!("it leads to {wrong}, which is no node's address");
        stage.lost(to, "FDB entry", &finding, "start the agent");
        stage.whole(stage.b(family));
    }
}

#[test]
fn a_missing_neighbour_or_one_whose_mac_has_no_fdb_entry() {
    for family in Family::ALL {
        let stage = Stage::without_agent();
        let (device, to) = (device(family), stage.c(family));
        let gateway = tunnel_address(stage.cluster.nodes()[1].subnet_of(family));
        let wrong = MacAddr([2, 0, 0, 0, 0, 9]);
        stage.setup().replace_neighbour(device, gateway, wrong).unwrap();
        stage.lost(
            to,
            "FDB entry",
            "there is none",
            "bridge fdb replace 02:00:00:00:00:09",
        );
        stage.setup().delete_neighbour(device, gateway).unwrap();
        let remedy = format!("ip neigh replace {gateway} lladdr MAC nud permanent dev {device}");
        stage.lost(to, "neighbour", "there is no permanent entry", &remedy);
    }
}

#[test]
fn a_device_that_is_down_or_missing() {
    for family in Family::ALL {
        let stage = Stage::without_agent();
        let (device, to) = (device(family), stage.c(family));
        stage.setup().set_down(device).unwrap();
        let finding = "it is down, and so the routes over it are gone";
        stage.lost(to, "tunnel device", finding, &format!("ip link set {device} up"));
        stage.setup().delete_link(device).unwrap();
        let finding = "it is missing, and the routes over it with it";
        stage.lost(
            to,
            "tunnel device",
            finding,
            "start the agent, which puts it right at once",
        );
        stage.whole(stage.b(family));
    }
}

#[test]
fn a_parent_that_is_down() {
    let stage = Stage::without_agent();
    stage.setup().set_down("eth0").unwrap();
    for family in Family::ALL {
        assert!(!stage.ping(stage.c(family)));
        let way = stage.way(stage.c(family));
        assert_eq!(way["broken"], "underlay", "{way:#}");
    }
}

#[test]
fn mtus_that_do_not_fit() {
    for (family, overhead) in [(Family::V4, 50), (Family::V6, 70)] {
        let stage = Stage::without_agent();
        let (device, to) = (device(family), stage.c(family));
        let pod_mtu = stage.setup().link(stage.veth().as_str()).unwrap().unwrap().mtu;
        stage.setup().set_mtu(device, pod_mtu - 50).unwrap();
        let finding = format!("its MTU is {}, and the pod's {pod_mtu}", pod_mtu - 50);
        stage.broken(
            to,
            "tunnel device",
            &finding,
            &format!("ip link set {device} mtu {pod_mtu}"),
        );

        let stage = Stage::without_agent();
        let mtu = stage.setup().link(device).unwrap().unwrap().mtu;
        stage.setup().set_mtu("eth0", mtu).unwrap();
        // The kernel lets the device keep its own.
        stage.setup().set_mtu(device, mtu).unwrap();
        let finding = format!(
            "its MTU is {mtu}, to which the tunnel adds {overhead} bytes, and that of eth0 below it is {mtu}"
        );
        stage.broken(
            stage.c(family),
            "tunnel device",
            &finding,
            &format!("--mtu={}", mtu - overhead),
        );
    }
}

#[test]
fn a_strict_filter_that_drops_answers() {
    let stage = Stage::without_agent();
    stage.write("ipv4/conf/all/rp_filter", "0");
    stage.write("ipv4/conf/vxlan.calico/rp_filter", "1");
    let node = stage.cluster.nodes()[1].node.address(Family::V4);
    let finding = "the reverse path filter drops answers: rp_filter of vxlan.calico (or of all) is 1, strict";
    stage.lost(
        node,
        "way back",
        finding,
        "sysctl -w net/ipv4/conf/vxlan.calico/rp_filter=2",
    );
    // Pods answer by the way that packets to them take.
    stage.whole(stage.c(Family::V4));
}

#[test]
fn rules_that_keep_the_tunnel_out() {
    let has = |program: &str| {
        std::process::Command::new(program)
            .arg("--version")
            .output()
            .is_ok()
    };
    if !has("nft") {
        skip!("nft is not installed");
    }
    let stage = Stage::without_agent();
    let nft = |commands: &str| {
        let run = || std::process::Command::new("nft").arg(commands).output().unwrap();
        let output = stage.netns().run(run).unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let to = stage.c(Family::V4);
    nft(
        "add table inet fw; add chain inet fw in { type filter hook input priority 0; policy accept; }; \
         add rule inet fw in udp dport 4789 drop",
    );
    let remedy = "accept UDP port 4789 from and to the other nodes in this chain";
    stage.lost(to, "tunnel firewall", "a rule drops UDP port 4789", remedy);
    nft("flush table inet fw; add chain inet fw in { policy drop; }");
    stage.lost(to, "tunnel firewall", "drops by policy, and has no rules", remedy);
    nft("delete table inet fw");
    stage.whole(to);
    // What the agent's own table does not know as a node's address it keeps out.
    let peer = stage.cluster.nodes()[1].node.address(Family::V4);
    nft(&format!("delete element inet routelet nodes_v4 {{ {peer} }}"));
    let finding = format!("it leads to {peer}, which is no node's address by the agent's nft table");
    stage.lost(to, "FDB entry", &finding, "start the agent");
}
