//! `Serve`: the composition root. Starts the actors and their threads, and ends them in order.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use actix::{Addr, Arbiter, Handler, Message, System, dev::ToEnvelope};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    actors::{
        context::ReplicaContext,
        controller::{
            self, Controller, Crash, CreateBackend, CreateEndpoint, DeleteBackend, DeleteEndpoint, DrainAll,
            Office, UpdateBackend,
        },
        reconcile::ReplicaState,
        router::Router,
        threads::Threads,
        timer::TimerKind,
    },
    backend::Backend,
    call::Request,
    config::{BackendConfig, BackendUpdate},
    endpoint::Endpoint,
    error::ServeError,
    handle::Handle,
    ids::{BackendName, EndpointName, ReplicaId},
    metrics::Metrics,
    traffic::TrafficPolicy,
};

/// How often users' histograms are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long a shutdown lets callers with open connections ask once more at least: each answer tells them to
/// close, so that none has its connection cut while its next request is on the way.
const LINGER: Duration = Duration::from_millis(100);

/// How a [`Serve`] is started.
#[derive(Clone, Debug)]
#[must_use]
pub struct ServeOptions {
    seats: Seats,
    timer: TimerKind,
    shutdown_timeout: Duration,
    readiness: Readiness,
}

/// When `/-/readyz` may say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// As soon as every endpoint that there is can be served.
    Observed,
    /// Not before it was announced.
    Announced,
}

/// Whose threads replicas live on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seats {
    /// This Serve's own; none: as many as the machine has cores.
    Own(Option<NonZeroUsize>),
    /// Those that lend themselves: the workers of an HTTP server.
    Lent,
    /// The one that starts the Serve.
    Current,
}

impl Default for ServeOptions {
    /// Own serving threads, one a core; precise timers; 30 s to shut down.
    fn default() -> Self {
        Self {
            seats: Seats::Own(None),
            timer: TimerKind::default(),
            shutdown_timeout: Duration::from_secs(30),
            readiness: Readiness::Observed,
        }
    }
}

impl ServeOptions {
    /// This many serving threads of its own.
    pub fn serving_threads(mut self, threads: NonZeroUsize) -> Self {
        self.seats = Seats::Own(Some(threads));
        self
    }

    /// No serving threads of its own: the workers of an HTTP server lend theirs
    /// ([`Serve::lend_current_thread`], [`Serve::listen`]), so that a request need not change threads.
    pub fn lent_threads(mut self) -> Self {
        self.seats = Seats::Lent;
        self
    }

    /// Everything on the calling thread, whose runtime must run local tasks; timers follow paused time. For tests.
    pub fn current_thread(mut self) -> Self {
        (self.seats, self.timer) = (Seats::Current, TimerKind::Tokio);
        self
    }

    /// `/-/readyz` and `/v2/health/ready` answer 503 until [`Serve::announce_ready`]: for programs that listen
    /// first and make their endpoints then.
    pub fn announces_ready(mut self) -> Self {
        self.readiness = Readiness::Announced;
        self
    }

    /// Which clock wakes a waiting batch.
    pub fn timer(mut self, timer: TimerKind) -> Self {
        self.timer = timer;
        self
    }

    /// Longest time that [`Serve::shutdown`] waits for what still runs.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }
}

/// A running service: backends, endpoints, and the threads and actors that serve them. Cheap to clone.
///
/// It works under `#[actix_web::main]`, under `#[tokio::main]`, in tests and from plain threads; any number of
/// them live in one process without knowing of each other.
#[derive(Clone)]
pub struct Serve(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) office: Arc<Office>,
    controller: Addr<Controller>,
    system: Mutex<Option<SystemThread>>,
    pub(crate) servers: Mutex<Vec<actix_web::dev::ServerHandle>>,
    options: ServeOptions,
}

/// The thread that the Controller lives on, and the runtime that owns our other threads.
struct SystemThread {
    system: System,
    thread: JoinHandle<()>,
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fleet = self.0.office.fleet();
        write!(f, "Serve({} backends, {} endpoints)", fleet.backends.len(), fleet.endpoints.len())
    }
}

