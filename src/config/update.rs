//! `BackendUpdate`: a change of some options of a backend.

use std::time::Duration;

use super::{
    backend::BackendConfig, check::unless, fields::Fields, gpu_share::GpuShare, item::Item, limits::*,
    node::Node, placement::Placement, problems::Problems, resources::ResourcesUpdate, restart::RestartUpdate,
    user::UserConfig, version,
};
use crate::error::ServeError;

/// A change of a backend's options: only the fields that are given change.
///
/// A field that can be cleared is an option within an option: `Some(None)` clears it, `null` in JSON.
///
/// ```
/// use greenroom::{BackendConfig, BackendUpdate};
/// let old = BackendConfig::default().num_replicas(2).max_batch_size(8);
/// let new = old.updated(&BackendUpdate::default().num_replicas(3))?;
/// assert_eq!((new.num_replicas, new.max_batch_size), (3, old.max_batch_size));
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendUpdate {
    /// New [`BackendConfig::version`]; `Some(None)` takes it away.
    pub version: Option<Option<String>>,
    /// New [`BackendConfig::num_replicas`].
    pub num_replicas: Option<u32>,
    /// New [`BackendConfig::max_batch_size`]; `Some(None)` turns batching off.
    pub max_batch_size: Option<Option<usize>>,
    /// New [`BackendConfig::batch_wait_timeout`].
    pub batch_wait_timeout: Option<Duration>,
    /// New [`BackendConfig::max_concurrent_queries`].
    pub max_concurrent_queries: Option<usize>,
    /// New [`BackendConfig::max_queued_queries`].
    pub max_queued_queries: Option<usize>,
    /// New [`BackendConfig::request_timeout`]; `Some(None)` takes the limit away.
    pub request_timeout: Option<Option<Duration>>,
    /// New [`BackendConfig::startup_timeout`].
    pub startup_timeout: Option<Duration>,
    /// New [`BackendConfig::graceful_shutdown_timeout`].
    pub graceful_shutdown_timeout: Option<Duration>,
    /// New [`BackendConfig::health_check_period`].
    pub health_check_period: Option<Duration>,
    /// New [`BackendConfig::health_check_timeout`].
    pub health_check_timeout: Option<Duration>,
    /// New [`BackendConfig::idempotent`].
    pub idempotent: Option<bool>,
    /// New [`BackendConfig::placement`]; `Some(None)` leaves it to the backend.
    pub placement: Option<Option<Placement>>,
    /// New [`BackendConfig::num_threads`]; `Some(None)` leaves it to the CPUs that are asked for.
    pub num_threads: Option<Option<usize>>,
    /// New values within [`BackendConfig::resources`].
    pub resources: ResourcesUpdate,
    /// New [`BackendConfig::gpu_share`].
    pub gpu_share: Option<GpuShare>,
    /// New values within [`BackendConfig::restart`].
    pub restart: RestartUpdate,
    /// New [`BackendConfig::user_config`]; `Some(None)` takes it away.
    pub user_config: Option<Option<UserConfig>>,
}

impl BackendUpdate {
    /// Changes [`BackendConfig::version`], which replaces the replicas.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(Some(version.into()));
        self
    }

    /// Changes [`BackendConfig::num_replicas`].
    pub fn num_replicas(mut self, replicas: u32) -> Self {
        self.num_replicas = Some(replicas);
        self
    }

    /// Changes [`BackendConfig::max_batch_size`]; `None` turns batching off.
    pub fn max_batch_size(mut self, requests: impl Into<Option<usize>>) -> Self {
        self.max_batch_size = Some(requests.into());
        self
    }

    /// Changes [`BackendConfig::batch_wait_timeout`].
    pub fn batch_wait_timeout(mut self, wait: Duration) -> Self {
        self.batch_wait_timeout = Some(wait);
        self
    }

    /// Changes [`BackendConfig::max_concurrent_queries`].
    pub fn max_concurrent_queries(mut self, calls: usize) -> Self {
        self.max_concurrent_queries = Some(calls);
        self
    }

    /// Changes [`BackendConfig::max_queued_queries`].
    pub fn max_queued_queries(mut self, calls: usize) -> Self {
        self.max_queued_queries = Some(calls);
        self
    }

    /// Changes [`BackendConfig::request_timeout`]; `None` takes the limit away.
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.request_timeout = Some(timeout.into());
        self
    }

    /// Changes [`BackendConfig::startup_timeout`].
    pub fn startup_timeout(mut self, timeout: Duration) -> Self {
        self.startup_timeout = Some(timeout);
        self
    }

    /// Changes [`BackendConfig::graceful_shutdown_timeout`].
    pub fn graceful_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.graceful_shutdown_timeout = Some(timeout);
        self
    }

    /// Changes [`BackendConfig::health_check_period`].
    pub fn health_check_period(mut self, period: Duration) -> Self {
        self.health_check_period = Some(period);
        self
    }

    /// Changes [`BackendConfig::health_check_timeout`].
    pub fn health_check_timeout(mut self, timeout: Duration) -> Self {
        self.health_check_timeout = Some(timeout);
        self
    }

    /// Changes [`BackendConfig::idempotent`].
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// Changes [`BackendConfig::placement`]; `None` leaves it to the backend.
    pub fn placement(mut self, placement: impl Into<Option<Placement>>) -> Self {
        self.placement = Some(placement.into());
        self
    }

    /// Changes [`BackendConfig::num_threads`]; `None` leaves it to the CPUs that are asked for.
    pub fn num_threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        self.num_threads = Some(threads.into());
        self
    }

    /// Changes values within [`BackendConfig::resources`].
    pub fn resources(mut self, update: ResourcesUpdate) -> Self {
        self.resources = update;
        self
    }

    /// Changes [`BackendConfig::gpu_share`].
    pub fn gpu_share(mut self, share: GpuShare) -> Self {
        self.gpu_share = Some(share);
        self
    }

    /// Changes values within [`BackendConfig::restart`].
    pub fn restart(mut self, update: impl Into<RestartUpdate>) -> Self {
        self.restart = update.into();
        self
    }

    /// Changes [`BackendConfig::user_config`]: any JSON; `None` and null take it away, which makes the states of
    /// the replicas anew from the factory.
    pub fn user_config(mut self, config: impl Into<Option<serde_json::Value>>) -> Self {
        self.user_config = Some(config.into().and_then(UserConfig::new));
        self
    }
}

