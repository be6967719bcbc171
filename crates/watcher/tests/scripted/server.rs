//! An API server in the test's own hands: each request waits until the test answers it.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use kube::Client;
use kube::client::Body;
use routelet_model::{ClusterEvent, Resource, Source};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

type Frame = http_body::Frame<bytes::Bytes>;
type Answer = Response<BoxBody<bytes::Bytes, std::io::Error>>;

/// The requests of the agent, in the order in which they come.
pub(crate) struct Server {
    requests: mpsc::UnboundedReceiver<Asked>,
    /// Came while the test waited for another path.
    aside: Vec<Asked>,
}

/// A request that waits for its answer.
pub(crate) struct Asked {
    /// Method, path and query.
    pub(crate) line: String,
    /// The body.
    pub(crate) body: Value,
    answer: oneshot::Sender<Answer>,
}

/// The open body of an answer.
pub(crate) struct Stream {
    frames: mpsc::UnboundedSender<Result<Frame, std::io::Error>>,
}

impl Server {
    /// A server and its client.
    pub(crate) fn new() -> (Self, Client) {
        let (asked, requests) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let asked = asked.clone();
            async move {
                let line = format!("{} {}", request.method(), request.uri());
                let body = request.into_body().collect_bytes().await?;
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (answer, answered) = oneshot::channel();
                asked
                    .send(Asked { line, body, answer })
                    .map_err(|_| "the test is over")?;
                Ok::<_, tower::BoxError>(answered.await.map_err(|_| "connection refused")?)
            }
        });
        (
            Self {
                requests,
                aside: Vec::new(),
            },
            Client::new(service, "default"),
        )
    }

    /// The next request whose path begins so.
    pub(crate) async fn next(&mut self, path: &str) -> Asked {
        self.take_in();
        loop {
            if let Some(at) = self.aside.iter().position(|asked| asked.path().starts_with(path)) {
                return self.aside.remove(at);
            }
            let request = tokio::time::timeout(Duration::from_secs(3600), self.requests.recv()).await;
            self.aside
                .push(request.expect("no request came").expect("the agent is gone"));
        }
    }

    /// Whether no request whose path begins so waits for an answer.
    pub(crate) fn is_quiet(&mut self, path: &str) -> bool {
        self.take_in();
        !self.aside.iter().any(|asked| asked.path().starts_with(path))
    }

    fn take_in(&mut self) {
        while let Ok(asked) = self.requests.try_recv() {
            self.aside.push(asked);
        }
    }
}

impl Asked {
    fn path(&self) -> &str {
        self.line.split_once(' ').map_or("", |(_method, path)| path)
    }

    /// The request, which has all of `parts` in its line.
    pub(crate) fn with(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.line.contains(part), "{part:?} is wanted in {:?}", self.line);
        }
        self
    }

    /// Answers with a body that stays open.
    pub(crate) fn stream(self) -> Stream {
        let (frames, pieces) = mpsc::unbounded_channel();
        let body = BoxBody::new(StreamBody::new(tokio_stream(pieces)));
        self.answer
            .send(Response::new(body))
            .expect("the agent has given the request up");
        Stream { frames }
    }

    /// Answers with a whole document.
    pub(crate) fn json(self, value: Value) {
        self.stream().raw(value.to_string());
    }

    /// Answers with an error, as API servers do.
    pub(crate) fn status(self, code: u16, reason: &str, headers: &[(&'static str, &'static str)]) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "reason": reason, "message": format!("this is {reason}")});
        let body = http_body_util::Full::new(status.to_string().into());
        let body = BoxBody::new(http_body_util::BodyExt::map_err(body, |never| match never {}));
        let mut answer = Response::new(body);
        *answer.status_mut() = code.try_into().unwrap();
        for (name, value) in headers {
            answer.headers_mut().insert(*name, value.parse().unwrap());
        }
        self.answer
            .send(answer)
            .expect("the agent has given the request up");
    }

    /// Closes the connection without an answer.
    pub(crate) fn refuse(self) {}
}

impl Stream {
    /// Sends bytes as they are.
    pub(crate) fn raw(&self, text: impl Into<bytes::Bytes>) {
        let _agent_may_be_gone = self.frames.send(Ok(Frame::data(text.into())));
    }

    /// Sends a watch event.
    pub(crate) fn event(&self, kind: &str, object: Value) {
        self.raw(format!("{}\n", json!({"type": kind, "object": object})));
    }

    /// Sends a bookmark.
    pub(crate) fn bookmark(&self, version: &str) {
        self.event(
            "BOOKMARK",
            json!({"kind": "Node", "apiVersion": "v1", "metadata": {"resourceVersion": version}}),
        );
    }

    /// Ends a streaming list.
    pub(crate) fn end_list(&self, version: &str) {
        self.event(
            "BOOKMARK",
            json!({"kind": "Node", "apiVersion": "v1", "metadata": {"resourceVersion": version,
                "annotations": {"k8s.io/initial-events-end": "true"}}}),
        );
    }

    /// Breaks the connection.
    pub(crate) fn cut(self) {
        let _agent_may_be_gone = self.frames.send(Err(std::io::ErrorKind::ConnectionReset.into()));
    }
}

fn tokio_stream<T: Send>(mut receiver: mpsc::UnboundedReceiver<T>) -> impl futures::Stream<Item = T> + Send {
    futures::stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// A Node with one address and one subnet.
pub(crate) fn node(name: &str, version: u64, subnet: &str) -> Value {
    json!({"kind": "Node", "apiVersion": "v1",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": version.to_string()},
        "spec": {"podCIDR": subnet, "podCIDRs": [subnet]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]}})
}

/// Nodes as a list.
pub(crate) fn list(version: u64, items: &[Value]) -> Value {
    json!({"kind": "NodeList", "apiVersion": "v1",
        "metadata": {"resourceVersion": version.to_string()}, "items": items})
}

/// An event in short: `+n1`, `-n1`, `nodes`.
pub(crate) fn short(event: ClusterEvent) -> String {
    match event {
        ClusterEvent::PodApplied(pod) => format!("+{}", pod.id),
        ClusterEvent::PodDeleted(id) => format!("-{id}"),
        ClusterEvent::NodeApplied(node) => format!("+{}", node.name),
        ClusterEvent::NodeDeleted(name) => format!("-{name}"),
        ClusterEvent::Synced(Resource::Pods, _) => "pods".to_owned(),
        ClusterEvent::Synced(Resource::Nodes, Source::Store) => "nodes".to_owned(),
        ClusterEvent::Synced(Resource::Nodes, Source::Cache) => "nodes of a cache".to_owned(),
    }
}

/// The next events in short, as many as are wanted.
pub(crate) async fn told(events: &mut mpsc::Receiver<ClusterEvent>, wanted: &[&str]) {
    let mut told = Vec::new();
    for _ in wanted {
        let event = tokio::time::timeout(Duration::from_secs(3600), events.recv()).await;
        let Ok(Some(event)) = event else {
            panic!("told {told:?}, then nothing; wanted {wanted:?}")
        };
        told.push(short(event));
    }
    assert_eq!(told, wanted);
}
