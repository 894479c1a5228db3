//! What a backend is to become, what it goes back to when that fails, and the state that follows.

use std::{ptr, sync::Arc, time::Instant};

use crate::{
    actors::{
        backend_state::{BackendState, Seen},
        build::Code,
        fleet::{BackendEntry, ReplicaEntry, admitted},
        reconcile::ReplicaState,
        release::{self, Change, Declared, Given, change},
    },
    config::{BackendConfig, Source},
    error::ServeError,
    ids::BackendName,
    resources::Pool,
    routing::{backend_routes::BackendRoutes, models::Models},
};

/// What was wanted of a backend.
pub(crate) struct Target {
    pub(crate) code: Arc<dyn Code>,
    pub(crate) source: Source,
    pub(crate) release: u64,
    pub(crate) config: BackendConfig,
}

/// What a backend is asked to become.
pub(crate) struct Wish {
    pub(crate) code: Arc<dyn Code>,
    pub(crate) source: Source,
    pub(crate) config: BackendConfig,
}

fn declared<'a>(code: &Arc<dyn Code>, config: &'a BackendConfig) -> Declared<'a> {
    Declared { config, fingerprint: code.fingerprint() }
}

/// Whether replicas made of the one are what replicas made of the other are.
pub(crate) fn same_code(
    old: (&Arc<dyn Code>, &BackendConfig),
    new: (&Arc<dyn Code>, &BackendConfig),
) -> bool {
    release::same_code(declared(old.0, old.1), declared(new.0, new.1), given(old.0, new.0))
}

fn given(old: &Arc<dyn Code>, new: &Arc<dyn Code>) -> Given {
    if ptr::addr_eq(Arc::as_ptr(old), Arc::as_ptr(new)) { Given::Same } else { Given::Code }
}

impl BackendEntry {
    /// From now on this is what is wanted, or nothing has changed. A newer change joins an older one: both wait for
    /// the same end, and a failure goes back to what was in force before the first.
    pub(crate) fn want(&mut self, name: &BackendName, wish: Wish, pool: &mut Pool) -> Result<(), ServeError> {
        let Wish { code, source, config } = wish;
        let (now, new) = (declared(&self.code, &self.config), declared(&code, &config));
        let what = change(now, new, given(&self.code, &code));
        self.claim(name, &config, pool)?;
        if let Some(why) = self.failure.take() {
            // The change before this one has failed; all that was left of it was to go back.
            self.answer(&Err(why));
        }
        let (code, release) = match what {
            Change::Nothing => {
                self.source = source;
                self.retired.push(code);
                return Ok(());
            }
            // The same code, told apart by its label: that which runs stays.
            Change::Push | Change::Scale | Change::Reconfigure => {
                self.retired.push(code);
                (Arc::clone(&self.code), self.release)
            }
            Change::Roll => match &self.before {
                Some(before) if before.is_made_from(&code, &config) => {
                    self.retired.push(code);
                    (Arc::clone(&before.code), before.release)
                }
                _ => {
                    self.releases += 1;
                    (code, self.releases)
                }
            },
        };
        let old = Target {
            code: std::mem::replace(&mut self.code, code),
            source: std::mem::replace(&mut self.source, source),
            release: std::mem::replace(&mut self.release, release),
            config: std::mem::replace(&mut self.config, config),
        };
        match &self.before {
            None => self.before = Some(old),
            Some(_) => self.retired.push(old.code),
        }
        self.changed = tokio::time::Instant::now();
        // One that was restored and was not whole since has still to become so.
        if self.state.made() {
            self.enter(BackendState::Updating);
        }
        Ok(())
    }

    /// Whether replicas of one release are replaced by those of another.
    pub(crate) fn rolling(&self) -> bool {
        let old = |r: &ReplicaEntry| r.release != self.release && r.state != ReplicaState::Draining;
        self.wanted() > 0 && self.replicas.iter().any(old)
    }

    /// Everything is as it should be: nothing goes back from here.
    pub(crate) fn take_over(&mut self, models: &Models) {
        let Some(before) = self.before.take() else { return };
        if before.release != self.release {
            self.routes.set_model(self.code.model());
            models.update(&self.routes);
        }
        self.retired.push(before.code);
    }

