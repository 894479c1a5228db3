//! An answer of a device's thread that is on its way; a future for any executor, or waited for by a plain thread.

use std::{
    pin::Pin,
    task::{Context, Poll},
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
            Err(error) => Self(State::Refused(Some(error))),
        }
    }

    /// Blocks this thread until the answer is there. Not for a thread that serves or runs tasks.
    ///
    /// # Errors
    /// As the future.
    ///
    /// # Panics
    /// Within an asynchronous task.
    pub fn wait(self) -> Result<T, GpuError> {
        match self.0 {
            State::Waiting(receiver) => receiver.blocking_recv().unwrap_or(Err(GpuError::Closed)),
            State::Refused(error) => Err(error.unwrap_or(GpuError::Closed)),
        }
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
