//! One deploy from its beginning to its end, or back: it goes on whoever waits for it.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{OwnedRwLockWriteGuard, oneshot},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    actors::{
        controller::{DeleteBackend, DeployBackend, Quiet, SetEndpoints},
        fit::Need,
    },
    config::{BackendDecl, ServeConfig},
    error::ServeError,
    ids::BackendName,
    plan::{Plan, Work},
    serve::{
        Serve,
        deploy::{
            DeployOptions, Deployed,
            check::Codes,
            plan,
            turn::{DeployState, Turn},
        },
    },
    store::{Saved, checked, same},
};

/// How often it is looked whether what is wanted fits, while that is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// How often something is asked for, again when the Controller restarted meanwhile.
const ASKED_MAX: usize = 16;

/// A deploy that was begun.
pub(super) struct Deploying(oneshot::Receiver<Result<Deployed, ServeError>>);

impl Deploying {
    /// Begins it, unless another one is under way.
    pub(super) fn begin(serve: &Serve, wanted: ServeConfig, how: DeployOptions) -> Result<Self, ServeError> {
        let directory = &serve.0.office.directory;
        if directory.closing() {
            return Err(ServeError::ShuttingDown);
        }
        if how.wait_for_resources && how.timeout.is_none() {
            return Err(ServeError::invalid("wait_for_resources", "it needs a timeout"));
        }
        let turn = serve.0.deploys.begin(&how.by)?;
        let (tx, rx) = oneshot::channel();
        let until = how.timeout.map(|timeout| Instant::now() + timeout);
        let serve = serve.clone();
        directory.spawn(async move {
            let run = Run { serve, how, until, turn };
            let outcome = run.deploy(wanted).await;
            // Whoever is told may deploy again.
            drop(run);
            let _ = tx.send(outcome);
        });
        Ok(Self(rx))
    }

    /// What has come of it.
    pub(super) async fn end(self) -> Result<Deployed, ServeError> {
        self.0.await.unwrap_or(Err(ServeError::ShuttingDown))
    }
}

/// A deploy under way.
struct Run {
    serve: Serve,
    how: DeployOptions,
    until: Option<Instant>,
    turn: Turn,
}

/// A step that failed, and why.
struct Failed {
    step: String,
    cause: ServeError,
}

