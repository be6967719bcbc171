//! Lists: selection, resourceVersion semantics, pages.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use serde_json::json;

use super::body::{self, Body};
use super::resource::Path;
use super::selector::Selector;
use super::store::{Listing, Store};
use super::stored::Stored;
use super::{Query, Status};

/// Size at which a chunk of an answer is sent. Items are copied into chunks while the answer goes out, so that an
/// answer of any size costs one chunk of memory.
pub(crate) const CHUNK: usize = 64 * 1024;

/// A page of a list, ready to be sent.
pub(crate) struct Page {
    head: Vec<u8>,
    listing: Listing,
    from: usize,
    to: usize,
}

/// Answers a list request; `stale` is the state to serve in place of the present one.
pub(crate) fn page(
    store: &mut Store,
    path: &Path,
    query: &Query,
    stale: Option<Listing>,
) -> Result<Page, Status> {
    let selector = Selector::parse(path.resource, path.namespace.as_deref(), query.field_selector())?;
    let (listing, from, held) = match query.get("continue") {
        Some(token) => {
            let (id, from) = parse_token(token)?;
            let expired = "The provided continue parameter is too old to display a consistent list result. You \
                           can start a new list without the continue parameter.";
            let listing = store.held_page(id).ok_or_else(|| Status::new(410, expired))?;
            (listing, from, Some(id))
        }
        None => {
            check_version(store, query)?;
            let mut listing = stale.unwrap_or_else(|| store.listing(path.resource));
            if !selector.is_empty() {
                let chosen = listing
                    .objects
                    .iter()
                    .filter(|object| selector.matches(&object.fields));
                listing.objects = Arc::new(chosen.cloned().collect());
            }
            (listing, 0, None)
        }
    };
    let total = listing.objects.len();
    let from = from.min(total);
    // A real server answers "any version" from its cache, in one piece.
    let limit = query
        .number("limit")?
        .filter(|limit| *limit > 0 && query.get("resourceVersion") != Some("0"));
    let to = limit.map_or(total, |limit| total.min(from.saturating_add(limit as usize)));
    let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
    if to < total {
        let id = held.unwrap_or_else(|| store.hold_page(listing.clone()));
        metadata["continue"] = format!("{id}.{to}").into();
        if selector.is_empty() {
            metadata["remainingItemCount"] = (total - to).into();
        }
    }
    let info = path.resource.info();
    let head = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{metadata},"items":["#,
        info.kind, info.api_version
    );
    Ok(Page {
        head: head.into_bytes(),
        listing,
        from,
        to,
    })
}

impl Page {
    /// The answer, built chunk by chunk while it is sent.
    pub(crate) fn into_body(self) -> Body {
        let Page {
            head,
            listing,
            from,
            to,
        } = self;
        body::streamed(stream::unfold(Some((head, from)), move |state| {
            let next = state.map(|(mut chunk, mut at)| {
                while at < to && chunk.len() < CHUNK {
                    if at > from {
                        chunk.push(b',');
                    }
                    if let Some(object) = listing.objects.get(at) {
                        Stored::append_item(object, &mut chunk);
                    }
                    at += 1;
                }
                if at < to {
                    return (Ok(Bytes::from(chunk)), Some((Vec::with_capacity(CHUNK), at)));
                }
                chunk.extend_from_slice(b"]}\n");
                (Ok(Bytes::from(chunk)), None)
            });
            std::future::ready(next)
        }))
    }
}

/// Continue tokens are the number of the held snapshot and the index of the next item. Opaque to clients.
fn parse_token(token: &str) -> Result<(u64, usize), Status> {
    let parsed = token
        .split_once('.')
        .and_then(|(id, from)| Some((id.parse().ok()?, from.parse().ok()?)));
    parsed.ok_or_else(|| Status::bad_request(format!("continue key is not valid: {token}")))
}

/// Only the present state can be listed: an exact older version is gone, a later one is not there yet.
fn check_version(store: &Store, query: &Query) -> Result<(), Status> {
    let matching = query.get("resourceVersionMatch");
    let asked = query.number("resourceVersion")?;
    let revision = store.revision();
    match (matching, asked) {
        (Some(_), None) => Err(Status::new(
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is \
             forbidden unless resourceVersion is provided",
        )),
        (Some("Exact"), Some(exact)) if exact < revision => Err(Status::new(
            410,
            "The resourceVersion for the provided list is too old.",
        )),
        (_, Some(future)) if future > revision => Err(too_large(future, revision)),
        _ => Ok(()),
    }
}

/// The client has seen a version that this server has not.
pub(crate) fn too_large(asked: u64, revision: u64) -> Status {
    Status::new(
        504,
        format!("Too large resource version: {asked}, current: {revision}"),
    )
    .retry_after(std::time::Duration::from_secs(1))
}
