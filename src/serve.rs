//! `Serve`: the composition root. Starts the actors and their threads, and ends them in order.

mod asking;
mod counts;
mod deploy;
mod end;
#[cfg(feature = "gpu")]
mod gpu_options;
#[cfg(feature = "gpu")]
mod gpu_status;
mod options;
mod restore;
mod signals;
mod sources;
mod status;
mod system;
pub(crate) mod takeover;

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use actix::Addr;
use tokio::sync::{OnceCell, watch};

use crate::{
    actors::{
        context::ReplicaContext,
        controller::{
            self, Controller, Crash, CreateBackend, CreateEndpoint, DeleteBackend, DeleteEndpoint,
            DeployBackend, Office, SetShadow, SetTraffic, UpdateBackend,
        },
        fleet::Fleet,
        gpus::Gpus,
        lane::Stop,
        router::Router,
        threads::Threads,
    },
    backend::Backend,
    call::Request,
    config::{BackendConfig, BackendUpdate, Source},
    endpoint::Endpoint,
    error::ServeError,
    handle::Handle,
    ids::{BackendName, EndpointName},
    metrics::Metrics,
    serve::{
        deploy::Deploys,
        options::{Readiness, Seats},
        sources::Sources,
        system::SystemThread,
        takeover::{Handover, Served},
    },
    traffic::{ShadowRule, TrafficPolicy},
};

pub(crate) use counts::Rows;
pub use counts::{BackendCounts, Latencies, ReplicaCounts};
pub(crate) use deploy::steps;
pub use deploy::{DeployOptions, DeployState, Deployed, Progress};
#[cfg(feature = "gpu")]
pub use gpu_status::{GpuHealth, GpuStatus, ReplicaGpuStatus};
pub use options::ServeOptions;
pub use signals::EndSignals;
pub use status::{
    BackendStatus, CapacityStatus, EndpointStatus, ReplicaStatus, SeenShare, ShadowStatus, Status,
};
pub(crate) use status::{all_running, ready};

