//! A replica has to go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::AsyncContext;

use crate::{
    actors::{
        context::ReplicaContext,
        controller::{Controller, events::DrainTimedOut, holding},
        fleet::BackendEntry,
        reconcile::ReplicaState,
    },
    ids::BackendName,
};

/// Out of the routing table first; then what runs and waits is finished; then it stops, by force if it must.
pub(super) fn drain(
    name: &BackendName,
    entry: &mut BackendEntry,
    generation: u64,
    ctx: &mut ReplicaContext<Controller>,
) {
    let timeout = entry.config.graceful_shutdown_timeout;
    let (deleting, release) = (entry.deleting(), entry.release);
    let Some(replica) = entry.replica(generation) else { return };
    let replaced = !deleting && replica.release != release;
    // One that is not ready yet has nothing to finish, and may take long to be ready.
    let timeout = if replica.state == ReplicaState::Starting { Duration::ZERO } else { timeout };
    replica.state = ReplicaState::Draining;
    replica.since = Instant::now();
    replica.drains_until = Some(tokio::time::Instant::now() + timeout);
    replica.reason = Some(match (deleting, replaced) {
        (true, _) => "its backend is deleted".into(),
        (_, true) => format!("replaced by release {release}").into(),
        _ => "fewer replicas are wanted".into(),
    });
    if replica.changing.take().is_some() {
        replica.control.withdraw();
    }
    let control = Arc::clone(&replica.control);
    if replaced && !entry.holding && !entry.hold_is_over() {
        holding::begin(name, entry, ctx);
    }
    entry.publish();
    control.drain();
    ctx.notify_later(DrainTimedOut { backend: name.clone(), generation }, timeout);
}
