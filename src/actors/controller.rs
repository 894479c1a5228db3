//! The Controller: one actor that owns what should exist, and makes it so. Never on a request's path.

use std::{
    collections::btree_map::Entry,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Arbiter, AsyncContext, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        build::{Built, Code, Order},
        context::ReplicaContext,
        fleet::{BackendEntry, EndpointEntry, Fleet, ReplicaEntry, Seat, admitted},
        identity::Identity,
        reconcile::{Action, ReplicaState, next_actions},
        replica::Event,
        threads::Threads,
        timer::TimerKind,
    },
    config::{BackendConfig, BackendUpdate, Placement},
    endpoint::Checked,
    error::ServeError,
    ids::{BackendName, EndpointName, ReplicaId},
    metrics::{Metrics, in_flight::InFlight},
    routing::{directory::Directory, endpoint::EndpointState, models::Models, routes::Routes},
};

/// First pause before a replica that gave up is replaced; doubled for each further one in a row.
const REPLACE_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const REPLACE_PAUSE_MAX: Duration = Duration::from_secs(30);
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
    /// HTTP requests whose bodies are read or whose answers are made.
    pub(crate) exchanges: Arc<InFlight>,
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
        let Some(entry) = fleet.backends.get_mut(name) else { return };
        for action in next_actions(entry.wanted(), &entry.observed()) {
            match action {
                Action::Start(slot) => self.start(name, entry, slot, ctx),
                Action::Drain(slot) => drain(name, entry, slot, ctx),
            }
        }
        entry.publish();
        if entry.deleting && entry.replicas.is_empty() {
            let outcome = entry.failure.take().map_or(Ok(()), Err);
            entry.answer(&outcome);
            fleet.backends.remove(name);
            self.office.models.remove(name);
            self.office.metrics.registry.forget_backend(name);
        } else if entry.settled() {
            entry.created = true;
            entry.before = None;
            entry.failed_replacements = 0;
            entry.answer(&Ok(()));
        }
    }

    fn start(&self, name: &BackendName, entry: &mut BackendEntry, slot: u32, ctx: &mut ReplicaContext<Self>) {
        entry.generation += 1;
        let generation = entry.generation;
        let placement = entry.config.placement.unwrap_or_else(|| entry.code.placement());
        let own = placement == Placement::Dedicated && !self.office.one_thread;
        let thread = if own { None } else { self.office.threads.emptiest() };
        if !own && thread.is_none() {
            entry.last_error = Some("there is no serving thread".into());
            ctx.notify_later(Reconcile(name.clone()), REPLACE_PAUSE);
            return;
        }
        let id = ReplicaId { backend: name.clone(), slot, generation };
        let cells = entry.metrics.enter(slot, generation);
        let controller = ctx.address();
        let backend = name.clone();
        let Built { control, ports, start } = entry.code.build(Order {
            identity: Arc::new(Identity {
                replica: id.clone(),
                num_threads: entry.config.num_threads.map_or(1, std::num::NonZeroUsize::get),
                batch_size_max: entry.config.max_batch_size.map_or(1, std::num::NonZeroUsize::get),
                directory: Arc::clone(&self.office.directory),
            }),
            config: entry.config.clone(),
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
                if !thread.run(start) {
                    // Its loop is gone; the replica never was.
                    ctx.notify(Happened { backend: name.clone(), generation, event: Event::Stopped });
                }
                Seat::Shared(thread)
            }
            None => {
                let arbiter = Arbiter::new();
                arbiter.spawn_fn(start);
                Seat::Own(Some(arbiter))
            }
        };
        ctx.notify_later(StartTimedOut { backend: name.clone(), generation }, entry.config.startup_timeout);
        let state = ReplicaState::Starting;
        entry.replicas.push(ReplicaEntry { id, state, since: Instant::now(), control, ports, _seat: seat });
    }

    /// A replica is gone for good, without having been told to go.
    fn lost(&self, name: &BackendName, generation: u64, why: Box<str>, ctx: &mut ReplicaContext<Self>) {
        let mut fleet = self.office.fleet();
        let Some(entry) = fleet.backends.get_mut(name) else { return };
        let Some(replica) = entry.replica(generation) else { return };
        let (slot, started) = (replica.id.slot, replica.state == ReplicaState::Running);
        entry.remove(generation);
        entry.last_error = Some(why.clone());
        entry.publish();
        let failed = ServeError::StartFailed { backend: name.clone(), why };
        if started {
            entry.metrics.replaced(slot);
        } else if !entry.created {
            // It was never whole: everything of it goes, and then its creator is told.
            entry.deleting = true;
            entry.failure = Some(failed);
            return self.again(name, Duration::ZERO, ctx);
        } else if let Some(before) = entry.before.take() {
            entry.config = before;
            entry.answer(&Err(failed));
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
            ctx.notify(Reconcile(name.clone()));
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
    replica.state = ReplicaState::Draining;
    replica.since = Instant::now();
    let (control, generation) = (Arc::clone(&replica.control), replica.id.generation);
    entry.publish();
    control.drain();
    ctx.notify_later(DrainTimedOut { backend: name.clone(), generation }, timeout);
}

impl Actor for Controller {
    type Context = ReplicaContext<Self>;

    /// Also after a restart: takes up what was under way.
    fn started(&mut self, ctx: &mut Self::Context) {
        let names: Vec<_> = self.office.fleet().backends.keys().cloned().collect();
        names.into_iter().for_each(|name| ctx.notify(Reconcile(name)));
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

/// Something happened to a replica.
#[derive(Message)]
#[rtype(result = "()")]
struct Happened {
    backend: BackendName,
    generation: u64,
    event: Event,
}

impl Handler<Happened> for Controller {
    type Result = ();
    fn handle(&mut self, Happened { backend, generation, event }: Happened, ctx: &mut Self::Context) {
        match event {
            Event::Ready => {
                let mut fleet = self.office.fleet();
                let replica = fleet.backends.get_mut(&backend).and_then(|entry| entry.replica(generation));
                if let Some(replica) = replica
                    && replica.state == ReplicaState::Starting
                {
                    replica.state = ReplicaState::Running;
                    replica.since = Instant::now();
                }
                drop(fleet);
                self.reconcile(&backend, ctx);
            }
            Event::Stumbled(why) => {
                if let Some(entry) = self.office.fleet().backends.get_mut(&backend) {
                    entry.last_error = Some(why);
                }
            }
            Event::GaveUp(why) => self.lost(&backend, generation, why, ctx),
            Event::Stopped => {
                let mut fleet = self.office.fleet();
                let Some(entry) = fleet.backends.get_mut(&backend) else { return };
                let draining = entry.replica(generation).map(|r| r.state == ReplicaState::Draining);
                if draining == Some(true) {
                    entry.remove(generation);
                }
                drop(fleet);
                match draining {
                    Some(true) => self.reconcile(&backend, ctx),
                    Some(false) => self.lost(&backend, generation, "its thread ended".into(), ctx),
                    None => {}
                }
            }
        }
    }
}

/// A replica should have been ready by now.
#[derive(Message)]
#[rtype(result = "()")]
struct StartTimedOut {
    backend: BackendName,
    generation: u64,
}

impl Handler<StartTimedOut> for Controller {
    type Result = ();
    fn handle(&mut self, StartTimedOut { backend, generation }: StartTimedOut, ctx: &mut Self::Context) {
        let mut fleet = self.office.fleet();
        let Some(entry) = fleet.backends.get_mut(&backend) else { return };
        let after = entry.config.startup_timeout.as_secs_f64();
        let reason = entry.last_error.clone();
        let Some(replica) = entry.replica(generation) else { return };
        if replica.state != ReplicaState::Starting {
            return;
        }
        replica.control.stop();
        drop(fleet);
        let why = match reason {
            Some(reason) => format!("it was not ready within {after} s; the last failure: {reason}"),
            None => format!("it was not ready within {after} s"),
        };
        self.lost(&backend, generation, why.into(), ctx);
    }
}

/// A replica should have drained by now.
#[derive(Message)]
#[rtype(result = "()")]
struct DrainTimedOut {
    backend: BackendName,
    generation: u64,
}

impl Handler<DrainTimedOut> for Controller {
    type Result = ();
    fn handle(&mut self, DrainTimedOut { backend, generation }: DrainTimedOut, ctx: &mut Self::Context) {
        if let Some(replica) =
            self.office.fleet().backends.get_mut(&backend).and_then(|entry| entry.replica(generation))
        {
            replica.control.stop();
            // A handler that never returns keeps its thread; the backend does not wait for it.
            ctx.notify_later(Happened { backend, generation, event: Event::Stopped }, STOP_GRACE);
        }
    }
}

/// Make a backend.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct CreateBackend {
    pub(crate) name: BackendName,
    pub(crate) code: Arc<dyn Code>,
    pub(crate) config: BackendConfig,
}

impl Handler<CreateBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(
        &mut self,
        CreateBackend { name, code, config }: CreateBackend,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        if let Err(why) = code.check(&config) {
            return refuse(why);
        }
        let (tx, rx) = oneshot::channel();
        let metrics = self.office.metrics.registry.backend(&name);
        match self.office.fleet().backends.entry(name.clone()) {
            Entry::Occupied(_) => {
                return refuse(ServeError::AlreadyExists { what: "backend", name: name.as_str().into() });
            }
            Entry::Vacant(place) => {
                let routes = Arc::new(code.routes(name.clone(), &metrics.refused));
                self.office.models.add(&routes);
                place.insert(BackendEntry {
                    routes,
                    code,
                    config,
                    before: None,
                    replicas: Vec::new(),
                    metrics,
                    generation: 0,
                    created: false,
                    deleting: false,
                    failure: None,
                    last_error: None,
                    failed_replacements: 0,
                    waiters: vec![tx],
                });
            }
        }
        self.reconcile(&name, ctx);
        wait(rx)
    }
}

/// Change some options of a backend.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct UpdateBackend {
    pub(crate) name: BackendName,
    pub(crate) update: BackendUpdate,
}

