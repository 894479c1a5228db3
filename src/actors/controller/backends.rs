//! Backends are made and changed.

use std::{sync::Arc, time::Instant};

use actix::{Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        backend_state::BackendState,
        build::Code,
        context::ReplicaContext,
        controller::{Controller, Outcome, reading, refuse, wait},
        fleet::{BackendEntry, Claims, Fleet, Waiter, Wish, same_code},
    },
    config::{BackendConfig, BackendDecl, BackendUpdate, Source},
    error::ServeError,
    guard::drop_guarded,
    health::Ejector,
    ids::BackendName,
    metrics::registry::Outside,
    routing::backend_routes::BackendRoutes,
};

/// Make a backend.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct CreateBackend {
    pub(crate) name: BackendName,
    pub(crate) source: Source,
    pub(crate) code: Arc<dyn Code>,
    pub(crate) config: BackendConfig,
    /// Whether the program gives it, as it does at each start; false: somebody from outside does.
    pub(crate) by_program: bool,
}

impl Handler<CreateBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(
        &mut self,
        CreateBackend { name, source, code, config, by_program }: CreateBackend,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        if code.is_unread() {
            let read = Arc::clone(&code);
            return reading::first(read, CreateBackend { name, source, code, config, by_program }, ctx);
        }
        if self.office.gpus.are_missing_for(&config.resources) {
            let asks = config.clone();
            return self.open_first(CreateBackend { name, source, code, config, by_program }, &asks, ctx);
        }
        let (tx, rx) = oneshot::channel();
        let opened = self.opening(BackendDecl { name, source, config }, code, by_program);
        match opened.and_then(|opening| self.open(opening, tx, ctx)) {
            Ok(()) => wait(rx),
            Err(why) => refuse(why),
        }
    }
}

/// Make a backend, or change the one that there is into this: nothing, its options, its replicas.
#[derive(Clone, Message)]
#[rtype(result = "Outcome")]
pub(crate) struct DeployBackend {
    pub(crate) name: BackendName,
    pub(crate) source: Source,
    pub(crate) code: Arc<dyn Code>,
    pub(crate) config: BackendConfig,
    /// Whether the program gives it, as it does at each start; false: somebody from outside does.
    pub(crate) by_program: bool,
}

impl Handler<DeployBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(
        &mut self,
        DeployBackend { name, source, code, config, by_program }: DeployBackend,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        if !self.office.fleet().backends.contains_key(&name) {
            return self.handle(CreateBackend { name, source, code, config, by_program }, ctx);
        }
        if let Err(why) = code.check(&config) {
            return refuse(why);
        }
        if code.is_unread() {
            let read = Arc::clone(&code);
            return reading::first(read, DeployBackend { name, source, code, config, by_program }, ctx);
        }
        if self.office.gpus.are_missing_for(&config.resources) {
            let asks = config.clone();
            return self.open_first(DeployBackend { name, source, code, config, by_program }, &asks, ctx);
        }
        let given = || BackendDecl { name: name.clone(), source: source.clone(), config: config.clone() };
        let given = by_program.then(given);
        let wish = Wish { code, source, config };
        if !by_program && let Some(made) = self.being_made(&name, &wish) {
            return wait(made);
        }
        self.lead_to(name, wish, given, ctx)
    }
}

/// Change some options of a backend.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct UpdateBackend {
    pub(crate) name: BackendName,
    pub(crate) update: BackendUpdate,
}

impl Handler<UpdateBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(
        &mut self,
        UpdateBackend { name, update }: UpdateBackend,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        if let Some(updated) = self.update_awaiting(&name, &update) {
            return Box::pin(std::future::ready(updated));
        }
        let (code, source, old) = {
            let fleet = self.office.fleet();
            match changeable(&fleet, &name) {
                Ok(entry) => (Arc::clone(&entry.code), entry.source.clone(), entry.config.clone()),
                Err(why) => return refuse(why),
            }
        };
        // With the fleet at rest: a `user_config` is read by the user's code, which may ask for the status.
        match old.updated(&update).and_then(|config| code.check(&config).map(|()| config)) {
            Ok(config) if self.office.gpus.are_missing_for(&config.resources) => {
                self.open_first(UpdateBackend { name, update }, &config, ctx)
            }
            Ok(config) => self.lead_to(name, Wish { code, source, config }, None, ctx),
            Err(why) => refuse(why),
        }
    }
}

/// The backend of this name, if it can be changed now.
fn changeable<'a>(fleet: &'a Fleet, name: &BackendName) -> Result<&'a BackendEntry, ServeError> {
    let entry = fleet.backends.get(name).filter(|entry| !entry.deleting());
    let entry = entry.ok_or_else(|| ServeError::UnknownBackend(name.clone()))?;
    // One that was restored can be mended while it does not start.
    if entry.created() {
        Ok(entry)
    } else {
        Err(ServeError::invalid(name.as_str(), "it is still being created; change it afterwards"))
    }
}

/// A backend that is made, or that was restored and has its code now.
pub(super) struct Opening {
    pub(super) decl: BackendDecl,
    /// What the program gave, if it did.
    pub(super) given: Option<BackendDecl>,
    pub(super) code: Arc<dyn Code>,
    /// It exists already: when its replicas do not start, they are tried again.
    pub(super) restored: bool,
}

