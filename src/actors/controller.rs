//! The Controller: one actor that owns what should exist, and makes it so. Never on a request's path.

mod awaiting;
mod backends;
mod changes;
mod deleting;
mod draining;
mod ending;
mod endpoints;
mod events;
mod health;
mod holding;
mod losing;
mod memory;
mod office;
mod opening;
mod reading;
mod resolved;
mod resuming;
mod whole;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{Arbiter, AsyncContext, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        build::{Built, Order},
        context::ReplicaContext,
        fleet::{BackendEntry, Fleet, ReplicaEntry, Seat, admitted},
        identity::Identity,
        reconcile::{Action, ReplicaState, next_actions},
    },
    config::Placement,
    error::ServeError,
    guard::drop_guarded,
    health::{Recent, Record},
    ids::{BackendName, ReplicaId},
};

pub(crate) use awaiting::{AwaitCode, CodeGiven, restore};
pub(crate) use backends::{CreateBackend, DeployBackend, UpdateBackend};
pub(crate) use deleting::DeleteBackend;
use draining::drain;
pub(crate) use ending::{Crash, DrainAll};
pub(crate) use endpoints::{CreateEndpoint, DeleteEndpoint, SetShadow, SetTraffic};
use events::{Happened, StartTimedOut};
pub(crate) use memory::Memory;
pub(crate) use office::Office;
pub(crate) use resolved::Resolved;
pub(crate) use whole::{Quiet, SetEndpoints};

/// How long a replica that was told to stop may take before it is given up for lost.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// Owns what should exist and makes it so.
pub(crate) struct Controller {
    office: Arc<Office>,
    sweeps: health::Sweeps,
}

type Outcome = Result<(), ServeError>;

impl Controller {
    pub(crate) fn new(office: Arc<Office>) -> Self {
        Self { office, sweeps: health::Sweeps::default() }
    }

    /// Takes the steps that lead from what is there to what is wanted, and answers who waited for it.
    fn reconcile(&self, name: &BackendName, ctx: &mut ReplicaContext<Self>) {
        let mut fleet = self.office.fleet();
        let Fleet { backends, pool, .. } = &mut *fleet;
        let Some(entry) = backends.get_mut(name) else { return };
        entry.surge(pool);
        let mut released = None;
        for action in next_actions(entry.aim(), &entry.observed()) {
            match action {
                Action::Start(slot) if self.start(name, entry, slot, ctx) => entry.threadless = None,
                Action::Start(_) => {
                    released = self.no_thread(name, entry, ctx);
                    break;
                }
                Action::Drain(generation) => drain(name, entry, generation, ctx),
            }
        }
        entry.publish();
        self.watch(entry, ctx);
        // While replicas are replaced those that are new stay as they are: few enough take calls.
        if !entry.deleting() && !entry.rolling() {
            changes::advance(name, entry, ctx);
        }
        let settled = !entry.deleting() && entry.settled();
        let failure = if settled { entry.failure.take() } else { None };
        if settled {
            entry.take_over(&self.office.models);
            entry.failed_replacements = 0;
        }
        entry.look();
        entry.give_back(pool);
        if entry.hold_is_over() {
            released = released.or(entry.unhold());
        }
        let retired = std::mem::take(&mut entry.retired);
        let mut removed = None;
        if entry.deleting() && entry.replicas.is_empty() {
            entry.gone();
            let generation = entry.generation;
            fleet.generation = fleet.generation.max(generation);
            removed = fleet.backends.remove(name);
            self.office.models.remove(name);
            self.office.metrics.registry.forget_backend(name);
        } else if settled {
            entry.answer(&failure.map_or(Ok(()), Err));
        }
        // With the fleet at rest: messages and code are dropped with what the user put there.
        drop(fleet);
        released.iter().for_each(|routes| routes.let_go());
        drop_guarded((retired, removed));
    }

