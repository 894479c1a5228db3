//! The callers of a batch that runs: answered together, each with its own result.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::{Sleep, sleep_until};

use crate::{
    actors::{batcher::Bench, lane_port::turn_away},
    backend::Batch,
    call::{Call, Permit, Reply, Request},
    error::ServeError,
    guard::{drop_guarded, guarded},
    metrics::cells::ReplicaCells,
};

/// One caller of a batch that runs.
pub(super) struct Seat<R> {
    pub(super) reply: Reply<R>,
    pub(super) permit: Permit,
    /// When it must be answered; none: the caller leaves by itself.
    pub(super) ends: Option<tokio::time::Instant>,
}

/// The callers of a batch that runs.
pub(super) struct Pending<R: Send + 'static> {
    /// In the order of the batch; those that were answered at their deadline are none.
    seats: Vec<Option<Seat<R>>>,
    begun: Instant,
    cells: Arc<ReplicaCells>,
    /// Set for the first deadline that nobody else keeps.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<R: Send + 'static> Drop for Pending<R> {
    /// Still some here: the replica stops while the batch runs.
    fn drop(&mut self) {
        for Seat { reply, permit, .. } in self.take().0.into_iter().flatten() {
            drop(permit);
            reply.send(Err(ServeError::Stopped));
        }
    }
}

impl<R: Send + 'static> Pending<R> {
    pub(super) fn new(seats: Vec<Seat<R>>, begun: Instant, cells: Arc<ReplicaCells>) -> Self {
        Self { seats: seats.into_iter().map(Some).collect(), begun, cells, alarm: None }
    }

    /// The callers; their requests run no longer.
    pub(super) fn take(&mut self) -> (Vec<Option<Seat<R>>>, Instant) {
        self.cells.ended(self.seats.len());
        (std::mem::take(&mut self.seats), self.begun)
    }

    /// Ready when every caller has left or has been answered at its deadline.
    pub(super) fn poll_all_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.end_overdue(cx);
        let mut all = true;
        for seat in self.seats.iter_mut().flatten() {
            all &= seat.reply.poll_closed(cx).is_ready();
        }
        if all { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Answers callers at the deadlines that nobody else keeps; the others go on waiting for the batch.
    fn end_overdue(&mut self, cx: &mut Context<'_>) {
        let ends = |seat: &Option<Seat<R>>| seat.as_ref().and_then(|seat| seat.ends);
        while let Some(at) = self.seats.iter().filter_map(ends).min() {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if alarm.deadline() != at {
                alarm.as_mut().reset(at);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return;
            }
            for seat in &mut self.seats {
                if ends(seat).is_some_and(|ends| ends <= at)
                    && let Some(seat) = seat.take()
                {
                    answer(&self.cells, seat, self.begun, Err(ServeError::DeadlineExceeded));
                }
            }
        }
    }

    pub(super) fn distribute(mut self, result: Result<Vec<Result<R, ServeError>>, ServeError>) {
        let (size, begun) = (self.seats.len(), self.begun);
        let seats = self.take().0;
        let results = result.and_then(|results| match results.len() {
            returned if returned == size => Ok(results),
            returned => {
                drop_guarded(results);
                Err(ServeError::BatchLength { expected: size, returned })
            }
        });
        let answer = |seat: Option<Seat<R>>, result| match seat {
            Some(seat) => answer(&self.cells, seat, begun, result),
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
}

/// Counts an answer and gives it. Who left at the deadline meanwhile has counted that.
fn answer<R: Send + 'static>(
    cells: &ReplicaCells,
    seat: Seat<R>,
    begun: Instant,
    result: Result<R, ServeError>,
) {
    let Seat { reply, permit, .. } = seat;
    if !reply.is_closed() {
        cells.answered(begun.elapsed(), result.as_ref().err());
    }
    drop(permit);
    reply.send(result);
}

impl<R: Send + 'static> Pending<R> {
    /// The replica took no more: the calls never began and go elsewhere.
    pub(super) fn turn_away<M: Request<Response = R>>(
        mut self,
        bench: &Bench<M>,
        batch: Batch<M>,
        why: &ServeError,
    ) {
        let (msgs, metas) = batch.into_parts();
        for ((msg, meta), seat) in msgs.into_iter().zip(metas).zip(self.take().0) {
            let Some(Seat { reply, permit, .. }) = seat else { continue };
            drop(permit);
            let _ = guarded(|| turn_away(Call { msg, meta, reply }, Some(&*bench.home), why.clone()));
        }
    }
}
