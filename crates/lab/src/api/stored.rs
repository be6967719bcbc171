//! One written state of an object as bytes, serialised once and shared by all who send it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Resource;
use super::selector::{Fields, Selector};

/// The type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
        }
    }
}

/// A state of an object. The bytes are its line in a watch stream; the bare object and the list item are slices of it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) revision: u64,
    pub(crate) fields: Fields,
    kind: EventKind,
    line: Bytes,
    /// Where the object begins in the line.
    object_at: usize,
    /// Where the object's fields after `apiVersion` and `kind` begin: list items go without these two.
    rest_at: usize,
}

/// What closes the envelope `{"type":…,"object":…}`.
const LINE_END: &[u8] = b"}\n";

impl Stored {
    /// Serialises `object`, which has no `apiVersion` and `kind` of its own, into about `size_hint` bytes.
    pub(crate) fn new(
        resource: Resource,
        kind: EventKind,
        revision: u64,
        object: &Map<String, Value>,
        size_hint: usize,
    ) -> Stored {
        let info = resource.info();
        let mut line = Vec::with_capacity(size_hint + 16);
        line.extend_from_slice(br#"{"type":""#);
        line.extend_from_slice(kind.name().as_bytes());
        line.extend_from_slice(br#"","object":"#);
        let object_at = line.len();
        for part in [
            r#"{"kind":""#,
            info.kind,
            r#"","apiVersion":""#,
            info.api_version,
            "\"",
        ] {
            line.extend_from_slice(part.as_bytes());
        }
        let brace_at = line.len();
        let _cannot_fail = serde_json::to_writer(&mut line, object); // JSON values, into memory
        if let Some(brace) = line.get_mut(brace_at) {
            *brace = b','; // the object's own brace is where its first field follows those two
        }
        let rest_at = brace_at + 1;
        line.extend_from_slice(LINE_END);
        Stored {
            revision,
            fields: Fields::of(resource, object),
            kind,
            line: line.into(),
            object_at,
            rest_at,
        }
    }

    /// Length of its line in bytes.
    pub(crate) fn size(&self) -> usize {
        self.line.len()
    }

    /// The object on its own.
    pub(crate) fn json(&self) -> Bytes {
        self.line.slice(self.object_at..self.line.len() - LINE_END.len())
    }

    /// Appends the object as an item of a list, that is without `apiVersion` and `kind`, as a real server does.
    pub(crate) fn append_item(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        out.extend_from_slice(
            self.line
                .get(self.rest_at..self.line.len() - LINE_END.len())
                .unwrap_or_default(),
        );
    }

    /// Its line in a watch stream as an event of type `kind`.
    pub(crate) fn line(&self, kind: EventKind) -> Bytes {
        if kind == self.kind {
            return self.line.clone();
        }
        let mut line = Vec::with_capacity(self.line.len() + 8);
        self.append_line(kind, &mut line);
        line.into()
    }

    /// Appends that line.
    pub(crate) fn append_line(&self, kind: EventKind, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":""#);
        out.extend_from_slice(kind.name().as_bytes());
        out.extend_from_slice(br#"","object":"#);
        out.extend_from_slice(self.line.get(self.object_at..).unwrap_or_default());
    }
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) object: Arc<Stored>,
    pub(crate) previous: Option<Arc<Stored>>,
    /// When it was put where the watch streams find it, before they were woken.
    pub(crate) published: Instant,
    /// When the first watch stream took it for sending.
    pub(crate) first_sent: OnceLock<Instant>,
}

impl Event {
    pub(crate) fn revision(&self) -> u64 {
        self.object.revision
    }

    /// What a watch with this selector sees of the change: an object that stops matching is deleted to it, one
    /// that begins to match is added.
    pub(crate) fn line_for(&self, selector: &Selector) -> Option<Bytes> {
        let seen_before = self
            .previous
            .as_ref()
            .filter(|previous| selector.matches(&previous.fields));
        let is_there = self.object.kind != EventKind::Deleted;
        let seen_now = is_there && selector.matches(&self.object.fields);
        match (seen_before, seen_now) {
            (None, false) => None,
            (None, true) => Some(self.object.line(EventKind::Added)),
            (Some(_), true) => Some(self.object.line(EventKind::Modified)),
            (Some(previous), false) if is_there => Some(self.gone_from_sight(previous)),
            (Some(_), false) => Some(self.object.line(EventKind::Deleted)),
        }
    }

    /// As a real server does, shows the last state that matched, with the version of the change that took it away.
    fn gone_from_sight(&self, previous: &Stored) -> Bytes {
        let mut object: Value = serde_json::from_slice(&previous.json()).unwrap_or_default(); // our own JSON
        object["metadata"]["resourceVersion"] = self.revision().to_string().into();
        format!(
            "{}\n",
            json!({"type": EventKind::Deleted.name(), "object": object})
        )
        .into()
    }
}
