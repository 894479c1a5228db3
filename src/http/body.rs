//! The body of a request: read whole, up to a size, and no longer than its caller keeps sending.

use std::{
    fmt::Display,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    error::PayloadError,
    http::header::{self, HeaderMap},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep};

use crate::{error::ServeError, http::exchange::Failure};

/// What is taken of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Largest body, in bytes.
    pub(crate) bytes: usize,
    /// Longest time without a byte while more must come.
    pub(crate) idle: Duration,
}

impl Default for BodyLimits {
    /// 16 MiB; 30 s.
    fn default() -> Self {
        Self { bytes: 16 * 1024 * 1024, idle: Duration::from_secs(30) }
    }
}

/// The whole body, or a refusal as soon as it is known to be too large or its caller has stalled.
pub(crate) async fn read(
    headers: &HeaderMap,
    payload: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    limits: BodyLimits,
) -> Result<Bytes, ServeError> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > limits.bytes) {
        return Err(ServeError::TooLarge { limit_bytes: limits.bytes });
    }
    let chunks = Chunks { payload, idle: limits.idle, waited: false, alarm: None };
    collect(chunks, declared, limits.bytes).await
}

async fn collect<E: Display>(
    mut chunks: Chunks<impl Stream<Item = Result<Bytes, E>> + Unpin>,
    declared: Option<usize>,
    limit_bytes: usize,
) -> Result<Bytes, ServeError> {
    // Most bodies come in one piece, which is then not copied.
    let Some(first) = chunks.next().await? else { return Ok(Bytes::new()) };
    if first.len() > limit_bytes {
        return Err(ServeError::TooLarge { limit_bytes });
    }
    if declared == Some(first.len()) {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(declared.unwrap_or(2 * first.len()));
    whole.extend_from_slice(&first);
    while let Some(chunk) = chunks.next().await? {
        if whole.len() + chunk.len() > limit_bytes {
            return Err(ServeError::TooLarge { limit_bytes });
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// An answer that leaves the rest of a body unread: its connection closes. Held until the answer has been sent,
/// since actix-web would go on reading the pieces of a chunked body that nobody holds, for ever.
pub(crate) fn left_unread(failure: Failure, payload: impl Unpin + 'static) -> Failure {
    Box::new(move |id| failure(id).map_body(|_, body| BoxBody::new(Unread { body, _payload: payload })))
}

struct Unread<P> {
    body: BoxBody,
    _payload: P,
}

impl<P: Unpin> MessageBody for Unread<P> {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// The pieces of a body, each waited for so long.
struct Chunks<S> {
    payload: S,
    idle: Duration,
    /// Whether something has been waited for.
    waited: bool,
    /// One for the whole body, set when a piece is waited for: a body that is there needs none.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S: Stream<Item = Result<Bytes, E>> + Unpin, E: Display> Chunks<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, ServeError> {
        let Self { payload, idle, waited, alarm } = self;
        let mut waits = false;
        poll_fn(|cx| {
            if let Poll::Ready(chunk) = payload.poll_next_unpin(cx) {
                let broken = |e| ServeError::bad_request(format!("the body could not be read: {e}"));
                return Poll::Ready(chunk.transpose().map_err(broken));
            }
            // actix-web calls a handler before it hands over what came with the head, and wakes this task for it
            // in the same turn: that is no reason for a timer yet.
            if !*waited {
                *waited = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let alarm = match alarm {
                Some(alarm) => {
                    if !waits {
                        alarm.as_mut().reset(Instant::now() + *idle);
                    }
                    alarm
                }
                None => alarm.insert(Box::pin(sleep(*idle))),
            };
            waits = true;
            alarm.as_mut().poll(cx).map(|()| Err(ServeError::BodyTimeout { after: *idle }))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use tokio::time::advance;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { bytes: 100, idle: Duration::from_secs(30) };

    type Piece = Result<Bytes, PayloadError>;

    fn piece() -> Piece {
        Ok(Bytes::from_static(b"abc"))
    }

    async fn read_from(payload: impl Stream<Item = Piece> + Unpin) -> Result<Bytes, ServeError> {
        read(&HeaderMap::new(), payload, LIMITS).await
    }

    #[actix_web::test]
    async fn a_body_that_keeps_coming_may_take_longer_than_its_idle_limit() {
        tokio::time::pause();
        let slow = stream::unfold(0, |n| async move {
            sleep(Duration::from_secs(29)).await;
            (n < 10).then(|| (piece(), n + 1))
        });
        assert_eq!(read_from(Box::pin(slow)).await.unwrap().len(), 30);
    }

    #[actix_web::test]
    async fn a_body_that_stalls_is_given_up_when_its_idle_limit_has_passed_since_the_last_byte() {
        tokio::time::pause();
        let begun = Instant::now();
        let stalls = stream::iter([piece(), piece()]).chain(stream::pending());
        assert_eq!(read_from(stalls).await, Err(ServeError::BodyTimeout { after: LIMITS.idle }));
        let late = stream::once(Box::pin(async {
            sleep(Duration::from_secs(20)).await;
            piece()
        }));
        assert!(read_from(late.chain(stream::pending())).await.is_err());
        let took = begun.elapsed().as_secs_f64();
        assert!((79.9..80.1).contains(&took), "30 s, then 20 s and 30 s: {took}");
    }

    #[test]
    fn a_body_that_is_there_arms_no_timer() {
        // Without a runtime a timer panics.
        let there = stream::iter([piece(), piece()]);
        assert_eq!(read_from(there).now_or_never().unwrap().unwrap().len(), 6);
    }

    #[test]
    fn a_body_that_is_handed_over_a_moment_after_its_head_arms_no_timer() {
        let mut polls = 0;
        let moment = stream::poll_fn(move |_| {
            polls += 1;
            match polls {
                1 => Poll::Pending,
                2 => Poll::Ready(Some(piece())),
                _ => Poll::Ready(None),
            }
        });
        let mut whole = Box::pin(read_from(moment));
        assert!((&mut whole).now_or_never().is_none());
        assert_eq!(whole.now_or_never().unwrap().unwrap().len(), 3);
    }

    #[actix_web::test]
    async fn one_timer_serves_a_whole_body() {
        tokio::time::pause();
        let (tx, rx) = tokio::sync::mpsc::channel(1);
        let payload = Box::pin(stream::unfold(rx, |mut rx| async move { Some((rx.recv().await?, rx)) }));
        let mut chunks = Chunks { payload, idle: LIMITS.idle, waited: false, alarm: None };
        let mut armed = Vec::new();
        for _ in 0..3 {
            for _ in 0..2 {
                assert!(chunks.next().now_or_never().is_none(), "nothing is there yet");
            }
            armed.push(std::ptr::from_ref(&**chunks.alarm.as_ref().unwrap()));
            advance(Duration::from_secs(20)).await;
            tx.send(piece()).await.unwrap();
            assert!(chunks.next().await.unwrap().is_some());
        }
        assert!(armed.windows(2).all(|two| two[0] == two[1]));
    }
}
