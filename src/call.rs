//! The kernel's words: a request, a call on its way, the reply it carries, the answer its caller gets.

mod gate;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use actix::Message;
use tokio::{sync::oneshot, task::coop::unconstrained, time::Instant};

use crate::{
    error::ServeError,
    guard::{drop_guarded, guarded},
    meta::Meta,
};

pub use gate::{Gate, Permit};

/// A plain actix message whose result is `Result<Response, ServeError>`; implemented for every such message.
///
/// ```
/// use greenroom::{Request, ServeError};
///
/// #[derive(actix::Message)]
/// #[rtype(result = "Result<u64, ServeError>")]
/// struct Double(u64);
///
/// fn takes<M: Request<Response = u64>>(_: M) {}
/// takes(Double(2));
/// ```
pub trait Request: Message<Result = Result<Self::Response, ServeError>> + Send + 'static {
    /// What a handler answers when it succeeds.
    type Response: Send + 'static;
}

impl<M, R> Request for M
where
    M: Message<Result = Result<R, ServeError>> + Send + 'static,
    R: Send + 'static,
{
    type Response = R;
}

/// A request on its way to a replica.
pub struct Call<M: Request> {
    /// The message.
    pub msg: M,
    /// What travels with it.
    pub meta: Meta,
    /// Where its answer goes.
    pub reply: Reply<M::Response>,
}

/// Where the answer to one call goes; handed on with the call, never relayed.
pub struct Reply<R>(Kind<R>);

enum Kind<R> {
    /// Whoever waits at the other end minds the deadline.
    Channel(oneshot::Sender<Result<R, ServeError>>),
    /// Whoever waits at the other end does not.
    Unminded(oneshot::Sender<Result<R, ServeError>>),
    Mapped(Box<dyn Sink<R>>),
    Nobody,
}

trait Sink<R>: Send {
    fn send(self: Box<Self>, result: Result<R, ServeError>) -> bool;
    fn is_closed(&self) -> bool;
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    fn minds_deadline(&self) -> bool;
}

struct Map<T, F> {
    inner: Reply<T>,
    map: F,
}

impl<R, T, F> Sink<R> for Map<T, F>
where
    T: Send + 'static,
    F: FnOnce(Result<R, ServeError>) -> Result<T, ServeError> + Send,
{
    fn send(self: Box<Self>, result: Result<R, ServeError>) -> bool {
        let Self { inner, map } = *self;
        inner.send(guarded(|| map(result)).unwrap_or_else(|message| Err(ServeError::Panicked { message })))
    }
    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.poll_closed(cx)
    }
    fn minds_deadline(&self) -> bool {
        self.inner.minds_deadline()
    }
}

impl<R: Send + 'static> Reply<R> {
    /// A reply and the place where its answer arrives.
    pub fn channel() -> (Self, Waiting<R>) {
        let (tx, rx) = oneshot::channel();
        (Self(Kind::Channel(tx)), Waiting { rx, deadline: None, observer: None })
    }

    /// A reply that nobody waits for and that never counts as left.
    pub fn nobody() -> Self {
        Self(Kind::Nobody)
    }

    /// The reply at the other end of an actix envelope.
    pub(crate) fn from_sender(tx: Option<oneshot::Sender<Result<R, ServeError>>>) -> Self {
        Self(tx.map_or(Kind::Nobody, Kind::Unminded))
    }

    /// Answers, unless the caller has left: then it is false. Never panics, whatever user code the answer holds.
    pub fn send(self, result: Result<R, ServeError>) -> bool {
        match self.0 {
            Kind::Channel(tx) | Kind::Unminded(tx) => {
                let sent = tx.send(result);
                let arrived = sent.is_ok();
                drop_guarded(sent);
                arrived
            }
            Kind::Mapped(sink) => sink.send(result),
            Kind::Nobody => {
                drop_guarded(result);
                true
            }
        }
    }

    /// Whether the caller has left.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Kind::Channel(tx) | Kind::Unminded(tx) => tx.is_closed(),
            Kind::Mapped(sink) => sink.is_closed(),
            Kind::Nobody => false,
        }
    }

    /// Whether the caller leaves at the deadline by itself.
    pub(crate) fn minds_deadline(&self) -> bool {
        match &self.0 {
            Kind::Channel(_) => true,
            Kind::Mapped(sink) => sink.minds_deadline(),
            Kind::Unminded(_) | Kind::Nobody => false,
        }
    }

    /// Ready when the caller has left.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Kind::Channel(tx) | Kind::Unminded(tx) => {
                // Out of the task's budget: a replica asks this for all its calls in one task, and those of
                // thousands that left would be let go a hundred at a time.
                pin!(unconstrained(poll_fn(|cx| tx.poll_closed(cx)))).poll(cx)
            }
            Kind::Mapped(sink) => sink.poll_closed(cx),
            Kind::Nobody => Poll::Pending,
        }
    }

    /// Waits until the caller has left.
    pub async fn closed(&mut self) {
        poll_fn(|cx| self.poll_closed(cx)).await;
    }

    /// A reply for another type, whose answer passes through `map` on its way here.
    pub fn map<T: Send + 'static>(
        self,
        map: impl FnOnce(Result<T, ServeError>) -> Result<R, ServeError> + Send + 'static,
    ) -> Reply<T> {
        Reply(Kind::Mapped(Box::new(Map { inner: self, map })))
    }
}

