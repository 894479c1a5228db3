//! Incremental rollout: a new backend gets a growing share of the traffic, and none as soon as it fails.
//!
//! `cargo run --example incremental_rollout`

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, Capacity, Endpoint, ReplicaContext, Serve, ServeError, ServeOptions,
};
use serde::Deserialize;

/// Asks for a prediction; here it is the name of the model that made it.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<&'static str, ServeError>")]
pub struct Predict;

/// A model that answers so many requests and then fails.
struct Model {
    name: &'static str,
    good_for: usize,
}

impl Actor for Model {
    type Context = ReplicaContext<Self>;
}

impl Handler<Predict> for Model {
    type Result = Result<&'static str, ServeError>;

    fn handle(&mut self, _: Predict, _: &mut Self::Context) -> Self::Result {
        let out = || ServeError::backend(500, "out_of_memory", "the model needs more memory than there is");
        self.good_for = self.good_for.checked_sub(1).ok_or_else(out)?;
        Ok(self.name)
    }
}

fn model(name: &'static str, good_for: usize) -> Backend<Model> {
    Backend::new(move |_| Ok(Model { name, good_for })).json::<Predict>()
}

/// The existing backend serves everything; the new one is there and is not asked yet.
pub async fn deploy(serve: &Serve, new_is_good_for: usize) -> Result<(), ServeError> {
    serve.create_backend("existing_backend", model("existing", usize::MAX), BackendConfig::default()).await?;
    let endpoint = Endpoint::new("existing_backend").route("/incremental");
    serve.create_endpoint("incremental_endpoint", endpoint).await?;
    serve.create_backend("new_backend", model("new", new_is_good_for), BackendConfig::default()).await
}

/// What the new backend's share of the traffic is, step by step.
pub const SHARES: [f64; 4] = [0.1, 0.2, 0.5, 1.0];

/// Goes through the steps with `calls` requests at each; if one of them fails, all traffic goes back.
///
/// Says after which share it ended and how many requests failed.
pub async fn roll_out(serve: &Serve, calls: usize) -> Result<(f64, usize), ServeError> {
    let handle = serve.handle::<Predict>("incremental_endpoint")?;
    for share in SHARES {
        let weights = [("existing_backend", 1.0 - share), ("new_backend", share)];
        serve.set_traffic("incremental_endpoint", weights).await?;
        for _ in 0..calls {
            if handle.call(Predict).await.is_err() {
                roll_back(serve).await?;
                return Ok((share, 1));
            }
        }
    }
    Ok((1.0, 0))
}

/// At any time: once this has returned, the existing backend serves everything.
pub async fn roll_back(serve: &Serve) -> Result<(), ServeError> {
    serve.set_traffic("incremental_endpoint", [("existing_backend", 1.0)]).await
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    for new_is_good_for in [usize::MAX, 50] {
        // Small as they are, its replicas need no core each.
        let serve = Serve::start(ServeOptions::default().capacity(Capacity::unlimited())).await?;
        deploy(&serve, new_is_good_for).await?;
        let (share, failed) = roll_out(&serve, 200).await?;
        println!("ended at a share of {share} with {failed} failed requests");
        for endpoint in serve.list_endpoints() {
            for (backend, weight) in endpoint.traffic.iter() {
                println!("    now {backend}: {weight}");
            }
        }
        serve.shutdown().await?;
    }
    Ok(())
}
