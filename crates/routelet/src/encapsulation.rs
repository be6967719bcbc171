//! What the encapsulation setting means to the other crates, and which devices are the agent's.

use routelet_model::{DEVICE_ALIAS, Family, IfName};
use routelet_netlink::{Features, Setup};
use routelet_planner::{Encapsulation as Planned, Way};

use crate::args::{ChecksumOffload, Encapsulation, MarkArgs};

/// Name of the IPIP device: the one that the kernel makes with the module.
pub(crate) fn ipip_device() -> anyhow::Result<IfName> {
    Ok("tunl0".parse()?)
}

/// The planner's word for the setting.
pub(crate) fn of(setting: Encapsulation) -> Planned {
    match setting {
        Encapsulation::Vxlan => Planned::Vxlan,
        Encapsulation::VxlanCrossSubnet => Planned::VxlanCrossSubnet,
        Encapsulation::Ipip => Planned::Ipip,
        Encapsulation::IpipCrossSubnet => Planned::IpipCrossSubnet,
        Encapsulation::None => Planned::None,
    }
}

/// The tunnel devices that are the agent's, wanted or left from another setting: VXLAN devices are so by their name.
/// The IPIP device is anyone's, unless it is to be used, or its alias says that an agent has used it.
/// `setting` is `None` where none is to be used any more.
pub(crate) fn devices(marks: &MarkArgs, setting: Option<Encapsulation>) -> anyhow::Result<Vec<IfName>> {
    let mut devices = vec![marks.vxlan_device, marks.vxlan_device_v6];
    let ipip = ipip_device()?;
    let is_used = matches!(
        setting,
        Some(Encapsulation::Ipip | Encapsulation::IpipCrossSubnet)
    );
    let found = || Setup::open()?.link(ipip.as_str());
    if is_used || found()?.is_some_and(|link| link.alias.as_deref() == Some(DEVICE_ALIAS)) {
        devices.push(ipip);
    }
    Ok(devices)
}

/// Whether TX checksum offload of the VXLAN devices shall be on, on this kernel; `None` leaves it as it is.
pub(crate) fn checksum_offload(setting: ChecksumOffload, features: &Features) -> Option<bool> {
    match setting {
        ChecksumOffload::On => Some(true),
        ChecksumOffload::Off => Some(false),
        ChecksumOffload::Auto => features.spoils_vxlan_checksums().then_some(false),
    }
}

/// What peers are counted by.
pub(crate) fn ways() -> impl Iterator<Item = (Family, Way)> {
    Family::ALL
        .into_iter()
        .flat_map(|family| Way::ALL.map(|way| (family, way)))
}
