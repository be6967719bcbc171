//! What is ours, and what of it may be taken away.

use routelet_model::{Family, IfName, Key, LinkKind, Object, RouteTarget};

/// The marks by which our objects are told from everyone else's.
#[derive(Debug, Clone)]
pub struct Ownership {
    /// Routing protocol number on our routes, nexthops and neighbours.
    pub protocol: u8,
    /// Our tunnel devices: they and all that is on them is ours, wanted at present or not.
    pub devices: Vec<IfName>,
    /// What the names of pods' host veths begin with.
    pub interface_prefix: String,
}

impl Ownership {
    /// Whether the link is one that we follow: a device of ours or a host veth.
    pub fn follows(&self, link: IfName) -> bool {
        self.devices.contains(&link) || self.is_host_veth(link)
    }

    /// Whether the link is a pod's host veth, by its name.
    pub fn is_host_veth(&self, link: IfName) -> bool {
        link.as_str().starts_with(&self.interface_prefix)
    }

    /// Whether an object that the kernel has is ours to take away where it is not wanted.
    pub fn owns(&self, key: &Key, actual: &Object) -> bool {
        match key {
            // One that the kernel keeps when it is deleted is no one's when it is down.
            Key::Link(link) => self.devices.contains(link) && !is_laid_down(actual),
            Key::Sysctl(_) | Key::ChecksumOffload(_) => false,
            // The table is ours by its name, and so is all that is in it.
            Key::NftTable | Key::NftElement { .. } | Key::NftRules => true,
            Key::Address { link, .. } | Key::Fdb { link, .. } => self.devices.contains(link),
            Key::Neighbour { link, .. } => {
                // What is not permanent, the kernel made for itself while it resolved an address.
                self.devices.contains(link) && matches!(actual, Object::Neighbour(_))
            }
            Key::Nexthop { .. } | Key::StrayNexthop { .. } | Key::Route { .. } => match actual {
                Object::Foreign { protocol } => *protocol == self.protocol,
                _ => true,
            },
        }
    }
}

fn is_laid_down(actual: &Object) -> bool {
    matches!(actual, Object::Link(link) if matches!(link.kind, LinkKind::Ipip { .. }) && !link.up)
}

/// The host veth that a pod's object is, or that a route of a pod's address leads to.
pub(crate) fn pod_veth(key: &Key, object: &Object) -> Option<IfName> {
    match (key, object) {
        (Key::Link(link), Object::Link(object)) if object.kind == LinkKind::Veth => Some(*link),
        _ => pod_route_link(key, object),
    }
}

/// The host veth that a route of a single pod address leads to: the shape of a route that the CNI plugin
/// adds before the pod's address reaches the API.
pub(crate) fn pod_route_link(key: &Key, actual: &Object) -> Option<IfName> {
    match (key, actual) {
        (Key::Route { destination, .. }, Object::Route(RouteTarget::Link(link)))
            if destination.prefix_len() == Family::of_net(*destination).host_prefix_len() =>
        {
            Some(*link)
        }
        _ => None,
    }
}
