//! How this node is on the underlay: which of its addresses its tunnels send from, and by which link.
//!
//! The other nodes know this one by its Node object alone. Where the setting chooses an address that they would not
//! take from there, this node can neither be reached nor heard, and says so.

use std::net::IpAddr;

use ipnet::IpNet;
use routelet_model::{Family, Host, HostLink, IPIP_OVERHEAD, IfName, Node, VXLAN_OVERHEAD};

use crate::vtep::{is_routable, underlay_address_of};
use crate::wanted::Wanted;
use crate::way::Tunnel;
use crate::{LinkPattern, Missing, Reason, Settings, UnderlayRule};

/// How this node is on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Underlay {
    pub(crate) local: IpAddr,
    /// The address with the prefix length that the host has it with: who else is in it is on the link.
    pub(crate) network: IpNet,
    pub(crate) parent: IfName,
    pub(crate) parent_mtu: u32,
}

impl Underlay {
    /// The VNI of the device that has this underlay, for a family of pods.
    pub(crate) fn vni(&self, settings: &Settings, pods: Family) -> u32 {
        vni(settings.vxlan.vni, pods, Family::of(self.local))
    }

    /// MTU of what carries the packets of a family of pods.
    pub(crate) fn mtu(&self, settings: &Settings, pods: Family) -> u32 {
        let family = Family::of(self.local);
        let overhead = match settings.tunnel(pods, family) {
            Some((Tunnel::Vxlan, _)) => *VXLAN_OVERHEAD.get(family),
            Some((Tunnel::Ipip, _)) => IPIP_OVERHEAD,
            None => 0,
        };
        settings.mtu.unwrap_or(self.parent_mtu.saturating_sub(overhead))
    }
}

/// How this node is on the underlay for pods of a family. A family without an address has the other one's.
pub(crate) fn find(
    rule: &UnderlayRule,
    node: &Node,
    host: &Host,
    family: Family,
) -> Result<Underlay, Missing> {
    let local = choose(rule, node, host, family)
        .or_else(|| choose(rule, node, host, family.other()))
        .ok_or_else(|| match rule {
            UnderlayRule::InternalIp => Missing::UnderlayAddressUnknown(family),
            _ => Missing::UnderlayAddressNotChosen(rule.to_string()),
        })?;
    let (link, network) = host
        .holder(local)
        .ok_or(Missing::UnderlayAddressNotOnHost(local))?;
    Ok(Underlay {
        local,
        network,
        parent: link.name,
        parent_mtu: link.mtu,
    })
}

/// The address of the family: the annotation's, for the other nodes follow it, else the rule's.
fn choose(rule: &UnderlayRule, node: &Node, host: &Host, family: Family) -> Option<IpAddr> {
    let known_to_peers = underlay_address_of(node, family);
    if node.overrides.get(family).underlay.is_some() {
        return known_to_peers;
    }
    // Of several that would do, one that the other nodes know.
    let first_of = |candidates: &[IpAddr]| {
        let known = known_to_peers.filter(|known| candidates.contains(known));
        known.or_else(|| candidates.first().copied())
    };
    match rule {
        UnderlayRule::InternalIp => known_to_peers,
        UnderlayRule::Interface(patterns) => {
            let named = |pattern: &LinkPattern, link: &HostLink| pattern.fits(link.name);
            let mut links = patterns
                .iter()
                .flat_map(|pattern| host.links.iter().filter(move |link| named(pattern, link)));
            links.find_map(|link| first_of(&usable(link, family).collect::<Vec<_>>()))
        }
        UnderlayRule::Cidr(nets) => {
            let all: Vec<IpAddr> = host.links.iter().flat_map(|link| usable(link, family)).collect();
            let within = |net: &IpNet| -> Vec<IpAddr> {
                all.iter()
                    .copied()
                    .filter(|address| net.contains(address))
                    .collect()
            };
            let known = known_to_peers.filter(|known| all.contains(known));
            known.or_else(|| nets.iter().find_map(|net| first_of(&within(net))))
        }
        UnderlayRule::CanReach(to) => match to.get(family) {
            Some(to) => host.sources.get(to).copied(),
            None => known_to_peers,
        },
    }
}

/// The addresses of a link that others could send to.
fn usable(link: &HostLink, family: Family) -> impl Iterator<Item = IpAddr> {
    let addresses = link.addresses.iter().map(IpNet::addr);
    addresses.filter(move |address| Family::of(*address) == family && is_routable(*address))
}

/// Refuses an address that the other nodes do not know to be this one's.
pub(crate) fn refuse_unknown(rule: &UnderlayRule, node: &Node, underlay: &Underlay, wanted: &mut Wanted) {
    let Underlay { local, parent, .. } = underlay;
    let family = Family::of(*local);
    let known = underlay_address_of(node, family);
    // By the default rule it can only be one that the Node had, and that is told as what vanished.
    if known == Some(*local) || *rule == UnderlayRule::InternalIp {
        return;
    }
    let takes = match known {
        Some(known) => format!("take {known} from its Node object"),
        None => format!("find no such {family} address in its Node object"),
    };
    let message = format!(
        "node {} sends from {local} on {parent}, by --underlay {rule}, but the other nodes {takes}: they neither \
         reach this one nor take its packets. Annotate the Node with projectcalico.org/{family}Address={}, or have \
         its kubelet or cloud provider give it this InternalIP",
        node.name, underlay.network
    );
    wanted.refuse(node, Reason::UnderlayAddressUnknownToPeers, message);
}

/// The VNI of the device for a family of pods. Two devices of one VNI and port can only coexist on underlays of two
/// families, so the one that carries the other family than its underlay's takes the next number.
fn vni(setting: u32, pods: Family, underlay: Family) -> u32 {
    const HIGHEST: u32 = 0xff_ffff;
    match (pods == underlay, setting) {
        (true, _) => setting,
        (false, HIGHEST) => HIGHEST - 1,
        (false, _) => setting + 1,
    }
}