impl Handler<UpdateBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(
        &mut self,
        UpdateBackend { name, update }: UpdateBackend,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        {
            let mut fleet = self.office.fleet();
            let Some(entry) = fleet.backends.get_mut(&name).filter(|entry| !entry.deleting) else {
                return refuse(ServeError::UnknownBackend(name));
            };
            let config = match entry.config.updated(&update).and_then(|c| entry.code.check(&c).map(|()| c)) {
                Ok(config) => config,
                Err(why) => return refuse(why),
            };
            if let Err(why) = in_place(&entry.config, &config) {
                return refuse(why);
            }
            // A newer change ends the wait for an older one.
            entry.answer(&Ok(()));
            let before = std::mem::replace(&mut entry.config, config);
            entry.before = Some(before);
            entry.waiters.push(tx);
        }
        self.reconcile(&name, ctx);
        wait(rx)
    }
}

/// Options that only a new replica can follow.
fn in_place(old: &BackendConfig, new: &BackendConfig) -> Outcome {
    let fixed = [
        ("placement", old.placement == new.placement),
        ("num_threads", old.num_threads == new.num_threads),
        ("max_batch_size", old.max_batch_size.is_some() == new.max_batch_size.is_some()),
        ("idempotent", old.idempotent == new.idempotent),
        ("restart", old.restart == new.restart),
    ];
    match fixed.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((option, _)) => Err(ServeError::invalid(
            *option,
            "it cannot be changed (max_batch_size: switched on or off) while replicas run; delete the backend and create it again",
        )),
    }
}