impl Serve {
    /// Starts the actors and threads; nothing is served yet.
    ///
    /// # Errors
    /// [`ServeError::Internal`] when a thread cannot be started.
    pub async fn start(options: ServeOptions) -> Result<Self, ServeError> {
        let office = Arc::new(Office {
            fleet: Mutex::default(),
            directory: Arc::default(),
            routes: Arc::default(),
            models: Arc::default(),
            threads: Arc::<Threads>::default(),
            metrics: Arc::new(Metrics::new()),
            exchanges: Arc::default(),
            timer: options.timer,
            one_thread: options.seats == Seats::Current,
        });
        office.directory.set_preparing(options.readiness == Readiness::Announced);
        let (controller, system) = match options.seats {
            Seats::Current => {
                office.directory.set_timers(tokio::runtime::Handle::current());
                office.threads.lend_current(&office.directory);
                (controller::start(Arc::clone(&office)), None)
            }
            Seats::Lent => system_thread(Arc::clone(&office), 0).await?,
            Seats::Own(threads) => {
                let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
                system_thread(Arc::clone(&office), threads.map_or_else(cores, NonZeroUsize::get)).await?
            }
        };
        Ok(Self(Arc::new(Inner {
            office,
            controller,
            system: Mutex::new(system),
            servers: Mutex::default(),
            options,
        })))
    }

    /// Makes a backend and waits until all its replicas take calls.
    ///
    /// # Errors
    /// A name or option that is not allowed, a name that is taken, or [`ServeError::StartFailed`] with the
    /// factory's reason; then nothing of the backend is left.
    pub async fn create_backend<A>(
        &self,
        name: impl AsRef<str>,
        backend: Backend<A>,
        config: BackendConfig,
    ) -> Result<(), ServeError>
    where
        A: actix::Actor<Context = ReplicaContext<A>>,
    {
        let name = BackendName::new(name)?;
        self.ask(CreateBackend { name, code: Arc::new(backend), config }).await
    }

    /// Changes the options that `update` gives, and waits until the replicas are as many as it says.
    ///
    /// # Errors
    /// An option that is not allowed or an unknown backend; then nothing has changed.
    pub async fn update_backend_config(
        &self,
        name: impl AsRef<str>,
        update: BackendUpdate,
    ) -> Result<(), ServeError> {
        self.ask(UpdateBackend { name: BackendName::new(name)?, update }).await
    }

    /// The options of a backend.
    ///
    /// # Errors
    /// [`ServeError::UnknownBackend`].
    pub fn get_backend_config(&self, name: impl AsRef<str>) -> Result<BackendConfig, ServeError> {
        let name = BackendName::new(name)?;
        let fleet = self.0.office.fleet();
        fleet.backends.get(&name).map(|entry| entry.config.clone()).ok_or(ServeError::UnknownBackend(name))
    }

    /// Every backend with its options.
    pub fn list_backends(&self) -> Vec<(BackendName, BackendConfig)> {
        let fleet = self.0.office.fleet();
        fleet.backends.iter().map(|(name, entry)| (name.clone(), entry.config.clone())).collect()
    }

    /// Drains a backend and forgets it; `force` does not wait for what still runs.
    ///
    /// # Errors
    /// [`ServeError::InUse`] while an endpoint names it, or [`ServeError::UnknownBackend`].
    pub async fn delete_backend(&self, name: impl AsRef<str>, force: bool) -> Result<(), ServeError> {
        self.ask(DeleteBackend { name: BackendName::new(name)?, force }).await
    }

    /// Makes an endpoint; once this has returned, calls to it are served.
    ///
    /// # Errors
    /// Parts that are not allowed, a name or route that is taken, an unknown backend, or a route to a backend
    /// that takes no HTTP.
    pub async fn create_endpoint(&self, name: impl AsRef<str>, endpoint: Endpoint) -> Result<(), ServeError> {
        let name = EndpointName::new(name)?;
        self.ask(CreateEndpoint { name, endpoint: endpoint.check()? }).await
    }

    /// Takes an endpoint away; its backends stay.
    ///
    /// # Errors
    /// [`ServeError::UnknownEndpoint`].
    pub async fn delete_endpoint(&self, name: impl AsRef<str>) -> Result<(), ServeError> {
        self.ask(DeleteEndpoint(EndpointName::new(name)?)).await
    }

    /// Every endpoint.
    pub fn list_endpoints(&self) -> Vec<EndpointStatus> {
        self.status().endpoints
    }

    /// A typed sender to an endpoint.
    ///
    /// # Errors
    /// [`ServeError::UnknownEndpoint`], or [`ServeError::NotTaken`] when a backend behind it does not take `M`.
    pub fn handle<M: Request>(&self, endpoint: impl AsRef<str>) -> Result<Handle<M>, ServeError> {
        self.0.office.directory.handle(endpoint.as_ref())
    }

