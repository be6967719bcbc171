//! Two racks of nodes without encapsulation, and a router between them: BIRD 2 on each brings the routes that are not
//! routelet's. Its configuration is the one in deploy/bird; what differs between nodes is in a file of theirs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/pages.rs"]
mod pages;

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;
use routelet_lab::process::Process;
use routelet_lab::{Backend, Cluster, KernelView, Ping, Pod, TempDir, skip, wait};
use routelet_model::Family;
use routelet_netlink::Netns;
use routelet_netlink::setup::{RouteSpec, Setup, VethEnd};

use crate::pages::Script;

/// `RTPROT_BIRD` of linux/rtnetlink.h.
const BIRD: u8 = 12;
/// The agent's.
const OURS: u8 = 80;
const BIRD_CONF: &str = include_str!("../../../deploy/bird/bird.conf");
const NODE_CONF: &str = include_str!("../../../deploy/bird/node.conf");
const ROUTER_CONF: &str = include_str!("../../../deploy/bird/router.conf");
/// BIRD's programs: the package puts them where only root looks.
const PROGRAM: &str = "/usr/sbin/bird";
const CLIENT: &str = "/usr/sbin/birdcl";

/// BIRD in a namespace, with its files in a directory of its own.
struct Bird {
    netns: Netns,
    directory: TempDir,
    process: Process,
}

impl Bird {
    /// Starts it with a configuration, beside which `node` lies.
    fn start(netns: &Netns, conf: &str, node: &str) -> Self {
        let directory = TempDir::new().unwrap();
        directory.write("bird.conf", conf).unwrap();
        directory.write("node.conf", node).unwrap();
        let process = run(netns, directory.path(), &[]);
        Self {
            netns: netns.clone(),
            directory,
            process,
        }
    }

    /// Has it end by a command of birdc: it tells the router that it will be back.
    fn stop_for_restart(&mut self, command: &str) {
        self.ask(command.strip_prefix("birdc ").unwrap());
        self.process.wait_exit(wait::LONG).unwrap();
    }

    /// Starts it anew, and waits until it has the router's routes, and the router its.
    fn start_again(&mut self, router: &Bird) {
        self.process = run(&self.netns, self.directory.path(), &["-R"]);
        self.process
            .wait_log("Graceful restart done", wait::LONG)
            .unwrap();
        wait::until(wait::LONG, "the router to have done its part", || {
            !router
                .ask("show protocols all")
                .contains("graceful restart active")
        })
        .unwrap();
    }

    /// Asks it by its control socket.
    fn ask(&self, question: &str) -> String {
        let mut client = Command::new(CLIENT);
        client.arg("-s").arg(self.directory.path().join("bird.ctl"));
        let answer = client.args(question.split(' ')).output().unwrap();
        assert!(answer.status.success(), "{answer:?}");
        String::from_utf8(answer.stdout).unwrap()
    }
}

/// `-f`: in the foreground; `-R`: after a restart, for graceful restart.
fn run(netns: &Netns, directory: &Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(PROGRAM);
    let file = |name: &str| directory.join(name);
    command.arg("-f").arg("-c").arg(file("bird.conf"));
    command.arg("-s").arg(file("bird.ctl"));
    command.arg("-P").arg(file("bird.pid"));
    command.args(arguments);
    Process::start("bird", netns, command).unwrap()
}

/// Nodes 0 and 1 in one rack, 2 and 3 in the other, and a machine outside, behind the router.
struct Racks {
    cluster: Cluster,
    birds: Vec<Bird>,
    router: Bird,
    outside: Netns,
    encapsulation: &'static str,
}

/// The first two nodes are in one rack, all others in the other.
fn rack_of(index: usize) -> usize {
    usize::from(index > 1)
}

/// The machine outside.
const OUTSIDE: [&str; 2] = ["198.51.100.2/24", "2001:db8:51::2/64"];

impl Racks {
    fn new(encapsulation: &'static str) -> Self {
        let mut cluster = Cluster::new(Backend::Memory).unwrap();
        for index in 0..4 {
            cluster.add_unregistered_node_in(rack_of(index)).unwrap();
        }
        let outside = outside(&cluster);
        let router = Bird::start(cluster.lab().netns(), ROUTER_CONF, "");
        let mut racks = Self {
            cluster,
            birds: Vec::new(),
            router,
            outside,
            encapsulation,
        };
        for index in 0..4 {
            racks.join(index);
        }
        racks
    }

    /// A node gets its Node object, the agent and BIRD.
    fn join(&mut self, index: usize) {
        let object = self.cluster.node_object_of(index, &Family::ALL, &Family::ALL);
        self.cluster.api().apply(&object.build()).unwrap();
        let arguments = ["--encapsulation", self.encapsulation];
        self.cluster.start_agent(index, &arguments).unwrap();
        self.cluster.wait_ready().unwrap();
        let node = self.node_conf(index);
        self.birds.push(Bird::start(self.node(index), BIRD_CONF, &node));
    }

