//! Backends are made, changed and deleted.

use std::{
    collections::btree_map::Entry,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{AsyncContext, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        backend_state::BackendState,
        build::Code,
        context::ReplicaContext,
        controller::{Controller, Outcome, events::DrainTimedOut, reading, refuse, wait},
        fleet::{BackendEntry, Fleet, Wish},
        reconcile::ReplicaState,
    },
    config::{BackendConfig, BackendUpdate, Source},
    error::ServeError,
    health::Ejector,
    ids::BackendName,
    metrics::registry::Outside,
};

/// What a replica is given to finish when it is deleted by force.
const FORCED: Duration = Duration::from_millis(1);

/// Make a backend.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct CreateBackend {
    pub(crate) name: BackendName,
    pub(crate) source: Source,
    pub(crate) code: Arc<dyn Code>,
    pub(crate) config: BackendConfig,
}

impl Handler<CreateBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(
        &mut self,
        CreateBackend { name, source, code, config }: CreateBackend,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        if let Err(why) = code.check(&config) {
            return refuse(why);
        }
        if code.is_unread() {
            let read = Arc::clone(&code);
            return reading::first(read, CreateBackend { name, source, code, config }, ctx);
        }
        if self.office.gpus.are_missing_for(&config.resources) {
            return self.open_first(CreateBackend { name, source, code, config }, ctx);
        }
        self.create(name, Wish { code, source, config }, ctx)
    }
}

/// Make a backend, or change the one that there is into this: nothing, its options, its replicas.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct DeployBackend {
    pub(crate) name: BackendName,
    pub(crate) source: Source,
    pub(crate) code: Arc<dyn Code>,
    pub(crate) config: BackendConfig,
}

impl Handler<DeployBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(
        &mut self,
        DeployBackend { name, source, code, config }: DeployBackend,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        if let Err(why) = code.check(&config) {
            return refuse(why);
        }
        if code.is_unread() {
            let read = Arc::clone(&code);
            return reading::first(read, DeployBackend { name, source, code, config }, ctx);
        }
        if self.office.gpus.are_missing_for(&config.resources) {
            return self.open_first(DeployBackend { name, source, code, config }, ctx);
        }
        let wish = Wish { code, source, config };
        let exists = self.office.fleet().backends.contains_key(&name);
        if exists { self.lead_to(name, wish, ctx) } else { self.create(name, wish, ctx) }
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
                self.open_first(UpdateBackend { name, update }, ctx)
            }
            Ok(config) => self.lead_to(name, Wish { code, source, config }, ctx),
            Err(why) => refuse(why),
        }
    }
}

/// The backend of this name, if it can be changed now.
fn changeable<'a>(fleet: &'a Fleet, name: &BackendName) -> Result<&'a BackendEntry, ServeError> {
    let entry = fleet.backends.get(name).filter(|entry| !entry.deleting());
    let entry = entry.ok_or_else(|| ServeError::UnknownBackend(name.clone()))?;
    if entry.created() {
        Ok(entry)
    } else {
        Err(ServeError::invalid(name.as_str(), "it is still being created; change it afterwards"))
    }
}

impl Controller {
    fn create(
        &self,
        name: BackendName,
        Wish { code, source, config }: Wish,
        ctx: &mut ReplicaContext<Self>,
    ) -> ResponseFuture<Outcome> {
        if self.office.directory.closing() {
            return refuse(ServeError::ShuttingDown);
        }
        let (tx, rx) = oneshot::channel();
        let metrics = self.office.metrics.registry.backend(&name);
        let mut fleet = self.office.fleet();
        let Fleet { backends, pool, generation, .. } = &mut *fleet;
        match backends.entry(name.clone()) {
            Entry::Occupied(_) => {
                return refuse(ServeError::AlreadyExists { what: "backend", name: name.as_str().into() });
            }
            Entry::Vacant(place) => {
                let mut entry = BackendEntry {
                    routes: Arc::new(code.routes(name.clone(), &metrics.outside)),
                    code,
                    source,
                    release: 1,
                    releases: 1,
                    claimed: Arc::new(config.resources.clone()),
                    config,
                    before: None,
                    retired: Vec::new(),
                    state: BackendState::Creating,
                    since: Instant::now(),
                    holding: false,
                    changed: tokio::time::Instant::now(),
                    look_again: None,
                    replicas: Vec::new(),
                    claims: Vec::new(),
                    metrics,
                    generation: *generation,
                    changes: 0,
                    failure: None,
                    last_error: None,
                    checked: tokio::time::Instant::now(),
                    ejector: Ejector::default(),
                    failed_replacements: 0,
                    waiters: vec![tx],
                    deleters: Vec::new(),
                };
                let config = entry.config.clone();
                if let Err(why) = entry.claim(&name, &config, pool) {
                    self.office.metrics.registry.forget_backend(&name);
                    return refuse(why);
                }
                self.office.models.update(&entry.routes);
                place.insert(entry);
            }
        }
        drop(fleet);
        self.reconcile(&name, ctx);
        wait(rx)
    }

    /// Leads a backend that there is to `wish`, and answers when it is there.
    fn lead_to(
        &self,
        name: BackendName,
        wish: Wish,
        ctx: &mut ReplicaContext<Self>,
    ) -> ResponseFuture<Outcome> {
        let (tx, rx) = oneshot::channel();
        // Refused code is dropped with the fleet at rest.
        let code = Arc::clone(&wish.code);
        let fresh = code.routes(name.clone(), &Outside::default());
        let mut fleet = self.office.fleet();
        if let Err(why) = changeable(&fleet, &name).and_then(|entry| entry.routes.suits(&fresh)) {
            drop(fleet);
            return refuse(why);
        }
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
}

/// Drain a backend and forget it.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct DeleteBackend {
    pub(crate) name: BackendName,
    pub(crate) force: bool,
}

impl Handler<DeleteBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(
        &mut self,
        DeleteBackend { name, force }: DeleteBackend,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        {
            let mut fleet = self.office.fleet();
            let user = fleet.endpoints.iter().find(|(_, e)| e.names(&name));
            if let Some((endpoint, _)) = user {
                return refuse(ServeError::InUse { backend: name, endpoint: endpoint.clone() });
            }
            let Some(entry) = fleet.backends.get_mut(&name) else {
                return refuse(ServeError::UnknownBackend(name));
            };
            entry.delete(ServeError::UnknownBackend(name.clone()), tx);
            if force {
                entry.config.graceful_shutdown_timeout = FORCED;
                // Those that drain already have been given longer.
                for replica in entry.replicas.iter().filter(|r| r.state == ReplicaState::Draining) {
                    let (backend, generation) = (name.clone(), replica.id.generation);
                    ctx.notify_later(DrainTimedOut { backend, generation }, FORCED);
                }
            }
        }
        self.reconcile(&name, ctx);
        wait(rx)
    }
}
