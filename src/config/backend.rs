//! `BackendConfig`: the options of a backend.

use std::{num::NonZeroUsize, time::Duration};

use serde::Serialize;

use super::{
    check::{Check, seconds, seconds_or_null, unless},
    gpu_share::GpuShare,
    limits::*,
    placement::Placement,
    restart::RestartPolicy,
    user::UserConfig,
    version,
};
use crate::{
    error::{Problem, ServeError},
    resources::Resources,
};

/// The options of a backend; the default is one replica without batching.
///
/// Setters chain and take plain values; [`check`](Self::check), which everything that takes a config calls,
/// tells every value that cannot be.
///
/// ```
/// use std::time::Duration;
/// use greenroom::BackendConfig;
/// let config = BackendConfig::default()
///     .num_replicas(2)
///     .max_batch_size(32)
///     .batch_wait_timeout(Duration::from_millis(2));
/// config.check()?;
/// assert!(config.max_batch_size(0).check().is_err());
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendConfig {
    /// What its user calls what the replicas are made from, 1 to 128 visible characters; none.
    ///
    /// A changed version replaces the replicas; the same version and options change nothing, whatever the code.
    /// Without one, a model's file is told apart by its bytes, and a closure is always something new.
    pub version: Option<String>,
    /// How many instances of the backend run; 1, at most [`NUM_REPLICAS_MAX`].
    ///
    /// 0 is valid: calls are refused with `no_replica` until somebody scales up.
    pub num_replicas: u32,
    /// Most requests handed to a replica in one call; none: one by one. At most [`BATCH_SIZE_MAX`].
    pub max_batch_size: Option<NonZeroUsize>,
    /// How long the first request of a batch waits for company; 0: a batch takes what queued while the
    /// replica was busy. At most [`BATCH_WAIT_TIMEOUT_MAX`]. Costs a lone request this much latency.
    #[serde(rename = "batch_wait_timeout_s", serialize_with = "seconds")]
    pub batch_wait_timeout: Duration,
    /// Calls that one replica runs at once; 100, not below the batch size, at most [`CONCURRENT_QUERIES_MAX`].
    pub max_concurrent_queries: NonZeroUsize,
    /// Calls that wait for the backend, all replicas together; 1000, at most [`QUEUED_QUERIES_MAX`].
    ///
    /// Past it a caller gets `overloaded` at once; 0 lets nothing wait.
    pub max_queued_queries: usize,
    /// Longest time from a call to its answer; none: no limit but the caller's own. At most [`TIMEOUT_MAX`].
    #[serde(rename = "request_timeout_s", serialize_with = "seconds_or_null")]
    pub request_timeout: Option<Duration>,
    /// Longest time a replica may take to start; 60 s, at most [`TIMEOUT_MAX`].
    #[serde(rename = "startup_timeout_s", serialize_with = "seconds")]
    pub startup_timeout: Duration,
    /// Longest time a replica may take to finish what it has when it is to stop; 20 s, at most [`TIMEOUT_MAX`].
    #[serde(rename = "graceful_shutdown_timeout_s", serialize_with = "seconds")]
    pub graceful_shutdown_timeout: Duration,
    /// How often each replica is asked whether it is well; 10 s, at most [`TIMEOUT_MAX`]. See
    /// [`CheckHealth`](crate::CheckHealth).
    #[serde(rename = "health_check_period_s", serialize_with = "seconds")]
    pub health_check_period: Duration,
    /// Longest time that a check may take, the time included that it waits for what the replica does; 30 s, at
    /// most [`TIMEOUT_MAX`]. A [`request_timeout`](field@Self::request_timeout) that is longer counts instead.
    #[serde(rename = "health_check_timeout_s", serialize_with = "seconds")]
    pub health_check_timeout: Duration,
    /// Whether a call may be run a second time when its batch or replica failed; false.
    pub idempotent: bool,
    /// On which threads the replicas run; none: what the backend itself asks for.
    pub placement: Option<Placement>,
    /// Threads that one replica may compute with; none: as many as it asks for whole CPUs, at least 1. At most
    /// [`NUM_THREADS_MAX`].
    pub num_threads: Option<NonZeroUsize>,
    /// What each replica asks for; 1 CPU. Replicas that do not fit into the [`Capacity`](crate::Capacity) are
    /// refused.
    pub resources: Resources,
    /// What each replica gets of a GPU that nobody else wants; what others leave. Needs a part of a GPU, or a whole
    /// one, in [`resources`](field@Self::resources).
    pub gpu_share: GpuShare,
    /// What happens when replicas do not start.
    pub restart: RestartPolicy,
    /// What the backend's own code is told, which takes it by [`Backend::reconfigure`](crate::Backend::reconfigure)
    /// before a replica's first call and, in place, whenever it changes; none: nothing.
    pub user_config: Option<UserConfig>,
    /// Values that a setter was given and no field can hold; told by `check`.
    #[serde(skip)]
    refused: Vec<Problem>,
}

