//! `CheckHealth`: the message by which a backend's own code says whether its replica is well.

use actix::{Actor, Handler, Message};

use crate::{
    actors::{
        context::ReplicaContext,
        execute::{Plain, execute},
    },
    backend::Backend,
    error::ServeError,
    meta::Meta,
};

/// Is this replica well? An error or a panic says that it is not.
///
/// Each replica is asked every [`health_check_period`](field@crate::BackendConfig::health_check_period), between two
/// calls, so that load cannot keep the question waiting. The handler may answer at once or with a future
/// (`ResponseFuture`, `ResponseActFuture`, `AtomicResponse`); an `AtomicResponse` holds calls up meanwhile. The
/// question is no call: it takes no place in the queue, and no metric counts it as a request.
///
/// A new replica takes calls only when its first check has passed; one that fails is a failed start, tried again as
/// [`RestartPolicy`](crate::RestartPolicy) says. So is one that a rebuilt state answers at once; one that takes its
/// time is made beside calls, which do not wait for it. Later on three failures in a row, or as many times
/// no answer within
/// [`health_check_timeout`](field@crate::BackendConfig::health_check_timeout), make the replica unhealthy: it is taken
/// out, another one is started in its place, and what waits there goes to its siblings or waits for that one.
///
/// ```
/// use actix::{Actor, Handler, Message};
/// use greenroom::{Backend, CheckHealth, ReplicaContext, ServeError};
///
/// #[derive(Message)]
/// #[rtype(result = "Result<u64, ServeError>")]
/// struct Ask;
///
/// struct Oracle { connected: bool }
/// impl Actor for Oracle {
///     type Context = ReplicaContext<Self>;
/// }
/// impl Handler<Ask> for Oracle {
///     type Result = Result<u64, ServeError>;
///     fn handle(&mut self, _: Ask, _: &mut Self::Context) -> Self::Result {
///         Ok(42)
///     }
/// }
/// impl Handler<CheckHealth> for Oracle {
///     type Result = Result<(), ServeError>;
///     fn handle(&mut self, _: CheckHealth, _: &mut Self::Context) -> Self::Result {
///         if self.connected { Ok(()) } else { Err(ServeError::backend(503, "lost", "the connection is lost")) }
///     }
/// }
///
/// let oracle = Backend::new(|_| Ok(Oracle { connected: true })).handles::<Ask>().health_check();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckHealth;

impl Message for CheckHealth {
    type Result = Result<(), ServeError>;
}

impl<A: Actor<Context = ReplicaContext<A>>> Backend<A> {
    /// Its own code says whether a replica is well; see [`CheckHealth`]. Without this, a replica is well while its
    /// thread gets to it.
    ///
    /// ```compile_fail
    /// # use actix::Actor;
    /// # use greenroom::{Backend, ReplicaContext};
    /// # struct Counter(u64);
    /// # impl Actor for Counter {
    /// #     type Context = ReplicaContext<Self>;
    /// # }
    /// let backend = Backend::new(|_ctx| Ok(Counter(0))).health_check();
    /// ```
    pub fn health_check(mut self) -> Self
    where
        A: Handler<CheckHealth>,
    {
        self.health_check =
            Some(|actor, ctx| execute::<A, Plain<_, false>>(actor, ctx, CheckHealth, Meta::new()));
        self
    }
}
