//! What must be known to read the kernel's messages: what is ours, which link has which index, and which nexthop
//! which id.

use routelet_model::{IfName, Key, Kind, Object};

use crate::address::SeenAddress;
use crate::link::SeenLink;
use crate::links::Links;
use crate::neighbour::SeenNeighbour;
use crate::nexthop::NexthopIds;
use crate::{Config, Error, route};

/// See the file's head.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) config: Config,
    pub(crate) links: Links,
    pub(crate) nexthops: NexthopIds,
    /// Whether a link may have taken nexthops along, which the kernel does not tell: only a dump does.
    pub(crate) nexthops_in_doubt: bool,
}

impl View {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            links: Links::default(),
            nexthops: NexthopIds::default(),
            nexthops_in_doubt: false,
        }
    }

    /// Whether the link is one of our VXLAN devices.
    pub(crate) fn is_device(&self, link: IfName) -> bool {
        self.config.devices.contains(&link)
    }

    /// Whether the link is one of our VXLAN devices or a host veth.
    pub(crate) fn is_ours(&self, link: IfName) -> bool {
        self.is_device(link) || link.as_str().starts_with(&self.config.interface_prefix)
    }

    /// Takes note of a link as it is now.
    pub(crate) fn learn_link(&mut self, link: &SeenLink) {
        let before = self.links.insert(link.index, link.name);
        for name in before.into_iter().chain((!link.running).then_some(link.name)) {
            self.nexthops.forget_link(name);
        }
    }

    /// Takes note that a link is gone now.
    pub(crate) fn unlearn_link(&mut self, index: u32, name: IfName) {
        self.links.remove(index);
        if self.links.index(name).is_none() {
            self.nexthops.forget_link(name);
        }
    }

    /// Takes note of a link as a notification tells it, which may be of the past: nexthops may have been made
    /// since on a link that it tells to be down. Returns the name that the link had before, if another.
    pub(crate) fn hear_of_link(&mut self, link: &SeenLink) -> Option<IfName> {
        let before = self.links.insert(link.index, link.name);
        self.nexthops_in_doubt |= before.is_some() || !link.running;
        before
    }

    /// Takes note that a notification tells a link to be gone.
    pub(crate) fn hear_of_link_gone(&mut self, index: u32) {
        self.links.remove(index);
        self.nexthops_in_doubt = true;
    }

    /// The object of a link of ours.
    pub(crate) fn link_object(&self, link: &SeenLink) -> Option<(Key, Object)> {
        self.is_ours(link.name).then(|| {
            (
                Key::Link(link.name),
                Object::Link(Box::new(link.object(&self.links))),
            )
        })
    }

    /// Reads a message about an object of a kind that needs nothing but what the view knows already.
    pub(crate) fn read(&self, kind: Kind, payload: &[u8]) -> Result<Option<(Key, Object)>, Error> {
        match kind {
            Kind::Route => route::read(payload, self),
            Kind::Address => Ok(SeenAddress::read(payload)?.and_then(|seen| {
                let link = self.links.name(seen.index).filter(|link| self.is_device(*link))?;
                Some((
                    Key::Address {
                        link,
                        address: seen.address,
                    },
                    Object::Address,
                ))
            })),
            Kind::Fdb | Kind::Neighbour => {
                let seen = SeenNeighbour::read(payload, &self.links)?;
                let seen = seen.filter(|seen| self.is_device(seen.link) && seen.key.kind() == kind);
                Ok(seen.and_then(|seen| Some((seen.key, seen.object?))))
            }
            Kind::Link
            | Kind::Sysctl
            | Kind::ChecksumOffload
            | Kind::NftTable
            | Kind::NftElement
            | Kind::NftRules
            | Kind::Nexthop => Ok(None),
        }
    }
}
