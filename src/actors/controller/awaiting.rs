//! Restored backends whose code is not there yet: how they come back, and what ends their waiting.

use std::{future::ready, sync::Arc, time::Instant};

use actix::{AsyncContext, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        build::Code,
        context::ReplicaContext,
        controller::{Controller, Office, Outcome, backends::Opening, endpoints::restore_endpoint, reading},
        fleet::Awaiting,
    },
    config::{BackendConfig, BackendDecl, BackendUpdate, ServeConfig, Source},
    error::ServeError,
    guard::drop_guarded,
    ids::BackendName,
    routing::backend_routes::BackendRoutes,
    traffic::window::SAMPLE_PERIOD,
};

/// Makes backends and endpoints again that were wanted before the process ended. Each backend waits for its code;
/// `code` gives what needs no program, which is used when the Controller starts. Endpoints are there at once, and calls
/// that go to a backend without code are refused and may be sent again.
///
/// # Errors
/// Endpoints that contradict each other: the state was changed by other hands.
pub(crate) fn restore(
    office: &Office,
    desired: &ServeConfig,
    code: impl Fn(&Source) -> Result<Arc<dyn Code>, ServeError>,
) -> Outcome {
    for decl in &desired.backends {
        let own = !matches!(decl.source, Source::Registered { .. });
        let (code, reason) = match own.then(|| code(&decl.source)).transpose() {
            Ok(code) => (code, None),
            Err(why) => (None, Some(why.to_string().into())),
        };
        let routes = Arc::new(BackendRoutes::awaited(decl.name.clone()));
        let awaiting = Awaiting { decl: decl.clone(), routes, since: Instant::now(), code, reason };
        office.fleet().awaiting.insert(decl.name.clone(), awaiting);
    }
    desired.endpoints.iter().try_for_each(|decl| restore_endpoint(office, decl))
}

impl Controller {
    /// Which options hold for a backend that the program makes like this. When it was restored and the program gave
    /// the same before, those that were wanted last, with the changes made by hand; else the program's.
    pub(super) fn opening(
        &self,
        given: BackendDecl,
        code: Arc<dyn Code>,
        by_program: bool,
    ) -> Result<Opening, ServeError> {
        let name = &given.name;
        let (same, aiming) = {
            let memory = self.office.memory();
            (memory.saved().given.backends.get(name) == Some(&given), memory.aiming())
        };
        let fleet = self.office.fleet();
        let kept = fleet.awaiting.get(name).map(|awaiting| awaiting.decl.clone());
        let taken = fleet.backends.contains_key(name);
        drop(fleet);
        if (aiming || !by_program) && !taken {
            // It says how it is to be: a step on the way to a whole configuration, or a change by hand.
            return Ok(Opening { decl: given, given: None, code, restored: kept.is_some() });
        }
        if taken || kept.as_ref().is_some_and(|kept| kept.source != given.source) {
            return Err(ServeError::AlreadyExists { what: "backend", name: name.as_str().into() });
        }
        let restored = kept.is_some();
        let config = kept.filter(|_| same).map_or_else(|| given.config.clone(), |kept| kept.config);
        Ok(Opening { decl: BackendDecl { config, ..given.clone() }, given: Some(given), code, restored })
    }

    /// Starts what needs no program to give its code, and tries from time to time what did not fit.
    pub(super) fn open_own(&self, ctx: &mut ReplicaContext<Self>) {
        self.open_each(|_| true, ctx);
        ctx.run_interval(SAMPLE_PERIOD, |controller, ctx| {
            controller.open_each(|awaiting| awaiting.reason.is_some(), ctx);
        });
    }

    fn open_each(&self, which: impl Fn(&Awaiting) -> bool, ctx: &mut ReplicaContext<Self>) {
        for (name, awaiting) in &mut self.office.fleet().awaiting {
            if awaiting.code.is_some() && which(awaiting) {
                awaiting.reason = None;
                ctx.notify(OpenOwn(name.clone()));
            }
        }
    }

