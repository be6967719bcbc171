//! One thing is broken at a time, on a node whose agent has ended: between the pod and the routing decision, and out of
//! the cluster.

use std::process::Command;

use ipnet::IpNet;
use routelet_lab::{skip, wait};
use routelet_model::{Family, IfName, host_prefix};
use routelet_netlink::setup::RouteSpec;

use crate::stage::Stage;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

/// Carries out nft commands on the stage's node.
fn nft(stage: &Stage, commands: &str) {
    let run = || Command::new("nft").arg(commands).output().unwrap();
    let output = stage.netns().run(run).unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn nft_is_there() -> bool {
    Command::new("nft").arg("--version").output().is_ok()
}

#[test]
fn a_missing_host_veth() {
    let stage = Stage::without_agent();
    stage.setup().delete_link(stage.veth().as_str()).unwrap();
    stage.broken(
        stage.c(V4),
        "host veth",
        "no host veth of this node is that of a pod with 10.244.1.2",
        "make the pod anew",
    );
    let said = stage.trace(&["default/a", &stage.c(V4).to_string()]);
    assert_eq!(said.code, 1, "{said:?}");
    let line = format!("broken at the host veth ({}): it is missing", stage.veth());
    assert!(said.stdout.contains(&line), "{}", said.stdout);
    assert!(
        said.stdout.contains("\nwhat to do: make the pod anew"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_host_veth_that_is_down_or_whose_pod_is_gone() {
    let stage = Stage::without_agent();
    let veth = stage.veth();
    stage.setup().set_down(veth.as_str()).unwrap();
    stage.lost(
        stage.b(V4),
        "host veth",
        "it is down",
        &format!("ip link set {veth} up"),
    );
    let stage = Stage::without_agent();
    // The kernel notices a while later that the other end has changed.
    let wait_carrier = |pod: usize, carries: bool| {
        let veth = stage.pods[pod].host_veth();
        wait::until(wait::LONG, &format!("{veth} to notice"), || {
            let link = stage.setup().link(veth.as_str()).unwrap();
            link.is_some_and(|link| link.running == carries)
        })
        .unwrap();
    };
    stage.pods[0].setup().unwrap().set_down("eth0").unwrap();
    wait_carrier(0, false);
    stage.broken(stage.b(V4), "host veth", "no carrier", "make the pod anew");
    stage.pods[1].setup().unwrap().set_down("eth0").unwrap();
    stage.pods[0].setup().unwrap().set_up("eth0").unwrap();
    wait_carrier(0, true);
    wait_carrier(1, false);
    let other = "that pod's end is down or gone";
    stage.broken(stage.b(V4), "other host veth", "no carrier", other);
}

#[test]
fn a_host_route_that_is_missing_or_someone_elses() {
    for family in Family::ALL {
        let stage = Stage::without_agent();
        let own = host_prefix(stage.a(family));
        let veth = stage.veth().to_string();
        stage.setup().delete_route(own).unwrap();
        let by_hand = format!("ip route replace {} dev {veth}", own.addr());
        let to = stage.c(family);
        stage.lost(to, "host route", &format!("there is none to {veth}"), &by_hand);
        let gateway = stage.cluster.lab().address(family);
        let foreign = RouteSpec::via(own, gateway, Some("eth0")).protocol(4);
        stage.setup().add_route(foreign).unwrap();
        let finding = format!("another route is in its place: {own} via {gateway} dev eth0 proto 4 (static)");
        stage.lost(to, "host route", &finding, &by_hand);
    }
}

#[test]
fn no_answer_for_the_gateway() {
    let stage = Stage::without_agent();
    let veth = stage.veth();
    let setting = format!("net/ipv4/conf/{veth}/proxy_arp");
    stage.write(&format!("ipv4/conf/{veth}/proxy_arp"), "0");
    stage.broken(
        stage.c(V4),
        "gateway",
        &format!("{setting} is 0"),
        &format!("sysctl -w {setting}=1"),
    );
    let gateway: IpNet = "fe80::ecee:eeff:feee:eeee/64".parse().unwrap();
    stage.setup().delete_address(veth.as_str(), gateway).unwrap();
    stage.broken(
        stage.c(V6),
        "gateway",
        "no one answers the pod",
        "ip -6 address add fe80::ecee:eeff:feee:eeee/64",
    );
}

#[test]
fn forwarding_that_is_off() {
    let stage = Stage::without_agent();
    for (family, setting) in [(V4, "net/ipv4/ip_forward"), (V6, "net/ipv6/conf/all/forwarding")] {
        stage.write(setting.strip_prefix("net/").unwrap(), "0");
        for to in [stage.b(family), stage.c(family)] {
            let remedy =
                format!("start the agent, which puts it right at once; by hand: sysctl -w {setting}=1");
            stage.lost(to, "forwarding", &format!("{setting} is 0"), &remedy);
        }
    }
    let stage = Stage::without_agent();
    let setting = format!("ipv4/conf/{}/forwarding", stage.veth());
    stage.write(&setting, "0");
    stage.lost(
        stage.c(V4),
        "forwarding",
        &format!("net/{setting} is 0"),
        "sysctl -w",
    );
}

#[test]
fn a_route_that_another_ones_shadows() {
    for (family, narrow) in [(V4, "10.244.2.0/25"), (V6, "fd00:244:2::/80")] {
        let stage = Stage::without_agent();
        let gateway = stage.cluster.lab().address(family);
        let narrow: IpNet = narrow.parse().unwrap();
        let foreign = RouteSpec::via(narrow, gateway, Some("eth0")).protocol(12);
        stage.setup().add_route(foreign).unwrap();
        let subnet = stage.cluster.nodes()[1].subnet_of(family);
        let finding = format!("{narrow} via {gateway} dev eth0 proto 12 (bird) decides");
        let remedy = format!(
            "find out who makes the route (protocol 12 (bird), device eth0) and have it left out, or deleted: ip route del {narrow}"
        );
        stage.lost(stage.c(family), "route", &finding, &remedy);
        stage.broken(
            stage.c(family),
            "route",
            &format!("before the agent's {subnet} via"),
            &remedy,
        );
        stage.whole(stage.b(family));
    }
}

#[test]
fn a_route_that_is_missing_or_goes_nowhere() {
    for family in Family::ALL {
        let stage = Stage::without_agent();
        let subnet = stage.cluster.nodes()[1].subnet_of(family);
        stage.setup().delete_route(subnet).unwrap();
        let finding = "the agent's route is missing, so that";
        stage.lost(stage.c(family), "route", finding, "start the agent");
        stage.setup().add_route(RouteSpec::blackhole(subnet)).unwrap();
        let finding = "the agent's route is missing: a blackhole route drops it";
        stage.lost(stage.c(family), "route", finding, "start the agent");
        // No pod has it.
        let nobody = stage.cluster.pod_addresses(0, 77, &[family])[0];
        let own = stage.cluster.nodes()[0].subnet_of(family);
        let finding = format!("no pod of this node has it, though it is in its pod subnet {own}");
        stage.lost(nobody, "route", &finding, "kubectl get pod");
        let b = host_prefix(stage.b(family));
        stage.setup().delete_route(b).unwrap();
        let other: IfName = stage.pods[1].host_veth();
        stage.lost(
            b.addr(),
            "route",
            &format!("there is no route to {other}"),
            &format!("dev {other} proto 80"),
        );
    }
}

#[test]
fn a_chain_that_drops_what_is_forwarded() {
    if !nft_is_there() {
        skip!("nft is not installed");
    }
    let stage = Stage::without_agent();
    nft(
        &stage,
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; };",
    );
    let remedy = "start the agent with --open-forward=true";
    for to in [stage.b(V4), stage.c(V4), stage.cluster.lab().address(V4)] {
        stage.lost(
            to,
            "firewall",
            "drops by policy all that the host forwards",
            remedy,
        );
    }
    stage.whole(stage.c(V6));
    // What another's rule does about it, the tables do not tell.
    nft(&stage, "add rule ip filter FORWARD ip saddr 10.244.0.0/16 accept");
    let way = stage.way(stage.b(V4));
    assert_eq!(way["whole"], true, "{way:#}");
    let doubt = way["hops"]
        .as_array()
        .unwrap()
        .iter()
        .find(|hop| hop["state"] == "doubt")
        .unwrap();
    assert_eq!(doubt["hop"], "firewall");
    let said = stage.trace(&[&stage.a(V4).to_string(), &stage.b(V4).to_string()]);
    assert_eq!(said.code, 0, "{said:?}");
    let line = "in doubt is the firewall (nftables chain ip filter FORWARD): drops by policy";
    assert!(said.stdout.contains(line), "{}", said.stdout);
}

#[test]
fn a_chain_that_the_agent_has_opened() {
    if !nft_is_there() {
        skip!("nft is not installed");
    }
    let stage = Stage::with(&["--open-forward=true"]);
    nft(
        &stage,
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; };",
    );
    let opened = || stage.ping(stage.b(V4));
    wait::until(wait::LONG, "the chain to be opened", opened).unwrap();
    stage.whole(stage.b(V4));
}

#[test]
fn masquerading_that_is_missing() {
    if !nft_is_there() {
        skip!("nft is not installed");
    }
    for family in Family::ALL {
        let outside = |stage: &Stage| stage.cluster.lab().address(family);
        let stage = Stage::without_agent();
        nft(&stage, "delete chain inet routelet postrouting");
        let finding = "the table's rules are missing or changed: packets keep the pod's address";
        stage.lost(outside(&stage), "masquerade", finding, "start the agent");
        nft(&stage, "delete table inet routelet");
        let finding = "the agent's table is missing: packets keep the pod's address";
        stage.lost(outside(&stage), "masquerade", finding, "start the agent");
        stage.whole(stage.b(family));
        stage.whole(stage.c(family));
    }
}

#[test]
fn no_way_out() {
    for family in Family::ALL {
        let stage = Stage::without_agent();
        let (far, any) = match family {
            V4 => ("203.0.113.1", "0.0.0.0/0"),
            V6 => ("2001:db8::1", "::/0"),
        };
        stage.setup().delete_route(any.parse().unwrap()).unwrap();
        stage.lost(
            far.parse().unwrap(),
            "route",
            "no route leads there",
            "give the host a route",
        );
    }
}

/// Runs a program in the stage's node, by a line whose words are split at blanks.
fn run(stage: &Stage, line: &str) {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    let output = stage.netns().run(|| command.output()).unwrap().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

#[test]
fn a_policy_rule_that_leads_to_another_table() {
    if Command::new("ip").arg("-V").output().is_err() {
        skip!("ip is not installed");
    }
    for (family, option) in [(V4, "-4"), (V6, "-6")] {
        let stage = Stage::without_agent();
        let subnet = stage.cluster.nodes()[1].subnet_of(family);
        let gateway = stage.cluster.lab().address(family);
        run(
            &stage,
            &format!("ip {option} route add default via {gateway} dev eth0 proto 77 table 100"),
        );
        run(&stage, &format!("ip {option} rule add to {subnet} lookup 100"));
        let finding = format!("via {gateway} dev eth0 proto 77 table 100 decides");
        stage.lost(
            stage.c(family),
            "route",
            &finding,
            "find out who makes the route (protocol 77",
        );
        run(&stage, &format!("ip {option} rule del to {subnet} lookup 100"));
        run(&stage, &format!("ip {option} rule add to {subnet} prohibit"));
        let finding = "a route or a rule prohibits it, before the agent's";
        stage.lost(stage.c(family), "route", finding, "ip rule");
    }
}

#[test]
fn a_pod_that_the_agent_does_not_know_or_grants_nothing() {
    let mut stage = Stage::new();
    let nobody = stage.cluster.pod_addresses(0, 9, &[V4]);
    let untold = stage.node().pod("untold", &nobody).unwrap();
    let to = stage.b(V4).to_string();
    let said = stage.trace(&["default/untold", &to]);
    assert_eq!(said.code, 1, "{said:?}");
    let line = "broken at the pod (default/untold): the agent knows no such pod on this node";
    assert!(said.stdout.contains(line), "{}", said.stdout);
    untold.delete().unwrap();

    let outside: std::net::IpAddr = "10.99.0.9".parse().unwrap();
    let _refused = stage.node().pod("refused", &[outside]).unwrap();
    let object = stage.cluster.pod_object(0, "refused", 9).unwrap().ips([outside]);
    stage.cluster.api().apply(&object.build()).unwrap();
    let agent = stage.cluster.node(0).agent().unwrap();
    agent.wait_log("default/refused", wait::LONG).unwrap();
    let said = stage.trace(&["default/refused", &to]);
    assert_eq!(said.code, 1, "{said:?}");
    let line = "broken at the pod (default/refused): the agent has no route for 10.99.0.9: pod default/refused has the address";
    assert!(said.stdout.contains(line), "{}", said.stdout);
}
