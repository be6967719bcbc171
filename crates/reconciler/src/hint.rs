//! What a notification of the kernel's does to the table.

use std::time::Instant;

use routelet_model::{IfName, Key, Kind, Object, RouteTarget};
use routelet_netlink::Hint;

use crate::resync::{among_others, note_slot};
use crate::table::Cause;
use crate::{Kernel, Reconciler};

impl<K: Kernel> Reconciler<K> {
    /// Takes in all notifications that are queued.
    pub(crate) fn take_hints(&mut self, now: Instant) {
        let mut hints = std::mem::take(&mut self.hints);
        self.kernel.at_hand().drain(&mut hints);
        let mut changed = Vec::new();
        for hint in hints.drain(..) {
            match hint {
                Hint::Seen(key, object) => {
                    // What is seen after a link went may be the next one's already.
                    self.forget_with_gone(Some(Cause::Deleted));
                    match key {
                        Key::Link(link) => self.see_link(link, object, now),
                        _ => self.see(key, object),
                    }
                }
                Hint::Added(key, object) => {
                    self.forget_with_gone(Some(Cause::Deleted));
                    self.see_added(key, object);
                }
                Hint::Gone(key) => {
                    match key {
                        // The kernel takes the routes through it away and does not tell of them.
                        Key::Nexthop { .. } => _ = self.gone.insert(key),
                        // With a link's last IPv4 address, the IPv4 routes by a gateway on it go without a word.
                        Key::Address { link, address } if address.addr().is_ipv4() => {
                            self.suspects.insert(link);
                        }
                        _ => {}
                    }
                    self.lose(key);
                }
                Hint::OthersGone(key) => self.lose_others(key),
                Hint::LinkGone(link) => self.lose_link(link),
                Hint::NftTouched => self.nft_touched = true,
                Hint::HostChanged(link) => changed.push(link),
                Hint::Flushed(flushed) => self.take_flushed(flushed, now),
                Hint::Lost => {
                    self.report.lost += 1;
                    self.lost = true;
                    self.resync_soon(now);
                }
            }
        }
        self.hints = hints;
        if !changed.is_empty() {
            self.see_host_changed(&changed, now);
        }
    }

    /// Links of the host's have changed: those of these names, or any where a name is not known.
    fn see_host_changed(&mut self, links: &[Option<IfName>], now: Instant) {
        self.host_changed = true;
        self.others_in_doubt = true;
        let may_be = |parent: IfName| links.iter().any(|link| link.is_none_or(|link| link == parent));
        let parents = self.parents();
        for parent in parents.into_iter().filter(|parent| may_be(*parent)) {
            self.suspects.insert(parent);
            self.look_again(parent, now);
        }
        // What failed for want of a link of the host's may go well now.
        self.retry_troubles(|_| true);
    }

    /// The kernel says that an object other than a link is now so.
    fn see(&mut self, key: Key, object: Object) {
        if let (Key::Route { .. }, Object::Foreign { .. }) = (key, &object) {
            // It took the place of the first one there. Nothing is beside it where that was ours, wanted, and alone.
            let unknown = self.others_unknown;
            self.table.settle(&key, |slot| {
                let was_known = matches!(slot.actual, Some(Object::Route(_) | Object::Foreign { .. }));
                slot.crowded |= unknown || slot.wanted.is_none() || !was_known;
            });
        }
        let concerns_us = self.table.get(&key).is_some_and(|slot| match key {
            // Another's route may stand beside one of ours that is to go.
            Key::Route { .. } => slot.wanted.is_some(),
            _ => true,
        });
        if !concerns_us && !self.ownership.owns(&key, &object) {
            return;
        }
        let object = among_others(&self.table, &key, object);
        note_slot(&mut self.table, key, Some(object));
        self.wake(&key);
    }

    /// The kernel says that there is a route, beside the one under its key if there was one.
    fn see_added(&mut self, key: Key, object: Object) {
        let slot = self.table.get(&key);
        let is_there = slot.is_some_and(|slot| slot.actual.as_ref().is_some_and(|there| *there != object));
        let wanted = slot.and_then(|slot| slot.wanted.as_ref());
        let (is_wanted, serves) = (
            wanted.is_some(),
            wanted.is_some_and(|wanted| wanted.satisfied_by(&object)),
        );
        if let Object::Foreign { .. } = object {
            self.table.settle(&key, |slot| slot.crowded = true);
        }
        match object {
            // Where someone else's does as well, it is no matter which of them is the first.
            Object::Foreign { .. } if is_there && serves => {}
            Object::Foreign { .. } => self.see(key, object),
            // A second one of ours, or one where nothing was known of others.
            _ if is_there || (is_wanted && !serves) => self.see(key, Object::OddRoutes),
            _ => self.see(key, object),
        }
    }

