//! How a replica and the batchers beside it are steered from outside.

use std::sync::{Arc, Weak};

use actix::Actor;

use crate::{
    actors::{
        batcher::{BatchSettings, Batcher, Bench},
        configure::Change,
        context::ReplicaContext,
        lane::{Command, Lane, ReplicaControl, Stop},
    },
    call::Request,
    config::BackendConfig,
};

/// A Batcher, steered by its replica.
pub(crate) trait Beside: Stop {
    fn wake(&self);
    fn close(&self);
}

/// The way to a Batcher: what is on its way to it, and what it has gathered.
pub(crate) struct BatcherControl<M: Request> {
    pub(crate) lane: Arc<Lane<Batcher<M>>>,
    /// It ends with its Batcher.
    pub(crate) bench: Weak<Bench<M>>,
}

impl<M: Request> Stop for BatcherControl<M> {
    fn stop(&self) {
        self.lane.stop();
    }
}

impl<M: Request> Beside for BatcherControl<M> {
    fn wake(&self) {
        self.lane.waker().wake();
    }

    fn close(&self) {
        self.lane.close();
        if let Some(bench) = self.bench.upgrade() {
            bench.turn_away();
        }
    }
}

/// A replica and the batchers beside it, steered together.
pub(crate) struct Control<A: Actor<Context = ReplicaContext<A>>> {
    pub(crate) lane: Arc<Lane<A>>,
    pub(crate) settings: Arc<BatchSettings>,
    pub(crate) batchers: Vec<Arc<dyn Beside>>,
}

impl<A: Actor<Context = ReplicaContext<A>>> ReplicaControl for Control<A> {
    fn drain(&self) {
        self.lane.command(Command::Drain);
    }

    fn stop(&self) {
        self.lane.command(Command::Stop);
    }

    fn change(&self, change: Change) {
        self.lane.change(change);
    }

    fn withdraw(&self) -> bool {
        self.lane.withdraw()
    }

    fn check(&self, number: u64) {
        self.lane.check(number);
    }

    fn remaking(&self) -> bool {
        self.lane.gate.is_idle()
    }

    fn close(&self) {
        self.lane.close();
        self.batchers.iter().for_each(|batcher| batcher.close());
    }

    fn set_limits(&self, config: &BackendConfig, admitted: usize) {
        let concurrency = config.max_concurrent_queries.get();
        self.lane.gate.set_limit(admitted);
        self.lane.set_concurrency(concurrency);
        let size = config.max_batch_size.map_or(1, std::num::NonZeroUsize::get);
        self.settings.set(size, config.batch_wait_timeout, concurrency);
        // What waits is decided on anew.
        self.batchers.iter().for_each(|batcher| batcher.wake());
    }

    fn load(&self) -> usize {
        self.lane.gate.load()
    }
}
