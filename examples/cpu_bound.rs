//! A backend that computes, on a thread of its own, beside light requests that must not wait for it.
//!
//! `cargo run --release --example cpu_bound`

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, Handler, Message};
use futures_util::future::join_all;
use greenroom::{
    Backend, BackendConfig, Capacity, Endpoint, Placement, ReplicaContext, Serve, ServeError, ServeOptions,
};

/// What the heavy backend computes.
pub type Work = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Compute(pub u64);

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Ping(pub u64);

struct Heavy {
    work: Work,
}

impl Actor for Heavy {
    type Context = ReplicaContext<Self>;
}

impl Handler<Compute> for Heavy {
    type Result = Result<u64, ServeError>;

    fn handle(&mut self, Compute(n): Compute, _: &mut Self::Context) -> Self::Result {
        Ok((self.work)(n))
    }
}

/// A light backend, and a heavy one that says `.compute()`: a thread for each replica unless `placement` says
/// otherwise.
pub async fn deploy(serve: &Serve, work: Work, placement: Option<Placement>) -> Result<(), ServeError> {
    let heavy = Backend::new(move |_| Ok(Heavy { work: Arc::clone(&work) })).handles::<Compute>().compute();
    serve.create_backend("heavy", heavy, BackendConfig::default().placement(placement)).await?;
    serve.create_endpoint("heavy", Endpoint::new("heavy")).await?;
    let light = Backend::from_fn(|Ping(n)| async move { Ok(n) });
    serve.create_backend("light", light, BackendConfig::default()).await?;
    serve.create_endpoint("light", Endpoint::new("light")).await
}

/// How many primes there are up to `n`, by trial division: slow on purpose.
pub fn primes(n: u64) -> u64 {
    let prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..=n).filter(prime).count() as u64
}

/// The longest of `calls` light requests.
async fn slowest(serve: &Serve, calls: u64) -> Result<Duration, ServeError> {
    let light = serve.handle::<Ping>("light")?;
    let mut slowest = Duration::ZERO;
    for n in 0..calls {
        let begun = Instant::now();
        light.call(Ping(n)).await?;
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(slowest)
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    for placement in [None, Some(Placement::Worker)] {
        let serve = Serve::start(
            ServeOptions::default().capacity(Capacity::unlimited()).serving_threads(NonZeroUsize::MIN),
        )
        .await?;
        deploy(&serve, Arc::new(primes), placement).await?;
        let heavy = serve.handle::<Compute>("heavy")?;
        let computing = join_all((0..20).map(|_| heavy.call(Compute(200_000))));
        let (found, slowest) = tokio::join!(computing, slowest(&serve, 100));
        let place = placement.map_or("its own thread", |_| "the thread of the light requests");
        println!("heavy on {place}: {} answers, slowest light request {:?}", found.len(), slowest?);
        serve.shutdown().await?;
    }
    Ok(())
}
