//! A cluster in which each node is another network's or the agent's.

use std::net::IpAddr;
use std::time::Duration;

use routelet_lab::{Backend, Cluster, KernelView, Ping, Pinger, wait};
use routelet_model::Family;
use routelet_netlink::Netns;

use crate::network::{Network, run};
use crate::pod::OtherPod;

/// Between two requests of each ping.
const INTERVAL: Duration = Duration::from_millis(2);
/// Replies to wait for between two changes.
const SOME: u64 = 30;

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) network: Network,
}

impl Stage {
    /// `count` nodes without agents of any kind. Kubernetes tells a wrong address of each that bears annotations: they
    /// are what counts.
    pub(crate) fn new(network: Network, count: usize, annotated: &[usize]) -> Self {
        let mut cluster = Cluster::new(Backend::Memory).unwrap();
        for index in 0..count {
            // Where networks count, the third node is in another one.
            let is_far = network == Network::CalicoCrossSubnet && index == 2;
            cluster.add_unregistered_node_in(usize::from(is_far)).unwrap();
            let object = if annotated.contains(&index) {
                let object = cluster.node_object_of(index, &Family::ALL, &[]);
                let object = object.internal_ip("192.0.2.99".parse().unwrap());
                network.annotate(object, index, &cluster.nodes()[index])
            } else {
                cluster.node_object_of(index, &Family::ALL, &Family::ALL)
            };
            cluster.api().apply(&object.build()).unwrap();
        }
        Self { cluster, network }
    }

    /// A pod of the other network's.
    pub(crate) fn pod(&mut self, index: usize, name: &str, host: u8) -> OtherPod {
        OtherPod::new(self.network, &mut self.cluster, index, name, host)
    }

    pub(crate) fn node(&self, index: usize) -> &Netns {
        self.cluster.nodes()[index].node.netns()
    }

    pub(crate) fn view(&self, index: usize) -> KernelView {
        KernelView::of(self.node(index)).unwrap()
    }

    /// Starts the other network's agent on a node, which means: writes its tables.
    pub(crate) fn start_other(&self, index: usize) {
        self.network.set_up(&self.cluster, index);
    }

    /// Starts the agent on a node.
    pub(crate) fn start_agent(&mut self, index: usize, arguments: &[&str]) {
        self.cluster.node(index).agent = None;
        self.cluster.start_agent(index, arguments).unwrap();
        self.cluster.wait_ready().unwrap();
    }

    /// Stops the agent on a node and takes away, by the command, what the other network's agent does not know of.
    pub(crate) fn leave(&mut self, index: usize, command: &str) {
        let agent = self.cluster.node(index).agent().unwrap();
        assert!(agent.stop().unwrap().success());
        self.cluster.node(index).agent = None;
        run(self.node(index), command);
    }
}

/// Waits for the first reply, then wants every one.
pub(crate) fn works(what: &str, from: &Netns, to: IpAddr) {
    let first = Ping::to(to).patience(Duration::from_millis(50));
    wait::until(wait::LONG, what, || {
        first.clone().run(from).unwrap().received() == 1
    })
    .unwrap();
    // A packet of the pods' full MTU, 1430 bytes with the headers of IPv6 and ICMPv6, is among them.
    for payload in [56, 1382] {
        let ping = Ping::to(to).count(5).payload(payload).interval(INTERVAL);
        let report = ping.run(from).unwrap();
        assert_eq!(report.received(), 5, "{what} ({to}, {payload} bytes): {report}");
    }
}

/// Pings that go on while nodes change, and lose nothing.
pub(crate) struct Flows(Vec<(String, Pinger)>);

impl Flows {
    /// Pings in both families.
    pub(crate) fn start(roads: &[(&str, &OtherPod, &OtherPod)]) -> Self {
        let mut pingers = Vec::new();
        for (what, from, to) in roads {
            for family in Family::ALL {
                works(what, &from.netns, to.address(family));
                let ping = Ping::to(to.address(family)).interval(INTERVAL);
                pingers.push((format!("{what}, {family}"), ping.start(&from.netns).unwrap()));
            }
        }
        Self(pingers)
    }

    /// Waits for some replies on each road.
    pub(crate) fn flow(&self) {
        for (_, pinger) in &self.0 {
            pinger.wait_replies(SOME, wait::LONG).unwrap();
        }
    }

    pub(crate) fn lost_nothing(self) {
        let reports = self
            .0
            .into_iter()
            .map(|(what, pinger)| (what, pinger.stop().unwrap()));
        let lost: Vec<_> = reports
            .filter(|(_, report)| !report.lost.is_empty())
            .map(|(what, report)| format!("{what}: {report}: {:?}", report.lost))
            .collect();
        assert!(lost.is_empty(), "{lost:#?}");
    }
}
