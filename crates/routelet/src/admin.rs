//! The admin endpoint over HTTP: probes for Kubernetes and metrics for Prometheus.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the agent works, 503 when it is stuck and should be restarted |
//! | `/readyz` | 200 once the kernel has been brought to the wanted state, 503 with the reasons until then |
//! | `/metrics` | OpenMetrics text |

use std::net::SocketAddr;
use std::{fmt, io};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    /// Whether it works at all; once false, a restart is due.
    pub(crate) live: bool,
    /// What is yet to be done before the node's pods can use the network, one sentence each. None: ready.
    pub(crate) not_ready: Vec<String>,
}

/// The port could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on --admin-address {address}")]
pub(crate) struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Opens the port that [`serve`] answers on.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError { address, source })
}

/// Answers for ever; `metrics` gives the text for each scrape.
pub(crate) async fn serve(
    listener: TcpListener,
    health: watch::Receiver<Health>,
    metrics: impl Fn() -> Result<String, fmt::Error> + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(async move || metrics_text(metrics())));
    axum::serve(listener, router).await
}

async fn livez(State(health): State<watch::Receiver<Health>>) -> Response {
    let live = health.borrow().live;
    if live {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not live: the log says why\n").into_response()
    }
}

async fn readyz(State(health): State<watch::Receiver<Health>>) -> Response {
    let reasons: String = health
        .borrow()
        .not_ready
        .iter()
        .map(|reason| format!("{reason}\n"))
        .collect();
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Serves on a port of the kernel's choice and returns its address and the handle to the health.
    async fn start(health: Health) -> (SocketAddr, watch::Sender<Health>) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = watch::channel(health);
        tokio::spawn(serve(listener, receiver, || Metrics::new().encode()));
        (address, sender)
    }

    /// Status and body of the answer, with its headers between.
    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    #[tokio::test]
    async fn readyz_gives_the_reasons_until_there_are_none() {
        let not_ready = vec![
            "pods have not been listed yet".to_owned(),
            "12 objects are missing".to_owned(),
        ];
        let (address, health) = start(Health {
            live: true,
            not_ready,
        })
        .await;
        let (status, answer) = get(address, "/readyz").await;
        assert_eq!(status, 503);
        assert!(
            answer.ends_with("\r\n\r\npods have not been listed yet\n12 objects are missing\n"),
            "{answer}"
        );

        health.send_modify(|health| health.not_ready.clear());
        assert_eq!(get(address, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn livez_follows_the_health() {
        let (address, health) = start(Health {
            live: true,
            not_ready: Vec::new(),
        })
        .await;
        assert_eq!(get(address, "/livez").await.0, 200);
        health.send_modify(|health| health.live = false);
        assert_eq!(get(address, "/livez").await.0, 503);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let (address, _health) = start(Health {
            live: true,
            not_ready: Vec::new(),
        })
        .await;
        let (status, answer) = get(address, "/metrics").await;
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
        let (address, _health) = start(Health {
            live: true,
            not_ready: Vec::new(),
        })
        .await;
        assert_eq!(get(address, "/").await.0, 404);
    }

    #[tokio::test]
    async fn a_taken_port_is_told_with_flag_and_address() {
        let (address, _health) = start(Health {
            live: true,
            not_ready: Vec::new(),
        })
        .await;
        let error = anyhow::Error::from(bind(address).await.unwrap_err());
        assert!(
            format!("{error:#}").starts_with(&format!(
                "cannot listen on --admin-address {address}: Address already in use"
            )),
            "{error:#}"
        );
    }
}
