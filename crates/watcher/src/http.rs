//! Requests whose answer is read as it comes: errors with their `Retry-After`, bodies with a limit on silence.
//!
//! kube's own `request` and `request_events` are not used because they log a whole body that they cannot read,
//! hide an event that was cut off, and drop the header.

use std::net::IpAddr;
use std::time::Duration;

use http::Response;
use http::header::RETRY_AFTER;
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::connect::HttpInfo;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use tokio::time::timeout;

use crate::error::Error;

/// How much of an error's text is read.
const MAX_STATUS_BYTES: usize = 64 * 1024;
/// Longest event of a watch: etcd takes objects of 1.5 MiB by default.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Sends a request and gives a good answer. An answer must begin within `patience`.
pub(crate) async fn send(
    client: &Client,
    request: http::Request<Vec<u8>>,
    patience: Duration,
) -> Result<Response<Body>, Error> {
    let answer = timeout(patience, client.send(request.map(Body::from)))
        .await
        .map_err(|_| Error::Silent(patience))?
        .map_err(Error::Unreachable)?;
    let code = answer.status();
    if code.is_success() {
        return Ok(answer);
    }
    let seconds = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let body = timeout(
        patience,
        Limited::new(answer.into_body(), MAX_STATUS_BYTES).collect(),
    )
    .await;
    let body = body
        .ok()
        .and_then(Result::ok)
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let mut status = serde_json::from_slice::<Status>(&body).unwrap_or_else(|_| {
        let reason = code.canonical_reason().unwrap_or_default();
        Status::failure(String::from_utf8_lossy(&body).trim(), reason)
    });
    status.code = code.as_u16();
    Err(Error::from_status(status, seconds.map(Duration::from_secs)))
}

/// A body, line by line.
pub(crate) struct Lines {
    /// The host's address that the connection goes from, where that is known.
    pub(crate) from: Option<IpAddr>,
    body: Body,
    buffer: Vec<u8>,
    /// Where the next line begins in the buffer.
    start: usize,
    /// Up to where there is no end of that line.
    searched: usize,
}

impl Lines {
    pub(crate) fn new(answer: Response<Body>) -> Self {
        let connection = answer.extensions().get::<HttpInfo>();
        Self {
            from: connection.map(|connection| connection.local_addr().ip()),
            body: answer.into_body(),
            buffer: Vec::new(),
            start: 0,
            searched: 0,
        }
    }

    /// The next line, without its end; `None` at the end of the body. An error where nothing comes for
    /// `patience`, and where the body ends within a line.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Option<&[u8]>, Error> {
        loop {
            if let Some(length) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let end = self.searched + length;
                let start = std::mem::replace(&mut self.start, end + 1);
                self.searched = end + 1;
                return Ok(Some(&self.buffer[start..end]));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE_BYTES {
                return Err(Error::TooLong(MAX_LINE_BYTES));
            }
            match next_piece(&mut self.body, patience).await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Err(Error::Cut(None)),
            }
        }
    }
}

/// The next piece of a body, `None` at its end. It may not take longer than `patience`.
pub(crate) async fn next_piece(
    body: &mut Body,
    patience: Duration,
) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>, Error> {
    loop {
        match timeout(patience, body.frame())
            .await
            .map_err(|_| Error::Silent(patience))?
        {
            None => return Ok(None),
            Some(Err(error)) => return Err(Error::Cut(Some(error))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
