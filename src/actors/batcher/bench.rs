//! The bench: calls that wait for a batch, kept apart from the Batcher's state, which may be made again.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    actors::{batcher::SentBatch, lane_port::turn_away, timer::TimerKind},
    batching::{BatchPolicy, BatchState},
    call::{Call, Permit, Request},
    guard::{drop_guarded, guarded},
    metrics::cells::ReplicaCells,
    port::{Home, Port},
};

/// The batching options of a replica, changed while it runs.
#[derive(Debug, Default)]
pub(crate) struct BatchSettings {
    size_max: AtomicUsize,
    wait_ns: AtomicU64,
    running_max: AtomicUsize,
    /// Somebody was refused: callers that have left must not hold a place.
    pub(super) sweep: AtomicBool,
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

    pub(super) fn policy(&self) -> BatchPolicy {
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
    pub(crate) target: Arc<dyn Port<SentBatch<M>>>,
    pub(crate) home: Arc<dyn Home>,
    pub(crate) settings: Arc<BatchSettings>,
    pub(crate) cells: Arc<ReplicaCells>,
    pub(crate) timer: TimerKind,
    /// Set for idempotent backends: a batch that panicked is run again in halves.
    pub(crate) copy: Option<CopyBatch<M>>,
    pub(crate) queue: Mutex<Queue<M>>,
    /// Requests in batches that run.
    pub(crate) running: AtomicUsize,
}

/// A call that waits for company.
pub(crate) struct Waiter<M: Request> {
    pub(super) call: Call<M>,
    pub(super) permit: Permit,
    pub(super) since: Instant,
}

impl<M: Request> Waiter<M> {
    /// When the Batcher must end it; none: its caller leaves by itself.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.call.ends_at().map(tokio::time::Instant::into_std)
    }
}

/// Calls in the order in which they came.
pub(crate) struct Queue<M: Request> {
    waiters: VecDeque<Waiter<M>>,
    /// None of them has to be ended before this; none: none has to be at all.
    ends: Option<Instant>,
}

impl<M: Request> Default for Queue<M> {
    fn default() -> Self {
        Self { waiters: VecDeque::new(), ends: None }
    }
}

impl<M: Request> Bench<M> {
    fn queue(&self) -> MutexGuard<'_, Queue<M>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, waiter: Waiter<M>) {
        let mut queue = self.queue();
        if let Some(at) = waiter.ends_at() {
            queue.ends = Some(queue.ends.map_or(at, |first| first.min(at)));
        }
        queue.waiters.push_back(waiter);
    }

    /// What the batching policy decides by, and when a call that waits must be ended at the earliest.
    pub(super) fn state(&self) -> (BatchState, Option<Instant>) {
        let queue = self.queue();
        let oldest = queue.waiters.front().map(|first| first.since);
        let state = BatchState { queued: queue.waiters.len(), oldest, running: self.running.load(Relaxed) };
        (state, queue.ends)
    }

    /// The next `n` calls whose callers are still there.
    pub(super) fn take(&self, n: usize) -> Vec<Waiter<M>> {
        let (mut taken, mut gone) = (Vec::with_capacity(n), VecDeque::new());
        {
            let mut queue = self.queue();
            while taken.len() < n {
                let Some(waiter) = queue.waiters.pop_front() else { break };
                let late = waiter.call.reply.is_closed() || waiter.call.meta.expired();
                if late { gone.push_back(waiter) } else { taken.push(waiter) }
            }
            if queue.waiters.is_empty() {
                queue.ends = None;
            }
        }
        self.expire(gone);
        taken
    }

    /// Takes those out of the queue that `goes` names.
    fn pick_out(&self, goes: impl Fn(&Waiter<M>) -> bool) -> VecDeque<Waiter<M>> {
        let mut queue = self.queue();
        let waiters = std::mem::take(&mut queue.waiters).into_iter();
        let (gone, kept) = waiters.partition(goes);
        queue.waiters = kept;
        queue.ends = queue.waiters.iter().filter_map(Waiter::ends_at).min();
        gone
    }

    /// Lets go of calls whose callers have left.
    pub(super) fn sweep(&self) {
        self.pick_out(|waiter| waiter.call.reply.is_closed()).into_iter().for_each(drop_guarded);
    }

    /// Ends the calls whose deadlines nobody else keeps and have passed.
    pub(super) fn end_overdue(&self, now: Instant) {
        self.expire(self.pick_out(|waiter| waiter.ends_at().is_some_and(|at| at <= now)));
    }

    /// What waits goes to siblings, or is told that it never began. From any thread: its own may hang.
    pub(crate) fn turn_away(&self) {
        let waiters = {
            let mut queue = self.queue();
            queue.ends = None;
            std::mem::take(&mut queue.waiters)
        };
        for Waiter { call, permit, .. } in waiters {
            drop(permit);
            // A message whose drop panics must not take its neighbours along.
            let _ = guarded(|| turn_away(call, Some(&*self.home), self.home.gone()));
        }
    }

    fn expire(&self, gone: VecDeque<Waiter<M>>) {
        for Waiter { call, permit, .. } in gone {
            drop(permit);
            if call.expire() {
                self.cells.expired.add(1);
            }
        }
    }
}

impl<M: Request> Drop for Bench<M> {
    fn drop(&mut self) {
        self.turn_away();
    }
}
