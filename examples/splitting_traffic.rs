//! Splitting traffic: one endpoint over two backends, half of the requests to each.
//!
//! `cargo run --example splitting_traffic`

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

/// Two backends behind one endpoint.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    serve.create_backend("backend1", model("one"), BackendConfig::default()).await?;
    serve.create_backend("backend2", model("two"), BackendConfig::default()).await?;

    serve.create_endpoint("fifty-fifty", Endpoint::new("backend1").route("/fifty")).await?;
    serve.set_traffic("fifty-fifty", [("backend1", 0.5), ("backend2", 0.5)]).await
}

/// How many of `calls` requests each model answered.
pub async fn count(serve: &Serve, calls: usize) -> Result<BTreeMap<&'static str, usize>, ServeError> {
    let handle = serve.handle::<Predict>("fifty-fifty")?;
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
    println!("of 1000 requests: {:?}", count(&serve, 1000).await?);
    let (answer, why) = serve.handle::<Predict>("fifty-fifty")?.call_explained(Predict).await;
    if let (Some(backend), Some(rule)) = (why.backend, why.rule) {
        println!("{:?} came from {backend}, chosen by {rule}", answer?);
    }
    serve.shutdown().await
}