    /// Starts a replica; false when there is no thread for it.
    fn start(
        &self,
        name: &BackendName,
        entry: &mut BackendEntry,
        slot: u32,
        ctx: &mut ReplicaContext<Self>,
    ) -> bool {
        let placement = entry.code.placement(&entry.config);
        let own = placement == Placement::Dedicated && !self.office.one_thread;
        let thread = if own { None } else { self.office.threads.emptiest() };
        if !own && thread.is_none() {
            return false;
        }
        // A system without room for another thread has none now.
        let mut arbiter = None;
        if own {
            let Ok(made) = Arbiter::try_new() else { return false };
            arbiter = Some(made);
        }
        entry.generation += 1;
        let generation = entry.generation;
        let id = ReplicaId { backend: name.clone(), slot, generation };
        let cells = entry.metrics.enter(slot, generation);
        let gpus = entry.next_gpus();
        let leases = self.office.gpus.leases(&entry.config, &gpus, slot, &entry.metrics);
        let tenure = leases.tenure();
        let controller = ctx.address();
        let backend = name.clone();
        let Built { control, ports, start } = entry.code.build(Order {
            identity: Arc::new(Identity {
                replica: id.clone(),
                num_threads: entry.config.threads(),
                batch_size_max: entry.config.max_batch_size.map_or(1, std::num::NonZeroUsize::get),
                directory: Arc::clone(&self.office.directory),
            }),
            config: entry.config.clone(),
            leases,
            admitted: admitted(&entry.config, 1, 0),
            home: Arc::clone(&entry.routes),
            cells: Arc::clone(&cells),
            batcher_cells: self.office.directory.own_actors("batcher"),
            recorder: Some(self.office.metrics.recorder_for(&id)),
            timer: self.office.timer,
            on_event: Arc::new(move |event| {
                controller.do_send(Happened { backend: backend.clone(), generation, event });
            }),
        });
        let seat = match thread {
            Some(thread) => {
                thread.replicas.fetch_add(1, Ordering::Relaxed);
                thread.run(start);
                Seat::Shared(thread)
            }
            None => {
                if let Some(arbiter) = &arbiter {
                    arbiter.spawn_fn(start);
                }
                Seat::Own(arbiter)
            }
        };
        ctx.notify_later(StartTimedOut { backend: name.clone(), generation }, entry.config.startup_timeout);
        let state = ReplicaState::Starting;
        entry.replicas.push(ReplicaEntry {
            id,
            release: entry.release,
            version: entry.config.version.clone(),
            state,
            since: Instant::now(),
            reason: None,
            drains_until: None,
            control,
            ports,
            config: entry.config.user_config.clone(),
            changing: None,
            gpus,
            tenure,
            record: Record::default(),
            recent: Recent::default(),
            cells,
            seat,
        });
        true
    }

    fn again(&self, name: &BackendName, after: Duration, ctx: &mut ReplicaContext<Self>) {
        if after.is_zero() {
            // Through the mailbox, which a restart keeps.
            ctx.address().do_send(Reconcile(name.clone()));
        } else {
            ctx.notify_later(Reconcile(name.clone()), after);
        }
    }
}

fn wait(receiver: oneshot::Receiver<Outcome>) -> ResponseFuture<Outcome> {
    Box::pin(async move { receiver.await.unwrap_or(Err(ServeError::ShuttingDown)) })
}

fn refuse(why: ServeError) -> ResponseFuture<Outcome> {
    Box::pin(std::future::ready(Err(why)))
}

/// Look at this backend again.
#[derive(Message)]
#[rtype(result = "()")]
struct Reconcile(BackendName);

impl Handler<Reconcile> for Controller {
    type Result = ();
    fn handle(&mut self, Reconcile(name): Reconcile, ctx: &mut Self::Context) {
        self.reconcile(&name, ctx);
    }
}

/// The address of a Controller that runs on this thread.
pub(crate) fn start(office: Arc<Office>) -> crate::actors::router::OwnActor<Controller> {
    let directory = Arc::clone(&office.directory);
    crate::actors::router::supervise("controller", directory, move |_| Controller::new(Arc::clone(&office)))
}
