//! Reconfiguring: a threshold that changes in place while the heavy model beside it stays.
//!
//! `cargo run --example reconfigure`

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, Reconfigure, ReplicaContext, Serve, ServeError,
    ServeOptions,
};
use serde::Deserialize;
use serde_json::json;

/// Asks whether a score is above the threshold.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<bool, ServeError>")]
pub struct IsAbove;

/// What is changed while the replicas run.
#[derive(Deserialize)]
pub struct Config {
    threshold: f64,
}

/// Imagine that it is large and takes a minute to load.
struct Model;

impl Model {
    fn score(&self) -> f64 {
        rand::random()
    }
}

struct Threshold {
    model: Model,
    threshold: f64,
}

impl Actor for Threshold {
    type Context = ReplicaContext<Self>;
}

/// Before the first call of a replica, and whenever the `user_config` of the backend changes.
impl Handler<Reconfigure<Config>> for Threshold {
    type Result = Result<(), ServeError>;

    fn handle(&mut self, Reconfigure(config): Reconfigure<Config>, _: &mut Self::Context) -> Self::Result {
        if !(0.0..=1.0).contains(&config.threshold) {
            let told = format!("the threshold is 0 to 1, not {}", config.threshold);
            return Err(ServeError::backend(422, "threshold", told));
        }
        self.threshold = config.threshold;
        Ok(())
    }
}

impl Handler<IsAbove> for Threshold {
    type Result = Result<bool, ServeError>;

    fn handle(&mut self, _: IsAbove, _: &mut Self::Context) -> Self::Result {
        Ok(self.model.score() > self.threshold)
    }
}

/// Two replicas with a threshold that nearly every score is above.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    let threshold = Backend::new(|_| Ok(Threshold { model: Model, threshold: 1.0 }));
    let threshold = threshold.json::<IsAbove>().reconfigure::<Config>();
    let config = BackendConfig::default().num_replicas(2).user_config(json!({"threshold": 0.0}));
    serve.create_backend("threshold", threshold, config).await?;
    serve.create_endpoint("threshold", Endpoint::new("threshold").route("/threshold")).await
}

/// Another threshold; when this has returned every replica has it. No call is lost and no model loaded again.
pub async fn set_threshold(serve: &Serve, threshold: f64) -> Result<(), ServeError> {
    let update = BackendUpdate::default().user_config(json!({"threshold": threshold}));
    serve.update_backend_config("threshold", update).await
}

/// How many of `calls` scores are above the threshold.
pub async fn count(serve: &Serve, calls: usize) -> Result<usize, ServeError> {
    let handle = serve.handle::<IsAbove>("threshold")?;
    let mut above = 0;
    for _ in 0..calls {
        above += usize::from(handle.call(IsAbove).await?);
    }
    Ok(above)
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(ServeOptions::default()).await?;
    deploy(&serve).await?;
    println!("of 1000 scores are above 0: {}", count(&serve, 1000).await?);
    set_threshold(&serve, 0.9).await?;
    println!("above 0.9: {}", count(&serve, 1000).await?);
    if let Err(refused) = set_threshold(&serve, 2.0).await {
        println!("{refused}");
    }
    println!("still above 0.9: {}", count(&serve, 1000).await?);
    serve.shutdown().await
}