impl Default for BackendConfig {
    fn default() -> Self {
        const CONCURRENT_QUERIES: NonZeroUsize = NonZeroUsize::new(100).unwrap();
        Self {
            version: None,
            num_replicas: 1,
            max_batch_size: None,
            batch_wait_timeout: Duration::ZERO,
            max_concurrent_queries: CONCURRENT_QUERIES,
            max_queued_queries: 1000,
            request_timeout: None,
            startup_timeout: Duration::from_secs(60),
            graceful_shutdown_timeout: Duration::from_secs(20),
            health_check_period: Duration::from_secs(10),
            health_check_timeout: Duration::from_secs(30),
            idempotent: false,
            placement: None,
            num_threads: None,
            resources: Resources::default(),
            gpu_share: GpuShare::default(),
            restart: RestartPolicy::default(),
            user_config: None,
            refused: Vec::new(),
        }
    }
}

impl BackendConfig {
    /// Sets [`version`](field@Self::version).
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Sets [`num_replicas`](field@Self::num_replicas).
    pub fn num_replicas(mut self, replicas: u32) -> Self {
        self.num_replicas = replicas;
        self
    }

    /// Sets [`max_batch_size`](field@Self::max_batch_size), from 1; `None` turns batching off.
    pub fn max_batch_size(mut self, requests: impl Into<Option<usize>>) -> Self {
        let requests = requests.into();
        self.max_batch_size = requests.and_then(|given| self.positive("max_batch_size", given));
        if requests.is_none() {
            self.accept("max_batch_size");
        }
        self
    }

    /// Sets [`batch_wait_timeout`](field@Self::batch_wait_timeout).
    pub fn batch_wait_timeout(mut self, wait: Duration) -> Self {
        self.batch_wait_timeout = wait;
        self
    }

    /// Sets [`max_concurrent_queries`](field@Self::max_concurrent_queries), from 1.
    pub fn max_concurrent_queries(mut self, calls: usize) -> Self {
        if let Some(calls) = self.positive("max_concurrent_queries", calls) {
            self.max_concurrent_queries = calls;
        }
        self
    }

    /// Sets [`max_queued_queries`](field@Self::max_queued_queries).
    pub fn max_queued_queries(mut self, calls: usize) -> Self {
        self.max_queued_queries = calls;
        self
    }