    /// The kernel says that an object is gone.
    fn lose(&mut self, key: Key) {
        if self.table.actual(&key).is_none() {
            return;
        }
        note_slot(&mut self.table, key, None);
        self.table.drop_empty(&key);
    }

    /// The kernel says that someone else's route is gone: ours can be made, unless yet another stands there.
    fn lose_others(&mut self, key: Key) {
        if let Some(Object::Foreign { .. }) = self.table.actual(&key) {
            self.table.edit(key, |slot| slot.actual = None);
            self.table.queue(key);
        }
    }

    /// The kernel says that a link which we follow is now so.
    pub(crate) fn see_link(&mut self, link: IfName, object: Object, now: Instant) {
        let Object::Link(state) = &object else { return };
        let (now_up, index) = ((state.up, state.running), state.index);
        let before = match self.table.actual(&Key::Link(link)) {
            Some(Object::Link(before)) => Some(((before.up, before.running), before.index)),
            _ => None,
        };
        if before.is_some_and(|(_, before)| before != index) {
            // Another device of the same name: nothing of the old one's is left.
            self.gone.insert(Key::Link(link));
            self.table.settle(&Key::Link(link), |slot| slot.withdrawn = None);
        } else if before.is_some_and(|(was_up, _)| was_up != now_up) {
            self.suspects.insert(link);
            self.look_again(link, now);
            self.others_in_doubt = true;
        }
        // Every host veth has a slot, wanted or not: a route of a pod that the API has not told us of is
        // safe as long as its veth lives.
        // One that is as it was is not tried again for that.
        if self.table.actual(&Key::Link(link)) != Some(&object) {
            note_slot(&mut self.table, Key::Link(link), Some(object));
            // What the link's state was the reason for may go well now.
            self.retry_troubles(|key| key.link() == Some(link) || matches!(key, Key::Route { .. }));
        }
        self.wake(&Key::Link(link));
        // Of another device of the name nothing is known.
        if !self.gone.contains(&Key::Link(link)) {
            self.reread_offload(link);
        }
    }

    /// The kernel says that a link is gone.
    pub(crate) fn lose_link(&mut self, link: IfName) {
        self.lose(Key::Link(link));
        self.gone.insert(Key::Link(link));
        self.suspects.remove(&link);
        self.others_in_doubt = true;
    }

    /// Queues keys that the kernel refused, before their time.
    fn retry_troubles(&mut self, which: impl Fn(&Key) -> bool) {
        let troubles = self.backoff.troubles().map(|(key, _)| *key);
        let keys: Vec<Key> = troubles.filter(|key| which(key)).collect();
        for key in keys {
            self.backoff.hurry(&key);
            self.table.queue(key);
        }
    }

    /// Queues the keys that wait for an object.
    pub(crate) fn wake(&mut self, awaited: &Key) {
        if self.waiting.is_empty() {
            return;
        }
        for key in self.waiting.remove(awaited).unwrap_or_default() {
            self.backoff.hurry(&key);
            self.table.queue(key);
        }
    }

    /// Forgets what the kernel took away together with a link or a nexthop; `cause` says whether that was
    /// someone else's doing.
    pub(crate) fn forget_with_gone(&mut self, cause: Option<Cause>) {
        if self.gone.is_empty() {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        // With a nexthop go routes, with a link whatever is on it.
        let kinds = if gone.iter().all(|key| key.kind() == Kind::Nexthop) {
            &[Kind::Route]
        } else {
            &Kind::ALL[..]
        };
        self.table.forget_actual(kinds, cause, |key, _, actual| {
            if key.link().is_some_and(|link| gone.contains(&Key::Link(link))) {
                return true;
            }
            match actual {
                Object::Route(RouteTarget::Nexthop { link, gateway }) => {
                    gone.contains(&Key::Link(*link))
                        || gone.contains(&Key::Nexthop {
                            link: *link,
                            gateway: *gateway,
                        })
                }
                Object::Route(target) => target.link().is_some_and(|link| gone.contains(&Key::Link(link))),
                _ => false,
            }
        });
        for key in gone {
            self.wake(&key);
        }
    }
}