    /// The example, with a node's values.
    fn node_conf(&self, index: usize) -> String {
        let rack = rack_of(index);
        let values = [
            ("log syslog", "log stderr".to_owned()),
            (
                "router id 172.30.0.2",
                format!(
                    "router id {}",
                    self.cluster.nodes()[index].node.address(Family::V4)
                ),
            ),
            ("RACK_AS = 64601", format!("RACK_AS = {}", 64601 + rack)),
            (
                "ROUTER4 = 172.30.0.1",
                format!("ROUTER4 = {}", self.gateway(rack, Family::V4)),
            ),
            (
                "ROUTER6 = fd00:30::1",
                format!("ROUTER6 = {}", self.gateway(rack, Family::V6)),
            ),
            (
                "BETWEEN_NODES = true",
                format!("BETWEEN_NODES = {}", self.encapsulation == "none"),
            ),
        ];
        values.iter().fold(NODE_CONF.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        })
    }

    fn gateway(&self, rack: usize, family: Family) -> IpAddr {
        self.cluster.lab().address_in(rack, family)
    }

    fn node(&self, index: usize) -> &Netns {
        self.cluster.nodes()[index].node.netns()
    }

    fn router(&self) -> KernelView {
        KernelView::of(self.cluster.lab().netns()).unwrap()
    }

    fn pod(&self, index: usize, name: &str) -> Pod {
        self.cluster.add_pod_of(index, name, 2, &Family::ALL).unwrap()
    }

    /// Waits until the router leads the subnet to the node, by BGP, or not at all.
    fn wait_announced(&self, subnet: IpNet, index: Option<usize>) {
        let node = index.map(|index| self.cluster.nodes()[index].node.address(Family::of_net(subnet)));
        let mut last = None;
        wait::until(
            wait::LONG,
            &format!("the router to lead {subnet} to {node:?}"),
            || {
                last = self.router().route(subnet).cloned();
                let by = last.as_ref().map(|route| route.protocol);
                last.as_ref().and_then(|route| route.gateway) == node && by == node.map(|_| BIRD)
            },
        )
        .unwrap_or_else(|error| panic!("{error}: {last:?}"));
    }

    /// The routes that BIRD has made on a node.
    fn routes_of_bird(&self, index: usize) -> Vec<String> {
        let view = KernelView::of(self.node(index)).unwrap();
        let rows = view.routes.iter().filter(|row| row.protocol == BIRD);
        rows.map(ToString::to_string).collect()
    }
}

/// A machine on a link of its own with the router.
fn outside(cluster: &Cluster) -> Netns {
    let netns = Netns::new().unwrap();
    let mut router = cluster.lab().setup().unwrap();
    let near = VethEnd {
        name: "outside",
        up: true,
        ..VethEnd::default()
    };
    let far = VethEnd {
        name: "eth0",
        up: true,
        ..VethEnd::default()
    };
    router.add_veth(near, far, &netns).unwrap();
    let mut machine = Setup::open_in(&netns).unwrap();
    for (own, routers, default) in [
        (OUTSIDE[0], "198.51.100.1/24", "0.0.0.0/0"),
        (OUTSIDE[1], "2001:db8:51::1/64", "::/0"),
    ] {
        let routers: IpNet = routers.parse().unwrap();
        router.add_address("outside", routers).unwrap();
        machine.add_address("eth0", own.parse().unwrap()).unwrap();
        let route = RouteSpec::via(default.parse().unwrap(), routers.addr(), Some("eth0"));
        machine.add_route(route).unwrap();
    }
    netns
}

/// Waits for the first reply, then wants every one.
fn works(what: &str, from: &Netns, to: IpAddr) {
    let first = Ping::to(to).patience(Duration::from_millis(50));
    wait::until(wait::LONG, &format!("{what} ({to})"), || {
        first.clone().run(from).unwrap().received() == 1
    })
    .unwrap();
    let report = Ping::to(to)
        .count(5)
        .interval(Duration::from_millis(1))
        .run(from)
        .unwrap();
    assert_eq!(report.received(), 5, "{what} ({to}): {report}");
}

macro_rules! needs_bird {
    () => {
        if !Path::new(PROGRAM).exists() {
            skip!("no {PROGRAM}: install bird2");
        }
    };
}

#[test]
fn pods_are_reached_across_racks_and_from_outside() {
    needs_bird!();
    let racks = Racks::new("none");
    let [a, b, c, d] = [(0, "a"), (1, "b"), (2, "c"), (3, "d")].map(|(index, name)| racks.pod(index, name));
    for family in Family::ALL {
        for (index, node) in racks.cluster.nodes().iter().enumerate() {
            racks.wait_announced(node.subnet_of(family), Some(index));
        }
        let address = |pod: &Pod| pod.address(family).unwrap();
        for (what, from, to) in [
            ("in a rack", a.netns(), address(&b)),
            ("in the other rack", d.netns(), address(&c)),
            ("across racks", a.netns(), address(&c)),
            ("and back", c.netns(), address(&a)),
            ("from the second nodes", d.netns(), address(&b)),
            ("host to a pod across racks", racks.node(1), address(&d)),
            ("from outside", &racks.outside, address(&a)),
            ("from outside to the other rack", &racks.outside, address(&d)),
        ] {
            works(what, from, to);
        }
        let machine: IpNet = OUTSIDE[usize::from(family == Family::V6)].parse().unwrap();
        works("to the outside", b.netns(), machine.addr());
        // In the rack by the agent, across by BIRD, each through its own.
        let view = KernelView::of(racks.node(0)).unwrap();
        let route = |index: usize| {
            view.route(racks.cluster.nodes()[index].subnet_of(family))
                .unwrap()
        };
        let neighbour = racks.cluster.nodes()[1].node.address(family);
        assert_eq!((route(0).blackhole, route(0).protocol), (true, OURS));
        assert_eq!((route(1).gateway, route(1).protocol), (Some(neighbour), OURS));
        assert_eq!(
            (route(2).gateway, route(2).protocol),
            (Some(racks.gateway(0, family)), BIRD)
        );
    }
    wait::until(wait::LONG, "all routes and no other", || {
        racks.routes_of_bird(0).len() == 4
    })
    .unwrap();
}

