//! Two nodes with agents, pods with addresses of both families, and the LAN, which knows no way back to pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use routelet_lab::api::objects;
use routelet_lab::{Backend, Cluster, Ping, Pod, wait};
use routelet_model::{Family, Key, Kind, NftRules, Object};
use routelet_netlink::{Config, Kernel, Netns, Operation, Verb};

/// A cluster of two nodes: pods a and b on the first one, c on the second.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) pods: Vec<Pod>,
}

/// Numbers of the pods, and of the nodes.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const C: usize = 2;
pub(crate) const ONE: usize = 0;
pub(crate) const TWO: usize = 1;

impl Stage {
    /// All agents are ready, and every pod reaches every other.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self::on(&Family::ALL, arguments)
    }

    /// The same, where the nodes have addresses of these families.
    pub(crate) fn on(underlay: &[Family], arguments: &[&str]) -> Self {
        let mut cluster = Cluster::new(Backend::from_env().unwrap()).unwrap();
        for index in [ONE, TWO] {
            cluster.add_unregistered_node().unwrap();
            let object = cluster.node_object_of(index, &Family::ALL, underlay).build();
            cluster.api().apply(&object).unwrap();
        }
        let mut stage = Self {
            cluster,
            pods: Vec::new(),
        };
        stage.start_agents(arguments);
        for (node, name, number) in [(ONE, "a", 2), (ONE, "b", 3), (TWO, "c", 2)] {
            stage.add_pod(node, name, number);
        }
        for (from, to) in [(A, B), (A, C), (C, B), (B, A), (C, A)] {
            for family in Family::ALL {
                stage.wait_reply(from, stage.pod(to, family));
            }
        }
        stage
    }

    /// Starts the agents, anew where they run, and waits until they are ready.
    pub(crate) fn start_agents(&mut self, arguments: &[&str]) {
        for index in [ONE, TWO] {
            self.cluster.node(index).agent = None;
            self.cluster.start_agent(index, arguments).unwrap();
        }
        self.cluster.wait_ready().unwrap();
    }

    fn add_pod(&mut self, node: usize, name: &str, number: u8) {
        let pod = self.cluster.add_pod_of(node, name, number, &Family::ALL).unwrap();
        self.pods.push(pod);
    }

    pub(crate) fn wait_reply(&self, from: usize, to: IpAddr) {
        wait::until(wait::LONG, &format!("the first reply of {to}"), || {
            let ping = Ping::to(to).patience(Duration::from_millis(50));
            ping.run(self.pods[from].netns()).unwrap().received() == 1
        })
        .unwrap();
    }

    pub(crate) fn pod(&self, number: usize, family: Family) -> IpAddr {
        self.pods[number].address(family).unwrap()
    }

    pub(crate) fn node(&self, number: usize, family: Family) -> IpAddr {
        self.cluster.nodes()[number].node.address(family)
    }

    pub(crate) fn node_netns(&self, number: usize) -> &Netns {
        self.cluster.nodes()[number].node.netns()
    }

    /// The machine outside: the LAN itself.
    pub(crate) fn outside(&self, family: Family) -> IpAddr {
        self.cluster.lab().address(family)
    }

    pub(crate) fn outside_netns(&self) -> &Netns {
        self.cluster.lab().netns()
    }

    /// The source of a datagram from a pod, as it arrives at the machine that has the address.
    pub(crate) fn source_seen(&self, from: usize, at: &Netns, to: IpAddr) -> IpAddr {
        let listener = Listener::at(at, Family::of(to));
        send(self.pods[from].netns(), None, listener.address(to), "hello");
        listener.next().1.ip()
    }

    /// The rules that a node has, if it has any.
    pub(crate) fn rules(&self, node: usize) -> Option<NftRules> {
        let mut rules = None;
        in_kernel(self.node_netns(node), |kernel| {
            kernel
                .dump(Kind::NftRules, None, &mut |_, object| {
                    if let Object::NftRules(found) = object {
                        rules = Some(found);
                    }
                })
                .unwrap();
        });
        rules
    }

    pub(crate) fn wait_rules(&self, node: usize) {
        wait::until(wait::LONG, "the node's rules to be there", || {
            self.rules(node).is_some()
        })
        .unwrap();
    }

    /// Works on a node whose nft table is away, with its agent standing still; after it, the agent has made it again.
    pub(crate) fn without_table(&mut self, node: usize, work: impl FnOnce(&Self)) {
        let agent = self.cluster.node(node).agent().unwrap();
        let pid = Pid::from_raw(agent.pid().cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        wait::until(wait::LONG, "the agent to stand still", || stands_still(pid)).unwrap();
        let delete = Operation {
            verb: Verb::Delete,
            key: Key::NftTable,
            object: Object::NftTable,
        };
        in_kernel(self.node_netns(node), |kernel| {
            kernel.apply(&[delete], &mut Vec::new());
        });
        assert_eq!(self.rules(node), None);
        work(self);
        kill(pid, Signal::SIGCONT).unwrap();
        self.wait_rules(node);
    }
}

