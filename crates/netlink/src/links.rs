//! Which link has which index.

use std::cell::Cell;

use routelet_model::IfName;
use rustc_hash::{FxHashMap, FxHashSet};

/// Links by index and by name, as of the last dump and the notifications since.
#[derive(Debug, Default)]
pub(crate) struct Links {
    names: FxHashMap<u32, IfName>,
    indexes: FxHashMap<IfName, u32>,
    /// Indexes of links that we have deleted; notifications from their lifetime may still be queued.
    deleted: FxHashSet<u32>,
    /// Whether a name was asked for that is not known.
    missed: Cell<bool>,
}

impl Links {
    /// The name of the link with this index.
    pub(crate) fn name(&self, index: u32) -> Option<IfName> {
        let name = self.names.get(&index).copied();
        if name.is_none() {
            self.missed.set(true);
        }
        name
    }

    /// The index of the link of this name.
    pub(crate) fn index(&self, name: IfName) -> Option<u32> {
        self.indexes.get(&name).copied()
    }

    /// Whether an index was asked for since the last call that had no name: links are there that no dump and no
    /// notification has told of yet.
    pub(crate) fn take_missed(&self) -> bool {
        self.missed.replace(false)
    }

    /// Takes note of a link. Returns the name that it had before, if another.
    pub(crate) fn insert(&mut self, index: u32, name: IfName) -> Option<IfName> {
        let before = self.names.insert(index, name).filter(|before| *before != name);
        if let Some(before) = before
            && self.indexes.get(&before) == Some(&index)
        {
            self.indexes.remove(&before);
        }
        if let Some(other) = self.indexes.insert(name, index)
            && other != index
        {
            self.names.remove(&other);
        }
        before
    }

    /// Forgets a link.
    pub(crate) fn remove(&mut self, index: u32) {
        if let Some(name) = self.names.remove(&index)
            && self.indexes.get(&name) == Some(&index)
        {
            self.indexes.remove(&name);
        }
    }

    /// Takes note that we have deleted a link.
    pub(crate) fn mark_deleted(&mut self, index: u32) {
        self.remove(index);
        self.deleted.insert(index);
    }

    /// Whether we have deleted the link.
    pub(crate) fn is_deleted(&self, index: u32) -> bool {
        self.deleted.contains(&index)
    }

    /// The same, when the last notification of the link has come.
    pub(crate) fn take_deleted(&mut self, index: u32) -> bool {
        self.deleted.remove(&index)
    }

    /// Forgets all links, before all of them are told anew.
    pub(crate) fn clear(&mut self) {
        self.names.clear();
        self.indexes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> IfName {
        IfName::new(text).unwrap()
    }

    #[test]
    fn a_renamed_link_loses_its_old_name() {
        let mut links = Links::default();
        assert_eq!(links.insert(7, name("veth0")), None);
        assert_eq!(links.insert(7, name("cali0")), Some(name("veth0")));
        assert_eq!(
            (links.index(name("veth0")), links.index(name("cali0"))),
            (None, Some(7))
        );
    }

    #[test]
    fn a_link_made_anew_takes_the_name_over() {
        let mut links = Links::default();
        links.insert(7, name("vxlan"));
        links.insert(8, name("vxlan"));
        links.remove(7);
        assert_eq!(links.index(name("vxlan")), Some(8));
        assert!(!links.take_missed());
        assert_eq!(links.name(7), None);
        assert!(links.take_missed());
    }
}
