//! Calls wait while the last replica of a backend is replaced; those whose deadline passes are ended meanwhile.

use std::time::Duration;

use actix::{AsyncContext, Handler, Message};

use crate::{
    actors::{context::ReplicaContext, controller::Controller, fleet::BackendEntry},
    ids::BackendName,
};

/// How often it is looked for calls whose deadline nobody else keeps, and for callers that have left.
const LOOK: Duration = Duration::from_millis(10);

/// From now on calls wait.
pub(super) fn begin(name: &BackendName, entry: &mut BackendEntry, ctx: &mut ReplicaContext<Controller>) {
    entry.hold();
    watch(name, ctx);
}

/// Looks after the calls that wait.
pub(super) fn watch(name: &BackendName, ctx: &mut ReplicaContext<Controller>) {
    ctx.notify_later(LookAfterWaiting(name.clone()), LOOK);
}

/// Some calls that wait may have to be ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LookAfterWaiting(BackendName);

impl Handler<LookAfterWaiting> for Controller {
    type Result = ();
    fn handle(&mut self, LookAfterWaiting(name): LookAfterWaiting, ctx: &mut Self::Context) {
        let fleet = self.office.fleet();
        let waiting = fleet.backends.get(&name).filter(|entry| entry.holding);
        let routes = waiting.map(|entry| std::sync::Arc::clone(&entry.routes));
        // Messages are dropped with the fleet at rest.
        drop(fleet);
        if let Some(routes) = routes {
            routes.end_overdue();
            watch(&name, ctx);
        }
    }
}
