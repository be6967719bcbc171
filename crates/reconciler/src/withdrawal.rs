//! What is taken away, and what a device that is wanted no more waits for: a tunnel goes after the ways that take its place
//! stand.

use std::time::Instant;

use routelet_model::{IfName, Key, Kind, Object, RouteTarget};
use routelet_netlink::Verb;
use rustc_hash::FxHashMap;

use crate::{Kernel, Reconciler};

impl<K: Kernel> Reconciler<K> {
    /// For each tunnel device that is wanted no more and over which, for the time being, routes lead that are wanted another
    /// way: one of these. While there is one, the device stays, with all that is on it. One look at all routes, for however
    /// many objects that wait.
    pub(crate) fn devices_in_use(&self) -> FxHashMap<IfName, Key> {
        let mut in_use = FxHashMap::default();
        let mut withdrawn = self.ownership.devices.clone();
        withdrawn.retain(|device| self.is_withdrawn_device(*device));
        if withdrawn.is_empty() || self.table.count(Kind::Route).out_of_sync == 0 {
            return in_use;
        }
        for (key, slot) in self
            .table
            .of_kind(Kind::Route)
            .filter(|(_, slot)| slot.wanted.is_some())
        {
            if let Some(Object::Route(target)) = &slot.actual
                && let Some(link) = RouteTarget::link(target)
                && withdrawn.contains(&link)
            {
                in_use.entry(link).or_insert(*key);
            }
        }
        in_use
    }

    /// Takes an object away that was set aside, unless it waits; `in_use` has the devices that stay for a route's sake.
    pub(crate) fn plan_removal(&mut self, key: Key, in_use: &FxHashMap<IfName, Key>, now: Instant) {
        let Some(slot) = self.table.get(&key) else { return };
        let (None, Some(actual)) = (&slot.wanted, &slot.actual) else {
            return;
        };
        if self.may_take_away(&key, slot) && !self.backoff.must_wait(&key, now) {
            let actual = actual.clone();
            let device = match key {
                Key::Link(link) => Some(link),
                _ => key.link(),
            };
            if let Some(route) = device.and_then(|device| in_use.get(&device)) {
                self.waiting.entry(*route).or_default().insert(key);
                return;
            }
            if self.repair_is_due(key, now) {
                self.emit(Verb::Delete, key, actual);
            }
        }
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
