//! Deploying a configuration as a whole: planned, applied together or taken back, kept in a history.

mod check;
mod run;
mod single;
mod take_back;
mod turn;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    actors::{
        context::ReplicaContext,
        controller::CodeGiven,
        fleet::{EndpointEntry, Fleet, same_code},
    },
    backend::Backend,
    config::{BackendDecl, EndpointDecl, ServeConfig, Source},
    error::ServeError,
    ids::{BackendName, EndpointName},
    plan::Plan,
    serve::{
        Serve,
        deploy::{check::Codes, run::Deploying},
    },
    store::{Applied, absolute, decl_of, same},
};

pub(crate) use single::steps;
pub(super) use turn::Deploys;
pub use turn::{DeployState, Progress};

/// How a configuration is deployed.
#[derive(Clone, Debug, PartialEq)]
pub struct DeployOptions {
    /// Longest time it may take; then it is taken back. None: each of its steps has limits of its own.
    pub timeout: Option<Duration>,
    /// Who or what asks for it, for the history; `deploy`.
    pub by: String,
    /// Whether to wait, as long as `timeout`, while not all of it fits beside what there is; false: it is refused.
    /// Until it begins, changes by hand are taken.
    pub wait_for_resources: bool,
    /// Whether this is what [`ServeOptions::declared`](crate::ServeOptions::declared) says at the next start, as a file
    /// does, and is compared with; false: it holds until what that says is something else.
    pub declared: bool,
}

impl Default for DeployOptions {
    fn default() -> Self {
        Self { timeout: None, by: "deploy".into(), wait_for_resources: false, declared: false }
    }
}

impl DeployOptions {
    /// Sets [`timeout`](field@Self::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Sets [`by`](field@Self::by).
    #[must_use]
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = by.into();
        self
    }

    /// Waits for resources until the time-out, which it needs.
    #[must_use]
    pub fn wait_for_resources(mut self) -> Self {
        self.wait_for_resources = true;
        self
    }

    /// Sets [`declared`](field@Self::declared): it is what a file says.
    #[must_use]
    pub fn declared(mut self) -> Self {
        self.declared = true;
        self
    }
}

/// What a deploy has done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deployed {
    /// The steps that were taken; none when all was as it should be.
    pub plan: Plan,
    /// Its entry in the [`history`](Serve::history).
    pub id: u64,
}

impl Serve {
    /// Gives the code for `registered: NAME` in configurations; in the place of what had the name before, from the next
    /// deploy on. What [`create_backend`](Self::create_backend) makes is registered under the backend's name. Backends
    /// that were restored from a state directory and await this code are started.
    ///
    /// # Errors
    /// A name that is not allowed.
    pub fn register<A>(&self, name: impl AsRef<str>, backend: Backend<A>) -> Result<(), ServeError>
    where
        A: actix::Actor<Context = ReplicaContext<A>>,
    {
        let (name, code) = (BackendName::new(name)?, Arc::new(backend));
        self.0.sources.register(name.clone(), Arc::clone(&code) as _);
        self.0.controller.do_send(CodeGiven { name, code });
        Ok(())
    }

    /// What is wanted now, in the form that a file has: what was deployed, with the changes that were made by hand
    /// since. Backends made by the program itself are there as `registered` ones.
    pub fn config(&self) -> ServeConfig {
        let fleet = self.0.office.fleet();
        self.config_of(&fleet)
    }

    fn config_of(&self, fleet: &Fleet) -> ServeConfig {
        let there = fleet.backends.iter().filter(|(_, entry)| !entry.deleting());
        let there = there.map(|(name, entry)| BackendDecl {
            name: name.clone(),
            source: entry.source.clone(),
            config: entry.config.clone(),
        });
        let mut backends: Vec<_> =
            there.chain(fleet.awaiting.values().map(|awaiting| awaiting.decl.clone())).collect();
        backends.sort_by(|a, b| a.name.cmp(&b.name));
        let endpoint = |(name, entry): (&EndpointName, &EndpointEntry)| EndpointDecl {
            // With the functions that no file holds.
            shadow: entry.declared.shadows.clone(),
            ..decl_of(name, &entry.declared)
        };
        let endpoints = fleet.endpoints.iter().map(endpoint).collect();
        ServeConfig { backends, endpoints, ..self.process() }
    }

