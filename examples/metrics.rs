//! Metrics: what is counted of every backend, and a counter of the backend's own with its labels.
//!
//! `cargo run --example metrics`

use actix::{Actor, Handler, Message};
use greenroom::{Backend, BackendConfig, Endpoint, ReplicaContext, Serve, ServeError, ServeOptions};
use serde::Deserialize;

#[derive(Message, Deserialize)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Rate {
    #[serde(default)]
    pub excellent: bool,
}

struct Ratings {
    excellent: metrics::Counter,
}

impl Actor for Ratings {
    type Context = ReplicaContext<Self>;
}

impl Handler<Rate> for Ratings {
    type Result = Result<(), ServeError>;

    fn handle(&mut self, Rate { excellent }: Rate, _: &mut Self::Context) -> Self::Result {
        if excellent {
            self.excellent.increment(1);
        }
        Ok(())
    }
}

/// The counter is made in a replica, so it gets the labels `backend` and `replica` without being told.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    let ratings = Backend::new(|_| {
        metrics::describe_counter!("excellent_requests_total", "Excellent requests to this backend.");
        Ok(Ratings { excellent: metrics::counter!("excellent_requests_total") })
    });
    serve.create_backend("ratings", ratings.json::<Rate>(), BackendConfig::default()).await?;
    serve.create_endpoint("ratings", Endpoint::new("ratings").route("/rate")).await
}

/// Mean time that a backend took for a request, in milliseconds, as its metrics tell it.
pub fn mean_ms(serve: &Serve, backend: &str) -> f64 {
    let (text, label) = (serve.metrics(), format!("{{backend=\"{backend}\","));
    let sum_of = |name: &str| {
        let start = format!("serve_backend_processing_latency_ms_{name}{label}");
        let lines = text.lines().filter(|line| line.starts_with(&start));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    sum_of("sum") / sum_of("count")
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(ServeOptions::default()).await?;
    deploy(&serve).await?;
    let handle = serve.handle::<Rate>("ratings")?;
    for n in 0..100 {
        handle.call(Rate { excellent: n % 4 == 0 }).await?;
    }
    let text = serve.metrics();
    let lines = text.lines().filter(|line| line.contains("backend=\"ratings\"") && !line.contains("_bucket"));
    lines.for_each(|line| println!("{line}"));
    println!("mean: {:.4} ms", mean_ms(&serve, "ratings"));
    serve.shutdown().await
}
