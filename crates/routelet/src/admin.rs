//! The admin endpoint over HTTP: probes for Kubernetes and metrics for Prometheus, on a TCP port and on a unix socket.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the agent works, 503 with the reason when it should be restarted |
//! | `/readyz` | 200 once the kernel has been brought to the wanted state, 503 with the reasons until then |
//! | `/metrics` | OpenMetrics text |
//! | `/cni` | on the unix socket only: the CNI configuration list for this node, 503 with the reasons until it is known |
//! | `/state` | on the unix socket only: all that the agent knows, as JSON ([`crate::state`]) |
//! | `/log-level` | on the unix socket only: what is logged, to be read and to be changed ([`crate::log_level`]) |

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, fs, io};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::inquiry::Knowledge;
use crate::liveness::Liveness;
use crate::log_level::{self, LogControl};
use crate::metrics::Metrics;

/// What is yet to be done before the node's pods can use the network, one sentence each. None: ready.
pub(crate) type NotReady = Vec<String>;

/// The port or the socket could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The port.
    #[error("cannot listen on --admin-address {address}")]
    Address {
        /// Where.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The unix socket.
    #[error("cannot listen on --admin-socket {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Opens the port that the endpoint answers on.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError::Address { address, source })
}

/// Opens the unix socket that the endpoint answers on, for root only. One that an agent before this one has left is
/// replaced: that none runs any more is known from [`crate::instance`].
pub(crate) fn bind_socket(path: &Path) -> Result<UnixListener, BindError> {
    let bind = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().map_err(|source| BindError::Socket {
        path: path.to_owned(),
        source,
    })
}

/// The endpoint's paths; `metrics` gives the text for each scrape.
pub(crate) fn router(
    liveness: Liveness,
    not_ready: watch::Receiver<NotReady>,
    metrics: impl Fn() -> Result<String, fmt::Error> + Clone + Send + Sync + 'static,
) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .with_state(liveness)
        .route("/readyz", get(readyz))
        .with_state(not_ready)
        .route("/metrics", get(async move || metrics_text(metrics())))
}