impl Run {
    async fn deploy(&self, wanted: ServeConfig) -> Result<Deployed, ServeError> {
        let wanted = Arc::new(wanted);
        let office = &self.serve.0.office;
        if wanted.backends.iter().any(|decl| office.gpus.are_missing_for(&decl.config.resources)) {
            self.within(office.open_gpus()).await??;
        }
        let codes = self.within(self.checked(&wanted)).await??;
        let wanted = self.serve.whole(&wanted)?;
        let (_alone, now, plan) = self.planned(&wanted, &codes).await?;
        if let Some(id) = self.serve.applied_last(&wanted, &self.how).filter(|_| plan.is_empty()) {
            return Ok(Deployed { plan, id });
        }
        // A process that is killed meanwhile comes back with all of it.
        office.memory().aim(|saved| aim(saved, &wanted, &self.how))?;
        if !plan.is_empty() {
            let before = self.codes();
            self.turn.applies(DeployState::Applying, plan.steps.len());
            let failed = match self.within(self.apply(&plan, &codes)).await {
                Ok(Ok(())) => None,
                Ok(Err(failed)) => Some(ServeError::DeployFailed {
                    step: failed.step.into(),
                    cause: Box::new(failed.cause),
                    left: None,
                }),
                Err(late) => Some(late),
            };
            if let Some(failed) = failed {
                let failed = self.take_back(&now, &before, failed).await;
                office.memory().missed();
                return Err(failed);
            }
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut id = 0;
        office.memory().arrived(|saved| {
            id = match saved.history.last().filter(|last| same(&last.config, &wanted)) {
                Some(last) => last.id,
                None => saved.applied(at, self.how.by.clone(), wanted),
            };
        });
        self.serve.forget_code();
        Ok(Deployed { plan, id })
    }

    /// The code of everything, when nothing is wrong. Model files are looked at, on a thread that may wait for them;
    /// not one of the runtime, whose end would wait for it.
    async fn checked(&self, wanted: &Arc<ServeConfig>) -> Result<Codes, ServeError> {
        if self.serve.0.office.one_thread {
            return self.serve.check(wanted);
        }
        let (serve, wanted) = (self.serve.clone(), Arc::clone(wanted));
        let (tx, rx) = oneshot::channel();
        let check = move || drop(tx.send(serve.check(&wanted)));
        let started = std::thread::Builder::new().name("greenroom-check".into()).spawn(check);
        let internal = |why: String| ServeError::Internal(why.into());
        started.map_err(|error| internal(format!("no thread to look at the configuration with: {error}")))?;
        rx.await.unwrap_or_else(|_| Err(internal("looking at the configuration panicked".into())))
    }

    /// What is there, at rest, and the plan from it, once that fits; nobody else changes anything while the guard is
    /// held.
    async fn planned(
        &self,
        wanted: &ServeConfig,
        codes: &Codes,
    ) -> Result<(OwnedRwLockWriteGuard<()>, ServeConfig, Plan), ServeError> {
        loop {
            let alone = self.within(self.alone()).await?;
            let now = self.serve.config();
            let plan = self.serve.plan_with(&now, wanted, codes);
            let mut fits = self.fits(&plan);
            if fits.is_ok() {
                return Ok((alone, now, plan));
            }
            // Until it begins, others may change what there is; they are not in each other's way.
            drop(alone);
            while let Err(short) = fits {
                if !self.how.wait_for_resources {
                    return Err(short);
                }
                self.turn.pending(&short);
                self.within(sleep(LOOK)).await?;
                fits = self.fits(&self.serve.plan_with(&self.serve.config(), wanted, codes));
            }
        }
    }

    async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        let alone = self.turn.alone().await;
        self.at_rest().await;
        alone
    }

    /// Waits until no change is under way.
    async fn at_rest(&self) {
        for _ in 0..ASKED_MAX {
            if self.serve.0.controller.send(Quiet::All).await.is_ok() {
                return;
            }
        }
    }

    /// Whether all that the plan makes and changes fits beside what is there.
    fn fits(&self, plan: &Plan) -> Result<(), ServeError> {
        let changed = plan.steps.iter().filter_map(|step| match &step.work {
            Work::Backend(decl) => Some(decl),
            _ => None,
        });
        let needs = changed.map(|decl| Need {
            backend: &decl.name,
            replicas: decl.config.num_replicas,
            resources: &decl.config.resources,
        });
        self.serve.0.office.fleet().fits(needs)
    }

    /// The code that runs now.
    fn codes(&self) -> Codes {
        let fleet = self.serve.0.office.fleet();
        fleet.backends.iter().map(|(name, entry)| (name.clone(), Arc::clone(&entry.code))).collect()
    }