/// Drain a backend and forget it.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct DeleteBackend {
    pub(crate) name: BackendName,
    pub(crate) force: bool,
}

impl Handler<DeleteBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(
        &mut self,
        DeleteBackend { name, force }: DeleteBackend,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        {
            let mut fleet = self.office.fleet();
            let user = fleet.endpoints.iter().find(|(_, e)| e.declared.traffic.weight(&name).is_some());
            if let Some((endpoint, _)) = user {
                return refuse(ServeError::InUse { backend: name, endpoint: endpoint.clone() });
            }
            let Some(entry) = fleet.backends.get_mut(&name) else {
                return refuse(ServeError::UnknownBackend(name));
            };
            entry.answer(&Err(ServeError::UnknownBackend(name.clone())));
            entry.deleting = true;
            entry.waiters.push(tx);
            if force {
                entry.config.graceful_shutdown_timeout = Duration::from_millis(1);
            }
        }
        self.reconcile(&name, ctx);
        wait(rx)
    }
}

/// Make an endpoint.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct CreateEndpoint {
    pub(crate) name: EndpointName,
    pub(crate) endpoint: Checked,
}

impl Handler<CreateEndpoint> for Controller {
    type Result = Outcome;
    fn handle(
        &mut self,
        CreateEndpoint { name, endpoint }: CreateEndpoint,
        _: &mut Self::Context,
    ) -> Outcome {
        let mut fleet = self.office.fleet();
        if fleet.endpoints.contains_key(&name) {
            return Err(ServeError::AlreadyExists { what: "endpoint", name: name.as_str().into() });
        }
        let mut backends = Vec::new();
        for (backend, _) in endpoint.traffic.iter() {
            let entry = fleet.backends.get(backend).filter(|entry| !entry.deleting);
            let entry = entry.ok_or_else(|| ServeError::UnknownBackend(backend.clone()))?;
            backends.push((Arc::clone(&entry.routes), self.office.metrics.registry.routed(&name, backend)));
        }
        let state = EndpointState::new(endpoint.traffic.clone(), backends);
        let slot = self.office.directory.slot(&name);
        self.office.routes.add(&slot, &endpoint, &state)?;
        slot.publish(Some(state));
        fleet.endpoints.insert(name, EndpointEntry { declared: endpoint, slot });
        Ok(())
    }
}

