//! What a replica is told of its backend's `user_config`: who takes it, and a change on its way.

use std::{sync::Arc, time::Duration};

use actix::Actor;

use crate::{
    actors::{context::ReplicaContext, execute::Step},
    config::UserConfig,
    error::ServeError,
};

/// Hands a `user_config` to the backend's own code, the type that this reads it as erased.
pub(crate) trait Takes<A: Actor>: Send + Sync {
    /// Whether it can be read.
    fn check(&self, config: &UserConfig) -> Result<(), ServeError>;
    /// Hands it over. User code is guarded inside: this does not unwind.
    fn apply(&self, actor: &mut A, ctx: &mut ReplicaContext<A>, config: &UserConfig) -> Step<(), ()>;
}

/// The `user_config` of one replica.
pub(crate) struct Configured<A: Actor> {
    /// None: its code takes none.
    pub(crate) takes: Option<Arc<dyn Takes<A>>>,
    /// The one in force, which a new state gets too.
    pub(crate) config: Option<UserConfig>,
    /// Longest time that handing it over may take.
    pub(crate) timeout: Duration,
}

impl<A: Actor> Default for Configured<A> {
    fn default() -> Self {
        Self { takes: None, config: None, timeout: Duration::MAX }
    }
}

/// A replica's next `user_config`. It waits in the lane until nothing runs; meanwhile no call begins.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// None: the state is made anew without one.
    pub(crate) to: Option<UserConfig>,
    pub(crate) manner: Manner,
}

/// How a change treats what stands in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A new configuration: refused, it leaves the one before in force.
    Try,
    /// Back to the one before: a state that refuses it is made anew with it.
    Back,
    /// The same, without waiting any longer for what runs.
    BackNow,
}