impl BackendUpdate {
    /// The change that a JSON object asks for, with the keys of a file; `null` clears what can be cleared.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every unknown key and every value that cannot be. Whether the result
    /// is one that can be used is for [`BackendConfig::updated`] to say.
    ///
    /// ```
    /// use greenroom::BackendUpdate;
    /// let update = BackendUpdate::from_json(serde_json::json!({"num_replicas": 3, "max_batch_size": null}))?;
    /// assert_eq!(update, BackendUpdate::default().num_replicas(3).max_batch_size(None));
    /// assert!(BackendUpdate::from_json(serde_json::json!({"num_replica": 3})).is_err());
    /// # Ok::<(), greenroom::ServeError>(())
    /// ```
    pub fn from_json(json: serde_json::Value) -> Result<Self, ServeError> {
        let node = Node::from_json(json).map_err(|problem| ServeError::InvalidConfig(vec![problem]))?;
        let problems = Problems::default();
        let update = Item::root(&node, &problems).fields().map(|mut fields| {
            let update = Self::read(&mut fields);
            fields.finish();
            update
        });
        problems.unless(update)
    }

    /// Takes every option of a backend out of `fields`; a wrong one is noted and left out.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Self {
        let count = |max| move |item: Item<'_>| item.positive(max).map(usize::from);
        Self {
            version: fields.nullable("version", version::read),
            num_replicas: fields.read("num_replicas", |item| item.whole(0, NUM_REPLICAS_MAX.into())),
            max_batch_size: fields.nullable("max_batch_size", count(BATCH_SIZE_MAX)),
            batch_wait_timeout: fields
                .read("batch_wait_timeout_s", |item| item.seconds(BATCH_WAIT_TIMEOUT_MAX)),
            max_concurrent_queries: fields.read("max_concurrent_queries", count(CONCURRENT_QUERIES_MAX)),
            max_queued_queries: fields
                .read("max_queued_queries", |item| item.whole(0, QUEUED_QUERIES_MAX as i64)),
            request_timeout: fields.nullable("request_timeout_s", |item| item.timeout(TIMEOUT_MAX)),
            startup_timeout: fields.read("startup_timeout_s", |item| item.timeout(TIMEOUT_MAX)),
            graceful_shutdown_timeout: fields
                .read("graceful_shutdown_timeout_s", |item| item.timeout(TIMEOUT_MAX)),
            health_check_period: fields.read("health_check_period_s", |item| item.timeout(TIMEOUT_MAX)),
            health_check_timeout: fields.read("health_check_timeout_s", |item| item.timeout(TIMEOUT_MAX)),
            idempotent: fields.read("idempotent", Item::bool),
            placement: fields.nullable("placement", |item| item.word(&Placement::WORDS)),
            num_threads: fields.nullable("num_threads", count(NUM_THREADS_MAX)),
            resources: fields.read("resources", ResourcesUpdate::read).unwrap_or_default(),
            gpu_share: fields.read("gpu_share", |item| item.word(&GpuShare::WORDS)),
            restart: fields.read("restart", RestartUpdate::read).unwrap_or_default(),
            user_config: fields.nullable("user_config", UserConfig::read),
        }
    }
}

impl BackendConfig {
    /// These options with the fields that `update` gives; all of them or none.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake of the result.
    pub fn updated(&self, update: &BackendUpdate) -> Result<Self, ServeError> {
        let config = self.clone().with(update);
        unless(config.problems(), config)
    }

    /// These options with the fields that `update` gives, not yet checked.
    pub(crate) fn with(self, update: &BackendUpdate) -> Self {
        let restart = self.restart.updated(update.restart);
        let resources = update.resources.applied(self.resources.clone());
        let mut config = self.restart(restart).resources(resources);
        if let Some(version) = &update.version {
            config.version.clone_from(version);
        }
        if let Some(user_config) = &update.user_config {
            config.user_config.clone_from(user_config);
        }
        /// Hands a value that is given to the setter of the same name.
        macro_rules! set {
            ($($field:ident),+) => {
                $(if let Some(value) = update.$field { config = config.$field(value); })+
            };
        }
        set!(num_replicas, max_batch_size, batch_wait_timeout, max_concurrent_queries, max_queued_queries);
        set!(health_check_period, health_check_timeout);
        set!(request_timeout, startup_timeout, graceful_shutdown_timeout, idempotent, placement, num_threads);
        set!(gpu_share);
        config
    }
}
