//! Nodes that run flannel: its annotations count where Calico's say nothing of a tunnel, and where flannel's tunnel is
//! this node's as well. Where it is another one, that is told, and the Node is taken for one with this agent, which it is
//! if the annotations were left behind.

use ipnet::IpNet;
use routelet_model::{Family, Flannel, FlannelLease, MacAddr, Node, NodeOverrides, PerFamily};

use crate::vtep::{fits, is_unicast_mac, pod_subnets};
use crate::wanted::Wanted;
use crate::way::Tunnel;
use crate::{Reason, Settings};

const BACKEND: &str = "metadata.annotations[flannel.alpha.coreos.com/backend-type]";
const DATA: PerFamily<&str> = PerFamily {
    v4: "metadata.annotations[flannel.alpha.coreos.com/backend-data]",
    v6: "metadata.annotations[flannel.alpha.coreos.com/backend-v6-data]",
};
const UNDERLAY: PerFamily<&str> = PerFamily {
    v4: "metadata.annotations[flannel.alpha.coreos.com/public-ip]",
    v6: "metadata.annotations[flannel.alpha.coreos.com/public-ipv6]",
};

/// Names of flannel's backends.
const VXLAN: &str = "vxlan";
const IPIP: &str = "ipip";
const HOST_GW: &str = "host-gw";
/// The UDP port of flannel's VXLAN where its configuration names none: the kernel's default. No annotation tells it.
const PORT: u16 = 8472;

/// Takes out what cannot be right: `take` is told the field, the value, and what would be right.
pub(crate) fn check(
    lease: &mut FlannelLease,
    family: Family,
    take: &mut impl FnMut(&'static str, String, &'static str),
) {
    if let Some(address) = lease.underlay.take_if(|address| !fits(*address, family)) {
        let wanted = "a unicast address of the family";
        take(UNDERLAY.get(family), address.to_string(), wanted);
    }
    let is_bad = |mac: &mut MacAddr| !is_unicast_mac(*mac);
    if let Some(mac) = lease.vtep_mac.take_if(is_bad) {
        take(DATA.get(family), mac.to_string(), "a unicast MAC address");
    }
}

/// Puts what flannel says of a family in the place of what would be derived, if Calico's annotations have not spoken and
/// its tunnel is this node's; false where it is another. Its tunnel address is the derived one. Of a family that is dealt
/// with nothing stays in the lease, so that [`refuse_other`] speaks of the others alone.
pub(crate) fn follow(
    flannel: &mut Flannel,
    family: Family,
    settings: &Settings,
    overrides: &mut NodeOverrides,
) -> bool {
    let lease = flannel.lease.get_mut(family);
    let is_calicos = overrides.tunnel_address.is_some() || overrides.vtep_mac.is_some();
    if !is_calicos {
        if !suits(&flannel.backend, lease, settings) {
            return false;
        }
        overrides.underlay = lease.underlay.map(IpNet::from).or(overrides.underlay);
        overrides.vtep_mac = lease.vtep_mac;
    }
    *lease = FlannelLease::default();
    true
}

/// Whether packets of this node's tunnel, or its packets without one, are those of flannel's backend.
fn suits(backend: &str, lease: &FlannelLease, settings: &Settings) -> bool {
    match (settings.encapsulation.tunnel(), backend) {
        (Some(Tunnel::Vxlan), VXLAN) => lease.vni.is_none_or(|vni| vni == settings.vxlan.vni),
        (Some(Tunnel::Ipip), IPIP) => true,
        (_, HOST_GW) => settings.encapsulation.is_direct_on_link(),
        _ => false,
    }
}

/// Refuses flannel's annotations that were not followed because they tell of another tunnel.
pub(crate) fn refuse_other(settings: &Settings, node: &Node, wanted: &mut Wanted) {
    let Some(flannel) = &node.flannel else { return };
    let of_family = |family: Family| {
        let lease = flannel.lease.get(family);
        let is_other =
            pod_subnets(node, family).next().is_some() && !suits(&flannel.backend, lease, settings);
        is_other.then_some((family, lease.vni))
    };
    let Some((family, vni)) = Family::ALL.into_iter().find_map(of_family) else {
        return;
    };
    let is_vxlan = settings.encapsulation.tunnel() == Some(Tunnel::Vxlan) && flannel.backend == VXLAN;
    let (field, value, remedy) = match vni.filter(|_| is_vxlan) {
        Some(vni) => (
            *DATA.get(family),
            format!("of VNI {vni}, while the VNI here is {}", settings.vxlan.vni),
            format!("set --vxlan-vni {vni} and --vxlan-port to flannel's port ({PORT} if it was not set) here"),
        ),
        None => (
            BACKEND,
            format!("{:?}, which is not how packets travel here", flannel.backend),
            "choose the --encapsulation that goes with it: vxlan with vxlan, none with host-gw, ipip with ipip; with \
             any other, the node is not reached"
                .to_owned(),
        ),
    };
    let message = format!(
        "{field} of node {} is {value}: flannel's annotations are not followed, and the node is taken for one with \
         routelet. If flannel runs there, {remedy}; if it does not, remove them from the Node",
        node.name
    );
    wanted.refuse(node, Reason::OtherTunnel, message);
}
