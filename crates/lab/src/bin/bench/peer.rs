//! Remote nodes by number: what the cluster says of them and what follows for the kernel.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use routelet_lab::api::objects;
use routelet_model::{Family, MacAddr, Node, NodeAddress, NodeAddressKind, vtep_mac};
use serde_json::Value;

/// A remote node.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// 10.0.0.0/24 and up, below the subnets of the lab's own nodes.
    pub(crate) subnet: Ipv4Net,
    /// 172.31.0.0 and up: no node of the lab has it.
    pub(crate) underlay: Ipv4Addr,
}

impl Peer {
    pub(crate) fn number(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self {
            name: format!("worker-{number}"),
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, high, low, 0), 24),
            underlay: Ipv4Addr::new(172, 31, high, low),
        }
    }

    /// So many of them, from number 1 on.
    pub(crate) fn several(count: usize) -> Vec<Self> {
        (1..=u16::MAX).take(count).map(Self::number).collect()
    }

    /// The same in the /16 of an address, where none of the lower 64 networks of 256 is used.
    pub(crate) fn in_network_of(self, address: Ipv4Addr) -> Self {
        let ([first, second, ..], [.., third, fourth]) = (address.octets(), self.underlay.octets());
        Self {
            underlay: Ipv4Addr::new(first, second, third + 64, fourth),
            ..self
        }
    }

    pub(crate) fn mac(&self) -> MacAddr {
        vtep_mac(&self.name, Family::V4)
    }

    /// Its tunnel address.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.subnet.network()
    }

    /// Its Node, as the watcher tells it.
    pub(crate) fn node(&self) -> Node {
        node(&self.name, self.subnet, self.underlay)
    }

    /// Its Node object, of the size that a node in service has.
    pub(crate) fn object(&self) -> Value {
        objects::node(self.name.as_str())
            .pod_cidrs([self.subnet])
            .internal_ip(self.underlay.into())
            .full_size()
            .build()
    }
}

/// A Node, as the watcher tells it.
pub(crate) fn node(name: &str, subnet: Ipv4Net, underlay: Ipv4Addr) -> Node {
    Node {
        name: name.to_owned(),
        uid: "5f3c5d5e-26a2-4a0d-8b6e-0c7b0f1f2a11".to_owned(),
        created: 1_767_225_600,
        addresses: vec![NodeAddress {
            kind: NodeAddressKind::Internal,
            address: underlay.into(),
        }],
        pod_subnets: vec![subnet.into()],
        overrides: Default::default(),
        ipip_address: None,
        flannel: None,
        unreadable: Vec::new(),
    }
}
