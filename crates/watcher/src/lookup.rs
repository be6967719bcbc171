//! One Pod, asked for once.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use kube::Client;
use routelet_model::{Pod, PodId};
use serde_json::Value;
use tokio::time::timeout;

use crate::error::Error;
use crate::slim::SlimPod;
use crate::{convert, http as requests};

/// How long an answer may take to begin, and then to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest Pod: etcd takes objects of 1.5 MiB by default.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A Pod, of whichever node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPod {
    /// The Pod.
    pub pod: Pod,
    /// Its node, once it has one.
    pub node: Option<String>,
}

/// Asks the API for a Pod; `None` where there is none of this name.
pub async fn find_pod(client: &Client, id: &PodId) -> Result<Option<FoundPod>, Error> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", id.namespace, id.name);
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|source| Error::Server {
            host: None,
            port: None,
            source,
        })?;
    let body = match requests::send(client, request, PATIENCE).await {
        Ok(body) => body,
        Err(Error::Refused { code: 404, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let collected = timeout(PATIENCE, Limited::new(body, MAX_BYTES).collect()).await;
    let bytes = collected
        .map_err(|_| Error::Silent(PATIENCE))?
        .map_err(|_| Error::Cut(None))?
        .to_bytes();
    let value: Value = serde_json::from_slice(&bytes).map_err(Error::Garbage)?;
    let node = value
        .pointer("/spec/nodeName")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let slim: SlimPod = serde_json::from_value(value).map_err(Error::Garbage)?;
    Ok(convert::pod(slim).map(|pod| FoundPod { pod, node }))
}
