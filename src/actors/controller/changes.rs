//! A changed `user_config` goes to the replicas, a few at a time, and back where one of them refuses it.

use std::{sync::Arc, time::Instant};

use actix::{AsyncContext, Handler, Message};

use crate::{
    actors::{
        configure::{Change, Manner},
        context::ReplicaContext,
        controller::{Controller, STOP_GRACE},
        fleet::{BackendEntry, Changing},
        reconcile::next_changes,
    },
    error::ServeError,
    ids::BackendName,
};

/// Hands the wanted `user_config` to as many replicas as may be without calls at once.
pub(super) fn advance(name: &BackendName, entry: &mut BackendEntry, ctx: &mut ReplicaContext<Controller>) {
    let wanted = entry.config.user_config.clone();
    let manner = if entry.trying() { Manner::Try } else { Manner::Back };
    for generation in next_changes(&entry.configured()) {
        entry.changes += 1;
        let attempt = entry.changes;
        let timeout = entry.config.graceful_shutdown_timeout;
        let Some(replica) = entry.replica(generation) else { continue };
        let (to, since) = (wanted.clone(), Instant::now());
        replica.changing = Some(Changing { to: to.clone(), attempt, since });
        replica.control.change(Change { to, manner });
        ctx.notify_later(ChangeTimedOut { backend: name.clone(), generation, attempt }, timeout);
    }
}

impl Controller {
    /// A replica has made its change, or refused it.
    pub(super) fn configured(
        &self,
        name: &BackendName,
        generation: u64,
        outcome: Result<(), Box<str>>,
        ctx: &mut ReplicaContext<Self>,
    ) {
        let mut fleet = self.office.fleet();
        let Some(entry) = fleet.backends.get_mut(name) else { return };
        let Some(replica) = entry.replica(generation) else { return };
        let Some(Changing { to, .. }) = replica.changing.take() else { return };
        match outcome {
            Ok(()) => replica.config = to,
            Err(why) => {
                let (slot, release) = (replica.id.slot, replica.release);
                // A newer change is not to blame.
                if to == entry.config.user_config && release == entry.release {
                    refused(name, entry, slot, why);
                }
            }
        }
        drop(fleet);
        self.reconcile(name, ctx);
    }
}

/// The change is given up: what has changed already goes back.
fn refused(name: &BackendName, entry: &mut BackendEntry, slot: u32, why: Box<str>) {
    let why: Box<str> = format!("replica {slot}: {why}").into();
    entry.last_error = Some(why.clone());
    entry.undo(name, ServeError::ReconfigureFailed { backend: name.clone(), why });
}

/// A replica should have made its change by now.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ChangeTimedOut {
    pub(super) backend: BackendName,
    pub(super) generation: u64,
    pub(super) attempt: u64,
}

impl Handler<ChangeTimedOut> for Controller {
    type Result = ();
    fn handle(&mut self, late: ChangeTimedOut, ctx: &mut Self::Context) {
        let ChangeTimedOut { ref backend, generation, attempt } = late;
        let mut fleet = self.office.fleet();
        let Some(entry) = fleet.backends.get_mut(backend) else { return };
        let (graceful, startup) = (entry.config.graceful_shutdown_timeout, entry.config.startup_timeout);
        let (trying, release) = (entry.trying(), entry.release);
        let Some(replica) = entry.replica(generation) else { return };
        let replaced = replica.release != release;
        let trying = trying && !replaced;
        let slot = replica.id.slot;
        let control = Arc::clone(&replica.control);
        let Some(changing) = replica.changing.take_if(|changing| changing.attempt == attempt) else { return };
        if control.withdraw() {
            if replaced {
                // It goes on with what it has until it is replaced.
                drop(fleet);
                return self.reconcile(backend, ctx);
            }
            if trying {
                let after = graceful.as_secs_f64();
                let why = format!("the calls that it ran did not end within {after} s");
                refused(backend, entry, slot, why.into());
                drop(fleet);
                return self.reconcile(backend, ctx);
            }
            control.change(Change { to: changing.to.clone(), manner: Manner::BackNow });
        } else if changing.since.elapsed() >= graceful + startup {
            // Its thread hangs in a handler, or it does not come back.
            replica.seat.note_silence();
            let why: Box<str> = "it did not take its user_config in time".into();
            if trying {
                refused(backend, entry, slot, why.clone());
            }
            drop(fleet);
            return self.replace(backend, generation, why, ctx);
        }
        replica.changing = Some(changing);
        ctx.notify_later(late, startup + STOP_GRACE);
    }
}