    /// Changes the options of a backend that awaits its code. Whether the code can follow them is seen when it comes.
    pub(super) fn update_awaiting(&self, name: &BackendName, update: &BackendUpdate) -> Option<Outcome> {
        let mut decl = self.office.fleet().awaiting.get(name)?.decl.clone();
        let updated = decl.config.updated(update).and_then(|config: BackendConfig| {
            decl.config = config;
            self.office.remember(|saved| saved.put_backend(decl.clone()))
        });
        Some(updated.map(|()| {
            if let Some(awaiting) = self.office.fleet().awaiting.get_mut(name) {
                awaiting.decl = decl;
            }
        }))
    }

    /// Forgets a backend that awaits its code, and that nothing uses.
    pub(super) fn delete_awaiting(&self, name: &BackendName) -> Option<Outcome> {
        if !self.office.fleet().awaiting.contains_key(name) {
            return None;
        }
        let kept = self.office.remember(|saved| saved.remove_backend(name));
        Some(kept.map(|()| {
            let gone = self.office.fleet().awaiting.remove(name);
            // The user's code may go with it: not under the lock.
            drop_guarded(gone);
        }))
    }
}

/// Have a backend that is gone wait for its code again; with code, for room.
#[derive(Clone, Message)]
#[rtype(result = "Outcome")]
pub(crate) struct AwaitCode {
    pub(crate) decl: BackendDecl,
    pub(crate) code: Option<Arc<dyn Code>>,
}

impl Handler<AwaitCode> for Controller {
    type Result = Outcome;
    fn handle(&mut self, AwaitCode { decl, code }: AwaitCode, ctx: &mut Self::Context) -> Outcome {
        let name = decl.name.clone();
        if self.office.fleet().backends.contains_key(&name) {
            return Err(ServeError::AlreadyExists { what: "backend", name: name.as_str().into() });
        }
        self.office.remember(|saved| saved.put_backend(decl.clone()))?;
        let awaiting = Awaiting {
            decl,
            routes: Arc::new(BackendRoutes::awaited(name.clone())),
            since: Instant::now(),
            code,
            reason: None,
        };
        let before = self.office.fleet().awaiting.insert(name.clone(), awaiting);
        drop_guarded(before);
        // Nothing without code.
        AsyncContext::notify(ctx, OpenOwn(name));
        Ok(())
    }
}

/// The program has given the code of this name; backends that await it are started.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CodeGiven {
    pub(crate) name: BackendName,
    pub(crate) code: Arc<dyn Code>,
}

impl Handler<CodeGiven> for Controller {
    type Result = ();
    fn handle(&mut self, CodeGiven { name, code }: CodeGiven, ctx: &mut Self::Context) {
        let source = Source::Registered { name };
        let mut fleet = self.office.fleet();
        let mut replaced = Vec::new();
        for awaiting in fleet.awaiting.values_mut().filter(|awaiting| awaiting.decl.source == source) {
            replaced.push((awaiting.decl.name.clone(), awaiting.code.replace(Arc::clone(&code))));
        }
        drop(fleet);
        for (name, before) in replaced {
            drop_guarded(before);
            AsyncContext::notify(ctx, OpenOwn(name));
        }
        drop_guarded(code);
    }
}

/// Start a restored backend whose code is known.
#[derive(Message)]
#[rtype(result = "Outcome")]
struct OpenOwn(BackendName);

impl Handler<OpenOwn> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(&mut self, OpenOwn(name): OpenOwn, ctx: &mut Self::Context) -> Self::Result {
        let fleet = self.office.fleet();
        let known = fleet.awaiting.get(&name);
        let known = known.and_then(|awaiting| Some((awaiting.decl.clone(), awaiting.code.clone()?)));
        drop(fleet);
        let Some((decl, code)) = known else { return Box::pin(ready(Ok(()))) };
        let outcome: ResponseFuture<Outcome> = if code.is_unread() {
            reading::first(code, OpenOwn(name.clone()), ctx)
        } else if self.office.gpus.are_missing_for(&decl.config.resources) {
            self.open_first(OpenOwn(name.clone()), &decl.config, ctx)
        } else {
            let (nobody, _) = oneshot::channel();
            Box::pin(ready(self.open(Opening { decl, given: None, code, restored: true }, nobody, ctx)))
        };
        let office = Arc::clone(&self.office);
        Box::pin(async move {
            let outcome = outcome.await;
            if let (Err(why), Some(awaiting)) = (&outcome, office.fleet().awaiting.get_mut(&name)) {
                awaiting.reason = Some(why.to_string().into());
            }
            outcome
        })
    }
}