    /// Sets [`request_timeout`](field@Self::request_timeout); `None` takes the limit away.
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.request_timeout = timeout.into();
        self
    }

    /// Sets [`startup_timeout`](field@Self::startup_timeout).
    pub fn startup_timeout(mut self, timeout: Duration) -> Self {
        self.startup_timeout = timeout;
        self
    }

    /// Sets [`graceful_shutdown_timeout`](field@Self::graceful_shutdown_timeout).
    pub fn graceful_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.graceful_shutdown_timeout = timeout;
        self
    }

    /// Sets [`health_check_period`](field@Self::health_check_period).
    pub fn health_check_period(mut self, period: Duration) -> Self {
        self.health_check_period = period;
        self
    }

    /// Sets [`health_check_timeout`](field@Self::health_check_timeout).
    pub fn health_check_timeout(mut self, timeout: Duration) -> Self {
        self.health_check_timeout = timeout;
        self
    }

    /// Sets [`idempotent`](field@Self::idempotent).
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Sets [`placement`](field@Self::placement); `None` leaves it to the backend.
    pub fn placement(mut self, placement: impl Into<Option<Placement>>) -> Self {
        self.placement = placement.into();
        self
    }

    /// Sets [`num_threads`](field@Self::num_threads), from 1; `None` leaves it to the CPUs that are
    /// asked for.
    pub fn num_threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        let threads = threads.into();
        self.num_threads = threads.and_then(|given| self.positive("num_threads", given));
        if threads.is_none() {
            self.accept("num_threads");
        }
        self
    }

    /// Sets [`resources`](field@Self::resources).
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Sets [`gpu_share`](field@Self::gpu_share).
    pub fn gpu_share(mut self, share: GpuShare) -> Self {
        self.gpu_share = share;
        self
    }

    /// Sets [`restart`](field@Self::restart).
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = policy;
        self
    }

    /// Sets [`user_config`](field@Self::user_config): any JSON; `None` and null take it away.
    pub fn user_config(mut self, config: impl Into<Option<serde_json::Value>>) -> Self {
        self.user_config = config.into().and_then(UserConfig::new);
        self
    }

    /// Threads that one replica may compute with.
    pub(crate) fn threads(&self) -> usize {
        let cpus = usize::try_from(self.resources.num_cpus.floor()).unwrap_or(NUM_THREADS_MAX);
        self.num_threads.map_or(cpus.clamp(1, NUM_THREADS_MAX), NonZeroUsize::get)
    }

    /// Whether all values are within their limits and go together.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake; the place of each is the option's key in a file.
    pub fn check(&self) -> Result<(), ServeError> {
        unless(self.problems(), ())
    }

    /// Every mistake; each place is a key.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut check = Check::default();
        if let Some(what) = self.version.as_deref().and_then(version::wrong) {
            check.problem("version", what);
        }
        let batch = self.max_batch_size.map_or(0, NonZeroUsize::get);
        check.at_most("num_replicas", self.num_replicas as usize, NUM_REPLICAS_MAX as usize);
        check.at_most("max_batch_size", batch, BATCH_SIZE_MAX);
        check.wait("batch_wait_timeout_s", self.batch_wait_timeout, BATCH_WAIT_TIMEOUT_MAX);
        check.at_most("max_concurrent_queries", self.max_concurrent_queries.get(), CONCURRENT_QUERIES_MAX);
        check.at_most("max_queued_queries", self.max_queued_queries, QUEUED_QUERIES_MAX);
        if let Some(timeout) = self.request_timeout {
            check.timeout("request_timeout_s", timeout, TIMEOUT_MAX);
        }
        check.timeout("startup_timeout_s", self.startup_timeout, TIMEOUT_MAX);
        check.timeout("graceful_shutdown_timeout_s", self.graceful_shutdown_timeout, TIMEOUT_MAX);
        check.timeout("health_check_period_s", self.health_check_period, TIMEOUT_MAX);
        check.timeout("health_check_timeout_s", self.health_check_timeout, TIMEOUT_MAX);
        check.at_most("num_threads", self.num_threads.map_or(0, NonZeroUsize::get), NUM_THREADS_MAX);
        self.restart.check(&mut check);
        if self.gpu_share == GpuShare::HardCap && self.resources.num_gpus.is_none() {
            check.problem(
                "gpu_share",
                "hard_cap was given and resources.num_gpus is 0: there is nothing to cap",
            );
        }
        if let Some(what) = self.user_config.as_ref().and_then(UserConfig::too_large) {
            check.problem("user_config", what);
        }
        let mut problems = self.refused.clone();
        problems.extend(check.into_problems());
        let below = |p: Problem| Problem { place: format!("resources.{}", p.place), ..p };
        problems.extend(self.resources.problems().into_iter().map(below));
        problems.extend(self.mismatch());
        problems
    }

    /// Values that do not go together.
    fn mismatch(&self) -> Option<Problem> {
        let batch = self.max_batch_size.filter(|batch| *batch > self.max_concurrent_queries)?;
        let what = format!(
            "max_concurrent_queries is {} and max_batch_size is {batch}; \
             a replica must be allowed to run at least one whole batch",
            self.max_concurrent_queries
        );
        Some(Problem { place: "max_concurrent_queries".into(), what })
    }

    /// `given` when it is not 0; else what is refused is noted under `key`.
    fn positive(&mut self, key: &str, given: usize) -> Option<NonZeroUsize> {
        self.accept(key);
        let positive = NonZeroUsize::new(given);
        if positive.is_none() {
            let what = "0 was given; at least 1 is needed".into();
            self.refused.push(Problem { place: key.into(), what });
        }
        positive
    }

    /// Forgets what was refused under `key`: another value took its place.
    fn accept(&mut self, key: &str) {
        self.refused.retain(|problem| problem.place != key);
    }
}
