//! What Ray Serve's own tests ask of it, asked of this one; `README.md` beside this file says which is which.

mod api;
mod batching;
mod config;
mod failure;
mod handle;
mod http;
mod lifecycle;
mod metrics;
mod router;
mod traffic;

use actix::{Actor, Handler, Message};
use greenroom::{Backend, BackendConfig, Endpoint, ReplicaContext, Serve, ServeError, ServeOptions};
use serde::Deserialize;

use crate::support::Barrier;

/// Asks a backend for its name.
#[derive(Message, Clone, Debug, Deserialize)]
#[rtype(result = "Result<&'static str, ServeError>")]
pub struct Name {}

/// Tells its name.
pub struct Named(&'static str);

impl Actor for Named {
    type Context = ReplicaContext<Self>;
}

impl Handler<Name> for Named {
    type Result = Result<&'static str, ServeError>;
    fn handle(&mut self, _: Name, _: &mut Self::Context) -> Self::Result {
        Ok(self.0)
    }
}

/// A backend that tells this name, to handles and over HTTP, and can be a shadow.
pub fn named(name: &'static str) -> Backend<Named> {
    Backend::new(move |_| Ok(Named(name))).json::<Name>().shadows::<Name>()
}

/// A Serve on the test's own thread, whose time may be paused.
pub async fn here() -> Serve {
    Serve::start(ServeOptions::default().current_thread()).await.unwrap()
}

/// Makes backends that tell their names.
pub async fn create_named(serve: &Serve, names: &[&'static str]) {
    for name in names {
        serve.create_backend(name, named(name), BackendConfig::default()).await.unwrap();
    }
}

/// What an endpoint answers.
pub async fn ask(serve: &Serve, endpoint: &str) -> Result<&'static str, ServeError> {
    serve.handle::<Name>(endpoint)?.call(Name {}).await
}

/// Waits in a barrier and answers with its number.
#[derive(Message, Clone, Debug, Deserialize)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Pass(pub u64);

/// A backend whose calls wait in `barrier`, behind an endpoint of the same name.
pub async fn create_held(serve: &Serve, name: &str, barrier: &Barrier, config: BackendConfig) {
    let held = barrier.clone();
    let backend = Backend::from_fn(move |Pass(n)| {
        let pass = held.pass();
        async move {
            pass.await;
            Ok(n)
        }
    });
    serve.create_backend(name, backend, config).await.unwrap();
    serve.create_endpoint(name, Endpoint::new(name)).await.unwrap();
}

/// Waits until no replica of any backend has a call, so that every copy has ended too.
pub async fn quiet(serve: &Serve) {
    let status = || serve.status().backends.into_iter().flat_map(|backend| backend.replicas);
    crate::support::until("every call has ended", || status().all(|replica| replica.load == 0)).await;
}
