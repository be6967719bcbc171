//! What has been told of each object: so that an update without news ends here, and a list shows what is gone.

use std::hash::{BuildHasher, RandomState};

use routelet_model::ClusterEvent;
use rustc_hash::FxHashMap;

use crate::kind::Kind;

/// What has been told, in 16 bytes and a name per object.
pub(crate) struct Fold<K: Kind> {
    told: FxHashMap<K::Key, Told>,
    /// Number of the last list that began.
    list: u32,
    /// Keyed at random, so that nobody can craft two objects with one fingerprint.
    hasher: RandomState,
}

struct Told {
    /// Hash of the object as it was told.
    fingerprint: u64,
    /// The list that it was last seen in, or the last before it was seen by watching.
    list: u32,
}

impl<K: Kind> Fold<K> {
    pub(crate) fn new() -> Self {
        Self {
            told: FxHashMap::default(),
            list: 0,
            hasher: RandomState::new(),
        }
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.told.len()
    }

    /// A list begins. One that began before and did not end is forgotten.
    pub(crate) fn begin_list(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    /// An object is there, in a list or by watching. `None`: that has been told already.
    pub(crate) fn apply(&mut self, key: K::Key, object: K) -> Option<ClusterEvent> {
        let fingerprint = self.hasher.hash_one(&object);
        let told = Told {
            fingerprint,
            list: self.list,
        };
        let before = self.told.insert(key, told);
        (before.map(|before| before.fingerprint) != Some(fingerprint)).then(|| object.applied())
    }

    /// An object is gone. `None`: it was never told.
    pub(crate) fn delete(&mut self, key: K::Key) -> Option<ClusterEvent> {
        self.told.remove(&key).map(|_| K::deleted(key))
    }

    /// The list is complete: what it did not hold is gone.
    pub(crate) fn end_list(&mut self) -> Vec<ClusterEvent> {
        let list = self.list;
        let gone = self.told.extract_if(|_, told| told.list != list);
        gone.map(|(key, _)| K::deleted(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use routelet_model::Node;

    use super::*;

    fn node(name: &str, subnet: &str) -> (String, Node) {
        let node = Node {
            name: name.to_owned(),
            uid: String::new(),
            created: 0,
            addresses: Vec::new(),
            pod_subnets: vec![subnet.parse().unwrap()],
            overrides: Default::default(),
            ipip_address: None,
            flannel: None,
            unreadable: Vec::new(),
        };
        (name.to_owned(), node)
    }

    fn apply(fold: &mut Fold<Node>, name: &str, subnet: &str) -> bool {
        let (key, node) = node(name, subnet);
        fold.apply(key, node).is_some()
    }

    #[test]
    fn only_news_are_told() {
        let mut fold = Fold::new();
        assert!(apply(&mut fold, "a", "10.0.0.0/24"));
        assert!(!apply(&mut fold, "a", "10.0.0.0/24"));
        assert!(apply(&mut fold, "a", "10.0.1.0/24"));
        assert_eq!(
            fold.delete("a".to_owned()),
            Some(ClusterEvent::NodeDeleted("a".to_owned()))
        );
        assert_eq!(fold.delete("a".to_owned()), None);
        assert!(
            apply(&mut fold, "a", "10.0.1.0/24"),
            "told again after it was gone"
        );
    }

    #[test]
    fn a_list_shows_what_is_gone() {
        let mut fold = Fold::new();
        fold.begin_list();
        for name in ["a", "b", "c"] {
            apply(&mut fold, name, "10.0.0.0/24");
        }
        assert!(fold.end_list().is_empty());
        apply(&mut fold, "d", "10.0.0.0/24");

        fold.begin_list();
        apply(&mut fold, "a", "10.0.0.0/24");
        // this list breaks off; the next one counts
        fold.begin_list();
        assert!(!apply(&mut fold, "b", "10.0.0.0/24"));
        assert!(!apply(&mut fold, "d", "10.0.0.0/24"));
        let mut gone = fold.end_list();
        gone.sort_by_key(|event| format!("{event:?}"));
        let deleted = |name: &str| ClusterEvent::NodeDeleted(name.to_owned());
        assert_eq!(gone, [deleted("a"), deleted("c")]);
        assert_eq!(fold.len(), 2);
        assert!(fold.end_list().is_empty());
    }
}
