//! The smallest backend: an actor behind a route.
//!
//! `cargo run --example quickstart`, then `curl 'http://127.0.0.1:8000/double?n=21'`. `PORT` names another port.

use actix::{Actor, Handler, Message};
use greenroom::{Backend, BackendConfig, Endpoint, Listen, ReplicaContext, Serve, ServeError, ServeOptions};
use serde::Deserialize;

#[derive(Message, Deserialize)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Double {
    pub n: u64,
}

struct Doubler;

impl Actor for Doubler {
    type Context = ReplicaContext<Self>;
}

impl Handler<Double> for Doubler {
    type Result = Result<u64, ServeError>;

    fn handle(&mut self, Double { n }: Double, _: &mut Self::Context) -> Self::Result {
        n.checked_mul(2)
            .ok_or_else(|| ServeError::backend(422, "too_large", format!("{n} cannot be doubled")))
    }
}

/// Makes the backend and its endpoint.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    let doubler = Backend::new(|_| Ok(Doubler)).json::<Double>();
    serve.create_backend("double", doubler, BackendConfig::default()).await?;
    serve.create_endpoint("double", Endpoint::new("double").route("/double")).await
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8000);
    let serve = Serve::start(ServeOptions::default().lent_threads()).await?;
    let address = serve.listen(Listen::on("127.0.0.1", port)).await?;
    deploy(&serve).await?;
    println!("http://{address}/double?n=21");
    serve.run_until_signal().await
}
