//! The objects, their one resourceVersion, and the recent changes from which watches resume.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::stored::{Event, EventKind, Stored};
use super::{Resource, Status};

/// Namespace (empty for cluster-scoped resources) and name.
pub(crate) type Key = (String, String);

type Object = Map<String, Value>;

/// A consistent view of a resource.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) revision: u64,
    pub(crate) objects: Arc<Vec<Arc<Stored>>>,
}

struct Entry {
    value: Object,
    stored: Arc<Stored>,
}

struct Table {
    objects: BTreeMap<Key, Entry>,
    history: VecDeque<Arc<Event>>,
    /// Revision of the newest event that history has let go.
    forgotten: u64,
    changed: watch::Sender<()>,
}

pub(crate) struct Store {
    /// By the resource's discriminant.
    tables: [Table; Resource::ALL.len()],
    revision: u64,
    compacted: u64,
    history_limit: usize,
    uids: u64,
    /// Snapshots that list continue tokens refer to, oldest first.
    pages: VecDeque<(u64, Listing)>,
}

/// Continue tokens that are held at a time.
const MAX_PAGED_LISTS: usize = 64;

impl Store {
    pub(crate) fn new() -> Store {
        let table = || Table {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            forgotten: 0,
            changed: watch::Sender::new(()),
        };
        Store {
            tables: std::array::from_fn(|_| table()),
            revision: 1, // a client takes "0" for "any version"
            compacted: 0,
            history_limit: 10_000,
            uids: 0,
            pages: VecDeque::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Ticks after each change of the resource.
    pub(crate) fn changes(&self, resource: Resource) -> watch::Receiver<()> {
        self.table(resource).changed.subscribe()
    }

    pub(crate) fn get(&self, resource: Resource, key: &Key) -> Option<(&Object, &Arc<Stored>)> {
        self.table(resource)
            .objects
            .get(key)
            .map(|entry| (&entry.value, &entry.stored))
    }

    pub(crate) fn listing(&self, resource: Resource) -> Listing {
        let objects = self
            .table(resource)
            .objects
            .values()
            .map(|entry| Arc::clone(&entry.stored))
            .collect();
        Listing {
            revision: self.revision,
            objects: Arc::new(objects),
        }
    }

    /// Where the object lives. Namespaced objects without a namespace are put into `default`.
    pub(crate) fn key(resource: Resource, object: &mut Object) -> Result<Key, Status> {
        let info = resource.info();
        let metadata = metadata(object)?;
        let text = |field: &str| {
            metadata
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (mut namespace, name) = (text("namespace"), text("name"));
        if name.is_empty() {
            return Err(Status::new(
                422,
                format!("{} \"\" is invalid: metadata.name: Required value", info.kind),
            ));
        }
        if !info.namespaced {
            metadata.remove("namespace");
            namespace.clear();
        } else if namespace.is_empty() {
            namespace = "default".to_owned();
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        Ok((namespace, name))
    }

    /// Puts a new object into the store. A `uid` and `creationTimestamp` that it brings are kept.
    pub(crate) fn create(&mut self, resource: Resource, mut object: Object) -> Result<Arc<Event>, Status> {
        self.name_generated(&mut object)?;
        let key = Store::key(resource, &mut object)?;
        if self.table(resource).objects.contains_key(&key) {
            return Err(Status::already_exists(resource.info().plural, &key.1));
        }
        self.uids += 1;
        let uid = format!("00000000-0000-4000-8000-{:012x}", self.uids);
        let metadata = metadata(&mut object)?;
        metadata.entry("uid").or_insert_with(|| uid.into());
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| now().into());
        Ok(self.commit(resource, key, EventKind::Added, object))
    }

    /// Replaces an object; `None` where nothing differs. A `resourceVersion` that it brings must be the present one.
    pub(crate) fn replace(
        &mut self,
        resource: Resource,
        key: &Key,
        mut object: Object,
    ) -> Result<Option<Arc<Event>>, Status> {
        let info = resource.info();
        let not_found = || Status::not_found(info.plural, &key.1);
        let old = self.table(resource).objects.get(key).ok_or_else(not_found)?;
        if Store::key(resource, &mut object)? != *key {
            return Err(Status::bad_request(
                "the name or namespace of the object does not match the request",
            ));
        }
        let new_metadata = metadata(&mut object)?;
        let present = old.stored.revision.to_string();
        match new_metadata.get("resourceVersion").and_then(Value::as_str) {
            Some(claimed) if !claimed.is_empty() && claimed != present => {
                return Err(Status::conflict(info.plural, &key.1));
            }
            _ => new_metadata.insert("resourceVersion".to_owned(), present.into()),
        };
        for field in ["uid", "creationTimestamp"] {
            if let Some(kept) = old.value.get("metadata").and_then(|metadata| metadata.get(field)) {
                new_metadata.insert(field.to_owned(), kept.clone());
            }
        }
        without_type(&mut object);
        if object == old.value {
            return Ok(None);
        }
        Ok(Some(self.commit(
            resource,
            key.clone(),
            EventKind::Modified,
            object,
        )))
    }

    /// Changes an object where it is, without a copy of it. The change must leave the name alone.
    pub(crate) fn modify(
        &mut self,
        resource: Resource,
        key: &Key,
        change: impl FnOnce(&mut Object),
    ) -> Result<Arc<Event>, Status> {
        let mut value = self.take(resource, key)?;
        change(&mut value);
        Ok(self.commit(resource, key.clone(), EventKind::Modified, value))
    }

    pub(crate) fn delete(&mut self, resource: Resource, key: &Key) -> Result<Arc<Event>, Status> {
        let value = self.take(resource, key)?;
        Ok(self.commit(resource, key.clone(), EventKind::Deleted, value))
    }

    /// Takes an object's value out, to be committed again at once.
    fn take(&mut self, resource: Resource, key: &Key) -> Result<Object, Status> {
        let not_found = || Status::not_found(resource.info().plural, &key.1);
        let objects = &mut self.table_mut(resource).objects;
        let entry = objects.get_mut(key).ok_or_else(not_found)?;
        Ok(std::mem::take(&mut entry.value))
    }

    /// The changes after `cursor`, or the oldest revision that one could still resume from.
    pub(crate) fn changes_since(
        &self,
        resource: Resource,
        cursor: u64,
    ) -> Result<impl Iterator<Item = &Arc<Event>>, u64> {
        let table = self.table(resource);
        if cursor < table.forgotten {
            return Err(table.forgotten);
        }
        let first = table.history.partition_point(|event| event.revision() <= cursor);
        Ok(table.history.range(first..))
    }

    /// Whether a new watch may start at `revision`.
    pub(crate) fn may_resume(&self, resource: Resource, revision: u64) -> Result<(), Status> {
        let oldest = self.compacted.max(self.table(resource).forgotten);
        if revision < oldest {
            Err(Status::too_old(revision, oldest))
        } else {
            Ok(())
        }
    }

    /// Forgets all changes so far: a watch or a list that refers to an older revision gets 410.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision;
        self.pages.clear();
        for table in &mut self.tables {
            table.trim(0);
        }
    }

    pub(crate) fn set_history_limit(&mut self, events: usize) {
        self.history_limit = events;
        for table in &mut self.tables {
            table.trim(events);
        }
    }

    /// Keeps the snapshot for later pages and gives it a number.
    pub(crate) fn hold_page(&mut self, listing: Listing) -> u64 {
        let id = self.pages.back().map_or(1, |(id, _)| id + 1);
        self.pages.push_back((id, listing));
        if self.pages.len() > MAX_PAGED_LISTS {
            self.pages.pop_front();
        }
        id
    }

    pub(crate) fn held_page(&self, id: u64) -> Option<Listing> {
        self.pages
            .iter()
            .find(|(held, _)| *held == id)
            .map(|(_, listing)| listing.clone())
    }

    fn commit(&mut self, resource: Resource, key: Key, kind: EventKind, mut value: Object) -> Arc<Event> {
        self.revision += 1;
        without_type(&mut value);
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), self.revision.to_string().into());
        }
        let revision = self.revision;
        let limit = self.history_limit;
        let table = self.table_mut(resource);
        let size_hint = table.objects.get(&key).map_or(1024, |entry| entry.stored.size());
        let stored = Arc::new(Stored::new(resource, kind, revision, &value, size_hint));
        let previous = if kind == EventKind::Deleted {
            table.objects.remove(&key)
        } else {
            table.objects.insert(
                key,
                Entry {
                    value,
                    stored: Arc::clone(&stored),
                },
            )
        };
        let event = Arc::new(Event {
            object: stored,
            previous: previous.map(|entry| entry.stored),
            published: Instant::now(),
            first_sent: OnceLock::new(),
        });
        table.history.push_back(Arc::clone(&event));
        table.trim(limit);
        table.changed.send_replace(());
        event
    }

    fn name_generated(&mut self, object: &mut Object) -> Result<(), Status> {
        let metadata = metadata(object)?;
        if metadata.get("name").is_none()
            && let Some(prefix) = metadata.get("generateName").and_then(Value::as_str)
        {
            let name = format!("{prefix}{:05x}", self.revision);
            metadata.insert("name".to_owned(), name.into());
        }
        Ok(())
    }

    fn table(&self, resource: Resource) -> &Table {
        &self.tables[resource as usize]
    }

    fn table_mut(&mut self, resource: Resource) -> &mut Table {
        &mut self.tables[resource as usize]
    }
}

impl Table {
    fn trim(&mut self, limit: usize) {
        while self.history.len() > limit
            && let Some(event) = self.history.pop_front()
        {
            self.forgotten = event.revision();
        }
    }
}

/// The present time as `metav1.Time` writes it.
pub(crate) fn now() -> String {
    time(Timestamp::now())
}

/// `timestamp` as `metav1.Time` writes it: to the second, in UTC.
pub(crate) fn time(timestamp: Timestamp) -> String {
    timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn metadata(object: &mut Object) -> Result<&mut Object, Status> {
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    metadata
        .as_object_mut()
        .ok_or_else(|| Status::bad_request("metadata is not an object"))
}

/// `apiVersion` and `kind` follow from the resource; they are not stored.
fn without_type(object: &mut Object) {
    object.remove("apiVersion");
    object.remove("kind");
}
