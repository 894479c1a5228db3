//! The Controller: one actor that owns what should exist, and makes it so. Never on a request's path.

mod backends;
mod changes;
mod ending;
mod endpoints;
mod events;
mod opening;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{Actor, Arbiter, AsyncContext, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        build::{Built, Order},
        context::ReplicaContext,
        fleet::{BackendEntry, Fleet, ReplicaEntry, Seat, admitted},
        gpus::Gpus,
        identity::Identity,
        reconcile::{Action, ReplicaState, next_actions},
        threads::Threads,
        timer::TimerKind,
    },
    comparison::comparer::Comparer,
    config::Placement,
    error::ServeError,
    ids::{BackendName, ReplicaId},
    metrics::{Metrics, in_flight::InFlight},
    routing::{directory::Directory, models::Models, routes::Routes},
    traffic::window::SAMPLE_PERIOD,
};

pub(crate) use backends::{CreateBackend, DeleteBackend, UpdateBackend};
use changes::ChangeTimedOut;
pub(crate) use ending::{Crash, DrainAll};
pub(crate) use endpoints::{CreateEndpoint, DeleteEndpoint, SetShadow, SetTraffic};
use events::{DrainTimedOut, Happened, StartTimedOut};

/// First pause before a replica that gave up is replaced; doubled for each further one in a row.
const REPLACE_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const REPLACE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often a serving thread is looked for while there is none.
const THREAD_PAUSE: Duration = Duration::from_millis(10);
/// How long a replica that was told to stop may take before it is given up for lost.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// What the Controller works with; outlives its state.
pub(crate) struct Office {
    pub(crate) fleet: Mutex<Fleet>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) models: Arc<Models>,
    pub(crate) threads: Arc<Threads>,
    pub(crate) metrics: Arc<Metrics>,
    /// Compares the answers of shadow backends.
    pub(crate) comparer: Arc<Comparer>,
    /// HTTP requests whose bodies are read or whose answers are made.
    pub(crate) exchanges: Arc<InFlight>,
    pub(crate) gpus: Arc<Gpus>,
    pub(crate) timer: TimerKind,
    /// Everything shares the thread that there is, whose time a test may have paused.
    pub(crate) one_thread: bool,
}

impl Office {
    pub(crate) fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owns what should exist and makes it so.
pub(crate) struct Controller {
    office: Arc<Office>,
}

type Outcome = Result<(), ServeError>;

impl Controller {
    pub(crate) fn new(office: Arc<Office>) -> Self {
        Self { office }
    }

    /// Takes the steps that lead from what is there to what is wanted, and answers who waited for it.
    fn reconcile(&self, name: &BackendName, ctx: &mut ReplicaContext<Self>) {
        let mut fleet = self.office.fleet();
        let Fleet { backends, pool, .. } = &mut *fleet;
        let Some(entry) = backends.get_mut(name) else { return };
        for action in next_actions(entry.wanted(), &entry.observed()) {
            match action {
                // What those that drain still have is for this one: when they are gone it is started.
                Action::Start(_) if entry.replicas.len() >= entry.claims.len() => break,
                Action::Start(slot) if self.start(name, entry, slot, ctx) => {}
                Action::Start(_) => {
                    self.no_thread(name, entry, ctx);
                    break;
                }
                Action::Drain(slot) => drain(name, entry, slot, ctx),
            }
        }
        entry.publish();
        if !entry.deleting {
            changes::advance(name, entry, ctx);
        }
        let settled = entry.settled();
        if settled {
            entry.created = true;
            entry.before = None;
            entry.failed_replacements = 0;
        }
        entry.give_back(pool);
        if entry.deleting && entry.replicas.is_empty() {
            entry.gone();
            let generation = entry.generation;
            fleet.generation = fleet.generation.max(generation);
            fleet.backends.remove(name);
            self.office.models.remove(name);
            self.office.metrics.registry.forget_backend(name);
        } else if settled {
            let outcome = entry.failure.take().map_or(Ok(()), Err);
            entry.answer(&outcome);
        }
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
            cells,
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
        let (since, config) = (Instant::now(), entry.config.user_config.clone());
        let entering =
            ReplicaEntry { id, state, since, control, ports, config, changing: None, gpus, _seat: seat };
        entry.replicas.push(entering);
        true
    }

