//! What one backend is and has: its code, its options, its replicas. Kept outside the Controller actor, so that
//! its restart loses nothing.

mod claims;
mod rollout;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use actix::Arbiter;
use tokio::sync::oneshot;

use crate::{
    actors::{
        backend_state::BackendState,
        build::Code,
        gpus::Tenure,
        lane::ReplicaControl,
        reconcile::{Aim, Configuration, Observed, Progress, ReplicaState},
        threads::ServingThread,
    },
    config::{BackendConfig, BackendDecl, Source, UserConfig},
    endpoint::Checked,
    error::ServeError,
    health::{Ejector, Recent, Record},
    ids::{BackendName, EndpointName, ReplicaId},
    metrics::{cells::ReplicaCells, registry::BackendMetrics, spread::Spread},
    resources::{Capacity, Pool},
    routing::{backend_port::ReplicaPorts, backend_routes::BackendRoutes, endpoint::EndpointSlot},
    traffic::window::Window,
};

/// Everything that the Controller was told and everything that runs because of it.
pub(crate) struct Fleet {
    pub(crate) backends: BTreeMap<BackendName, BackendEntry>,
    pub(crate) endpoints: BTreeMap<EndpointName, EndpointEntry>,
    /// Restored backends whose code is not there yet.
    pub(crate) awaiting: BTreeMap<BackendName, Awaiting>,
    /// Highest generation of backends that are gone; new ones go on from there, so that late news of old replicas
    /// are not taken for news of new ones.
    pub(crate) generation: u64,
    /// What replicas have, and what is left for others.
    pub(crate) pool: Pool,
}

impl Fleet {
    pub(crate) fn new(capacity: Capacity) -> Self {
        let pool = Pool::new(capacity);
        let (backends, endpoints, awaiting) = Default::default();
        Self { backends, endpoints, awaiting, generation: 0, pool }
    }
}

/// A backend that was restored and whose code is not there yet.
pub(crate) struct Awaiting {
    pub(crate) decl: BackendDecl,
    pub(crate) routes: Arc<BackendRoutes>,
    pub(crate) since: Instant,
    /// Code that needs no program to give it; taken when the Controller starts.
    pub(crate) code: Option<Arc<dyn Code>>,
    /// Why the code that was given could not be used.
    pub(crate) reason: Option<Box<str>>,
}

/// One endpoint as it is.
pub(crate) struct EndpointEntry {
    pub(crate) declared: Checked,
    /// Restored, and not yet made again by the program.
    pub(crate) unclaimed: bool,
    pub(crate) slot: Arc<EndpointSlot>,
    /// Every backend that its requests went to in the last minute, or may go to now.
    pub(crate) seen: Vec<Seen>,
}

/// How many requests of an endpoint went to one backend, and lately.
pub(crate) struct Seen {
    pub(crate) backend: BackendName,
    pub(crate) requests: Arc<Spread>,
    pub(crate) window: Window,
}

impl EndpointEntry {
    /// Whether calls or copies go to this backend.
    pub(crate) fn names(&self, backend: &BackendName) -> bool {
        self.declared.traffic.weight(backend).is_some()
            || self.declared.shadows.iter().any(|rule| rule.backend() == backend)
    }

    /// Takes a look at all counters; forgets backends that are not in the policy and had nothing to do lately.
    pub(crate) fn sample(&mut self, now: tokio::time::Instant) {
        let traffic = &self.declared.traffic;
        self.seen.retain_mut(|seen| {
            let total = seen.requests.total();
            seen.window.sample(now, total);
            traffic.weight(&seen.backend).is_some() || seen.window.growth(now, total).0 > 0
        });
    }
}

pub(crate) use claims::{Claims, no_resources};
pub(crate) use rollout::{Target, Wish, same_code};

/// Who waits for a change, and what for.
pub(crate) type Waiter = oneshot::Sender<Result<(), ServeError>>;

