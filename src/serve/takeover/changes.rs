//! What becomes of changes when another process comes: those under way end before it hears what there is.

use std::sync::Arc;

use actix::Addr;
use tokio::sync::OwnedRwLockWriteGuard;

use crate::{
    actors::controller::{Controller, Office, Quiet},
    serve::{Serve, deploy::Deploys},
};

/// The changes that a Serve makes.
pub(super) struct Changes {
    office: Arc<Office>,
    controller: Addr<Controller>,
    deploys: Arc<Deploys>,
}

impl Changes {
    pub(super) fn of(serve: &Serve) -> Self {
        Self {
            office: Arc::clone(&serve.0.office),
            controller: serve.0.controller.clone(),
            deploys: Arc::clone(&serve.0.deploys),
        }
    }

    /// Waits until no deploy and no change by hand is under way; none begins while the guard is held.
    pub(super) async fn at_rest(&self) -> OwnedRwLockWriteGuard<()> {
        let alone = self.deploys.alone().await;
        // Also those whose callers have left. A Controller that restarts meanwhile has forgotten who waits, and is
        // asked again.
        while self.controller.send(Quiet::Revocable).await.is_err() && self.controller.connected() {}
        alone
    }

    /// Does this while nothing is being saved: what was acknowledged before is in the state directory then.
    pub(super) fn between_saves(&self, then: impl FnOnce()) {
        let _saved = self.office.memory();
        then();
    }

    /// Goes on with the state directory, where another process may have written meanwhile.
    pub(super) fn resume(&self, first: impl FnOnce()) {
        let mut memory = self.office.memory();
        first();
        memory.write_again();
    }
}
