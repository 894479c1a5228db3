//! Backends are made, changed and deleted.

use std::{collections::btree_map::Entry, sync::Arc, time::Duration};

use actix::{AsyncContext, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        build::Code,
        controller::{Controller, Outcome, events::DrainTimedOut, refuse, wait},
        fleet::{BackendEntry, Fleet},
        reconcile::ReplicaState,
    },
    config::{BackendConfig, BackendUpdate},
    error::ServeError,
    ids::BackendName,
};

/// What a replica is given to finish when it is deleted by force.
const FORCED: Duration = Duration::from_millis(1);

/// Make a backend.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct CreateBackend {
    pub(crate) name: BackendName,
    pub(crate) code: Arc<dyn Code>,
    pub(crate) config: BackendConfig,
}

impl Handler<CreateBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(&mut self, msg: CreateBackend, ctx: &mut Self::Context) -> Self::Result {
        if let Err(why) = msg.code.check(&msg.config) {
            return refuse(why);
        }
        let CreateBackend { name, code, config } =
            match self.once_open(&msg.config.resources.clone(), msg, ctx) {
                Ok(msg) => msg,
                Err(later) => return later,
            };
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
                    config,
                    before: None,
                    changed: tokio::time::Instant::now(),
                    look_again: None,
                    replicas: Vec::new(),
                    claims: Vec::new(),
                    metrics,
                    generation: *generation,
                    changes: 0,
                    created: false,
                    deleting: false,
                    failure: None,
                    last_error: None,
                    failed_replacements: 0,
                    waiters: vec![tx],
                    deleters: Vec::new(),
                };
                if let Err(why) = entry.claim(&name, entry.config.num_replicas, pool) {
                    self.office.metrics.registry.forget_backend(&name);
                    return refuse(why);
                }
                self.office.models.add(&entry.routes);
                place.insert(entry);
            }
        }
        drop(fleet);
        self.reconcile(&name, ctx);
        wait(rx)
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
        let (tx, rx) = oneshot::channel();
        let (code, old) = {
            let fleet = self.office.fleet();
            let Some(entry) = fleet.backends.get(&name).filter(|entry| !entry.deleting) else {
                return refuse(ServeError::UnknownBackend(name));
            };
            if !entry.created {
                return refuse(ServeError::invalid(
                    name.as_str(),
                    "it is still being created; update it afterwards",
                ));
            }
            (Arc::clone(&entry.code), entry.config.clone())
        };
        // With the fleet at rest: a `user_config` is read by the user's code, which may ask for the status.
        let checked = old.updated(&update).and_then(|config| code.check(&config).map(|()| config));
        let config = match checked.and_then(|config| in_place(&old, &config).map(|()| config)) {
            Ok(config) => config,
            Err(why) => return refuse(why),
        };
        let mut fleet = self.office.fleet();
        let Fleet { backends, pool, .. } = &mut *fleet;
        if let Some(entry) = backends.get_mut(&name) {
            if let Err(why) = entry.claim(&name, config.num_replicas, pool) {
                return refuse(why);
            }
            if let Some(why) = entry.failure.take() {
                // The change before this one has failed; all that was left of it was to go back.
                entry.answer(&Err(why));
            }
            // A newer change joins an older one: both wait for the same end, and a failure goes back to the
            // options that were in force before the first.
            let before = std::mem::replace(&mut entry.config, config);
            entry.before.get_or_insert(before);
            entry.changed = tokio::time::Instant::now();
            entry.waiters.push(tx);
        }
        drop(fleet);
        self.reconcile(&name, ctx);
        wait(rx)
    }
}

/// Options that only a new replica can follow.
fn in_place(old: &BackendConfig, new: &BackendConfig) -> Outcome {
    let fixed = [
        ("placement", old.placement == new.placement),
        ("num_threads", old.num_threads == new.num_threads),
        ("max_batch_size", old.max_batch_size.is_some() == new.max_batch_size.is_some()),
        ("idempotent", old.idempotent == new.idempotent),
        ("resources", old.resources == new.resources),
        ("gpu_share", old.gpu_share == new.gpu_share),
        ("restart", old.restart == new.restart),
    ];
    match fixed.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((option, _)) => Err(ServeError::invalid(
            *option,
            "it cannot be changed (max_batch_size: switched on or off) while replicas run; delete the backend and create it again",
        )),
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