    /// The router of this thread, or of one serving thread: for those who send actix messages
    /// ([`Route`](crate::Route)) rather than hold handles. `None` while there is no serving thread.
    pub fn router(&self) -> Option<Addr<Router>> {
        self.0.office.threads.router()
    }

    /// Lends the calling thread, which must run local tasks, for as long as its runtime lives: replicas placed
    /// on it are reached without changing threads. Called again on the same thread it changes nothing.
    pub fn lend_current_thread(&self) {
        self.0.office.threads.lend_current(&self.0.office.directory);
    }

    /// What there is and how it is.
    pub fn status(&self) -> Status {
        let fleet = self.0.office.fleet();
        let replica = |r: &crate::actors::fleet::ReplicaEntry| ReplicaStatus {
            id: r.id.clone(),
            state: r.state,
            for_s: r.since.elapsed().as_secs_f64(),
            load: r.control.load(),
        };
        let backends = fleet.backends.iter().map(|(name, entry)| BackendStatus {
            name: name.clone(),
            config: entry.config.clone(),
            replicas: entry.replicas.iter().map(replica).collect(),
            last_error: entry.last_error.as_deref().map(str::to_owned),
        });
        let endpoints = fleet.endpoints.iter().map(|(name, entry)| EndpointStatus {
            name: name.clone(),
            route: entry.declared.route.as_ref().map(|route| route.as_str().to_owned()),
            methods: entry.declared.methods.clone(),
            traffic: entry.declared.traffic.clone(),
        });
        Status { backends: backends.collect(), endpoints: endpoints.collect() }
    }

    /// Whether every endpoint can be served now; otherwise those that cannot.
    ///
    /// # Errors
    /// The endpoints behind which some backend has no replica ready.
    pub fn ready(&self) -> Result<(), Vec<EndpointName>> {
        ready(&self.0.office)
    }

    /// Everything that shall be served has been made; see [`ServeOptions::announces_ready`].
    pub fn announce_ready(&self) {
        self.0.office.directory.set_preparing(false);
    }

    /// All metrics of this Serve as Prometheus text.
    pub fn metrics(&self) -> String {
        self.0.office.metrics.render(&self.0.office.directory.own_restarts())
    }

    /// Ends in order: no new work, what runs is finished, replicas drain, servers and threads end. Calls made
    /// afterwards are refused with [`ServeError::ShuttingDown`]. Called again it changes nothing.
    ///
    /// # Errors
    /// [`ServeError::TimedOut`] when something still ran after the shutdown time-out; it was cut off.
    pub async fn shutdown(&self) -> Result<(), ServeError> {
        let (office, timeout) = (&self.0.office, self.0.options.shutdown_timeout);
        let until = Instant::now() + timeout;
        let servers = std::mem::take(&mut *self.0.servers.lock().unwrap_or_else(PoisonError::into_inner));
        // The servers stop accepting and finish the requests they have; replicas on their threads still run.
        for server in &servers {
            server.pause().await;
        }
        office.directory.close();
        let linger = if servers.is_empty() { Duration::ZERO } else { LINGER };
        let lingering = tokio::time::sleep(linger.min(timeout));
        let busy = || {
            !office.exchanges.is_empty()
                || office.fleet().backends.values().flat_map(|b| &b.replicas).any(|r| r.control.load() > 0)
        };
        lingering.await;
        while busy() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let in_time = !busy();
        for server in servers {
            server.stop(in_time).await;
        }
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let drained = tokio::time::timeout(left, self.0.controller.send(DrainAll)).await.is_ok();
        office.threads.clear();
        let system = self.0.system.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(SystemThread { system, thread }) = system {
            system.stop();
            let _ = actix_rt::task::spawn_blocking(move || thread.join()).await;
        }
        if in_time && drained {
            Ok(())
        } else {
            Err(ServeError::TimedOut { what: "shutdown".into(), after: timeout })
        }
    }

    /// Makes the Controller panic, to see that nothing acknowledged is lost.
    #[doc(hidden)]
    pub async fn crash_controller(&self) {
        let _ = self.0.controller.send(Crash).await;
    }

