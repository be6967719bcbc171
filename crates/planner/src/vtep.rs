//! What a Node says of its tunnel end point: its pod subnets, tunnel address, VTEP MAC and underlay address.
//!
//! An annotation wins over what would be derived, and Calico's over flannel's: those that tell of a tunnel's end point
//! silence flannel's of the same family, for a Node that was moved keeps what the former network left. A value that cannot be right is taken out at the entrance
//! and refused, and what would be derived counts: every node that reads the same Node object comes to the
//! same values.

use std::net::IpAddr;

use ipnet::IpNet;
use routelet_model::{
    Family, MacAddr, Node, NodeAddress, NodeAddressKind, PerFamily, Unreadable, tunnel_address, vtep_mac,
};

use crate::wanted::Wanted;
use crate::way::Tunnel;
use crate::{Reason, Settings, UnderlayRule, flannel};

/// Calico's annotations, as they are named to an operator.
const UNDERLAY: PerFamily<&str> = PerFamily {
    v4: "metadata.annotations[projectcalico.org/IPv4Address]",
    v6: "metadata.annotations[projectcalico.org/IPv6Address]",
};
const TUNNEL_ADDRESS: PerFamily<&str> = PerFamily {
    v4: "metadata.annotations[projectcalico.org/IPv4VXLANTunnelAddr]",
    v6: "metadata.annotations[projectcalico.org/IPv6VXLANTunnelAddr]",
};
/// IPIP carries IPv4 only.
const IPIP_ADDRESS: &str = "metadata.annotations[projectcalico.org/IPv4IPIPTunnelAddr]";
const VTEP_MAC: PerFamily<&str> = PerFamily {
    v4: "metadata.annotations[projectcalico.org/VXLANTunnelMACAddr]",
    v6: "metadata.annotations[projectcalico.org/VXLANTunnelMACAddrV6]",
};

/// The Node without values that can be read but cannot be right: they join the unreadable ones. With what counts of all
/// annotations in its overrides; flannel's stay beside them only where they tell of another tunnel. With the VTEP MACs
/// that follow from its name where no annotation says others, so that each is hashed once; and with those addresses alone
/// that the setting of the underlay chooses among, the preferred ones first.
pub(crate) fn made_usable(mut node: Node, settings: &Settings) -> Node {
    let mut bad = Vec::new();
    let mut take = |field, value: String, wanted| bad.push(Unreadable { field, value, wanted });
    node.pod_subnets.retain(|subnet| {
        let usable = is_routable(subnet.addr());
        if !usable {
            take("spec.podCIDRs", subnet.to_string(), "a unicast network");
        }
        usable
    });
    let address_wanted = "a unicast address of the family";
    let mut of_other_tunnel = false;
    if let Some(address) = node
        .ipip_address
        .take_if(|address| !is_routable((*address).into()))
    {
        take(IPIP_ADDRESS, address.to_string(), address_wanted);
    }
    for family in Family::ALL {
        let overrides = node.overrides.get_mut(family);
        if let Some(net) = overrides.underlay.take_if(|net| !fits(net.addr(), family)) {
            take(UNDERLAY.get(family), net.to_string(), address_wanted);
        }
        if let Some(address) = overrides
            .tunnel_address
            .take_if(|address| !fits(*address, family))
        {
            take(TUNNEL_ADDRESS.get(family), address.to_string(), address_wanted);
        }
        if let Some(mac) = overrides.vtep_mac.take_if(|mac| !is_unicast_mac(*mac)) {
            take(VTEP_MAC.get(family), mac.to_string(), "a unicast MAC address");
        }
        if settings.encapsulation.tunnel() == Some(Tunnel::Ipip) {
            let in_ipip = node.ipip_address.filter(|_| family == Family::V4);
            overrides.tunnel_address = in_ipip.map(IpAddr::V4);
        }
        if node
            .pod_subnets
            .iter()
            .any(|subnet| Family::of_net(*subnet) == family)
        {
            if let Some(flannel) = &mut node.flannel {
                flannel::check(flannel.lease.get_mut(family), family, &mut take);
                of_other_tunnel |= !flannel::follow(flannel, family, settings, overrides);
            }
            overrides
                .vtep_mac
                .get_or_insert_with(|| vtep_mac(&node.name, family));
        }
    }
    node.unreadable.append(&mut bad);
    if let UnderlayRule::Cidr(nets) = &settings.underlay {
        let place = |entry: &NodeAddress| nets.iter().position(|net| net.contains(&entry.address));
        node.addresses.retain(|entry| place(entry).is_some());
        node.addresses.sort_by_key(place);
    }
    node.flannel = node.flannel.filter(|_| of_other_tunnel);
    node
}

/// Refuses what could not be read, used or followed of the Node.
pub(crate) fn refuse_unusable(settings: &Settings, node: &Node, wanted: &mut Wanted) {
    flannel::refuse_other(settings, node, wanted);
    for bad in &node.unreadable {
        let message = format!(
            "{} of node {} is {:?}, not {}; the rest of the Node is used",
            bad.field, node.name, bad.value, bad.wanted
        );
        wanted.refuse(node, Reason::UnreadableValue, message);
    }
}

/// The Node's pod subnets of one family, in the API's order.
pub(crate) fn pod_subnets(node: &Node, family: Family) -> impl Iterator<Item = IpNet> {
    node.pod_subnets
        .iter()
        .copied()
        .filter(move |subnet| Family::of_net(*subnet) == family)
}

/// The Node's tunnel address; `None` where it has no pod subnet of the family.
pub(crate) fn tunnel_address_of(node: &Node, family: Family) -> Option<IpAddr> {
    let first = pod_subnets(node, family).next()?;
    Some(
        node.overrides
            .get(family)
            .tunnel_address
            .unwrap_or_else(|| tunnel_address(first)),
    )
}

/// The MAC address of the Node's VXLAN device for one family.
pub(crate) fn vtep_mac_of(node: &Node, family: Family) -> MacAddr {
    node.overrides
        .get(family)
        .vtep_mac
        .unwrap_or_else(|| vtep_mac(&node.name, family))
}

/// The Node's underlay address of one family: the annotation's, else the first InternalIP, else the first
/// ExternalIP.
pub(crate) fn underlay_address_of(node: &Node, family: Family) -> Option<IpAddr> {
    let first_of = |kind| {
        let mut addresses = node.addresses.iter().filter(move |entry| entry.kind == kind);
        addresses
            .find(|entry| fits(entry.address, family))
            .map(|entry| entry.address)
    };
    let chosen = node.overrides.get(family).underlay.map(|net| net.addr());
    chosen
        .or_else(|| first_of(NodeAddressKind::Internal))
        .or_else(|| first_of(NodeAddressKind::External))
}

/// The Node's underlay addresses, of both families.
pub(crate) fn underlay_addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    Family::ALL
        .into_iter()
        .filter_map(|family| underlay_address_of(node, family))
}

/// Whether packets may be sent to the address from anywhere: no loopback, multicast and the like. IPv6
/// link-local addresses mean nothing without their link.
pub(crate) fn is_routable(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !special
        && match address {
            IpAddr::V4(v4) => !v4.is_broadcast(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }
}

pub(crate) fn fits(address: IpAddr, family: Family) -> bool {
    Family::of(address) == family && is_routable(address)
}

pub(crate) fn is_unicast_mac(mac: MacAddr) -> bool {
    mac.0[0] & 1 == 0 && mac.0 != [0; 6]
}