impl Controller {
    /// Makes a backend; `waiter` is told when its replicas run, or why they do not.
    pub(super) fn open(&self, opening: Opening, waiter: Waiter, ctx: &mut ReplicaContext<Self>) -> Outcome {
        let Opening { decl, given, code, restored } = opening;
        let name = decl.name.clone();
        code.check(&decl.config)?;
        if self.office.directory.closing() {
            return Err(ServeError::ShuttingDown);
        }
        let metrics = self.office.metrics.registry.backend(&name);
        let mut fleet = self.office.fleet();
        let mut entry = BackendEntry {
            routes: Arc::new(code.routes(name.clone(), &metrics.outside)),
            code,
            source: decl.source.clone(),
            release: 1,
            releases: 1,
            config: decl.config.clone(),
            before: None,
            given_before: None,
            retired: Vec::new(),
            restored,
            state: BackendState::Creating,
            since: Instant::now(),
            holding: false,
            changed: tokio::time::Instant::now(),
            look_again: None,
            threadless: None,
            replicas: Vec::new(),
            claims: Claims::new(decl.config.resources.clone()),
            metrics,
            generation: fleet.generation,
            changes: 0,
            failure: None,
            last_error: None,
            checked: tokio::time::Instant::now(),
            ejector: Ejector::default(),
            failed_replacements: 0,
            waiters: vec![waiter],
            deleters: Vec::new(),
        };
        let mut admitted = entry.claim(&name, &decl.config, &mut fleet.pool);
        // The Controller alone changes the fleet: what was found stays so while this is written down.
        drop(fleet);
        if admitted.is_ok() {
            admitted = self.office.remember(|saved| {
                saved.put_backend(decl);
                saved.given.backends.extend(given.map(|given| (given.name.clone(), given)));
            });
        }
        let mut fleet = self.office.fleet();
        if let Err(why) = admitted {
            entry.give_all_back(&mut fleet.pool);
            self.office.metrics.registry.forget_backend(&name);
            drop(fleet);
            // The user's code goes with it.
            drop_guarded(entry);
            return Err(why);
        }
        self.office.models.update(&entry.routes);
        let awaited = fleet.awaiting.remove(&name);
        fleet.backends.insert(name.clone(), entry);
        drop(fleet);
        drop_guarded(awaited);
        if restored {
            self.rewire(&name);
        }
        self.reconcile(&name, ctx);
        Ok(())
    }

    /// The end of the making of a backend, when it is being made just so.
    fn being_made(&self, name: &BackendName, wish: &Wish) -> Option<oneshot::Receiver<Outcome>> {
        let mut fleet = self.office.fleet();
        let entry = fleet.backends.get_mut(name).filter(|entry| !entry.deleting() && !entry.state.made())?;
        let code = same_code((&entry.code, &entry.config), (&wish.code, &wish.config));
        if !code || entry.source != wish.source || entry.config != wish.config {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        entry.waiters.push(tx);
        Some(rx)
    }

    /// Leads a backend that there is to `wish`, and answers when it is there.
    fn lead_to(
        &self,
        name: BackendName,
        wish: Wish,
        given: Option<BackendDecl>,
        ctx: &mut ReplicaContext<Self>,
    ) -> ResponseFuture<Outcome> {
        let (tx, rx) = oneshot::channel();
        // Refused code is dropped with the fleet at rest.
        let code = Arc::clone(&wish.code);
        let fresh = code.routes(name.clone(), &Outside::default());
        if let Err(why) = self.admit(&name, &wish, &fresh, given) {
            return refuse(why);
        }
        let mut fleet = self.office.fleet();
        let Fleet { backends, pool, .. } = &mut *fleet;
        if let Some(entry) = backends.get_mut(&name) {
            if let Err(why) = entry.want(&name, wish, pool) {
                drop(fleet);
                return refuse(why);
            }
            entry.routes.adopt(&fresh);
            entry.waiters.push(tx);
        }
        drop(fleet);
        self.reconcile(&name, ctx);
        wait(rx)
    }

    /// Whether a change can be made: it has what it asks for, and is written down.
    fn admit(
        &self,
        name: &BackendName,
        wish: &Wish,
        fresh: &BackendRoutes,
        given: Option<BackendDecl>,
    ) -> Outcome {
        let joins;
        {
            let mut fleet = self.office.fleet();
            let entry = changeable(&fleet, name)?;
            entry.routes.suits(fresh)?;
            joins = entry.before.is_some();
            let Fleet { backends, pool, .. } = &mut *fleet;
            if let Some(entry) = backends.get_mut(name) {
                entry.claim(name, &wish.config, pool)?;
            }
        }
        let decl =
            BackendDecl { name: name.clone(), source: wish.source.clone(), config: wish.config.clone() };
        let mut given_before = None;
        let kept = self.office.remember(|saved| {
            saved.put_backend(decl);
            given_before = given.map(|given| saved.given.backends.insert(given.name.clone(), given));
        });
        let mut fleet = self.office.fleet();
        let Fleet { backends, pool, .. } = &mut *fleet;
        if let Some(entry) = backends.get_mut(name) {
            match (&kept, joins) {
                (Err(_), _) => entry.give_back(pool),
                // All that joins goes back together.
                (Ok(()), true) => entry.given_before = entry.given_before.take().or(given_before),
                (Ok(()), false) => entry.given_before = given_before,
            }
        }
        kept
    }
}
