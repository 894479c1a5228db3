//! What a replica is told of its health checks: what of the backend's own code makes them, and how long one may take.

use std::time::Duration;

use actix::Actor;

use crate::actors::{context::ReplicaContext, execute::Step};

/// Makes one check. User code is guarded inside: this does not unwind.
pub(crate) type Check<A> = fn(&mut A, &mut ReplicaContext<A>) -> Step<(), ()>;

/// The health checks of one replica.
pub(crate) struct Checked<A: Actor> {
    /// None: that the replica's loop turns is all that is checked.
    pub(crate) check: Option<Check<A>>,
    /// Longest time that the first check of a new replica may take.
    pub(crate) timeout: Duration,
}

impl<A: Actor> Default for Checked<A> {
    fn default() -> Self {
        Self { check: None, timeout: Duration::MAX }
    }
}
