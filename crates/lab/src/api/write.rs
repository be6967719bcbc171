//! Requests on single objects: get, create, update, patch, delete, and the status subresource.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use serde_json::{Map, Value, json};

use super::body::{self, Body, Cut};
use super::merge::{Merge, merge};
use super::resource::Path;
use super::store::{Key, Store};
use super::{Query, Resource, Shared, Status, Verb};

type Object = Map<String, Value>;

/// How a PATCH body is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PatchType {
    Merge(Merge),
    /// Server-side apply, as far as making and merging goes: fields have no owners here.
    Apply,
}

/// The object's JSON.
pub(crate) fn get(store: &Store, path: &Path) -> Result<Bytes, Status> {
    let key = key(path);
    let (_, stored) = store
        .get(path.resource, &key)
        .ok_or_else(|| Status::not_found(path.resource.info().plural, &key.1))?;
    Ok(stored.json())
}

/// Answers a request that writes.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    path: &Path,
    verb: Verb,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Result<(StatusCode, Body), Status>, Cut> {
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let sent = request.into_body().collect().await.map_err(|_| Cut)?.to_bytes();
    let mut store = shared.store();
    Ok(match verb {
        Verb::Create => create(&mut store, path, &sent),
        Verb::Update => object(&sent).and_then(|new| update(&mut store, path, new)),
        Verb::Delete => delete(&mut store, path),
        _ => patch(&mut store, path, query, content_type.as_deref(), &sent),
    })
}

fn create(store: &mut Store, path: &Path, sent: &[u8]) -> Result<(StatusCode, Body), Status> {
    let mut new = object(sent)?;
    adopt_namespace(path, &mut new)?;
    if path.resource == Resource::Pods {
        // A pod begins its life without a status of the sender's making.
        new.insert(
            "status".to_owned(),
            json!({"phase": "Pending", "qosClass": "BestEffort"}),
        );
    }
    let event = store.create(path.resource, new)?;
    Ok((StatusCode::CREATED, body::full(event.object.json())))
}

fn update(store: &mut Store, path: &Path, mut new: Object) -> Result<(StatusCode, Body), Status> {
    let key = key(path);
    adopt_namespace(path, &mut new)?;
    let info = path.resource.info();
    let (old, _) = store
        .get(path.resource, &key)
        .ok_or_else(|| Status::not_found(info.plural, &key.1))?;
    if info.has_status {
        // The object and its status are written apart: each request leaves the other's half as it is.
        let kept = if path.status { "spec" } else { "status" };
        match old.get(kept) {
            Some(value) => new.insert(kept.to_owned(), value.clone()),
            None => new.remove(kept),
        };
    }
    store.replace(path.resource, &key, new)?;
    get(store, path).map(|object| (StatusCode::OK, body::full(object)))
}

fn patch(
    store: &mut Store,
    path: &Path,
    query: &Query,
    content_type: Option<&str>,
    sent: &[u8],
) -> Result<(StatusCode, Body), Status> {
    let patch_type = match content_type {
        Some("application/merge-patch+json") => PatchType::Merge(Merge::Json),
        Some("application/strategic-merge-patch+json") => PatchType::Merge(Merge::Strategic),
        Some("application/apply-patch+yaml") => PatchType::Apply,
        other => {
            let message = format!("the body of the request was in an unknown format: {other:?}");
            return Err(Status::new(415, message));
        }
    };
    if patch_type == PatchType::Apply && query.get("fieldManager").is_none() {
        return Err(Status::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value",
        ));
    }
    let key = key(path);
    let mut change = object(sent)?;
    let Some((old, _)) = store.get(path.resource, &key) else {
        if patch_type != PatchType::Apply || path.status {
            return Err(Status::not_found(path.resource.info().plural, &key.1));
        }
        adopt_namespace(path, &mut change)?;
        let event = store.create(path.resource, change)?;
        return Ok((StatusCode::CREATED, body::full(event.object.json())));
    };
    let mut new = old.clone();
    // Only a version that the patch itself names is a precondition.
    if let Some(Value::Object(metadata)) = new.get_mut("metadata") {
        metadata.remove("resourceVersion");
    }
    let how = match patch_type {
        PatchType::Merge(how) => how,
        PatchType::Apply => Merge::Strategic,
    };
    merge(&mut new, change, how);
    update(store, path, new)
}

fn delete(store: &mut Store, path: &Path) -> Result<(StatusCode, Body), Status> {
    let key = key(path);
    store.delete(path.resource, &key)?;
    let done = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": key.1, "kind": path.resource.info().plural},
    });
    Ok((StatusCode::OK, body::full(done.to_string())))
}

fn key(path: &Path) -> Key {
    (
        path.namespace.clone().unwrap_or_default(),
        path.name.clone().unwrap_or_default(),
    )
}

fn object(sent: &[u8]) -> Result<Object, Status> {
    serde_json::from_slice(sent)
        .map_err(|error| Status::bad_request(format!("the body is not an object: {error}")))
}

/// The object lives in the namespace of the request; it may say so itself, but not otherwise.
fn adopt_namespace(path: &Path, object: &mut Object) -> Result<(), Status> {
    let Some(namespace) = &path.namespace else {
        return Ok(());
    };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    match metadata.get("namespace").and_then(Value::as_str) {
        Some(own) if own != namespace => Err(Status::bad_request(
            "the namespace of the object does not match the namespace of the request",
        )),
        _ => {
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("namespace".to_owned(), namespace.as_str().into());
            }
            Ok(())
        }
    }
}