    /// What the process runs with, which no deploy changes, as it is declared: not with what was found on the machine.
    fn process(&self) -> ServeConfig {
        let options = &self.0.options;
        let sections = options.sections.clone().unwrap_or_default();
        ServeConfig { state: options.state.clone(), capacity: options.all(), ..sections }
    }

    /// Whether `http` and `admin` were declared. Otherwise the program decided by itself where it listens.
    pub(crate) fn declares_servers(&self) -> bool {
        self.0.options.sections.is_some()
    }

    /// What [`deploy`](Self::deploy) would do, and why; nothing is changed. Model files are looked at.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake, as [`deploy`](Self::deploy) would find it.
    pub fn plan(&self, wanted: &ServeConfig) -> Result<Plan, ServeError> {
        let codes = self.check(wanted)?;
        Ok(self.plan_with(&self.config(), &self.whole(wanted)?, &codes))
    }

    /// Makes all of `wanted` so, and takes away what it does not name: all or nothing. When a step fails, those before
    /// it are taken back, and what there was serves on. `http`, `admin`,
    /// `state` and `capacity` belong to the process; where they are absent they are not looked at.
    ///
    /// One deploy runs at a time, and changes by hand are refused meanwhile. It goes on when the caller leaves. The
    /// same configuration again changes nothing and is no new entry of the [`history`](Self::history).
    ///
    /// ```
    /// use std::path::Path;
    /// use greenroom::{Backend, DeployOptions, Serve, ServeConfig, ServeError, ServeOptions};
    /// # #[derive(actix::Message)]
    /// # #[rtype(result = "Result<u64, ServeError>")]
    /// # struct Ask;
    /// # #[actix_web::main]
    /// # async fn main() -> Result<(), ServeError> {
    /// let serve = Serve::start(ServeOptions::default().current_thread()).await?;
    /// serve.register("model", Backend::from_fn(|_: Ask| async { Ok(1) }))?;
    /// let text = "
    /// backends: [{ name: a, registered: model }]
    /// endpoints: [{ name: a, backend: a }]
    /// ";
    /// let mut config = ServeConfig::from_yaml(text, Path::new("."))?;
    /// serve.deploy(config.clone(), DeployOptions::default()).await?;
    /// assert_eq!(serve.handle::<Ask>("a")?.call(Ask).await?, 1);
    ///
    /// config.backends[0].config.num_replicas = 2;
    /// assert_eq!(serve.plan(&config)?.to_string(), "scale  backend   a  num_replicas: 1 -> 2");
    /// serve.deploy(config, DeployOptions::default()).await?;
    /// serve.rollback(None, DeployOptions::default()).await?;
    /// assert_eq!(serve.get_backend_config("a")?.num_replicas, 1);
    /// # serve.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake, those deep inside too, [`ServeError::DeployInProgress`], or
    /// [`ServeError::NoResources`] for what does not fit now; then nothing was begun. [`ServeError::DeployFailed`] with
    /// the step that failed, and [`ServeError::TimedOut`] with what it waited for; then all is again as it was.
    pub async fn deploy(&self, wanted: ServeConfig, how: DeployOptions) -> Result<Deployed, ServeError> {
        Deploying::begin(self, wanted, how)?.end().await
    }

    /// As [`deploy`](Self::deploy); an error says that it was not begun.
    pub(crate) fn begin(&self, wanted: ServeConfig, how: DeployOptions) -> Result<Deploying, ServeError> {
        Deploying::begin(self, wanted, how)
    }

