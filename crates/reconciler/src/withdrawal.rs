//! What a device that is wanted no more waits for: a tunnel goes after the ways that take its place stand.

use routelet_model::{IfName, Key, Kind, Object, RouteTarget};

use crate::{Kernel, Reconciler};

impl<K: Kernel> Reconciler<K> {
    /// A route that is wanted another way, and for the time being leads over the tunnel device that this is, or is on.
    /// While there is one, the device stays, with all that is on it.
    pub(crate) fn route_that_still_leads_there(&self, key: &Key) -> Option<Key> {
        let device = match key {
            Key::Link(link) => *link,
            _ => key.link()?,
        };
        if !self.is_withdrawn_device(device) || self.table.count(Kind::Route).out_of_sync == 0 {
            return None;
        }
        let leads_there = |actual: &Object| matches!(actual, Object::Route(target) if RouteTarget::link(target) == Some(device));
        self.table
            .of_kind(Kind::Route)
            .find(|(_, slot)| slot.wanted.is_some() && slot.actual.as_ref().is_some_and(leads_there))
            .map(|(key, _)| *key)
    }

    fn is_withdrawn_device(&self, device: IfName) -> bool {
        let slot = self.table.get(&Key::Link(device));
        self.ownership.devices.contains(&device) && slot.is_none_or(|slot| slot.wanted.is_none())
    }

    /// Links other than ours that nexthops or routes of ours by a gateway leave through: the parents of direct ways.
    /// What becomes of such a link the host tells; what it takes along nobody does.
    pub(crate) fn parents(&self) -> Vec<IfName> {
        let nexthops = self.table.of_kind(Kind::Nexthop).filter_map(|(key, slot)| {
            slot.actual.as_ref()?;
            key.link()
        });
        let gateways = self
            .table
            .of_kind(Kind::Route)
            .filter_map(|(_, slot)| match slot.actual {
                Some(Object::Route(RouteTarget::Gateway { link, .. })) => Some(link),
                _ => None,
            });
        let mut parents: Vec<IfName> = Vec::new();
        for link in nexthops.chain(gateways) {
            if !self.ownership.follows(link) && !parents.contains(&link) {
                parents.push(link);
            }
        }
        parents
    }
}