/// The same with what only root on this node may ask; `configuration` gives the CNI configuration list, once the node's
/// network is ready.
pub(crate) fn for_root(
    router: Router,
    not_ready: watch::Receiver<NotReady>,
    configuration: impl Fn() -> Option<String> + Clone + Send + Sync + 'static,
    knowledge: Arc<Knowledge>,
    log: LogControl,
) -> Router {
    let cni = get(async move || match configuration() {
        Some(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        None => cni_unknown(&not_ready.borrow()),
    });
    router
        .route("/cni", cni)
        .route("/state", get(state).with_state(knowledge))
        .route("/log-level", log_level::endpoint(log))
}

async fn state(State(knowledge): State<Arc<Knowledge>>) -> Response {
    match knowledge.state().await {
        Ok(state) => Json(state).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

fn cni_unknown(not_ready: &NotReady) -> Response {
    let mut reasons = lines(not_ready);
    if reasons.is_empty() {
        reasons.push_str("the MTU and the subnets of this node's pods are not known yet\n");
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response()
}

fn lines(reasons: &NotReady) -> String {
    reasons.iter().map(|reason| format!("{reason}\n")).collect()
}

async fn livez(State(liveness): State<Liveness>) -> Response {
    match liveness.check(Instant::now()) {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn readyz(State(not_ready): State<watch::Receiver<NotReady>>) -> Response {
    let reasons = lines(&not_ready.borrow());
    if reasons.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response()
    }
}

fn metrics_text(text: Result<String, fmt::Error>) -> Response {
    match text {
        Ok(text) => ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;

    /// The endpoint of an agent that is not ready for the reasons given.
    fn endpoint(reasons: NotReady) -> (Router, Liveness, watch::Sender<NotReady>) {
        let (liveness, (sender, receiver)) = (Liveness::default(), watch::channel(reasons));
        let router = router(liveness.clone(), receiver, || Metrics::new().encode());
        (router, liveness, sender)
    }

    /// Serves it on a port of the kernel's choice.
    async fn serve(router: Router) -> SocketAddr {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router).into_future());
        address
    }

    /// Status and whole text of the answer.
    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        ask(TcpStream::connect(address).await.unwrap(), path).await
    }

    #[tokio::test]
    async fn readyz_gives_the_reasons_until_there_are_none() {
        let reasons = ["pods have not been listed yet", "12 objects are missing"];
        let (router, _, health) = endpoint(reasons.map(str::to_owned).to_vec());
        let address = serve(router).await;
        let (status, answer) = get(address, "/readyz").await;
        assert_eq!(status, 503);
        assert!(
            answer.ends_with("\r\n\r\npods have not been listed yet\n12 objects are missing\n"),
            "{answer}"
        );

        health.send_modify(Vec::clear);
        assert_eq!(get(address, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn livez_follows_the_dataplane() {
        let (router, liveness, _health) = endpoint(Vec::new());
        let address = serve(router).await;
        assert_eq!(get(address, "/livez").await.0, 200);
        liveness.ended();
        let (status, answer) = get(address, "/livez").await;
        assert_eq!(status, 503);
        assert!(answer.ends_with("the dataplane's thread has ended\n"), "{answer}");
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let (router, ..) = endpoint(Vec::new());
        let (status, answer) = get(serve(router).await, "/metrics").await;
        assert_eq!(status, 200);
        assert!(
            answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{answer}"
        );
        assert!(answer.contains("routelet_build_info{version="), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn other_paths_are_not_found() {
        let (router, ..) = endpoint(Vec::new());
        let address = serve(router).await;
        for path in ["/", "/cni", "/state", "/log-level"] {
            assert_eq!(get(address, path).await.0, 404, "{path}");
        }
    }

    #[tokio::test]
    async fn root_is_given_the_cni_configuration_or_the_reasons_why_there_is_none() {
        let (router, _, health) = endpoint(vec!["pods have not been listed yet".to_owned()]);
        let (list, seen) = watch::channel(None::<String>);
        let configuration = move || seen.borrow().clone();
        let (knowledge, _) = Knowledge::for_test(health.subscribe());
        let (log, _) = LogControl::new("info".parse().unwrap());
        let address = serve(for_root(
            router,
            health.subscribe(),
            configuration,
            knowledge,
            log,
        ))
        .await;
        let (status, answer) = get(address, "/cni").await;
        assert_eq!(status, 503);
        assert!(
            answer.ends_with("\r\n\r\npods have not been listed yet\n"),
            "{answer}"
        );
        health.send_modify(Vec::clear);
        let (status, answer) = get(address, "/cni").await;
        assert_eq!(status, 503);
        assert!(answer.contains("not known yet"), "{answer}");

        list.send_replace(Some("{}\n".to_owned()));
        let (status, answer) = get(address, "/cni").await;
        assert_eq!(status, 200);
        assert!(
            answer.contains("content-type: application/json") && answer.ends_with("{}\n"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn the_socket_answers_too_and_replaces_what_a_killed_agent_left() {
        let directory = routelet_lab::TempDir::new().unwrap();
        let path = directory.path().join("run/routelet.sock");
        drop(bind_socket(&path).unwrap());
        assert!(path.exists(), "the file of a socket outlives it");
        let (router, ..) = endpoint(Vec::new());
        let listener = bind_socket(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        tokio::spawn(axum::serve(listener, router).into_future());
        let stream = UnixStream::connect(&path).await.unwrap();
        assert_eq!(ask(stream, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn what_cannot_be_listened_on_is_told_with_the_flag() {
        let (router, ..) = endpoint(Vec::new());
        let address = serve(router).await;
        let error = anyhow::Error::from(bind(address).await.unwrap_err());
        assert!(
            format!("{error:#}").starts_with(&format!(
                "cannot listen on --admin-address {address}: Address already in use"
            )),
            "{error:#}"
        );
        let error = anyhow::Error::from(bind_socket(Path::new("/proc/routelet/sock")).unwrap_err());
        assert!(
            format!("{error:#}").starts_with("cannot listen on --admin-socket /proc/routelet/sock: "),
            "{error:#}"
        );
    }
}
