//! Testing backends without port or server: one replica, fakes for what it calls, time that can be paused.

use std::future::Future;

use actix::Actor;

use crate::{
    actors::context::ReplicaContext,
    backend::Backend,
    call::Request,
    config::BackendConfig,
    endpoint::Endpoint,
    error::ServeError,
    handle::Handle,
    serve::{Serve, ServeOptions},
};

/// A Serve on the test's own thread, so that `tokio::time::pause` moves everything in it.
///
/// The test's runtime must run local tasks: `#[actix_web::test]` does, and so does a `LocalSet`.
///
/// ```
/// use actix::{Actor, Handler, ResponseFuture};
/// use greenroom::{Backend, Handle, ReplicaContext, ServeError, testing::Stage};
///
/// #[derive(actix::Message)]
/// #[rtype(result = "Result<u64, ServeError>")]
/// struct Price(u64);
///
/// /// Adds what the `tax` endpoint says.
/// struct Shop { tax: Handle<Price> }
/// impl Actor for Shop {
///     type Context = ReplicaContext<Self>;
/// }
/// impl Handler<Price> for Shop {
///     type Result = ResponseFuture<Result<u64, ServeError>>;
///     fn handle(&mut self, Price(net): Price, _: &mut ReplicaContext<Self>) -> Self::Result {
///         let tax = self.tax.call(Price(net));
///         Box::pin(async move { Ok(net + tax.await?) })
///     }
/// }
///
/// # #[actix_web::main]
/// # async fn main() -> Result<(), ServeError> {
/// let stage = Stage::new().await?;
/// stage.fake("tax", |Price(net): Price| async move { Ok(net / 5) }).await?;
/// let shop = stage
///     .replica("shop", Backend::new(|ctx| Ok(Shop { tax: ctx.handle("tax")? })).handles::<Price>())
///     .await?;
/// assert_eq!(shop.call(Price(100)).await?, 120);
/// stage.end().await
/// # }
/// ```
#[derive(Debug)]
pub struct Stage {
    serve: Serve,
}

impl Stage {
    /// An empty stage on this thread.
    ///
    /// # Errors
    /// As [`Serve::start`].
    ///
    /// # Panics
    /// Outside of a runtime that runs local tasks.
    pub async fn new() -> Result<Self, ServeError> {
        Ok(Self { serve: Serve::start(ServeOptions::default().current_thread()).await? })
    }

    /// The Serve behind it, for everything else.
    pub fn serve(&self) -> &Serve {
        &self.serve
    }

    /// One replica of a backend and a handle to it.
    ///
    /// # Errors
    /// As [`Serve::create_backend`], or when the backend does not take `M`.
    pub async fn replica<A, M>(&self, name: &str, backend: Backend<A>) -> Result<Handle<M>, ServeError>
    where
        A: Actor<Context = ReplicaContext<A>>,
        M: Request,
    {
        self.replicas(name, backend, BackendConfig::default()).await
    }

    /// A backend with options and a handle to it.
    ///
    /// # Errors
    /// As [`replica`](Self::replica).
    pub async fn replicas<A, M>(
        &self,
        name: &str,
        backend: Backend<A>,
        config: BackendConfig,
    ) -> Result<Handle<M>, ServeError>
    where
        A: Actor<Context = ReplicaContext<A>>,
        M: Request,
    {
        self.serve.create_backend(name, backend, config).await?;
        self.serve.create_endpoint(name, Endpoint::new(name)).await?;
        self.serve.handle(name)
    }

    /// An endpoint that answers with what `answer` returns: stands in for another backend.
    ///
    /// # Errors
    /// As [`Serve::create_backend`].
    pub async fn fake<M, F, Fut>(&self, endpoint: &str, answer: F) -> Result<(), ServeError>
    where
        M: Request,
        F: Fn(M) -> Fut + Clone + Send + Sync + Unpin + 'static,
        Fut: Future<Output = M::Result> + 'static,
    {
        self.serve.create_backend(endpoint, Backend::from_fn(answer), BackendConfig::default()).await?;
        self.serve.create_endpoint(endpoint, Endpoint::new(endpoint)).await
    }

    /// Ends everything; an error tells that something still ran.
    ///
    /// # Errors
    /// As [`Serve::shutdown`].
    pub async fn end(self) -> Result<(), ServeError> {
        self.serve.shutdown().await
    }
}