/// One backend as it is.
pub(crate) struct BackendEntry {
    /// What its replicas are made from: the code and its origin, and the number of this release.
    pub(crate) code: Arc<dyn Code>,
    pub(crate) source: Source,
    pub(crate) release: u64,
    pub(crate) config: BackendConfig,
    /// What was wanted before the changes that are under way; a change that fails goes back to it.
    pub(crate) before: Option<Target>,
    /// What the program had given, if anything, before those of these changes that it makes; none: it makes none.
    pub(crate) given_before: Option<Option<BackendDecl>>,
    /// Releases so far, those that were given up too.
    pub(crate) releases: u64,
    /// Code that nobody wants any more; dropped where nothing is locked.
    pub(crate) retired: Vec<Arc<dyn Code>>,
    /// It was there before this process was: it stays when its replicas do not start.
    pub(crate) restored: bool,
    pub(crate) state: BackendState,
    pub(crate) since: Instant,
    /// Calls wait while its last replica is replaced.
    pub(crate) holding: bool,
    /// When the change that is under way, or the last one, began.
    pub(crate) changed: tokio::time::Instant,
    /// When a thread is looked for again, while there is none.
    pub(crate) look_again: Option<tokio::time::Instant>,
    /// Since when there has been none.
    pub(crate) threadless: Option<tokio::time::Instant>,
    pub(crate) routes: Arc<BackendRoutes>,
    pub(crate) replicas: Vec<ReplicaEntry>,
    pub(crate) claims: Claims,
    pub(crate) metrics: Arc<BackendMetrics>,
    pub(crate) generation: u64,
    /// Changes of a replica's `user_config` so far, failed ones too.
    pub(crate) changes: u64,
    /// Why it could not be created, told when everything of it is gone; or why a change failed, told when every
    /// replica is as it was before.
    pub(crate) failure: Option<ServeError>,
    pub(crate) last_error: Option<Box<str>>,
    /// When the last round of health checks began.
    pub(crate) checked: tokio::time::Instant,
    pub(crate) ejector: Ejector,
    /// Replacements that failed in a row.
    pub(crate) failed_replacements: u32,
    /// Who waits for it to be made or changed.
    pub(crate) waiters: Vec<Waiter>,
    /// Who waits for it to be gone.
    pub(crate) deleters: Vec<Waiter>,
}

/// One replica as it is.
pub(crate) struct ReplicaEntry {
    pub(crate) id: ReplicaId,
    /// The release that it was made from, and the version that it had.
    pub(crate) release: u64,
    pub(crate) version: Option<String>,
    pub(crate) state: ReplicaState,
    pub(crate) since: Instant,
    /// Why it is in this state.
    pub(crate) reason: Option<Box<str>>,
    /// When it is stopped by force, once it drains.
    pub(crate) drains_until: Option<tokio::time::Instant>,
    pub(crate) control: Arc<dyn ReplicaControl>,
    pub(crate) ports: Arc<ReplicaPorts>,
    /// The `user_config` that it has, or starts with.
    pub(crate) config: Option<UserConfig>,
    /// The one that it is being given.
    pub(crate) changing: Option<Changing>,
    /// Places of the GPUs that it has shares of: those of one of the backend's claims.
    pub(crate) gpus: Vec<usize>,
    /// What it has of them: taken back when the replica is gone, even if its thread hangs.
    pub(crate) tenure: Tenure,
    /// Its health checks.
    pub(crate) record: Record,
    /// Its answers of late.
    pub(crate) recent: Recent,
    pub(crate) cells: Arc<ReplicaCells>,
    /// Given back when the replica is gone.
    pub(crate) seat: Seat,
}

/// A change of a replica's `user_config` under way.
pub(crate) struct Changing {
    pub(crate) to: Option<UserConfig>,
    /// Which change of its backend it is.
    pub(crate) attempt: u64,
    pub(crate) since: Instant,
}

/// The thread that a replica lives on.
pub(crate) enum Seat {
    /// One that serves others too.
    Shared(Arc<ServingThread>),
    /// One of its own.
    Own(Option<Arbiter>),
}

impl Seat {
    /// The replica did not answer.
    pub(crate) fn note_silence(&self) {
        if let Self::Shared(thread) = self {
            thread.note_silence();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        match self {
            Self::Shared(thread) => {
                thread.replicas.fetch_sub(1, Ordering::Relaxed);
            }
            Self::Own(arbiter) => {
                if let Some(arbiter) = arbiter.take() {
                    arbiter.stop();
                }
            }
        }
    }
}

impl BackendEntry {
    /// Replicas as the reconciler sees them.
    pub(crate) fn observed(&self) -> Vec<Observed> {
        let observed = self.replicas.iter().map(|r| Observed {
            slot: r.id.slot,
            generation: r.id.generation,
            release: r.release,
            state: r.state,
            changing: r.changing.is_some(),
        });
        observed.collect()
    }

    /// Replicas wanted now.
    pub(crate) fn wanted(&self) -> u32 {
        if self.deleting() { 0 } else { self.config.num_replicas }
    }

    /// What the reconciler aims at.
    pub(crate) fn aim(&self) -> Aim {
        Aim { replicas: self.wanted(), release: self.release, room: self.claims.len() }
    }