/// Take an endpoint away; its backends stay.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct DeleteEndpoint(pub(crate) EndpointName);

impl Handler<DeleteEndpoint> for Controller {
    type Result = Outcome;
    fn handle(&mut self, DeleteEndpoint(name): DeleteEndpoint, _: &mut Self::Context) -> Outcome {
        let mut fleet = self.office.fleet();
        let Some(entry) = fleet.endpoints.remove(&name) else {
            return Err(ServeError::UnknownEndpoint(name));
        };
        self.office.routes.remove(&name);
        entry.slot.publish(None);
        self.office.metrics.registry.forget_endpoint(&name);
        Ok(())
    }
}

/// Drain everything and forget it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DrainAll;

impl Handler<DrainAll> for Controller {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: DrainAll, ctx: &mut Self::Context) -> Self::Result {
        let mut waits = Vec::new();
        let names: Vec<_> = {
            let mut fleet = self.office.fleet();
            for entry in fleet.backends.values_mut() {
                let (tx, rx) = oneshot::channel();
                entry.answer(&Err(ServeError::ShuttingDown));
                entry.deleting = true;
                entry.waiters.push(tx);
                waits.push(rx);
            }
            fleet.backends.keys().cloned().collect()
        };
        names.iter().for_each(|name| self.reconcile(name, ctx));
        Box::pin(async move {
            for wait in waits {
                let _ = wait.await;
            }
        })
    }
}

/// Panic, to prove that a restart loses nothing.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Crash;

impl Handler<Crash> for Controller {
    type Result = ();
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("told to crash");
    }
}

/// The address of a Controller that runs on this thread.
pub(crate) fn start(office: Arc<Office>) -> Addr<Controller> {
    let directory = Arc::clone(&office.directory);
    crate::actors::router::supervise("controller", directory, move |_| Controller::new(Arc::clone(&office)))
}
