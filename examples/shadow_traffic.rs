//! Shadow traffic: two new backends get copies of live requests, and no caller can tell.
//!
//! `cargo run --example shadow_traffic`

use std::time::Duration;

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, Capacity, Endpoint, ReplicaContext, Serve, ServeError, ServeOptions, ShadowCopies,
};
use serde::Deserialize;

/// Asks for a prediction. Copies of a message are clones.
#[derive(Message, Clone, Deserialize)]
#[rtype(result = "Result<&'static str, ServeError>")]
pub struct Predict;

/// A model; a broken one fails.
struct Model {
    name: &'static str,
    broken: bool,
}

impl Actor for Model {
    type Context = ReplicaContext<Self>;
}

impl Handler<Predict> for Model {
    type Result = Result<&'static str, ServeError>;

    fn handle(&mut self, _: Predict, _: &mut Self::Context) -> Self::Result {
        if self.broken {
            return Err(ServeError::backend(500, "broken", "this model cannot predict anything"));
        }
        Ok(self.name)
    }
}

fn model(name: &'static str, broken: bool) -> Backend<Model> {
    // HTTP requests can be copied anyway; `shadows` is for those that come through a handle.
    Backend::new(move |_| Ok(Model { name, broken })).json::<Predict>().shadows::<Predict>()
}

/// One backend that serves everything, and two new ones that get copies of half and of a tenth of it.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    serve.create_backend("existing_backend", model("existing", false), BackendConfig::default()).await?;
    serve.create_endpoint("shadowed_endpoint", Endpoint::new("existing_backend").route("/shadow")).await?;

    serve.create_backend("new_backend_1", model("new 1", false), BackendConfig::default()).await?;
    serve.create_backend("new_backend_2", model("new 2", true), BackendConfig::default()).await?;
    serve.shadow_traffic("shadowed_endpoint", "new_backend_1", 0.5).await?;
    serve.shadow_traffic("shadowed_endpoint", "new_backend_2", 0.1).await
}

/// Ends it: a proportion of 0 takes a rule away.
pub async fn end(serve: &Serve) -> Result<(), ServeError> {
    serve.shadow_traffic("shadowed_endpoint", "new_backend_1", 0.0).await?;
    serve.shadow_traffic("shadowed_endpoint", "new_backend_2", 0.0).await
}

/// How many of `calls` requests the existing backend answered: all of them.
pub async fn ask(serve: &Serve, calls: usize) -> Result<usize, ServeError> {
    let handle = serve.handle::<Predict>("shadowed_endpoint")?;
    let mut answered = 0;
    for _ in 0..calls {
        answered += usize::from(handle.call(Predict).await? == "existing");
    }
    Ok(answered)
}

/// What became of the copies, by the backend that got them.
pub fn copies(serve: &Serve) -> Vec<(String, ShadowCopies)> {
    let endpoints = serve.list_endpoints().into_iter();
    let rules = endpoints.flat_map(|endpoint| endpoint.shadow);
    rules.map(|rule| (rule.backend.to_string(), rule.copies)).collect()
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    // Small as they are, its replicas need no core each.
    let serve = Serve::start(ServeOptions::default().capacity(Capacity::unlimited())).await?;
    deploy(&serve).await?;
    println!("answered by the existing backend: {} of 100", ask(&serve, 100).await?);
    // Nobody waits for copies; give the last of them a moment.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for (backend, copies) in copies(&serve) {
        println!("{backend}: {copies:?}");
    }
    end(&serve).await?;
    println!("rules left: {}", copies(&serve).len());
    serve.shutdown().await
}
