//! An answer of a device's thread that is on its way; a future for any executor, or waited for by a plain thread.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake},
    thread::{self, Thread},
};

use tokio::sync::oneshot;

use super::{error::GpuError, link::Answer};

/// An answer that is on its way. Dropping it withdraws a job that has not begun; one that runs ends after its slice.
#[must_use = "dropping it withdraws what was asked for"]
#[derive(Debug)]
pub struct Pending<T>(State<T>);

#[derive(Debug)]
enum State<T> {
    Waiting(oneshot::Receiver<Result<T, GpuError>>),
    /// Refused before it was sent; taken when it was told.
    Refused(Option<GpuError>),
}

impl<T> Pending<T> {
    /// Sends something with the answer's other end.
    pub(crate) fn ask(send: impl FnOnce(Answer<T>) -> Result<(), GpuError>) -> Self {
        let (answer, receiver) = oneshot::channel();
        match send(answer) {
            Ok(()) => Self(State::Waiting(receiver)),
            Err(error) => Self::refused(error),
        }
    }

    /// Refused before anything was sent.
    pub(crate) fn refused(error: GpuError) -> Self {
        Self(State::Refused(Some(error)))
    }

    /// Blocks this thread until the answer is there: for plain threads, and for the factory of a replica that has a
    /// thread of its own. Not for a handler, nor for a thread that serves others.
    ///
    /// # Errors
    /// As the future.
    pub fn wait(self) -> Result<T, GpuError> {
        block_on(self)
    }
}

/// Blocks this thread until the future is ready.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, GpuError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            State::Waiting(receiver) => {
                Pin::new(receiver).poll(cx).map(|answer| answer.unwrap_or(Err(GpuError::Closed)))
            }
            State::Refused(error) => Poll::Ready(Err(error.take().unwrap_or(GpuError::Closed))),
        }
    }
}

impl<T> Unpin for Pending<T> {}
