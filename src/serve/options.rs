//! `ServeOptions`: on whose threads a Serve runs, by which clock, and how long its end may take.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use crate::{
    actors::{gpus::GpuSource, timer::TimerKind},
    config::ServeConfig,
    resources::Capacity,
    serve::takeover::CLAIM_MAX,
    store::straight,
};

/// How a [`Serve`](crate::Serve) is started.
#[derive(Clone, Debug)]
#[must_use]
pub struct ServeOptions {
    pub(super) seats: Seats,
    pub(super) timer: TimerKind,
    pub(super) shutdown_timeout: Duration,
    pub(super) readiness: Readiness,
    /// None: as the seats are.
    pub(super) capacity: Option<Capacity>,
    pub(super) state: Option<PathBuf>,
    /// What is declared as a whole.
    pub(super) declared: Option<ServeConfig>,
    pub(super) gpus: GpuSource,
    pub(super) takeover: Option<PathBuf>,
    pub(super) takeover_timeout: Duration,
    /// What a configuration says of the process itself; it has no backends and endpoints.
    pub(super) sections: Option<ServeConfig>,
}

/// When `/-/readyz` may say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// As soon as every endpoint that there is can be served.
    Observed,
    /// Not before it was announced.
    Announced,
}

/// Whose threads replicas live on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seats {
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
            capacity: None,
            state: None,
            declared: None,
            gpus: GpuSource::default(),
            takeover: None,
            takeover_timeout: CLAIM_MAX,
            sections: None,
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
    /// ([`Serve::lend_current_thread`](crate::Serve::lend_current_thread),
    /// [`Serve::listen`](crate::Serve::listen)), so that a request need not change threads.
    pub fn lent_threads(mut self) -> Self {
        self.seats = Seats::Lent;
        self
    }

    /// Everything on the thread that starts the Serve; timers follow paused time. For tests.
    ///
    /// # Panics
    /// [`Serve::start`](crate::Serve::start) does unless the thread's runtime runs local tasks, as that of
    /// `#[actix_web::test]`, `#[actix_web::main]` or a `LocalSet` does.
    pub fn current_thread(mut self) -> Self {
        (self.seats, self.timer) = (Seats::Current, TimerKind::Tokio);
        self
    }

    /// `/-/readyz` and `/v2/health/ready` answer 503 until
    /// [`Serve::announce_ready`](crate::Serve::announce_ready): for programs that listen first and make their
    /// endpoints then.
    pub fn announces_ready(mut self) -> Self {
        self.readiness = Readiness::Announced;
        self
    }

    /// Restarts without a lost request, on Linux: a new process of the same service takes over from the running one
    /// through the Unix socket at `path`, and can be taken over from in its turn. Both need the same path and the
    /// same user; nothing runs there the first time.
    ///
    /// A [`listen`](crate::Serve::listen) or [`listen_admin`](crate::Serve::listen_admin) on an address that the
    /// running process has too goes on with that one's socket, from
    /// [`announce_ready`](crate::Serve::announce_ready) on, and then that process is told
    /// ([`replaced`](crate::Serve::replaced)). Until then it serves on, also when this one fails to start. This
    /// includes [`announces_ready`](Self::announces_ready).
    ///
    /// ```no_run
    /// # use greenroom::{Listen, Serve, ServeError, ServeOptions};
    /// # async fn start() -> Result<(), ServeError> {
    /// let serve = Serve::start(ServeOptions::default().takeover("/run/app/takeover.sock")).await?;
    /// serve.listen(Listen::on("127.0.0.1", 8000)).await?;
    /// // Backends and endpoints are made here.
    /// serve.announce_ready();
    /// serve.run_until_signal().await // or until the next process has taken over
    /// # }
    /// ```
    pub fn takeover(mut self, path: impl Into<PathBuf>) -> Self {
        self.takeover = Some(path.into());
        self.announces_ready()
    }

    /// Longest time that this process, while it runs, waits for a new one to get ready: 10 minutes. Then it takes
    /// changes again, and the new one ends with an error.
    pub fn takeover_timeout(mut self, timeout: Duration) -> Self {
        self.takeover_timeout = timeout;
        self
    }

    /// How much there is of what replicas ask for; the machine's cores. With
    /// [`current_thread`](Self::current_thread), which has no cores to give, nothing is counted unless this says so.
    pub fn capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Keeps what the Serve is told in this directory, which is made if its parent is there: every change is on the
    /// disk before it is made, and the next Serve with the same directory goes on with what was wanted last. One
    /// process at a time works with it. See `docs/state.md`.
    ///
    /// A backend of the program's is restored without its code: calls to it are refused with `no_replica`, until the
    /// program makes it again by [`Serve::create_backend`](crate::Serve::create_backend). What was changed by hand
    /// since then holds as long as the program gives the same options as before.
    ///
    /// ```
    /// # use greenroom::{Backend, BackendConfig, BackendUpdate, Endpoint, Serve, ServeError, ServeOptions};
    /// # #[derive(actix::Message)]
    /// # #[rtype(result = "Result<u64, ServeError>")]
    /// # struct Ask;
    /// # #[actix_web::main]
    /// # async fn main() -> Result<(), ServeError> {
    /// # let folder = std::env::temp_dir().join(format!("greenroom-doc-{}", std::process::id()));
    /// async fn start(state: &std::path::Path) -> Result<Serve, ServeError> {
    ///     let serve = Serve::start(ServeOptions::default().current_thread().state(state)).await?;
    ///     let one = Backend::from_fn(|_: Ask| async { Ok(1) });
    ///     serve.create_backend("one", one, BackendConfig::default()).await?;
    ///     serve.create_endpoint("one", Endpoint::new("one")).await?;
    ///     Ok(serve)
    /// }
    /// let serve = start(&folder).await?;
    /// serve.update_backend_config("one", BackendUpdate::default().num_replicas(3)).await?;
    /// serve.shutdown().await?;
    ///
    /// let serve = start(&folder).await?;
    /// assert_eq!(serve.get_backend_config("one")?.num_replicas, 3);
    /// # serve.shutdown().await?;
    /// # std::fs::remove_dir_all(folder).map_err(ServeError::from_user)
    /// # }
    /// ```
    pub fn state(mut self, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        self.state = Some(straight(&directory).unwrap_or(directory));
        self
    }

    /// What is declared as a whole, as a file is. When it wants the same backends and endpoints as what was deployed as
    /// [`declared`](crate::DeployOptions::declared) last, or as whatever was deployed last, what was wanted last is
    /// restored, with other deploys and changes made by hand ([`Serve::restored`](crate::Serve::restored)); otherwise
    /// nothing is, and the program is to deploy this as declared.
    pub fn declared(mut self, config: ServeConfig) -> Self {
        self.declared = Some(config);
        self
    }

    /// Takes `capacity` from a configuration, and remembers what it says of `http` and `admin`: it is told by
    /// [`Serve::config`](crate::Serve::config), and a deploy that would change it is refused.
    pub fn sections(mut self, config: &ServeConfig) -> Self {
        let sections = ServeConfig { backends: Vec::new(), endpoints: Vec::new(), ..config.clone() };
        self.sections = Some(sections);
        self.capacity(config.capacity.clone())
    }

    /// What there is for replicas.
    pub(super) fn all(&self) -> Capacity {
        let detected = || match self.seats {
            Seats::Current => Capacity::unlimited(),
            Seats::Own(_) | Seats::Lent => Capacity::default(),
        };
        self.capacity.clone().unwrap_or_else(detected)
    }

    /// Which clock wakes a waiting batch.
    pub fn timer(mut self, timer: TimerKind) -> Self {
        self.timer = timer;
        self
    }

    /// Longest time that [`Serve::shutdown`](crate::Serve::shutdown) waits for what still runs.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }
}