    /// Takes the steps of a plan.
    async fn apply(&self, plan: &Plan, codes: &Codes) -> Result<(), Failed> {
        let mut endpoints = BTreeMap::new();
        let mut gone = Vec::new();
        for step in &plan.steps {
            match &step.work {
                Work::Endpoint(decl) => drop(endpoints.insert(&decl.name, decl)),
                Work::DeleteEndpoint(name) => gone.push(name.clone()),
                Work::Backend(_) | Work::DeleteBackend(_) => {}
            }
        }
        let mut endpoints = Some((endpoints, gone));
        for (done, step) in plan.steps.iter().enumerate() {
            let failed = |cause| Failed { step: step.to_string(), cause };
            let backend = || BackendName::new(&step.name).ok();
            match &step.work {
                Work::Backend(decl) => {
                    self.turn.at(done, step.to_string(), backend());
                    self.change(decl, codes).await.map_err(failed)?;
                }
                Work::DeleteBackend(name) => {
                    self.turn.at(done, step.to_string(), backend());
                    match self.ask(DeleteBackend { name: name.clone(), force: false }).await {
                        Ok(()) | Err(ServeError::UnknownBackend(_)) => {}
                        Err(cause) => return Err(failed(cause)),
                    }
                }
                Work::Endpoint(_) | Work::DeleteEndpoint(_) => {
                    // The first of them takes all the others along.
                    let Some((set, gone)) = endpoints.take() else { continue };
                    self.turn.at(done, step.to_string(), None);
                    let checked = set.into_values().map(|decl| {
                        let failed = |cause| Failed { step: format!("endpoint {}", decl.name), cause };
                        Ok((decl.name.clone(), checked(decl).map_err(failed)?))
                    });
                    let set = checked.collect::<Result<Vec<_>, Failed>>()?;
                    self.ask(SetEndpoints { set, gone }).await.map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    async fn change(&self, decl: &BackendDecl, codes: &Codes) -> Result<(), ServeError> {
        let BackendDecl { name, source, config } = decl.clone();
        let Some(code) = codes.get(&name).cloned() else { return Err(ServeError::UnknownBackend(name)) };
        self.ask(DeployBackend { name, source, code, config, by_program: false }).await
    }

    /// Asks the Controller, again when it restarted: each step asked for twice is done once.
    async fn ask<M>(&self, msg: M) -> Result<(), ServeError>
    where
        M: actix::Message<Result = Result<(), ServeError>> + Clone + Send + 'static,
        crate::actors::controller::Controller: actix::Handler<M>,
        crate::actors::context::ReplicaContext<crate::actors::controller::Controller>:
            actix::dev::ToEnvelope<crate::actors::controller::Controller, M>,
    {
        for _ in 1..ASKED_MAX {
            match self.serve.tell(msg.clone()).await {
                // It was there when the Controller went; what came of it is seen when all is at rest.
                Err(ServeError::Internal(_)) => self.at_rest().await,
                outcome => return outcome,
            }
        }
        self.serve.tell(msg).await
    }

    /// Makes all as it was; the error tells the failure, and what could not be made so.
    async fn take_back(&self, before: &ServeConfig, codes: &Codes, failed: ServeError) -> ServeError {
        self.turn.applies(DeployState::TakingBack, 0);
        let _ = self.serve.0.controller.send(Quiet::Deleted).await;
        let plan = {
            let fleet = self.serve.0.office.fleet();
            plan(&fleet, (&self.serve.config_of(&fleet), None), before, codes)
        };
        self.turn.applies(DeployState::TakingBack, plan.steps.len());
        match self.apply(&plan, codes).await {
            Ok(()) => failed,
            Err(Failed { step, cause }) => failed.not_restored(format!("{step}: {cause}")),
        }
    }

    /// Waits, but not longer than the deploy may take.
    async fn within<T>(&self, future: impl Future<Output = T>) -> Result<T, ServeError> {
        let (Some(until), Some(after)) = (self.until, self.how.timeout) else { return Ok(future.await) };
        timeout_at(until, future).await.map_err(|_| {
            let what = match self.turn.waits_for(&self.serve.0.office) {
                waits_for if waits_for.is_empty() => "the deploy".into(),
                waits_for => format!("the deploy, which waited for {waits_for},"),
            };
            ServeError::TimedOut { what: what.into(), after }
        })
    }
}

/// What is kept from the first step on. Of what a program gave, what is not wanted any more is forgotten.
fn aim(saved: &mut Saved, wanted: &ServeConfig, how: &DeployOptions) {
    if how.declared {
        saved.file = Some(wanted.clone());
    }
    saved.declared = Some(wanted.clone());
    saved.desired = wanted.clone();
    saved.given.backends.retain(|name, _| wanted.backends.iter().any(|decl| decl.name == *name));
    saved.given.endpoints.retain(|name, _| wanted.endpoints.iter().any(|decl| decl.name == *name));
}
