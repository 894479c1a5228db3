//! A replica is gone that was not told to go, or has no thread to come to.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    actors::{context::ReplicaContext, controller::Controller, fleet::BackendEntry, reconcile::ReplicaState},
    error::ServeError,
    ids::BackendName,
    routing::backend_routes::BackendRoutes,
};

/// First pause before a replica that gave up is replaced; doubled for each further one in a row.
const REPLACE_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const REPLACE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often a serving thread is looked for while there is none.
const THREAD_PAUSE: Duration = Duration::from_millis(10);

/// Whose fault it is that a replica is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its own, and so maybe that of what it is made from.
    Replica,
    /// Its thread ended under it.
    Thread,
}

impl Controller {
    /// Looks again a little later; a change that has waited too long for a thread is given up, and so are calls that
    /// have. They are let go by whoever gets this, when nothing is locked.
    #[must_use]
    pub(super) fn no_thread(
        &self,
        name: &BackendName,
        entry: &mut BackendEntry,
        ctx: &mut ReplicaContext<Self>,
    ) -> Option<Arc<BackendRoutes>> {
        let why: Box<str> = "there is no serving thread; lend one or listen first".into();
        entry.last_error = Some(why.clone());
        let (now, limit) = (Instant::now(), entry.config.startup_timeout);
        let threadless = *entry.threadless.get_or_insert(now);
        let failed = ServeError::StartFailed { backend: name.clone(), why };
        let late = now.duration_since(entry.changed) >= limit;
        if late && self.office.undo(name, entry, failed.clone()) {
            self.again(name, Duration::ZERO, ctx);
            return None;
        }
        if entry.look_again.is_none_or(|at| at <= now) {
            entry.look_again = Some(now + THREAD_PAUSE);
            self.again(name, THREAD_PAUSE, ctx);
        }
        // There is nothing to go back to: it is tried again, and nobody waits for that.
        if now.duration_since(threadless) >= limit { entry.give_up_waiting(failed) } else { None }
    }

    /// A replica is gone for good, without having been told to go.
    pub(super) fn lost(
        &self,
        name: &BackendName,
        generation: u64,
        why: Box<str>,
        fault: Fault,
        ctx: &mut ReplicaContext<Self>,
    ) {
        let mut released = None;
        let mut fleet = self.office.fleet();
        let Some(entry) = fleet.backends.get_mut(name) else { return };
        let Some(replica) = entry.replica(generation) else { return };
        let (slot, started) = (replica.id.slot, replica.state == ReplicaState::Running);
        let was_to_go = replica.state == ReplicaState::Draining;
        let wanted = replica.release == entry.release;
        entry.remove(generation);
        if was_to_go {
            return self.again(name, Duration::ZERO, ctx);
        }
        entry.last_error = Some(why.clone());
        entry.publish();
        let failed = ServeError::StartFailed { backend: name.clone(), why };
        if started {
            entry.metrics.replaced(slot);
        }
        // One that did start and fails while others of its release are still to come says what these will do.
        let to_blame = !started || (fault == Fault::Replica && entry.before_is_another_release());
        if wanted && to_blame && self.office.undo(name, entry, failed.clone()) {
            return self.again(name, Duration::ZERO, ctx);
        }
        if wanted && !started {
            // There is nothing to go back to: it is tried again, and nobody waits for that.
            released = entry.give_up_waiting(failed);
        }
        entry.look();
        let pause =
            REPLACE_PAUSE.saturating_mul(1 << entry.failed_replacements.min(16)).min(REPLACE_PAUSE_MAX);
        let pause = if started && entry.failed_replacements == 0 { Duration::ZERO } else { pause };
        entry.failed_replacements += 1;
        drop(fleet);
        released.iter().for_each(|routes| routes.let_go());
        self.again(name, pause, ctx);
    }
}
