//! Two nodes with strict reverse path filters, and TCP that tells who called.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use routelet_lab::{Backend, Cluster, Pod, wait};
use routelet_model::Family;
use routelet_netlink::Netns;

/// How long one attempt to connect may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Two nodes with an agent each, and a pod on each of them; the LAN has a route to each pod subnet.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) pods: [Pod; 2],
}

impl World {
    pub(crate) fn new(backend: Backend) -> Self {
        let cluster = Cluster::with_agents(backend, 2).unwrap();
        for node in cluster.nodes() {
            for scope in ["all", "default", "eth0"] {
                set(node.node.netns(), &format!("ipv4/conf/{scope}/rp_filter"), "1");
            }
            cluster.lab().route_to(&node.node, node.subnet).unwrap();
        }
        let pods = [(0, "a"), (1, "b")].map(|(node, name)| cluster.add_pod(node, name, 2).unwrap());
        Self { cluster, pods }
    }

    pub(crate) fn node(&self, index: usize) -> &Netns {
        self.cluster.nodes()[index].node.netns()
    }

    pub(crate) fn node_address(&self, index: usize) -> IpAddr {
        self.cluster.nodes()[index].node.address(Family::V4)
    }

    pub(crate) fn lan(&self) -> &Netns {
        self.cluster.lab().netns()
    }

    pub(crate) fn pod_address(&self, index: usize) -> IpAddr {
        self.pods[index].address(Family::V4).unwrap()
    }
}

/// Sets a sysctl below /proc/sys/net.
pub(crate) fn set(netns: &Netns, name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    netns.run(|| std::fs::write(path, value).unwrap()).unwrap();
}

/// A server on all of a namespace's addresses that tells each caller its address. It serves as long as the test runs.
pub(crate) fn serve(netns: &Netns, port: u16) {
    let listener = netns
        .run(|| TcpListener::bind(("0.0.0.0", port)).unwrap())
        .unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            if let Ok(caller) = connection.peer_addr() {
                // A caller that has gone meanwhile wants no answer.
                let _ = connection.write_all(caller.ip().to_string().as_bytes());
            }
        }
    });
}

/// Calls a server once; returns the address that it saw.
pub(crate) fn call(netns: &Netns, to: SocketAddr) -> Result<IpAddr> {
    netns.run(|| {
        let mut connection = TcpStream::connect_timeout(&to, PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        answer
            .parse()
            .with_context(|| format!("{to} answered {answer:?}"))
    })?
}

/// The same, until it is answered.
pub(crate) fn reach(netns: &Netns, to: SocketAddr) -> IpAddr {
    wait::until_ok(wait::LONG, &format!("an answer from {to}"), || call(netns, to)).unwrap()
}
