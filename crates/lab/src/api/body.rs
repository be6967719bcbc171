//! Answer bodies: streams of byte chunks, counted, and cut short or slowed where a fault says so.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use super::counters::Tally;
use super::{Resource, Verb};

/// Closes the connection: a body that fails ends in mid-stream, a request that fails gets no answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is to be closed here")]
pub(crate) struct Cut;

pub(crate) type Chunk = Result<Bytes, Cut>;
pub(crate) type Body = UnsyncBoxBody<Bytes, Cut>;

/// A body that is there already, sent with its length.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A body that comes chunk by chunk.
pub(crate) fn streamed(chunks: impl Stream<Item = Chunk> + Send + 'static) -> Body {
    let frames = chunks.then(async |chunk| {
        if chunk.is_err() {
            // A body that fails at once would take along what hyper has not sent so far.
            tokio::task::yield_now().await;
        }
        chunk.map(Frame::data)
    });
    StreamBody::new(frames).boxed_unsync()
}

/// These chunks, then the end or, if `cut`, the connection closed in mid-stream.
pub(crate) fn chunks(chunks: Vec<Bytes>, cut: bool) -> Body {
    let end = stream::iter(cut.then_some(Err(Cut)));
    streamed(stream::iter(chunks.into_iter().map(Ok)).chain(end))
}

/// Counts the bytes that pass.
pub(crate) fn counted(body: Body, tally: Arc<Tally>, resource: Resource, verb: Verb) -> Body {
    body.map_frame(move |frame| {
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            tally.update(|counters| *counters.bytes_sent.entry((resource, verb)).or_default() += length);
        }
        frame
    })
    .boxed_unsync()
}

/// The same bytes in pieces of at most `bytes`, each after `delay`.
pub(crate) fn slowed(body: Body, bytes: usize, delay: Duration) -> Body {
    let pieces = body.into_data_stream().flat_map(move |chunk| {
        let mut pieces = VecDeque::new();
        match chunk {
            Ok(mut data) => {
                while !data.is_empty() {
                    pieces.push_back(Ok(data.split_to(data.len().min(bytes.max(1)))));
                }
            }
            Err(cut) => pieces.push_back(Err(cut)),
        }
        stream::iter(pieces)
    });
    streamed(pieces.then(move |piece| async move {
        tokio::time::sleep(delay).await;
        piece
    }))
}
