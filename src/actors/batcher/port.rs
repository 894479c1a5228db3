//! The port of a batched replica, and a call on its way into the Batcher's queue.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    actors::{
        batcher::{BatchSettings, Batcher, Waiter},
        context::ReplicaContext,
        execute::Form,
        lane::{Job, Lane},
        lane_port::{admit, turn_away},
    },
    call::{Call, Gate, Permit, Refusal},
    error::ServeError,
    ids::BackendName,
    metrics::cells::ReplicaCells,
    port::{Home, Port},
};

/// The port of a batched replica: calls for `F::Outer` wait in its Batcher.
pub(crate) struct BatchPort<F: Form> {
    backend: BackendName,
    lane: Arc<Lane<Batcher<F::Inner>>>,
    /// The replica's gate, which also counts what waits here.
    gate: Arc<Gate>,
    settings: Arc<BatchSettings>,
}

impl<F: Form> BatchPort<F> {
    pub(crate) fn new(
        backend: BackendName,
        lane: Arc<Lane<Batcher<F::Inner>>>,
        gate: Arc<Gate>,
        settings: Arc<BatchSettings>,
    ) -> Self {
        Self { backend, lane, gate, settings }
    }
}

impl<F: Form> BatchPort<F> {
    /// As [`Lane::sweep`], and asks the Batcher to do the same with what it has gathered.
    fn sweep(&self) -> bool {
        let looked = self.lane.sweep();
        if looked {
            self.settings.sweep.store(true, Relaxed);
            self.lane.waker().wake();
        }
        looked
    }
}

impl<F: Form> Port<F::Outer> for BatchPort<F> {
    fn deliver(&self, call: Call<F::Outer>, admitted: bool) -> Result<(), Refusal<F::Outer>> {
        let (call, permit) = admit(&self.gate, &self.backend, call, admitted, || self.sweep())?;
        let job = TakeJob::<F> { call, permit, since: tokio::time::Instant::now().into_std() };
        self.lane
            .push::<TakeJob<F>>(Box::new(job))
            .map_err(|job| Refusal::of(job.call, ServeError::never_began(&self.backend)))
    }

    fn load(&self) -> usize {
        self.gate.burden()
    }

    fn concurrency(&self) -> usize {
        self.settings.running_max()
    }

    fn thread(&self) -> u64 {
        self.lane.place().map_or(0, |(thread, _)| thread)
    }
}

/// A call on its way to a Batcher.
struct TakeJob<F: Form> {
    call: Call<F::Outer>,
    permit: Permit,
    since: Instant,
}

impl<F: Form> Job<Batcher<F::Inner>> for TakeJob<F> {
    fn abandoned(&self) -> bool {
        self.call.reply.is_closed()
    }

    fn run(self: Box<Self>, batcher: &mut Batcher<F::Inner>, ctx: &mut ReplicaContext<Batcher<F::Inner>>) {
        let Self { call: Call { msg, meta, reply }, permit, since } = *self;
        match ctx.desk.guard(|| F::open(msg)) {
            Ok(Ok(msg)) => {
                let reply = F::inner_reply(reply);
                batcher.bench.push(Waiter { call: Call { msg, meta, reply }, permit, since });
            }
            Ok(Err(error)) => {
                batcher.bench.cells.answered(Duration::ZERO, Some(&error));
                reply.send(Err(error));
            }
            Err(message) => {
                let error = ServeError::Panicked { message };
                batcher.bench.cells.answered(Duration::ZERO, Some(&error));
                reply.send(Err(error));
            }
        }
    }

    /// The Batcher takes it at once; where it waits then, its deadline is kept.
    fn ends_at(&self) -> Option<tokio::time::Instant> {
        None
    }

    fn expire(self: Box<Self>, _: &ReplicaCells) {
        let Self { call, permit, .. } = *self;
        drop(permit);
        call.expire();
    }

    fn turn_away(self: Box<Self>, home: Option<&dyn Home>, why: ServeError) {
        let Self { call, permit, .. } = *self;
        drop(permit);
        turn_away(call, home, why);
    }
}