    pub(crate) fn deleting(&self) -> bool {
        self.state == BackendState::Deleting
    }

    /// Whether all its replicas have once been ready, if in another process.
    pub(crate) fn created(&self) -> bool {
        self.restored || self.state.made()
    }

    /// The replicas that take calls, and how far they are with the `user_config`.
    pub(crate) fn configured(&self) -> Vec<Configuration> {
        let running = self.replicas.iter().filter(|r| r.state == ReplicaState::Running);
        let configured = running.map(|r| Configuration {
            generation: r.id.generation,
            progress: match &r.changing {
                Some(_) => Progress::Changing,
                None if r.config == self.config.user_config => Progress::Current,
                None => Progress::Behind,
            },
        });
        configured.collect()
    }

    /// Whether everything is as it should be.
    pub(crate) fn settled(&self) -> bool {
        let wanted = usize::try_from(self.wanted()).unwrap_or(usize::MAX);
        let done = |r: &ReplicaEntry| {
            r.state == ReplicaState::Running
                && r.release == self.release
                && r.changing.is_none()
                && r.config == self.config.user_config
        };
        self.replicas.len() == wanted && self.replicas.iter().all(done)
    }

    /// Whether a change of it is under way, its making among them.
    pub(crate) fn changing(&self) -> bool {
        !self.created() || self.before.is_some() || self.failure.is_some()
    }

    /// Whether the `user_config` is a new one, not yet known to be taken; otherwise whoever has another goes back.
    pub(crate) fn trying(&self) -> bool {
        self.before.as_ref().is_some_and(|before| before.config.user_config != self.config.user_config)
    }

    pub(crate) fn replica(&mut self, generation: u64) -> Option<&mut ReplicaEntry> {
        self.replicas.iter_mut().find(|r| r.id.generation == generation)
    }

    /// From now on it goes, and `deleter` is told when it is gone. Those who wait for something else of it get
    /// `why`; those who deleted it before wait on.
    pub(crate) fn delete(&mut self, why: ServeError, deleter: Waiter) {
        if !self.deleting() {
            self.answer(&Err(why));
        }
        self.enter(BackendState::Deleting);
        self.deleters.push(deleter);
    }

    /// Takes a replica out; its thread, if its own, ends.
    pub(crate) fn remove(&mut self, generation: u64) {
        self.replicas.retain(|r| r.id.generation != generation);
        self.metrics.retire(generation);
    }

    /// Lets the ready replicas take calls, and no others; shares the queue's room among them.
    pub(crate) fn publish(&self) {
        let mut running: Vec<_> = self.replicas.iter().filter(|r| r.state == ReplicaState::Running).collect();
        running.sort_by_key(|r| (r.id.slot, r.id.generation));
        for (i, replica) in running.iter().enumerate() {
            replica.control.set_limits(&self.config, admitted(&self.config, running.len(), i));
        }
        self.routes.set_timeout(self.config.request_timeout);
        let ports: Vec<_> = running.iter().map(|r| (r.id.clone(), Arc::clone(&r.ports))).collect();
        self.routes.publish(&ports);
    }

    /// It is gone: whoever failed to make it is told why, whoever deleted it that it is done.
    pub(crate) fn gone(&mut self) {
        let outcome = self.failure.take().map_or(Ok(()), Err);
        self.answer(&outcome);
        for deleter in self.deleters.drain(..) {
            let _ = deleter.send(Ok(()));
        }
    }

    /// Answers everybody who waits for the change that has just ended.
    pub(crate) fn answer(&mut self, result: &Result<(), ServeError>) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(result.clone());
        }
    }
}

/// Calls that the `i`th of `n` replicas lets in: those it runs at once and its share of the backend's queue.
/// The shares add up to `max_queued_queries` exactly.
pub(crate) fn admitted(config: &BackendConfig, n: usize, i: usize) -> usize {
    let (queued, n) = (config.max_queued_queries, n.max(1));
    config.max_concurrent_queries.get() + queued / n + usize::from(i < queued % n)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_shares_of_the_queue_add_up_and_differ_by_one_at_most(
            queued in 0_usize..5_000,
            running in 1_usize..500,
            n in 1_usize..64,
        ) {
            let config = BackendConfig::default().max_queued_queries(queued).max_concurrent_queries(running);
            let shares: Vec<_> = (0..n).map(|i| admitted(&config, n, i)).collect();
            prop_assert_eq!(shares.iter().sum::<usize>(), queued + running * n);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(*least >= running && most - least <= 1);
        }
    }
}
