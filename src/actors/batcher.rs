//! The Batcher: an actor beside its replica that gathers calls and hands them over as batches.

mod bench;
mod pending;
mod port;
mod sent;
#[cfg(test)]
mod tests;

use std::{
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Instant,
};

use actix::{Actor, ActorFuture, AsyncContext};
use futures_util::future::LocalBoxFuture;

use crate::{
    actors::{context::ReplicaContext, timer::Timer},
    backend::Batch,
    batching::Decision,
    call::{Answer, Call, Request},
    error::ServeError,
    guard::{drop_guarded, guarded},
    meta::Meta,
};

use bench::Waiter;
pub(crate) use bench::{BatchSettings, Bench, CopyBatch};
use pending::{Pending, Seat, Seats};
pub(crate) use port::BatchPort;
pub(crate) use sent::{SentBatch, Whole};

/// Gathers calls for `M` and hands them to its replica as `Batch<M>`.
pub(crate) struct Batcher<M: Request> {
    bench: Arc<Bench<M>>,
}

impl<M: Request> Batcher<M> {
    pub(crate) fn new(bench: Arc<Bench<M>>) -> Self {
        Self { bench }
    }
}

impl<M: Request> Actor for Batcher<M> {
    type Context = ReplicaContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Pump { timer: Timer::new(self.bench.timer), message: PhantomData });
    }
}

/// Decides and sends; polled after every message that its Batcher takes and after every batch that ends.
struct Pump<M> {
    timer: Timer,
    message: PhantomData<fn(M)>,
}

impl<M: Request> ActorFuture<Batcher<M>> for Pump<M> {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        batcher: &mut Batcher<M>,
        ctx: &mut ReplicaContext<Batcher<M>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            let now = self.timer.now();
            let (state, ends) = batcher.bench.state();
            if ends.is_some_and(|at| at <= now) {
                batcher.bench.end_overdue(now);
                continue;
            }
            match batcher.bench.settings.policy().decide(state, now) {
                Decision::Hold => {
                    if batcher.bench.settings.sweep.swap(false, Relaxed) {
                        batcher.bench.sweep();
                    }
                    match ends {
                        Some(at) if self.timer.poll_until(at, cx).is_ready() => {}
                        _ => return Poll::Pending,
                    }
                }
                Decision::Until(at) => {
                    let at = ends.map_or(at, |ends| ends.min(at));
                    if self.timer.poll_until(at, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Decision::Leave(size) => {
                    let waiters = batcher.bench.take(size);
                    if waiters.is_empty() {
                        continue;
                    }
                    let running = RunningBatch::begin(&batcher.bench, waiters.len());
                    if let Some(rest) = send(&batcher.bench, waiters) {
                        // Owned by the loop, like every request that runs: a rebuild of this state ends none.
                        ctx.desk.incoming.borrow_mut().push(Box::pin(async move {
                            rest.await;
                            drop(running);
                        }));
                    } else {
                        // It ran on this stack; others on this thread get their turn before the next.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

/// Counts the requests of a batch while it runs.
struct RunningBatch<M: Request>(Arc<Bench<M>>, usize);

impl<M: Request> RunningBatch<M> {
    fn begin(bench: &Arc<Bench<M>>, size: usize) -> Self {
        bench.running.fetch_add(size, Relaxed);
        Self(Arc::clone(bench), size)
    }
}

impl<M: Request> Drop for RunningBatch<M> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(self.1, Relaxed);
    }
}

/// Hands a batch to the replica. `None`: it has been answered already.
fn send<M: Request>(bench: &Arc<Bench<M>>, waiters: Vec<Waiter<M>>) -> Option<LocalBoxFuture<'static, ()>> {
    let begun = Instant::now();
    bench.cells.batches.batch(waiters.len());
    bench.cells.begun(waiters.len());
    let mut seats = Vec::with_capacity(waiters.len());
    let (mut msgs, mut metas) = (Vec::with_capacity(waiters.len()), Vec::with_capacity(waiters.len()));
    for Waiter { call, permit, since } in waiters {
        bench.cells.queuing.latency(begun.saturating_duration_since(since));
        let (ends, limit) = (call.ends_at(), call.meta.own_limit());
        msgs.push(call.msg);
        metas.push(call.meta);
        seats.push(Seat { reply: call.reply, permit, ends, limit });
    }
    // A copy that panics leaves none: then the batch is not run again.
    let copy = bench.copy.filter(|_| msgs.len() > 1);
    let copy = copy.and_then(|copy| guarded(|| (copy(&msgs), metas.clone())).ok());
    let size = seats.len();
    let seats = Arc::new(Seats::new(seats));
    let sent = SentBatch { batch: Batch::new(msgs, metas), seats: Arc::clone(&seats) };
    let mut pending = Pending::new(seats, size, begun, Arc::clone(&bench.cells));
    match bench.target.call(sent, Meta::new()) {
        Answer::Now(result) => settle(bench, pending, result, copy),
        Answer::Refused(refusal) => {
            drop_guarded(copy);
            refusal.msg.turn_away(Some(&*bench.home), &refusal.why);
            None
        }
        Answer::Waiting(waiting) => {
            let bench = Arc::clone(bench);
            Some(Box::pin(async move {
                let mut waiting = waiting;
                let answered = std::future::poll_fn(|cx| match Pin::new(&mut waiting).poll(cx) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending if pending.poll_all_left(cx).is_ready() => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                });
                // With its last caller the batch ends.
                let Some(result) = answered.await else { return drop_guarded(copy) };
                if let Some(rest) = settle(&bench, pending, result, copy) {
                    rest.await;
                }
            }))
        }
    }
}

/// Answers the callers of a batch that ran; one that panicked is run again in halves where there is a copy.
fn settle<M: Request>(
    bench: &Arc<Bench<M>>,
    pending: Pending<M::Response>,
    result: <Batch<M> as actix::Message>::Result,
    copy: Option<(Vec<M>, Vec<Meta>)>,
) -> Option<LocalBoxFuture<'static, ()>> {
    match (result, copy) {
        (Err(ServeError::Panicked { .. }), Some((msgs, metas))) => {
            halves(Arc::clone(bench), pending, msgs, metas)
        }
        (result, copy) => {
            drop_guarded(copy);
            pending.distribute(result);
            None
        }
    }
}

/// Runs the two halves of a batch that panicked, one after the other, so that one poison item fails alone.
fn halves<M: Request>(
    bench: Arc<Bench<M>>,
    mut pending: Pending<M::Response>,
    msgs: Vec<M>,
    metas: Vec<Meta>,
) -> Option<LocalBoxFuture<'static, ()>> {
    let (seats, since) = pending.take();
    let waiters = msgs.into_iter().zip(metas).zip(seats).filter_map(|((msg, meta), seat)| match seat {
        Some(Seat { reply, permit, .. }) => Some(Waiter { call: Call { msg, meta, reply }, permit, since }),
        None => {
            drop_guarded(msg);
            None
        }
    });
    let mut first: Vec<_> = waiters.collect();
    let second = first.split_off(first.len() / 2);
    Some(Box::pin(async move {
        for half in [first, second].into_iter().filter(|half| !half.is_empty()) {
            if let Some(rest) = send(&bench, half) {
                rest.await;
            }
        }
    }))
}
