//! `Reconfigure`: the message by which a backend's own code takes its `user_config`.

use std::{marker::PhantomData, sync::Arc};

use actix::{Actor, Handler, Message};
use serde::de::DeserializeOwned;

use crate::{
    actors::{
        configure::Takes,
        context::ReplicaContext,
        execute::{Plain, Step, execute},
    },
    backend::Backend,
    config::UserConfig,
    error::{Problem, ServeError},
    guard::guarded,
    meta::Meta,
};

/// Take this configuration from now on: the backend's [`user_config`](field@crate::BackendConfig::user_config),
/// as a `C`.
///
/// A replica gets it before its first call, after each rebuild of its state, and whenever it changes: then no call
/// begins until the handler has ended, and none runs meanwhile, so that a call sees one configuration. The handler
/// may answer at once or with a future (`ResponseFuture`, `ResponseActFuture`, `AtomicResponse`).
///
/// An error refuses the configuration and says that the state is as it was: stage what may fail, then commit. Then
/// every replica goes back to the configuration before, and whoever asked for the change is told. A panic does the
/// same and makes the state anew.
///
/// ```
/// use actix::{Actor, Handler, Message};
/// use greenroom::{Backend, BackendConfig, BackendUpdate, Endpoint, Reconfigure, ReplicaContext, Serve};
/// use greenroom::{ServeError, ServeOptions};
/// use serde_json::json;
///
/// #[derive(serde::Deserialize)]
/// struct Threshold { threshold: f64 }
///
/// #[derive(Message)]
/// #[rtype(result = "Result<bool, ServeError>")]
/// struct Passes(f64);
///
/// #[derive(Default)]
/// struct Filter { threshold: f64 }
/// impl Actor for Filter {
///     type Context = ReplicaContext<Self>;
/// }
/// impl Handler<Reconfigure<Threshold>> for Filter {
///     type Result = Result<(), ServeError>;
///     fn handle(&mut self, Reconfigure(new): Reconfigure<Threshold>, _: &mut Self::Context) -> Self::Result {
///         self.threshold = new.threshold;
///         Ok(())
///     }
/// }
/// impl Handler<Passes> for Filter {
///     type Result = Result<bool, ServeError>;
///     fn handle(&mut self, Passes(score): Passes, _: &mut Self::Context) -> Self::Result {
///         Ok(score > self.threshold)
///     }
/// }
///
/// # #[actix_web::main]
/// # async fn main() -> Result<(), ServeError> {
/// # let serve = Serve::start(ServeOptions::default()).await?;
/// let filter = Backend::new(|_| Ok(Filter::default())).handles::<Passes>().reconfigure::<Threshold>();
/// let config = BackendConfig::default().user_config(json!({"threshold": 0.5}));
/// serve.create_backend("filter", filter, config).await?;
/// serve.create_endpoint("filter", Endpoint::new("filter")).await?;
/// let passes = serve.handle::<Passes>("filter")?;
/// assert!(passes.call(Passes(0.6)).await?);
///
/// let stricter = BackendUpdate::default().user_config(json!({"threshold": 0.9}));
/// serve.update_backend_config("filter", stricter).await?;
/// assert!(!passes.call(Passes(0.6)).await?);
/// # serve.shutdown().await
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconfigure<C>(pub C);

impl<C: 'static> Message for Reconfigure<C> {
    type Result = Result<(), ServeError>;
}

/// Takes `C` out of a `user_config`.
struct Typed<C>(PhantomData<fn() -> C>);

impl<A, C> Takes<A> for Typed<C>
where
    A: Actor<Context = ReplicaContext<A>> + Handler<Reconfigure<C>>,
    C: DeserializeOwned + Send + 'static,
{
    fn check(&self, config: &UserConfig) -> Result<(), ServeError> {
        let read = guarded(|| C::deserialize(config.json()).map(drop).map_err(|error| error.to_string()));
        let what = match read {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("it is no {}: {error}", std::any::type_name::<C>()),
            Err(panic) => format!("reading it panicked: {panic}"),
        };
        Err(ServeError::InvalidConfig(vec![Problem { place: "user_config".into(), what }]))
    }

    fn apply(&self, actor: &mut A, ctx: &mut ReplicaContext<A>, config: &UserConfig) -> Step<(), ()> {
        match ctx.desk.guard(|| C::deserialize(config.json())) {
            Ok(Ok(config)) => execute::<A, Plain<_, false>>(actor, ctx, Reconfigure(config), Meta::new()),
            Ok(Err(error)) => Step::Done(Err(ServeError::invalid("user_config", error.to_string()))),
            Err(message) => Step::Done(Err(ServeError::Panicked { message })),
        }
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Backend<A> {
    /// It takes a [`user_config`](field@crate::BackendConfig::user_config), read as a `C`; see [`Reconfigure`].
    /// Without this a `user_config` is refused, and so is one that is no `C`.
    ///
    /// ```compile_fail
    /// # use actix::Actor;
    /// # use greenroom::{Backend, ReplicaContext};
    /// # struct Counter(u64);
    /// # impl Actor for Counter {
    /// #     type Context = ReplicaContext<Self>;
    /// # }
    /// let backend = Backend::new(|_ctx| Ok(Counter(0))).reconfigure::<u64>();
    /// ```
    pub fn reconfigure<C>(mut self) -> Self
    where
        A: Handler<Reconfigure<C>>,
        C: DeserializeOwned + Send + 'static,
    {
        self.takes = Some(Arc::new(Typed::<C>(PhantomData)));
        self
    }
}
