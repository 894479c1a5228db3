//! Scaling out: ten replicas of a backend, then two, while requests keep coming.
//!
//! A replica asks for a whole CPU unless told otherwise, so ten of them would be refused on a machine with two cores.
//! These do next to nothing and say so: a tenth of a CPU each.
//!
//! `cargo run --example scaling_out`

use std::collections::BTreeMap;

use actix::{Actor, Handler, Message};
use futures_util::future::try_join_all;
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, ReplicaContext, Resources, Serve, ServeError,
    ServeOptions,
};
use serde::Deserialize;

/// Asks which replica answers.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<u32, ServeError>")]
pub struct Who;

struct Worker;

impl Actor for Worker {
    type Context = ReplicaContext<Self>;
}

impl Handler<Who> for Worker {
    type Result = Result<u32, ServeError>;

    fn handle(&mut self, _: Who, ctx: &mut Self::Context) -> Self::Result {
        Ok(ctx.replica_id().slot)
    }
}

/// Ten replicas, which together ask for one CPU.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    let config = BackendConfig::default().num_replicas(10).resources(Resources::default().num_cpus(0.1));
    serve.create_backend("workers", Backend::new(|_| Ok(Worker)).json::<Who>(), config).await?;
    serve.create_endpoint("workers", Endpoint::new("workers").route("/who")).await
}

/// So many replicas from now on. Those that leave finish what they have.
pub async fn scale_to(serve: &Serve, replicas: u32) -> Result<(), ServeError> {
    serve.update_backend_config("workers", BackendUpdate::default().num_replicas(replicas)).await
}

/// How many of `calls` requests each replica answered.
pub async fn spread(serve: &Serve, calls: usize) -> Result<BTreeMap<u32, usize>, ServeError> {
    let workers = serve.handle::<Who>("workers")?;
    let mut answered = BTreeMap::new();
    for replica in try_join_all((0..calls).map(|_| workers.call(Who))).await? {
        *answered.entry(replica).or_insert(0) += 1;
    }
    Ok(answered)
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(ServeOptions::default()).await?;
    deploy(&serve).await?;
    println!("requests a replica, of ten: {:?}", spread(&serve, 500).await?);
    let (meanwhile, scaled) = tokio::join!(spread(&serve, 500), scale_to(&serve, 2));
    scaled?;
    println!("on the way from ten to two: {:?}", meanwhile?);
    println!("requests a replica, of two: {:?}", spread(&serve, 500).await?);
    serve.shutdown().await
}
