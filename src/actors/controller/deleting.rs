//! Backends are deleted.

use std::time::Duration;

use actix::{AsyncContext, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        controller::{Controller, Outcome, events::DrainTimedOut, refuse, wait},
        reconcile::ReplicaState,
    },
    error::ServeError,
    ids::BackendName,
};

/// What a replica is given to finish when it is deleted by force.
const FORCED: Duration = Duration::from_millis(1);

/// Drain a backend and forget it.
#[derive(Clone, Message)]
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
            let fleet = self.office.fleet();
            let user = fleet.endpoints.iter().find(|(_, e)| e.names(&name));
            if let Some((endpoint, _)) = user {
                return refuse(ServeError::InUse { backend: name, endpoint: endpoint.clone() });
            }
        }
        if let Some(deleted) = self.delete_awaiting(&name) {
            return Box::pin(std::future::ready(deleted));
        }
        if !self.office.fleet().backends.contains_key(&name) {
            return refuse(ServeError::UnknownBackend(name));
        }
        if let Err(why) = self.office.remember(|saved| saved.remove_backend(&name)) {
            return refuse(why);
        }
        {
            let mut fleet = self.office.fleet();
            let Some(entry) = fleet.backends.get_mut(&name) else {
                return refuse(ServeError::UnknownBackend(name));
            };
            entry.delete(ServeError::UnknownBackend(name.clone()), tx);
            if force {
                entry.config.graceful_shutdown_timeout = FORCED;
                // Those that drain already have been given longer.
                let until = tokio::time::Instant::now() + FORCED;
                for replica in entry.replicas.iter_mut().filter(|r| r.state == ReplicaState::Draining) {
                    replica.drains_until = Some(replica.drains_until.map_or(until, |at| at.min(until)));
                    let (backend, generation) = (name.clone(), replica.id.generation);
                    ctx.notify_later(DrainTimedOut { backend, generation }, FORCED);
                }
            }
        }
        self.reconcile(&name, ctx);
        wait(rx)
    }
}
