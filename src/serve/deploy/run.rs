//! One deploy from its beginning to its end, or back: it goes on whoever waits for it.

use std::{
    collections::BTreeMap,
    fmt,
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
    config::{BackendDecl, EndpointDecl, ServeConfig},
    error::ServeError,
    ids::{BackendName, EndpointName},
    plan::{Plan, Work},
    serve::{
        Serve,
        deploy::{
            DeployOptions, Deployed,
            check::Codes,
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
pub(crate) struct Deploying {
    number: u64,
    ends: oneshot::Receiver<Result<Deployed, ServeError>>,
}

impl Deploying {
    /// Begins it, unless another one is under way.
    pub(super) fn begin(serve: &Serve, wanted: ServeConfig, how: DeployOptions) -> Result<Self, ServeError> {
        let directory = &serve.0.office.directory;
        if directory.closing() {
            return Err(ServeError::ShuttingDown);
        }
        serve.not_replaced()?;
        if how.wait_for_resources && how.timeout.is_none() {
            return Err(ServeError::invalid("wait_for_resources", "it needs a timeout"));
        }
        let turn = serve.0.deploys.begin(&how.by)?;
        let number = turn.number;
        let (tx, ends) = oneshot::channel();
        let until = how.timeout.map(|timeout| Instant::now() + timeout);
        let serve = serve.clone();
        directory.spawn(async move {
            let run = Run { serve, how, until, turn };
            let outcome = run.deploy(wanted).await;
            // Whoever is told may deploy again.
            drop(run);
            let _ = tx.send(outcome);
        });
        Ok(Self { number, ends })
    }

    /// Which deploy of this Serve it is.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What has come of it.
    pub(crate) async fn end(self) -> Result<Deployed, ServeError> {
        self.ends.await.unwrap_or(Err(ServeError::ShuttingDown))
    }
}

/// A deploy under way.
pub(super) struct Run {
    pub(super) serve: Serve,
    how: DeployOptions,
    until: Option<Instant>,
    pub(super) turn: Turn,
}

/// A step that failed, and why.
pub(super) struct Failed {
    step: String,
    cause: ServeError,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}

impl Run {
    async fn deploy(&self, wanted: ServeConfig) -> Result<Deployed, ServeError> {
        let wanted = Arc::new(wanted);
        let office = &self.serve.0.office;
        let asking =
            wanted.backends.iter().filter(|decl| office.gpus.are_missing_for(&decl.config.resources));
        if let Some(limit) = asking.map(|decl| decl.config.startup_timeout).max() {
            self.within(office.gpus_within(limit)).await??;
        }
        let codes = self.within(self.checked(&wanted)).await??;
        let wanted = self.serve.whole(&wanted)?;
        let (_alone, now, plan) = self.planned(&wanted, &codes).await?;
        if let Some(id) = self.serve.applied_last(&wanted, &self.how).filter(|_| plan.is_empty()) {
            return Ok(Deployed { plan, id });
        }
        // A process that is killed meanwhile comes back with all of it.
        let aimed = office.aim(|saved| aim(saved, &wanted, &self.how))?;
        if !plan.is_empty() {
            let before = self.before();
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
                let left = self.take_back(&now, &before).await;
                if left.is_empty() {
                    return Err(failed);
                }
                aimed.stuck(self.serve.config());
                return Err(failed.not_restored(left.join("; ")));
            }
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut id = 0;
        aimed.arrived(|saved| {
            id = match saved.history.last().filter(|last| same(&last.config, &wanted)) {
                Some(last) => last.id,
                None => saved.applied(at, self.how.by.clone(), wanted),
            };
        });
        self.serve.forget_code();
        Ok(Deployed { plan, id })
    }

    /// The code of everything, when nothing is wrong. Model files are looked at.
    async fn checked(&self, wanted: &Arc<ServeConfig>) -> Result<Codes, ServeError> {
        let wanted = Arc::clone(wanted);
        self.serve.looking(move |serve| serve.check(&wanted)).await
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

    /// Takes the steps of a plan, up to one that fails.
    async fn apply(&self, plan: &Plan, codes: &Codes) -> Result<(), Failed> {
        let mut endpoints = Some(endpoints(plan));
        for (done, step) in plan.steps.iter().enumerate() {
            let failed = |cause| Failed { step: step.to_string(), cause };
            match &step.work {
                Work::Backend(decl) => {
                    self.turn.at(done, step.to_string(), BackendName::new(&step.name).ok());
                    self.change(decl, codes).await.map_err(failed)?;
                }
                Work::DeleteBackend(name) => {
                    self.turn.at(done, step.to_string(), BackendName::new(&step.name).ok());
                    self.delete(name).await.map_err(failed)?;
                }
                Work::Endpoint(_) | Work::DeleteEndpoint(_) => {
                    // The first of them takes all the others along.
                    let Some((set, gone)) = endpoints.take() else { continue };
                    self.turn.at(done, step.to_string(), None);
                    self.set(set, gone, step.to_string()).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn delete(&self, name: &BackendName) -> Result<(), ServeError> {
        match self.ask(DeleteBackend { name: name.clone(), force: false }).await {
            Err(ServeError::UnknownBackend(_)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Sets all of these endpoints together, as a step that is told like this.
    pub(super) async fn set(
        &self,
        set: Vec<&EndpointDecl>,
        gone: Vec<EndpointName>,
        step: String,
    ) -> Result<(), Failed> {
        let failed = |step: String| move |cause| Failed { step, cause };
        let checked = set.into_iter().map(|decl| {
            let declared = checked(decl).map_err(failed(format!("endpoint {}", decl.name)))?;
            Ok((decl.name.clone(), declared))
        });
        let set = checked.collect::<Result<Vec<_>, Failed>>()?;
        self.ask(SetEndpoints { set, gone }).await.map_err(failed(step))
    }

    pub(super) async fn change(&self, decl: &BackendDecl, codes: &Codes) -> Result<(), ServeError> {
        let BackendDecl { name, source, config } = decl.clone();
        let Some(code) = codes.get(&name).cloned() else { return Err(ServeError::UnknownBackend(name)) };
        self.ask(DeployBackend { name, source, code, config, by_program: false }).await
    }

    /// Asks the Controller, again when it restarted: each step asked for twice is done once.
    pub(super) async fn ask<M>(&self, msg: M) -> Result<(), ServeError>
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

/// The endpoints that a plan sets, each once, and those that it takes away.
pub(super) fn endpoints(plan: &Plan) -> (Vec<&EndpointDecl>, Vec<EndpointName>) {
    let mut set = BTreeMap::new();
    let mut gone = Vec::new();
    for step in &plan.steps {
        match &step.work {
            Work::Endpoint(decl) => drop(set.insert(&decl.name, decl)),
            Work::DeleteEndpoint(name) => gone.push(name.clone()),
            Work::Backend(_) | Work::DeleteBackend(_) => {}
        }
    }
    (set.into_values().collect(), gone)
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
