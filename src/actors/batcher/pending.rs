//! The callers of a batch that runs: answered together, each with its own result.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::{Sleep, sleep_until};

use crate::{
    call::{Permit, Reply},
    error::ServeError,
    guard::drop_guarded,
    metrics::cells::ReplicaCells,
};

/// One caller of a batch that runs.
pub(super) struct Seat<R> {
    pub(super) reply: Reply<R>,
    pub(super) permit: Permit,
    /// When it must be answered; none: the caller leaves by itself.
    pub(super) ends: Option<tokio::time::Instant>,
    /// When the time is over that the backend itself gives its requests, where that is its deadline.
    pub(super) limit: Option<tokio::time::Instant>,
}

impl<R> Seat<R> {
    fn timed_out(&self) -> bool {
        self.limit.is_some_and(|at| at <= tokio::time::Instant::now())
    }
}

/// The callers of one batch in its order, shared by its Batcher with the batch as long as that has not begun: whoever
/// turns it away may be on another thread. None: answered at its deadline.
pub(super) struct Seats<R>(Mutex<Vec<Option<Seat<R>>>>);

impl<R> Seats<R> {
    pub(super) fn new(seats: Vec<Seat<R>>) -> Self {
        Self(Mutex::new(seats.into_iter().map(Some).collect()))
    }

    /// All of them; none is left.
    pub(super) fn take(&self) -> Vec<Option<Seat<R>>> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Seat<R>>>> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callers of a batch that runs.
pub(super) struct Pending<R: Send + 'static> {
    seats: Arc<Seats<R>>,
    size: usize,
    begun: Instant,
    cells: Arc<ReplicaCells>,
    /// Set for the first deadline that nobody else keeps.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Whether some of them failed by the backend's own code: all together that is one failed run.
    failed: bool,
}

impl<R: Send + 'static> Drop for Pending<R> {
    /// Still some here: all have left, or the replica stops while the batch runs.
    fn drop(&mut self) {
        for seat in self.take().0.into_iter().flatten() {
            if seat.reply.is_closed() {
                self.note_timeout(&seat);
            }
            drop(seat.permit);
            seat.reply.send(Err(ServeError::Stopped));
        }
        if self.failed {
            self.cells.failed_runs.add(1);
        }
    }
}

impl<R: Send + 'static> Pending<R> {
    pub(super) fn new(seats: Arc<Seats<R>>, size: usize, begun: Instant, cells: Arc<ReplicaCells>) -> Self {
        Self { seats, size, begun, cells, alarm: None, failed: false }
    }

    /// The callers; their requests run no longer.
    pub(super) fn take(&mut self) -> (Vec<Option<Seat<R>>>, Instant) {
        self.cells.ended(std::mem::take(&mut self.size));
        (self.seats.take(), self.begun)
    }

    /// Ready when every caller has left or has been answered at its deadline.
    pub(super) fn poll_all_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.end_overdue(cx);
        let mut all = true;
        for seat in self.seats.lock().iter_mut().flatten() {
            all &= seat.reply.poll_closed(cx).is_ready();
        }
        if all { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Answers callers at the deadlines that nobody else keeps; the others go on waiting for the batch.
    fn end_overdue(&mut self, cx: &mut Context<'_>) {
        let ends = |seat: &Option<Seat<R>>| seat.as_ref().and_then(|seat| seat.ends);
        loop {
            let Some(at) = self.seats.lock().iter().filter_map(ends).min() else { return };
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if alarm.deadline() != at {
                alarm.as_mut().reset(at);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return;
            }
            let overdue =
                |seat: &mut Option<Seat<R>>| seat.take_if(|seat| seat.ends.is_some_and(|ends| ends <= at));
            let gone: Vec<_> = self.seats.lock().iter_mut().filter_map(overdue).collect();
            for seat in gone {
                self.note_timeout(&seat);
                self.answer(seat, Err(ServeError::DeadlineExceeded));
            }
        }
    }

    pub(super) fn distribute(mut self, result: Result<Vec<Result<R, ServeError>>, ServeError>) {
        let size = self.size;
        let seats = self.take().0;
        let results = result.and_then(|results| match results.len() {
            returned if returned == size => Ok(results),
            returned => {
                drop_guarded(results);
                Err(ServeError::BatchLength { expected: size, returned })
            }
        });
        let mut answer = |seat: Option<Seat<R>>, result| match seat {
            Some(seat) => {
                if seat.reply.is_closed() {
                    self.note_timeout(&seat);
                }
                self.answer(seat, result);
            }
            None => drop_guarded(result),
        };
        match results {
            Ok(results) => seats.into_iter().zip(results).for_each(|(seat, result)| answer(seat, result)),
            Err(error) => {
                let error = match error {
                    ServeError::Panicked { message } => ServeError::BatchPanicked { size, message },
                    other => other,
                };
                seats.into_iter().for_each(|seat| answer(seat, Err(error.clone())));
            }
        }
    }

    /// Counts an answer and gives it. Who left at the deadline meanwhile has counted that.
    fn answer(&mut self, seat: Seat<R>, result: Result<R, ServeError>) {
        let Seat { reply, permit, .. } = seat;
        if !reply.is_closed() {
            self.failed |= self.cells.answered_one(self.begun.elapsed(), result.as_ref().err());
        }
        drop(permit);
        reply.send(result);
    }

    /// A caller had no answer: by the fault of the backend if its own time for a request is over.
    fn note_timeout(&mut self, seat: &Seat<R>) {
        if seat.timed_out() {
            self.cells.timeouts.add(1);
            self.failed = true;
        }
    }
}