/// A Node of both families.
pub(crate) fn node_object(cluster: &Cluster, index: usize) -> objects::NodeBuilder {
    cluster.node_object_of(index, &Family::ALL, &Family::ALL)
}

/// Whether all threads of a process have stopped, which they do some time after the signal.
fn stands_still(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.into_iter().all(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    })
}

/// Looks at a namespace's kernel as the agent does.
pub(crate) fn in_kernel(netns: &Netns, work: impl FnOnce(&mut Kernel) + Send) {
    let config = Config {
        protocol: 80,
        devices: vec![
            "vxlan.calico".parse().unwrap(),
            "vxlan-v6.calico".parse().unwrap(),
        ],
        interface_prefix: "cali".to_owned(),
        nft_table: "routelet".to_owned(),
        receive_buffer: 1 << 20,
    };
    netns.run(|| work(&mut Kernel::open(config).unwrap())).unwrap();
}

/// Receives datagrams.
pub(crate) struct Listener(UdpSocket);

impl Listener {
    /// On a free port of all addresses of the namespace.
    pub(crate) fn at(netns: &Netns, family: Family) -> Self {
        Self::on(netns, (unspecified(family), 0).into())
    }

    pub(crate) fn on(netns: &Netns, address: SocketAddr) -> Self {
        let socket = netns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket.set_read_timeout(Some(wait::LONG)).unwrap();
        Self(socket)
    }

    /// Where to send to, at an address of its machine.
    pub(crate) fn address(&self, ip: IpAddr) -> SocketAddr {
        (ip, self.port()).into()
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// The next datagram and its source.
    pub(crate) fn next(&self) -> (String, SocketAddr) {
        let mut buffer = [0; 64];
        let (length, from) = self.0.recv_from(&mut buffer).unwrap();
        (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
    }
}

/// Sends a datagram, from an address and port of one's choice or the kernel's.
pub(crate) fn send(netns: &Netns, from: Option<SocketAddr>, to: SocketAddr, text: &str) {
    let from = from.unwrap_or_else(|| (unspecified(Family::of(to.ip())), 0).into());
    netns
        .run(|| {
            let socket = UdpSocket::bind(from).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(text.as_bytes(), to).unwrap();
        })
        .unwrap();
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Runs a program in a namespace; what it prints. `None` where it is not there or fails.
pub(crate) fn run(netns: &Netns, program: &str, arguments: &[&str]) -> Option<String> {
    let output = netns
        .run(|| Command::new(program).args(arguments).output())
        .unwrap()
        .ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then_some(text)
}

pub(crate) fn write_sysctl(netns: &Netns, name: &str, value: &str) {
    netns
        .run(|| std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap())
        .unwrap();
}
