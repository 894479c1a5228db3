//! Batching: a backend that handles up to five requests in one call.
//!
//! `cargo run --example batching`

use std::time::Duration;

use actix::{Actor, Handler, Message};
use futures_util::future::join_all;
use greenroom::{Backend, BackendConfig, Batch, Endpoint, ReplicaContext, Serve, ServeError, ServeOptions};
use serde::{Deserialize, Serialize};

#[derive(Message, Deserialize)]
#[rtype(result = "Result<Counted, ServeError>")]
pub struct Increment {
    pub by: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counted {
    /// The counter after this request.
    pub count: u64,
    /// How many requests its batch held.
    pub batch_size: usize,
}

/// Counts; each call takes a list of requests and returns a list of answers.
#[derive(Default)]
pub struct Counter {
    count: u64,
}

impl Actor for Counter {
    type Context = ReplicaContext<Self>;
}

impl Handler<Batch<Increment>> for Counter {
    type Result = Result<Vec<Result<Counted, ServeError>>, ServeError>;

    fn handle(&mut self, batch: Batch<Increment>, _: &mut Self::Context) -> Self::Result {
        let batch_size = batch.len();
        let mut one = |Increment { by }| match self.count.checked_add(by) {
            Some(count) => {
                self.count = count;
                Ok(Counted { count, batch_size })
            }
            // One request of a batch may fail alone.
            None => Err(ServeError::backend(422, "too_large", format!("the counter cannot grow by {by}"))),
        };
        Ok(batch.into_iter().map(&mut one).collect())
    }
}

/// At most five in a batch, which waits at most 10 ms for company.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    let counter = Backend::new(|_| Ok(Counter::default())).json_batched::<Increment>();
    let config = BackendConfig::default().max_batch_size(5).batch_wait_timeout(Duration::from_millis(10));
    serve.create_backend("counter", counter, config).await?;
    serve.create_endpoint("counter", Endpoint::new("counter").route("/increment").methods(["POST"])).await
}

/// `n` requests at once and their answers, in the order of the requests.
pub async fn at_once(serve: &Serve, n: usize) -> Result<Vec<Result<Counted, ServeError>>, ServeError> {
    let counter = serve.handle::<Increment>("counter")?;
    Ok(join_all((0..n).map(|_| counter.call(Increment { by: 1 }))).await)
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(ServeOptions::default()).await?;
    deploy(&serve).await?;
    for answer in at_once(&serve, 12).await? {
        let Counted { count, batch_size } = answer?;
        println!("count {count:2}, in a batch of {batch_size}");
    }
    serve.shutdown().await
}