/// When a caller is answered at the latest, and where it is counted that it had no answer by then.
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) missed: Arc<AtomicU64>,
}

/// The receiving end of a [`Reply`]. Dropping it tells the handler that its caller has left.
pub struct Waiting<R> {
    rx: oneshot::Receiver<Result<R, ServeError>>,
    pub(crate) deadline: Option<Deadline>,
    /// Sees the answer when the caller gets it; dropped with a caller that leaves first. Never panics.
    pub(crate) observer: Option<Observer<R>>,
}

/// Whoever wants to see an answer on its way to its caller.
pub(crate) type Observer<R> = Box<dyn FnOnce(&Result<R, ServeError>) + Send + Sync>;

impl<R> Waiting<R> {
    /// The answer if it is there already.
    pub fn try_now(&mut self) -> Option<Result<R, ServeError>> {
        match self.rx.try_recv() {
            Ok(result) => Some(self.observed(result)),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(self.observed(Err(ServeError::NoAnswer))),
        }
    }

    #[inline]
    fn observed(&mut self, result: Result<R, ServeError>) -> Result<R, ServeError> {
        if let Some(observer) = self.observer.take() {
            observer(&result);
        }
        result
    }

    /// The caller leaves at its deadline. An answer that was faster is the answer; else this is counted, here
    /// because a replica that hangs in a handler could not.
    pub(crate) fn overdue(&mut self) -> Result<R, ServeError> {
        self.rx.close();
        if let Ok(result) = self.rx.try_recv() {
            return self.observed(result);
        }
        if let Some(deadline) = &self.deadline {
            deadline.missed.fetch_add(1, Ordering::Relaxed);
        }
        Err(ServeError::DeadlineExceeded)
    }
}

impl<R> Future for Waiting<R> {
    type Output = Result<R, ServeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.rx).poll(cx)).unwrap_or(Err(ServeError::NoAnswer));
        Poll::Ready(self.observed(result))
    }
}

/// What a port says to a call.
pub enum Answer<M: Request> {
    /// It was answered on the spot.
    Now(Result<M::Response, ServeError>),
    /// It was taken; the answer arrives here.
    Waiting(Waiting<M::Response>),
    /// It was not taken and never began: here is the message again, and why.
    Refused(Refusal<M>),
}

/// A call that never began, given back whole so that it can go elsewhere.
pub struct Refusal<M: Request> {
    /// The message.
    pub msg: M,
    /// What travels with it.
    pub meta: Meta,
    /// Where its answer would have gone, when it had a place already.
    pub reply: Option<Reply<M::Response>>,
    /// Why it was not taken.
    pub why: ServeError,
}

impl<M: Request> Refusal<M> {
    /// A call that brought its reply.
    pub fn of(call: Call<M>, why: ServeError) -> Self {
        Self { msg: call.msg, meta: call.meta, reply: Some(call.reply), why }
    }
}

impl<M: Request> Call<M> {
    /// When whoever has it must end it, because its caller does not leave at the deadline by itself.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        self.meta.deadline.filter(|_| !self.reply.minds_deadline())
    }

    /// Lets go of a call that never began and whose deadline has passed; true when that was its end, false when
    /// its caller had left before.
    pub(crate) fn expire(self) -> bool {
        let ended = self.reply.send(Err(ServeError::DeadlineExceeded));
        drop_guarded(self.msg);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_reply_knows_when_its_caller_has_left() {
        let (reply, waiting) = Reply::<u8>::channel();
        let mapped = reply.map(|r: Result<u64, ServeError>| r.map(|n| n as u8));
        assert!(!mapped.is_closed());
        drop(waiting);
        assert!(mapped.is_closed());
    }

    #[test]
    fn an_answer_that_cannot_be_converted_is_a_panic_of_its_call() {
        let (reply, mut waiting) = Reply::<u8>::channel();
        reply.map(|_: Result<u64, ServeError>| panic!("no such number")).send(Ok(1));
        let message = "no such number".into();
        assert_eq!(waiting.try_now(), Some(Err(ServeError::Panicked { message })));
    }

    #[test]
    fn a_dropped_reply_is_an_error_of_its_own() {
        let (reply, mut waiting) = Reply::<u8>::channel();
        assert!(waiting.try_now().is_none());
        drop(reply);
        assert_eq!(waiting.try_now(), Some(Err(ServeError::NoAnswer)));
    }
}