/// A running service: backends, endpoints, and the threads and actors that serve them. Cheap to clone.
///
/// It works under `#[actix_web::main]`, under `#[tokio::main]`, in tests and from plain threads; any number of
/// them live in one process without knowing of each other.
#[derive(Clone)]
pub struct Serve(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    /// When it was started, for the time that it is up.
    pub(crate) began: Instant,
    pub(crate) office: Arc<Office>,
    controller: Addr<Controller>,
    controller_stop: Arc<dyn Stop>,
    system: Mutex<Option<SystemThread>>,
    pub(crate) servers: Mutex<Vec<Served>>,
    /// With which another process can take over.
    pub(crate) handover: Option<Arc<Handover>>,
    options: ServeOptions,
    /// Whether the end has begun, or is about to.
    ending: watch::Sender<bool>,
    /// The code that configurations name.
    sources: Sources,
    deploys: Arc<Deploys>,
    /// Whether what was wanted before was restored.
    restored: bool,
    /// How the shutdown went.
    ended: OnceCell<Result<(), ServeError>>,
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
    /// [`ServeError::Internal`] when a thread cannot be started or the running process cannot be taken over from,
    /// [`ServeError::InvalidConfig`] for a capacity that cannot be, [`ServeError::State`] for a state directory that
    /// cannot be used, [`ServeError::Gpu`] for a capacity that counts more GPUs than the options give,
    /// [`ServeError::Invalid`] for a takeover on the current thread.
    ///
    /// # Panics
    /// With [`ServeOptions::current_thread`], outside of a runtime that runs local tasks.
    pub async fn start(options: ServeOptions) -> Result<Self, ServeError> {
        let capacity = options.all();
        capacity.check()?;
        if options.takeover.is_some() && options.seats == Seats::Current {
            // Before the running process hears of this one: nothing here would ever tell it to end.
            let why = "a Serve on the current thread has no servers of its own to take over with";
            return Err(ServeError::invalid("takeover", why));
        }
        let gpus = Arc::new(Gpus::new(options.gpus.clone(), &capacity));
        let handover = match &options.takeover {
            Some(path) => Some(Arc::new(Handover::begin(path.clone()).await?)),
            None => None,
        };
        let (mut memory, restored) = restore::remembered(&options, handover.as_deref())?;
        if let Some(handover) = handover.clone() {
            memory = memory.unless(move || takeover::is_ours(&handover));
        }
        let office = Arc::new(Office {
            fleet: Mutex::new(Fleet::new(capacity)),
            memory: Mutex::new(memory),
            directory: Arc::default(),
            routes: Arc::default(),
            models: Arc::default(),
            threads: Arc::<Threads>::default(),
            metrics: Arc::new(Metrics::new()),
            comparer: Arc::default(),
            exchanges: Arc::default(),
            gpus,
            timer: options.timer,
            one_thread: options.seats == Seats::Current,
        });
        #[cfg(feature = "gpu")]
        if options.has_gpus() {
            office.open_gpus().await?;
        }
        office.directory.set_preparing(options.readiness == Readiness::Announced);
        let sources = Sources::default();
        if restored {
            let desired = office.memory().saved().desired.clone();
            controller::restore(&office, &desired, |source| sources.code(source))?;
        }
        let ((controller, controller_stop), system) = match options.seats {
            Seats::Current => {
                office.directory.set_timers(tokio::runtime::Handle::current());
                office.threads.lend_current(&office.directory);
                (controller::start(Arc::clone(&office)), None)
            }
            Seats::Lent => system::start(Arc::clone(&office), 0).await?,
            Seats::Own(threads) => {
                let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
                system::start(Arc::clone(&office), threads.map_or_else(cores, NonZeroUsize::get)).await?
            }
        };
        Ok(Self(Arc::new(Inner {
            began: Instant::now(),
            office,
            controller,
            controller_stop,
            system: Mutex::new(system),
            servers: Mutex::default(),
            handover,
            options,
            ending: watch::Sender::new(false),
            sources,
            deploys: Arc::default(),
            restored,
            ended: OnceCell::new(),
        })))
    }

    /// Makes a backend and waits until all its replicas take calls. For one that was restored from the state directory
    /// this gives the code; see [`ServeOptions::state`].
    ///
    /// # Errors
    /// A name or option that is not allowed, a name that is taken, [`ServeError::NoResources`] when the replicas
    /// do not all fit, or [`ServeError::StartFailed`] with the factory's reason; then nothing of the backend is
    /// left. A restored one is not taken away when its replicas do not start: they are tried again.
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
        let source = Source::Registered { name: name.clone() };
        let code = Arc::new(backend);
        self.ask(CreateBackend {
            name: name.clone(),
            source,
            code: Arc::clone(&code) as _,
            config,
            by_program: true,
        })
        .await?;
        self.0.sources.made(name, code);
        Ok(())
    }

    /// Makes a backend, or changes the one of this name into this, and waits until that is done. What is to be done
    /// follows from what differs:
    ///
    /// - nothing, when the version and all options are the same;
    /// - limits and time-outs are told to the replicas that run; a changed `num_replicas` starts or drains some; a
    ///   changed `user_config` is handed to them in place;
    /// - a changed [`version`](field@BackendConfig::version), and options that only a new replica can follow (placement,
    ///   threads, resources, restart, `idempotent`, batching switched on or off), replace the replicas: a new one is
    ///   started and ready before an old one drains, at most a fifth of them (and one at least) at once. Where there is
    ///   no room for one more (GPUs, memory and custom resources count; CPUs may run short meanwhile), as many at most
    ///   are without calls at once; those for the only replica wait for the next.
    ///
    /// Without a version, code is the same when its fingerprint is ([`Backend::onnx`](crate::Backend::onnx) has one of
    /// the model's bytes, and see [`Backend::fingerprint`]); other code is always something new. The new code
    /// takes the same messages as the old.
    ///
    /// ```
    /// # use greenroom::{Backend, BackendConfig, Endpoint, Serve, ServeError, ServeOptions};
    /// # #[derive(actix::Message)]
    /// # #[rtype(result = "Result<u64, ServeError>")]
    /// # struct Version;
    /// # #[actix_web::main]
    /// # async fn main() -> Result<(), ServeError> {
    /// # let serve = Serve::start(ServeOptions::default().current_thread()).await?;
    /// for version in [1, 2] {
    ///     let backend = Backend::from_fn(move |_: Version| async move { Ok(version) });
    ///     let config = BackendConfig::default().version(version.to_string());
    ///     serve.deploy_backend("app", backend, config).await?;
    /// }
    /// serve.create_endpoint("app", Endpoint::new("app")).await?;
    /// assert_eq!(serve.handle::<Version>("app")?.call(Version).await?, 2);
    /// # serve.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`create_backend`](Self::create_backend) and
    /// [`update_backend_config`](Self::update_backend_config), and [`ServeError::Invalid`] for code that takes other
    /// messages than the old.
    pub async fn deploy_backend<A>(
        &self,
        name: impl AsRef<str>,
        backend: Backend<A>,
        config: BackendConfig,
    ) -> Result<(), ServeError>
    where
        A: actix::Actor<Context = ReplicaContext<A>>,
    {
        let name = BackendName::new(name)?;
        let source = Source::Registered { name: name.clone() };
        let code = Arc::new(backend);
        self.ask(DeployBackend {
            name: name.clone(),
            source,
            code: Arc::clone(&code) as _,
            config,
            by_program: true,
        })
        .await?;
        self.0.sources.made(name, code);
        Ok(())
    }

    /// Changes the options that `update` gives, and waits until the replicas are as many as it says and have the
    /// options that it says. The `user_config` is changed in place (see [`Reconfigure`](crate::Reconfigure)), in at most
    /// a fifth of the replicas at once, and in one at least, when the calls that run there have ended. A changed version,
    /// and options that only a new replica can follow, replace the replicas as
    /// [`deploy_backend`](Self::deploy_backend) does.
    ///
    /// # Errors
    /// An option that is not allowed, a `user_config` that cannot be read or that the backend does not take, an unknown
    /// backend, or [`ServeError::NoResources`] when the replicas do not all fit; then nothing has changed. [`ServeError::ReconfigureFailed`] when a replica refused the
    /// `user_config`, or what it ran did not end within `graceful_shutdown_timeout`, and
    /// [`ServeError::StartFailed`] when a new replica did not start, or [`ServeError::RolloutFailed`] when it was to take
    /// the place of another; then all is again as it was.
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
        let there = fleet.backends.get(&name).map(|entry| &entry.config);
        let config = there.or_else(|| fleet.awaiting.get(&name).map(|awaiting| &awaiting.decl.config));
        config.cloned().ok_or(ServeError::UnknownBackend(name))
    }

    /// Every backend with its options.
    pub fn list_backends(&self) -> Vec<(BackendName, BackendConfig)> {
        let fleet = self.0.office.fleet();
        let there = fleet.backends.iter().map(|(name, entry)| (name.clone(), entry.config.clone()));
        let awaiting =
            fleet.awaiting.iter().map(|(name, awaiting)| (name.clone(), awaiting.decl.config.clone()));
        let mut all: Vec<_> = there.chain(awaiting).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Drains a backend and forgets it, and answers when it is gone; `force` does not wait for what still runs,
    /// also when the backend is being drained already. Asked again meanwhile, it answers at the same time.
    ///
    /// # Errors
    /// [`ServeError::InUse`] while an endpoint names it, or [`ServeError::UnknownBackend`].
    pub async fn delete_backend(&self, name: impl AsRef<str>, force: bool) -> Result<(), ServeError> {
        self.ask(DeleteBackend { name: BackendName::new(name)?, force }).await?;
        self.forget_code();
        Ok(())
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

    /// Sends the endpoint's requests to these backends by these weights, which add up to 1. Once this has
    /// returned no later request goes by the old ones; shadow rules stay as they are.
    ///
    /// ```
    /// # use greenroom::{Backend, BackendConfig, Endpoint, Serve, ServeError, ServeOptions};
    /// # #[derive(actix::Message)]
    /// # #[rtype(result = "Result<u64, ServeError>")]
    /// # struct Version;
    /// # #[actix_web::main]
    /// # async fn main() -> Result<(), ServeError> {
    /// # let serve = Serve::start(ServeOptions::default().current_thread()).await?;
    /// for version in [1, 2] {
    ///     let backend = Backend::from_fn(move |_: Version| async move { Ok(version) });
    ///     serve.create_backend(format!("v{version}"), backend, BackendConfig::default()).await?;
    /// }
    /// serve.create_endpoint("app", Endpoint::new("v1")).await?;
    /// serve.set_traffic("app", [("v1", 0.99), ("v2", 0.01)]).await?;
    /// serve.set_traffic("app", [("v2", 1.0)]).await?;
    /// assert_eq!(serve.handle::<Version>("app")?.call(Version).await?, 2);
    /// # serve.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// What [`TrafficPolicy::new`] refuses, an unknown endpoint or backend, one that is still being created, one that
    /// does not take HTTP behind a route, or a shadow rule that could do nothing for the new backends
    /// ([`ServeError::NotTaken`], [`ServeError::NotCopied`]); then nothing has changed.
    pub async fn set_traffic(
        &self,
        endpoint: impl AsRef<str>,
        weights: impl IntoIterator<Item = (impl AsRef<str>, f64)>,
    ) -> Result<(), ServeError> {
        let policy = TrafficPolicy::new(weights)?;
        self.ask(SetTraffic { endpoint: EndpointName::new(endpoint)?, policy }).await
    }

    /// Sends copies of the `proportion` of the endpoint's requests, 0 to 1, to `backend` as well; 0 ends it.
    /// Nobody waits for their answers, and what happens to them changes nothing of what callers get. Copies get
    /// at most half of the room that a replica of `backend` has (`max_concurrent_queries` and its share of
    /// `max_queued_queries`); one that finds it taken is dropped, and counted.
    ///
    /// A shadow that computes or blocks needs threads of its own ([`Backend::compute`](crate::Backend::compute),
    /// [`Placement::Dedicated`](crate::Placement::Dedicated)), as any such backend: on a serving thread it stops all
    /// that lives there. A copy ends at the deadline of its request; without one a shutdown waits for it.
    ///
    /// # Errors
    /// What [`ShadowRule::new`] refuses, an unknown endpoint or backend, [`ServeError::OwnShadow`] for the
    /// backend that serves all of the endpoint, [`ServeError::NotTaken`] and [`ServeError::NotCopied`] for one
    /// that cannot be given the requests; then nothing has changed.
    pub async fn shadow_traffic(
        &self,
        endpoint: impl AsRef<str>,
        backend: impl AsRef<str>,
        proportion: f64,
    ) -> Result<(), ServeError> {
        self.set_shadow(endpoint, ShadowRule::new(backend, proportion)?).await
    }

    /// The same for a rule with options; it takes the place of the rule that was. One that compares begins its
    /// counts and its sample anew, unless it is the same as before.
    ///
    /// # Errors
    /// Those of [`shadow_traffic`](Self::shadow_traffic), and [`ServeError::NotCompared`] for a backend whose
    /// answers are not known to be comparable.
    pub async fn set_shadow(&self, endpoint: impl AsRef<str>, rule: ShadowRule) -> Result<(), ServeError> {
        self.ask(SetShadow { endpoint: EndpointName::new(endpoint)?, rule }).await
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
        Handle::to(endpoint.as_ref(), &self.0.office.directory)
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

    /// All metrics of this Serve as Prometheus text.
    pub fn metrics(&self) -> String {
        self.0.office.metrics_text()
    }

    /// Makes the Controller panic, to see that nothing acknowledged is lost.
    #[doc(hidden)]
    pub async fn crash_controller(&self) {
        let _ = self.0.controller.send(Crash).await;
    }

    /// The arbiter of our system thread, on which servers are started.
    pub(crate) fn arbiter(&self) -> Option<actix::ArbiterHandle> {
        let system = self.0.system.lock().unwrap_or_else(PoisonError::into_inner);
        system.as_ref().map(|system| system.system.arbiter().clone())
    }
}