    /// Looks again a little later; a change that has waited too long for a thread is given up.
    fn no_thread(&self, name: &BackendName, entry: &mut BackendEntry, ctx: &mut ReplicaContext<Self>) {
        let why: Box<str> = "there is no serving thread; lend one or listen first".into();
        entry.last_error = Some(why.clone());
        let now = tokio::time::Instant::now();
        let late = now.duration_since(entry.changed) >= entry.config.startup_timeout;
        if late && entry.undo(ServeError::StartFailed { backend: name.clone(), why }) {
            self.again(name, Duration::ZERO, ctx);
        } else if entry.look_again.is_none_or(|at| at <= now) {
            entry.look_again = Some(now + THREAD_PAUSE);
            self.again(name, THREAD_PAUSE, ctx);
        }
    }

    /// A replica is gone for good, without having been told to go.
    fn lost(&self, name: &BackendName, generation: u64, why: Box<str>, ctx: &mut ReplicaContext<Self>) {
        let mut fleet = self.office.fleet();
        let Some(entry) = fleet.backends.get_mut(name) else { return };
        let Some(replica) = entry.replica(generation) else { return };
        let (slot, started) = (replica.id.slot, replica.state == ReplicaState::Running);
        let was_to_go = replica.state == ReplicaState::Draining;
        entry.remove(generation);
        if was_to_go {
            return self.again(name, Duration::ZERO, ctx);
        }
        entry.last_error = Some(why.clone());
        entry.publish();
        let failed = ServeError::StartFailed { backend: name.clone(), why };
        if started {
            entry.metrics.replaced(slot);
        } else if entry.undo(failed) {
            return self.again(name, Duration::ZERO, ctx);
        }
        let pause =
            REPLACE_PAUSE.saturating_mul(1 << entry.failed_replacements.min(16)).min(REPLACE_PAUSE_MAX);
        let pause = if started && entry.failed_replacements == 0 { Duration::ZERO } else { pause };
        entry.failed_replacements += 1;
        self.again(name, pause, ctx);
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

/// Out of the routing table first; then what runs and waits is finished; then it stops, by force if it must.
fn drain(name: &BackendName, entry: &mut BackendEntry, slot: u32, ctx: &mut ReplicaContext<Controller>) {
    let timeout = entry.config.graceful_shutdown_timeout;
    let live = |r: &&mut ReplicaEntry| r.id.slot == slot && r.state != ReplicaState::Draining;
    let Some(replica) = entry.replicas.iter_mut().find(live) else { return };
    // One that is not ready yet has nothing to finish, and may take long to be ready.
    let timeout = if replica.state == ReplicaState::Starting { Duration::ZERO } else { timeout };
    replica.state = ReplicaState::Draining;
    replica.since = Instant::now();
    if replica.changing.take().is_some() {
        replica.control.withdraw();
    }
    let (control, generation) = (Arc::clone(&replica.control), replica.id.generation);
    entry.publish();
    control.drain();
    ctx.notify_later(DrainTimedOut { backend: name.clone(), generation }, timeout);
}

impl Actor for Controller {
    type Context = ReplicaContext<Self>;

    /// Also after a restart: takes up what was under way.
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SAMPLE_PERIOD, |controller, _| {
            let now = tokio::time::Instant::now();
            controller.office.fleet().endpoints.values_mut().for_each(|endpoint| endpoint.sample(now));
        });
        for (name, entry) in &self.office.fleet().backends {
            for replica in &entry.replicas {
                let (backend, generation) = (name.clone(), replica.id.generation);
                let left = |timeout: Duration| timeout.saturating_sub(replica.since.elapsed());
                // Timers end with a state; these must not.
                if let Some(changing) = &replica.changing {
                    let left =
                        entry.config.graceful_shutdown_timeout.saturating_sub(changing.since.elapsed());
                    let (backend, attempt) = (name.clone(), changing.attempt);
                    ctx.notify_later(ChangeTimedOut { backend, generation, attempt }, left);
                }
                match replica.state {
                    ReplicaState::Running => {}
                    ReplicaState::Starting => {
                        let left = left(entry.config.startup_timeout);
                        ctx.notify_later(StartTimedOut { backend, generation }, left);
                    }
                    ReplicaState::Draining => {
                        let left = left(entry.config.graceful_shutdown_timeout);
                        ctx.notify_later(DrainTimedOut { backend, generation }, left);
                    }
                }
            }
            ctx.notify(Reconcile(name.clone()));
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