    /// Asks the Controller; while it restarts the message waits, and only one that it died of is lost.
    async fn ask<M>(&self, msg: M) -> Result<(), ServeError>
    where
        M: Message<Result = Result<(), ServeError>> + Send + 'static,
        Controller: Handler<M>,
        ReplicaContext<Controller>: ToEnvelope<Controller, M>,
    {
        if self.0.office.directory.closing() {
            return Err(ServeError::ShuttingDown);
        }
        self.0.controller.send(msg).await.unwrap_or_else(|_| {
            Err(ServeError::Internal(
                "the controller restarted while it made this change; look at the status and ask again".into(),
            ))
        })
    }

    /// The arbiter of our system thread, on which servers are started.
    pub(crate) fn arbiter(&self) -> Option<actix::ArbiterHandle> {
        let system = self.0.system.lock().unwrap_or_else(PoisonError::into_inner);
        system.as_ref().map(|system| system.system.arbiter().clone())
    }
}

impl Drop for Inner {
    /// Without a shutdown: the threads end now.
    fn drop(&mut self) {
        self.office.directory.close();
        self.office.threads.clear();
        if let Some(SystemThread { system, .. }) =
            self.system.get_mut().unwrap_or_else(PoisonError::into_inner).take()
        {
            system.stop();
        }
    }
}

/// Whether every endpoint can be served now; otherwise those that cannot.
pub(crate) fn ready(office: &Office) -> Result<(), Vec<EndpointName>> {
    let fleet = office.fleet();
    let ready = |name: &BackendName| {
        fleet.backends.get(name).is_some_and(|b| b.replicas.iter().any(|r| r.state == ReplicaState::Running))
    };
    let waiting: Vec<_> = fleet
        .endpoints
        .iter()
        .filter(|(_, e)| !e.declared.traffic.iter().all(|(backend, share)| share == 0.0 || ready(backend)))
        .map(|(name, _)| name.clone())
        .collect();
    if waiting.is_empty() { Ok(()) } else { Err(waiting) }
}

/// Starts the thread of the Controller, and from there `serving` serving threads.
async fn system_thread(
    office: Arc<Office>,
    serving: usize,
) -> Result<(Addr<Controller>, Option<SystemThread>), ServeError> {
    let (tx, rx) = oneshot::channel();
    let run = move || {
        let runner = System::new();
        let started = runner.block_on(async {
            office.directory.set_timers(tokio::runtime::Handle::current());
            let controller = controller::start(Arc::clone(&office));
            let mut lent = Vec::new();
            for _ in 0..serving {
                let (done, lending) = oneshot::channel();
                let (threads, directory) = (Arc::clone(&office.threads), Arc::clone(&office.directory));
                // It ends with the system.
                Arbiter::new().spawn_fn(move || {
                    threads.lend_current(&directory);
                    let _ = done.send(());
                });
                lent.push(lending);
            }
            for lending in lent {
                let _ = lending.await;
            }
            let metrics = Arc::clone(&office.metrics);
            drop(tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    metrics.upkeep();
                }
            }));
            (controller, System::current())
        });
        let _ = tx.send(started);
        if let Err(error) = runner.run() {
            eprintln!("greenroom: the system thread ended with an error: {error}");
        }
    };
    let internal = |why: String| ServeError::Internal(why.into());
    let thread = std::thread::Builder::new()
        .name("greenroom".into())
        .spawn(run)
        .map_err(|e| internal(format!("the system thread did not start: {e}")))?;
    let (controller, system) = rx.await.map_err(|_| internal("the system thread did not start".into()))?;
    Ok((controller, Some(SystemThread { system, thread })))
}

/// What there is and how it is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Every backend.
    pub backends: Vec<BackendStatus>,
    /// Every endpoint.
    pub endpoints: Vec<EndpointStatus>,
}

/// One backend as it is.
#[derive(Clone, Debug, Serialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: BackendName,
    /// Its options.
    pub config: BackendConfig,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// The last failure of one of them, if any.
    pub last_error: Option<String>,
}

/// One replica as it is.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaStatus {
    /// Which one.
    pub id: ReplicaId,
    /// Where it is in its life.
    pub state: ReplicaState,
    /// Since how many seconds.
    pub for_s: f64,
    /// Calls that run or wait there.
    pub load: usize,
}

/// One endpoint as it is.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointStatus {
    /// Its name.
    pub name: EndpointName,
    /// Its HTTP route, if any.
    pub route: Option<String>,
    /// Its HTTP methods.
    pub methods: Vec<&'static str>,
    /// Its traffic policy.
    pub traffic: TrafficPolicy,
}
