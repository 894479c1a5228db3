//! The Batcher: an actor beside its replica that gathers calls and hands them over as batches.

mod pending;
mod port;

use std::{
    collections::VecDeque,
    marker::PhantomData,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix::{Actor, ActorFuture, AsyncContext};
use futures_util::future::LocalBoxFuture;

use crate::{
    actors::{
        context::ReplicaContext,
        lane_port::turn_away,
        timer::{Timer, TimerKind},
    },
    backend::Batch,
    batching::{BatchPolicy, BatchState, Decision},
    call::{Answer, Call, Permit, Refusal, Reply, Request},
    error::ServeError,
    guard::{drop_guarded, guarded},
    meta::Meta,
    metrics::cells::ReplicaCells,
    port::{Home, Port},
};

use pending::Pending;
pub(crate) use port::BatchPort;

/// The batching options of a replica, changed while it runs.
#[derive(Debug, Default)]
pub(crate) struct BatchSettings {
    size_max: AtomicUsize,
    wait_ns: AtomicU64,
    running_max: AtomicUsize,
    /// Somebody was refused: callers that have left must not hold a place.
    sweep: AtomicBool,
}

impl BatchSettings {
    pub(crate) fn set(&self, size_max: usize, wait: Duration, running_max: usize) {
        self.size_max.store(size_max.max(1), Relaxed);
        self.wait_ns.store(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.running_max.store(running_max, Relaxed);
    }

    /// Requests that run at once.
    pub(crate) fn running_max(&self) -> usize {
        self.running_max.load(Relaxed)
    }

    fn policy(&self) -> BatchPolicy {
        BatchPolicy {
            size_max: self.size_max.load(Relaxed),
            wait: Duration::from_nanos(self.wait_ns.load(Relaxed)),
            running_max: self.running_max.load(Relaxed),
        }
    }
}

/// A copy of a batch, where its messages can be copied.
pub(crate) type CopyBatch<M> = fn(&[M]) -> Vec<M>;

/// What a Batcher works with; outlives its state, so that a restart loses no waiting call.
pub(crate) struct Bench<M: Request> {
    pub(crate) target: Arc<dyn Port<Batch<M>>>,
    pub(crate) home: Arc<dyn Home>,
    pub(crate) settings: Arc<BatchSettings>,
    pub(crate) cells: Arc<ReplicaCells>,
    pub(crate) timer: TimerKind,
    /// Set for idempotent backends: a batch that panicked is run again in halves.
    pub(crate) copy: Option<CopyBatch<M>>,
    pub(crate) queue: Mutex<VecDeque<Waiter<M>>>,
    /// Requests in batches that run.
    pub(crate) running: AtomicUsize,
}

/// A call that waits for company.
pub(crate) struct Waiter<M: Request> {
    call: Call<M>,
    permit: Permit,
    since: Instant,
}

impl<M: Request> Bench<M> {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Waiter<M>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `n` calls whose callers are still there.
    fn take(&self, n: usize) -> Vec<Waiter<M>> {
        let (mut taken, mut gone) = (Vec::with_capacity(n), Vec::new());
        {
            let mut queue = self.queue();
            while taken.len() < n {
                let Some(waiter) = queue.pop_front() else { break };
                let late = waiter.call.reply.is_closed() || waiter.call.meta.expired();
                if late { gone.push(waiter) } else { taken.push(waiter) }
            }
        }
        for Waiter { call: Call { msg, reply, .. }, permit, .. } in gone {
            drop(permit);
            reply.send(Err(ServeError::DeadlineExceeded));
            drop_guarded(msg);
        }
        taken
    }
}

impl<M: Request> Bench<M> {
    /// Lets go of calls whose callers have left.
    fn sweep(&self) {
        let gone: VecDeque<_> = {
            let mut queue = self.queue();
            let (gone, kept) =
                std::mem::take(&mut *queue).into_iter().partition(|waiter| waiter.call.reply.is_closed());
            *queue = kept;
            gone
        };
        gone.into_iter().for_each(drop_guarded);
    }
}

impl<M: Request> Drop for Bench<M> {
    fn drop(&mut self) {
        for Waiter { call, .. } in std::mem::take(&mut *self.queue()) {
            let _ = guarded(|| turn_away(call, Some(&*self.home), self.home.gone()));
        }
    }
}

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
            let (queued, oldest) = {
                let queue = batcher.bench.queue();
                (queue.len(), queue.front().map(|first| first.since))
            };
            let state = BatchState { queued, oldest, running: batcher.bench.running.load(Relaxed) };
            match batcher.bench.settings.policy().decide(state, now) {
                Decision::Hold => {
                    if batcher.bench.settings.sweep.swap(false, Relaxed) {
                        batcher.bench.sweep();
                    }
                    return Poll::Pending;
                }
                Decision::Until(at) => {
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
    let mut replies = Vec::with_capacity(waiters.len());
    let (mut msgs, mut metas) = (Vec::with_capacity(waiters.len()), Vec::with_capacity(waiters.len()));
    for Waiter { call, permit, since } in waiters {
        bench.cells.queuing.latency(begun.saturating_duration_since(since));
        msgs.push(call.msg);
        metas.push(call.meta);
        replies.push((call.reply, permit));
    }
    // A copy that panics leaves none: then the batch is not run again.
    let copy = bench.copy.filter(|_| msgs.len() > 1);
    let copy = copy.and_then(|copy| guarded(|| (copy(&msgs), metas.clone())).ok());
    let mut pending = Pending { replies, begun, cells: Arc::clone(&bench.cells) };
    match bench.target.call(Batch::new(msgs, metas), Meta::new()) {
        Answer::Now(result) => settle(bench, pending, result, copy),
        Answer::Refused(Refusal { msg: batch, why, .. }) => {
            drop_guarded(copy);
            pending.turn_away(bench, batch, &why);
            None
        }
        Answer::Waiting(waiting) => {
            let bench = Arc::clone(bench);
            Some(Box::pin(async move {
                let mut waiting = waiting;
                let answered = std::future::poll_fn(|cx| match Pin::new(&mut waiting).poll(cx) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending if pending.all_left(cx) => Poll::Ready(None),
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
            pending.distribute(bench, result);
            None
        }
    }
}

/// Runs the two halves of a batch that panicked, one after the other, so that one poison item fails alone.
fn halves<M: Request>(
    bench: Arc<Bench<M>>,
    mut pending: Pending<M::Response>,
    mut msgs: Vec<M>,
    mut metas: Vec<Meta>,
) -> Option<LocalBoxFuture<'static, ()>> {
    let (mut replies, begun) = pending.take();
    let middle = msgs.len() / 2;
    let second = zip(msgs.split_off(middle), metas.split_off(middle), replies.split_off(middle), begun);
    let first = zip(msgs, metas, replies, begun);
    Some(Box::pin(async move {
        for half in [first, second] {
            if let Some(rest) = send(&bench, half) {
                rest.await;
            }
        }
    }))
}

fn zip<M: Request>(
    msgs: Vec<M>,
    metas: Vec<Meta>,
    replies: Vec<(Reply<M::Response>, Permit)>,
    since: Instant,
) -> Vec<Waiter<M>> {
    let parts = msgs.into_iter().zip(metas).zip(replies);
    parts
        .map(|((msg, meta), (reply, permit))| Waiter { call: Call { msg, meta, reply }, permit, since })
        .collect()
}