/// Either may be away: what it has made stays, and the other does not touch it.
#[test]
fn neither_restarts_of_the_agent_nor_of_bird_lose_a_packet() {
    needs_bird!();
    let mut racks = Racks::new("none");
    let [a, c] = [(0, "a"), (2, "c")].map(|(index, name)| racks.pod(index, name));
    let pingers = Family::ALL.map(|family| {
        let to = c.address(family).unwrap();
        works("across racks", a.netns(), to);
        works("from outside", &racks.outside, to);
        let ping = Ping::to(to).interval(Duration::from_millis(2));
        [
            ping.clone().start(a.netns()).unwrap(),
            ping.start(&racks.outside).unwrap(),
        ]
    });
    let flow = || {
        for pinger in pingers.iter().flatten() {
            pinger.wait_replies(30, wait::LONG).unwrap();
        }
    };
    // Two nodes of the other rack, in two families.
    wait::until(wait::LONG, "all routes", || racks.routes_of_bird(0).len() == 4).unwrap();
    let before = racks.routes_of_bird(0);
    let mut script = Script::of("bgp.rs: neither_restarts_of_the_agent_nor_of_bird_lose_a_packet");
    let restart = script.take("birdc graceful restart");
    for index in [0, 2] {
        let agent = racks.cluster.node(index).agent().unwrap();
        assert!(agent.stop().unwrap().success());
        flow();
        let agent = racks.cluster.node(index).agent().unwrap();
        agent.restart().unwrap();
        agent.wait_ready(wait::LONG).unwrap();
        flow();
        let bird = &mut racks.birds[index];
        bird.stop_for_restart(&restart.text);
        flow();
        bird.start_again(&racks.router);
        flow();
        // Or it crashes.
        bird.process.kill().unwrap();
        flow();
        bird.start_again(&racks.router);
        flow();
    }
    for pinger in pingers.into_iter().flatten() {
        let report = pinger.stop().unwrap();
        assert!(report.lost.is_empty(), "{report}: {:?}", report.lost);
    }
    assert_eq!(racks.routes_of_bird(0), before);
}

#[test]
fn what_is_announced_follows_the_nodes() {
    needs_bird!();
    let mut racks = Racks::new("none");
    let pod = racks.pod(0, "a");
    // A node that joins needs no change elsewhere.
    let index = racks.cluster.add_unregistered_node_in(1).unwrap();
    racks.join(index);
    let new = racks.pod(index, "new");
    for family in Family::ALL {
        let subnet = racks.cluster.nodes()[index].subnet_of(family);
        racks.wait_announced(subnet, Some(index));
        works(
            "to the node that joined",
            pod.netns(),
            new.address(family).unwrap(),
        );
    }
    // A pod subnet that a Node has in place of the former one.
    let object = racks.cluster.node_object_of(1, &Family::ALL, &Family::ALL);
    let changed = object.pod_cidrs(["10.244.77.0/24", "fd00:244:77::/64"]).build();
    racks.cluster.api().apply(&changed).unwrap();
    for (family, subnet) in Family::ALL
        .into_iter()
        .zip(["10.244.77.0/24", "fd00:244:77::/64"])
    {
        racks.wait_announced(subnet.parse().unwrap(), Some(1));
        racks.wait_announced(racks.cluster.nodes()[1].subnet_of(family), None);
    }
}

/// With a tunnel between the nodes, BIRD only announces.
#[test]
fn with_a_tunnel_pods_are_reached_from_outside_and_nodes_take_no_routes() {
    needs_bird!();
    let racks = Racks::new("vxlan");
    let [a, c] = [(0, "a"), (2, "c")].map(|(index, name)| racks.pod(index, name));
    for family in Family::ALL {
        works("across racks", a.netns(), c.address(family).unwrap());
        works("from outside", &racks.outside, a.address(family).unwrap());
        works(
            "from outside to the other rack",
            &racks.outside,
            c.address(family).unwrap(),
        );
        racks.wait_announced(racks.cluster.nodes()[2].subnet_of(family), Some(2));
    }
    for index in 0..4 {
        assert!(racks.routes_of_bird(index).is_empty());
    }
}