    /// Looks at files on a thread that may wait for them; not one of the runtime, whose end would wait for it.
    pub(crate) async fn looking<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Self) -> Result<T, ServeError> + Send + 'static,
    ) -> Result<T, ServeError> {
        if self.0.office.one_thread {
            return look(self);
        }
        let serve = self.clone();
        let (tx, rx) = oneshot::channel();
        let look = move || drop(tx.send(look(&serve)));
        let started = std::thread::Builder::new().name("greenroom-check".into()).spawn(look);
        let internal = |why: String| ServeError::Internal(why.into());
        started.map_err(|error| internal(format!("no thread to look at the configuration with: {error}")))?;
        rx.await.unwrap_or_else(|_| Err(internal("looking at the configuration panicked".into())))
    }

    /// The configurations that were applied as a whole, oldest first; at most [`HISTORY_MAX`](crate::HISTORY_MAX).
    pub fn history(&self) -> Vec<Applied> {
        self.0.office.memory().saved().history.clone()
    }

    /// Deploys an earlier configuration again: the one with this id, or the one before the present one. That is a new
    /// entry of the history.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] when the history has no such entry, or those of [`deploy`](Self::deploy).
    pub async fn rollback(&self, to: Option<u64>, how: DeployOptions) -> Result<Deployed, ServeError> {
        let (id, config) = self.earlier(to)?;
        let by = format!("rollback to {id}");
        self.deploy(config, DeployOptions { by, ..how }).await
    }

    /// What [`rollback`](Self::rollback) goes back to, with its number. What that says of the process itself is left
    /// out: this one may run with something else.
    pub(crate) fn earlier(&self, to: Option<u64>) -> Result<(u64, ServeConfig), ServeError> {
        let (history, declared) = {
            let memory = self.0.office.memory();
            (memory.saved().history.clone(), memory.saved().declared.clone())
        };
        let found = match to {
            Some(id) => history.iter().find(|entry| entry.id == id),
            // What was deployed last has no entry when the process was killed meanwhile.
            None => {
                let noted = |last: &&Applied| declared.as_ref().is_none_or(|now| same(&last.config, now));
                history.iter().rev().nth(usize::from(history.last().is_none_or(|last| noted(&last))))
            }
        };
        let Some(Applied { id, config, .. }) = found else {
            let ids: Vec<_> = history.iter().map(|entry| entry.id.to_string()).collect();
            let why = match to {
                Some(id) => format!("there is no {id} in the history; it holds: {}", ids.join(", ")),
                None => "there is none before the present one in the history".into(),
            };
            return Err(ServeError::invalid("rollback", why));
        };
        let ServeConfig { backends, endpoints, .. } = config.clone();
        Ok((*id, ServeConfig { backends, endpoints, ..ServeConfig::default() }))
    }

    /// How far the deploy under way is, if there is one.
    pub fn progress(&self) -> Option<Progress> {
        self.0.deploys.progress(&self.0.office)
    }

    /// `wanted` with what the process runs with, and with paths that mean the same from everywhere.
    fn whole(&self, wanted: &ServeConfig) -> Result<ServeConfig, ServeError> {
        let (backends, endpoints) = (wanted.backends.clone(), wanted.endpoints.clone());
        let mut whole = ServeConfig { backends, endpoints, ..self.process() };
        absolute(&mut whole).map_err(|error| ServeError::invalid("onnx", error.to_string()))?;
        Ok(whole)
    }

    /// The last entry of the history, if it is of this configuration and nothing else is to be kept.
    fn applied_last(&self, whole: &ServeConfig, how: &DeployOptions) -> Option<u64> {
        let memory = self.0.office.memory();
        let saved = memory.saved();
        let last = saved.history.last().filter(|last| same(&last.config, whole))?;
        let is_whole = |kept: &Option<ServeConfig>| kept.as_ref().is_some_and(|kept| same(kept, whole));
        (is_whole(&saved.declared) && (!how.declared || is_whole(&saved.file))).then_some(last.id)
    }

    /// Lets go of the code of backends that the program made and that neither run nor are in the history.
    pub(super) fn forget_code(&self) {
        let history = self.history();
        let of = |decl: &BackendDecl| match &decl.source {
            Source::Registered { name } => Some(name.clone()),
            Source::Onnx { .. } => None,
        };
        let past = history.iter().flat_map(|entry| &entry.config.backends);
        let named: BTreeSet<_> = past.chain(&self.config().backends).filter_map(of).collect();
        self.0.sources.keep(|name| named.contains(name));
    }

    fn plan_with(&self, now: &ServeConfig, wanted: &ServeConfig, codes: &Codes) -> Plan {
        let declared = self.0.office.memory().saved().declared.clone();
        plan(&self.0.office.fleet(), (now, declared.as_ref()), wanted, codes)
    }
}

/// The plan from what there is to what is wanted, made of this code.
fn plan(
    fleet: &Fleet,
    (now, declared): (&ServeConfig, Option<&ServeConfig>),
    wanted: &ServeConfig,
    codes: &Codes,
) -> Plan {
    let options: HashMap<_, _> = wanted.backends.iter().map(|decl| (&decl.name, &decl.config)).collect();
    Plan::between(now, declared, wanted, |name| {
        if fleet.awaiting.contains_key(name) {
            return true;
        }
        let (old, new) = (fleet.backends.get(name), codes.get(name).zip(options.get(name)));
        old.zip(new).is_some_and(|(old, (code, config))| same_code((&old.code, &old.config), (code, config)))
    })
}