    /// Gives up the change that is under way, if any. A backend that was never whole goes altogether, and its
    /// creator is told then; one that was goes back to what it was before.
    pub(crate) fn undo(&mut self, name: &BackendName, why: ServeError) -> bool {
        if !self.created() {
            self.enter(BackendState::Deleting);
            self.failure = Some(why);
            return true;
        }
        let Some(before) = self.before.take() else { return false };
        let rolled = before.release != self.release;
        let goes_back = rolled || before.config.user_config != self.config.user_config;
        let why = if rolled { rollout_failed(name, self.config.version.as_deref(), why) } else { why };
        self.retired.push(std::mem::replace(&mut self.code, before.code));
        (self.source, self.release, self.config) = (before.source, before.release, before.config);
        if goes_back {
            self.failure = Some(why);
        } else {
            self.answer(&Err(why));
        }
        true
    }

    /// Whether a new release is under way, so that there is one to go back to.
    pub(crate) fn before_is_another_release(&self) -> bool {
        self.before.as_ref().is_some_and(|before| before.release != self.release)
    }

    /// What is waited for does not come, and there is nothing to go back to: those who asked for it are told why, and
    /// calls need not wait for a replica.
    #[must_use]
    pub(crate) fn give_up_waiting(&mut self, why: ServeError) -> Option<Arc<BackendRoutes>> {
        let why = self.failure.take().unwrap_or(why);
        self.answer(&Err(why));
        self.unhold()
    }

    /// Puts it into a state that may come next.
    pub(crate) fn enter(&mut self, next: BackendState) {
        if next != self.state {
            debug_assert!(self.state.next().contains(&next), "{:?} after {:?}", next, self.state);
            (self.state, self.since) = (next, Instant::now());
        }
    }

    /// Puts it into the state that follows from what is seen of it.
    pub(crate) fn look(&mut self) {
        let running = self.running();
        let seen = Seen {
            settled: self.settled(),
            changing: self.before.is_some() || self.failure.is_some(),
            whole: running >= usize::try_from(self.wanted()).unwrap_or(usize::MAX),
        };
        self.enter(self.state.after(seen));
    }

    /// Replicas of the wanted release that take calls.
    fn running(&self) -> usize {
        let ready = |r: &&ReplicaEntry| r.state == ReplicaState::Running && r.release == self.release;
        self.replicas.iter().filter(ready).count()
    }

    /// Why it is in its state, where there is something to tell.
    pub(crate) fn reason(&self) -> Option<String> {
        let last = || self.last_error.as_deref().map(str::to_owned);
        let (running, wanted) = (self.running(), self.config.num_replicas);
        match (self.state, &self.failure) {
            (BackendState::Running, _) => None,
            (BackendState::Deleting, failure) => failure.as_ref().map(ServeError::to_string),
            (BackendState::Updating, Some(failure)) => Some(format!("it goes back: {failure}")),
            (BackendState::Updating, None) if self.rolling() => {
                let release = self.release;
                Some(format!("release {release} is rolled out: {running} of {wanted} replicas have it"))
            }
            (BackendState::Updating, None) => Some(format!("{running} of {wanted} replicas are ready")),
            (BackendState::AwaitingCode | BackendState::Pending | BackendState::Creating, _) => last(),
            (BackendState::Unhealthy, _) => {
                Some(last().unwrap_or_else(|| format!("{running} of {wanted} replicas take calls")))
            }
        }
    }

    /// The last replica goes and another comes: calls wait for that, as many as one replica lets in.
    pub(crate) fn hold(&mut self) {
        self.holding = true;
        self.routes.hold(admitted(&self.config, 1, 0));
    }

    /// Calls need not wait any more, or in vain; whoever gets this lets them go when nothing is locked.
    #[must_use]
    pub(crate) fn unhold(&mut self) -> Option<Arc<BackendRoutes>> {
        std::mem::take(&mut self.holding).then(|| Arc::clone(&self.routes))
    }

    /// Whether calls that wait for the next replica wait no longer.
    pub(crate) fn hold_is_over(&self) -> bool {
        self.wanted() == 0 || self.replicas.iter().any(|r| r.state == ReplicaState::Running)
    }
}

impl Target {
    /// Whether replicas of `code` and `config` would be made from the same as those of this.
    fn is_made_from(&self, code: &Arc<dyn Code>, config: &BackendConfig) -> bool {
        let change =
            change(declared(&self.code, &self.config), declared(code, config), given(&self.code, code));
        change < Change::Roll
    }
}

/// What is told of a release that failed because of `why`.
fn rollout_failed(backend: &BackendName, version: Option<&str>, why: ServeError) -> ServeError {
    let why = match why {
        ServeError::StartFailed { why, .. } | ServeError::ReconfigureFailed { why, .. } => why,
        other => other.to_string().into(),
    };
    ServeError::RolloutFailed { backend: backend.clone(), version: version.map(Into::into), why }
}
