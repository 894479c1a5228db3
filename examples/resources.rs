//! Resources: what replicas ask for, what there is, and what is told when it does not fit.
//!
//! `cargo run --example resources`

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Capacity, Endpoint, ReplicaContext, Resources, Serve, ServeError,
    ServeOptions,
};

/// Asks what this is.
#[derive(Message)]
#[rtype(result = "Result<String, ServeError>")]
pub struct Describe;

async fn describe(_: Describe) -> Result<String, ServeError> {
    Ok("sums of squares".into())
}

/// The sum of the squares below a number.
#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Solve(pub u64);

struct Solver {
    threads: usize,
}

impl Actor for Solver {
    type Context = ReplicaContext<Self>;
}

impl Handler<Solve> for Solver {
    type Result = Result<u64, ServeError>;

    /// Adds up the squares below `n`, as many threads at once as its CPUs allow.
    fn handle(&mut self, Solve(n): Solve, _: &mut Self::Context) -> Self::Result {
        let step = self.threads as u64;
        let part = |first: u64| (first..n).step_by(self.threads).map(|i| i * i).sum::<u64>();
        Ok(std::thread::scope(|scope| {
            let parts: Vec<_> = (0..step).map(|first| scope.spawn(move || part(first))).collect();
            parts.into_iter().map(|part| part.join().unwrap_or_default()).sum()
        }))
    }
}

/// Asks a solver how many threads it takes.
#[derive(Message)]
#[rtype(result = "Result<usize, ServeError>")]
pub struct Threads;

impl Handler<Threads> for Solver {
    type Result = Result<usize, ServeError>;

    fn handle(&mut self, _: Threads, _: &mut Self::Context) -> Self::Result {
        Ok(self.threads)
    }
}

/// What there is: three CPUs, whatever this machine has, and one license.
pub fn there() -> ServeOptions {
    ServeOptions::default().capacity(Capacity::default().num_cpus(3.0).custom("license", 1.0))
}

/// Two replicas that share a CPU, and one that has two CPUs and the license to itself.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    let halves = Resources::default().num_cpus(0.5);
    let config = BackendConfig::default().num_replicas(2).resources(halves);
    serve.create_backend("describe", Backend::from_fn(describe), config).await?;
    let licensed = Resources::default().num_cpus(2.0).custom("license", 1.0);
    let solver = Backend::new(|ctx| Ok(Solver { threads: ctx.num_threads() })).handles::<Solve>().compute();
    serve.create_backend("solve", solver, BackendConfig::default().resources(licensed)).await?;
    serve.create_endpoint("solve", Endpoint::new("solve")).await
}

/// One that computes with twelve threads, whatever CPUs are counted for it.
pub async fn deploy_parallel(serve: &Serve) -> Result<(), ServeError> {
    let solver = Backend::new(|ctx| Ok(Solver { threads: ctx.num_threads() })).handles::<Solve>().compute();
    let config = BackendConfig::default().num_threads(12).resources(Resources::none());
    serve.create_backend("parallel_backend", solver.handles::<Threads>(), config).await?;
    serve.create_endpoint("parallel", Endpoint::new("parallel_backend")).await
}

/// One replica more than fits; why it is refused.
pub async fn one_more(serve: &Serve) -> Result<(), ServeError> {
    let more = Backend::from_fn(describe);
    serve.create_backend("more", more, BackendConfig::default()).await
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(there()).await?;
    deploy(&serve).await?;
    println!("solved: {}", serve.handle::<Solve>("solve")?.call(Solve(1000)).await?);
    deploy_parallel(&serve).await?;
    println!("threads of parallel: {}", serve.handle::<Threads>("parallel")?.call(Threads).await?);
    if let Err(refused) = one_more(&serve).await {
        println!("{refused}");
    }
    serve.update_backend_config("describe", BackendUpdate::default().num_replicas(0)).await?;
    one_more(&serve).await?;
    println!("with those two gone it fits; free: {:?}", serve.status().capacity.free);
    serve.shutdown().await
}
