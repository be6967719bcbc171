//! One request: its path and query, the token, the fault that it meets, and who answers it.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::http::HeaderValue;
use hyper::{Request, Response, StatusCode};
use serde_json::json;

use super::body::{self, Body, Cut};
use super::faults::{Fault, Garbage};
use super::resource::Path;
use super::{Shared, Status, Verb, list, watch, write};

/// The parameters behind the `?`.
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    fn parse(query: &str) -> Query {
        Query(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// A parameter; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        let parse = |value: &str| {
            value
                .parse()
                .map_err(|_| Status::bad_request(format!("invalid {name} {value:?}: not a number")))
        };
        self.get(name).map(parse).transpose()
    }

    pub(crate) fn field_selector(&self) -> &str {
        self.get("fieldSelector").unwrap_or_default()
    }
}

/// Answers one request, or closes the connection where a fault wants that.
pub(crate) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    match request.uri().path() {
        "/livez" | "/readyz" | "/healthz" => return Ok(plain("ok")),
        "/version" => return Ok(json_body(StatusCode::OK, body::full(version()))),
        _ => {}
    }
    if !shared.authorizes(request.headers().get(AUTHORIZATION)) {
        shared.tally.update(|counters| counters.unauthorized += 1);
        return Ok(refusal(&Status::new(401, "Unauthorized")));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let Some(path) = Path::parse(request.uri().path()) else {
        return Ok(refusal(&Status::new(
            404,
            "the server could not find the requested resource",
        )));
    };
    let verb = match path.verb(request.method().as_str(), query.flag("watch")) {
        Ok(verb) => verb,
        Err(status) => return Ok(refusal(&status)),
    };
    shared
        .tally
        .update(|counters| *counters.requests.entry((path.resource, verb)).or_default() += 1);

    let mut cleared = shared.faults.cleared(); // before the fault is taken, so that no clearing goes unseen
    let fault = shared.faults.take(path.resource, verb);
    if let Some(Fault::Stall) = fault {
        cleared.changed().await.map_err(|_| Cut)?;
    }
    let response = match &fault {
        Some(Fault::Drop) => return Err(Cut),
        Some(Fault::Status(status)) => refusal(status),
        Some(Fault::Garbage(garbage)) => rubbish(*garbage, verb),
        Some(Fault::Expired) if verb == Verb::Watch => json_body(StatusCode::OK, watch::expired()),
        Some(Fault::Expired) => refusal(&Status::too_old(1, 2)),
        _ => serve(&shared, &path, verb, &query, request, fault.as_ref()).await?,
    };
    Ok(response.map(|answer| {
        let answer = match fault {
            Some(Fault::Slow { bytes, delay }) => body::slowed(answer, bytes, delay),
            _ => answer,
        };
        body::counted(answer, Arc::clone(&shared.tally), path.resource, verb)
    }))
}

async fn serve(
    shared: &Arc<Shared>,
    path: &Path,
    verb: Verb,
    query: &Query,
    request: Request<Incoming>,
    fault: Option<&Fault>,
) -> Result<Response<Body>, Cut> {
    if query.get("labelSelector").is_some() {
        return Ok(refusal(&Status::bad_request(
            "the lab's API does not know label selectors",
        )));
    }
    let answered = match verb {
        Verb::List => {
            let stale = match fault {
                Some(Fault::Stale(snapshot)) => Some(snapshot.0.clone()),
                _ => None,
            };
            list::page(&mut shared.store(), path, query, stale).map(|page| (StatusCode::OK, page.into_body()))
        }
        Verb::Watch => watch::open(shared, path, query).map(|stream| (StatusCode::OK, stream)),
        Verb::Get => write::get(&shared.store(), path).map(|object| (StatusCode::OK, body::full(object))),
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => {
            write::serve(shared, path, verb, query, request).await?
        }
    };
    Ok(match answered {
        Ok((code, answer)) => json_body(code, answer),
        Err(status) => refusal(&status),
    })
}

fn rubbish(garbage: Garbage, verb: Verb) -> Response<Body> {
    let bytes = if verb == Verb::Watch {
        garbage.watch_line()
    } else {
        garbage.document()
    };
    json_body(
        StatusCode::OK,
        body::chunks(vec![bytes], garbage == Garbage::HalfDocument),
    )
}

fn refusal(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_body(code, body::full(status.to_json().to_string()));
    if let Some(delay) = status.retry_after {
        response.headers_mut().insert(RETRY_AFTER, delay.as_secs().into());
    }
    response
}

fn json_body(code: StatusCode, answer: Body) -> Response<Body> {
    let mut response = Response::new(answer);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(text: &'static str) -> Response<Body> {
    Response::new(body::full(text))
}

fn version() -> String {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": "v1.33.0-routelet-lab",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
    .to_string()
}
