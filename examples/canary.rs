//! Canaries: new backends get one request in a hundred; then one of them gets all, or none does.
//!
//! `cargo run --example canary`

use std::collections::BTreeMap;

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, Capacity, Endpoint, ReplicaContext, Serve, ServeError, ServeOptions,
};
use serde::Deserialize;

/// Asks for a prediction; here it is the name of the model that made it.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<&'static str, ServeError>")]
pub struct Predict;

struct Model(&'static str);

impl Actor for Model {
    type Context = ReplicaContext<Self>;
}

impl Handler<Predict> for Model {
    type Result = Result<&'static str, ServeError>;

    fn handle(&mut self, _: Predict, _: &mut Self::Context) -> Self::Result {
        Ok(self.0)
    }
}

fn model(name: &'static str) -> Backend<Model> {
    Backend::new(move |_| Ok(Model(name))).json::<Predict>()
}

/// At first the default backend serves everything.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    serve.create_backend("default_backend", model("default"), BackendConfig::default()).await?;
    let endpoint = Endpoint::new("default_backend").route("/canary-test");
    serve.create_endpoint("canary_endpoint", endpoint).await
}

/// A second backend gets 1 % of it.
pub async fn one_canary(serve: &Serve) -> Result<(), ServeError> {
    serve.create_backend("new_backend", model("new"), BackendConfig::default()).await?;
    serve.set_traffic("canary_endpoint", [("default_backend", 0.99), ("new_backend", 0.01)]).await
}

/// A third gets another 1 %.
pub async fn two_canaries(serve: &Serve) -> Result<(), ServeError> {
    serve.create_backend("new_backend2", model("new, second"), BackendConfig::default()).await?;
    let weights = [("default_backend", 0.98), ("new_backend", 0.01), ("new_backend2", 0.01)];
    serve.set_traffic("canary_endpoint", weights).await
}

/// The new one is better: it gets everything, and the others can go.
pub async fn promote(serve: &Serve) -> Result<(), ServeError> {
    serve.set_traffic("canary_endpoint", [("new_backend", 1.0)]).await?;
    serve.delete_backend("default_backend", false).await?;
    serve.delete_backend("new_backend2", false).await
}

/// It is not: everything goes back to the default. No request that comes later is served by another one.
pub async fn take_back(serve: &Serve) -> Result<(), ServeError> {
    serve.set_traffic("canary_endpoint", [("default_backend", 1.0)]).await
}

/// How many of `calls` requests each model answered.
pub async fn count(serve: &Serve, calls: usize) -> Result<BTreeMap<&'static str, usize>, ServeError> {
    let handle = serve.handle::<Predict>("canary_endpoint")?;
    let mut answered = BTreeMap::new();
    for _ in 0..calls {
        *answered.entry(handle.call(Predict).await?).or_insert(0) += 1;
    }
    Ok(answered)
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    // Small as they are, its replicas need no core each.
    let serve = Serve::start(ServeOptions::default().capacity(Capacity::unlimited())).await?;
    deploy(&serve).await?;
    println!("at first:      {:?}", count(&serve, 1000).await?);
    one_canary(&serve).await?;
    println!("one canary:    {:?}", count(&serve, 1000).await?);
    two_canaries(&serve).await?;
    println!("two canaries:  {:?}", count(&serve, 1000).await?);
    take_back(&serve).await?;
    println!("taken back:    {:?}", count(&serve, 1000).await?);
    promote(&serve).await?;
    println!("promoted:      {:?}", count(&serve, 1000).await?);
    serve.shutdown().await
}
