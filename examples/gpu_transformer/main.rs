//! A transformer block on half of a GPU: projections, attention with its softmax and layer norms as kernels of its own,
//! many sequences in one job.
//!
//! `cargo run --release --features gpu --example gpu_transformer`; without a GPU a software device does.

mod block;
pub mod matmul;
pub mod weights;

use std::{sync::Arc, time::Instant};

use actix::{Actor, Handler, Message, ResponseFuture};
use futures_util::future::{join_all, try_join_all};
use greenroom::{
    Backend, BackendConfig, Batch, Capacity, Endpoint, ReplicaContext, Resources, Serve, ServeError,
    ServeOptions, gpu::DetectGpus,
};

use block::Block;
use weights::{TOKENS, WIDTH, Weights};

/// Encodes a sequence of [`TOKENS`] tokens of [`WIDTH`] numbers each; as many come back.
#[derive(Message, Clone)]
#[rtype(result = "Result<Vec<f32>, ServeError>")]
pub struct Encode(pub Vec<f32>);

/// One replica.
pub struct Encoder(Block);

impl Actor for Encoder {
    type Context = ReplicaContext<Self>;
}

/// Many at once: one job for all of them.
impl Handler<Batch<Encode>> for Encoder {
    type Result = ResponseFuture<Result<Vec<Result<Vec<f32>, ServeError>>, ServeError>>;
    fn handle(&mut self, batch: Batch<Encode>, _: &mut Self::Context) -> Self::Result {
        let fits = |Encode(tokens): &Encode| tokens.len() == TOKENS * WIDTH;
        let fit: Vec<bool> = batch.items().iter().map(fits).collect();
        let good: Vec<_> = batch.into_iter().filter(fits).map(|Encode(tokens)| tokens).collect();
        let jobs = self.0.encode(&good);
        Box::pin(async move {
            let done = try_join_all(jobs).await?;
            let mut encoded = done.iter().flat_map(block::sequences);
            let answer = |fits: bool| {
                let wrong = || format!("{} numbers are needed", TOKENS * WIDTH);
                if fits {
                    encoded.next().ok_or(ServeError::NoAnswer)
                } else {
                    Err(ServeError::backend(422, "not_a_sequence", wrong()))
                }
            };
            Ok(fit.into_iter().map(answer).collect())
        })
    }
}

/// A block with these weights.
pub fn encoder(weights: Weights) -> Backend<Encoder> {
    let weights = Arc::new(weights);
    Backend::new(move |ctx| Ok(Encoder(Block::load(ctx.gpu()?, &weights, ctx.max_batch_size())?)))
        .batched::<Encode>()
}

/// Makes the backend and its endpoint.
pub async fn deploy(serve: &Serve, weights: Weights) -> Result<(), ServeError> {
    let config = BackendConfig::default().max_batch_size(8).resources(Resources::none().num_gpus(0.5));
    serve.create_backend("encoder", encoder(weights), config).await?;
    serve.create_endpoint("encoder", Endpoint::new("encoder")).await
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = ServeOptions::default().capacity(Capacity::default().num_cpus(None));
    let serve = Serve::start(options.detect_gpus(DetectGpus::default().software())).await?;
    deploy(&serve, Weights::drawn(1)).await?;
    let gpu = &serve.status().gpus[0];
    println!("on half of {}{}", gpu.name, if gpu.software { ", a software device" } else { "" });
    let handle = serve.handle::<Encode>("encoder")?;
    let mut draw = weights::numbers(2);
    for requests in [1, 8, 64] {
        let sequences: Vec<Vec<f32>> =
            (0..requests).map(|_| (0..TOKENS * WIDTH).map(|_| draw()).collect()).collect();
        let began = Instant::now();
        for answer in join_all(sequences.into_iter().map(|tokens| handle.call(Encode(tokens)))).await {
            answer?;
        }
        println!("{requests:3} sequences at once: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    }
    let lease = &serve.status().gpus[0].leases[0];
    println!(
        "{} jobs, {:.1} ms of the device, {} bytes held",
        lease.jobs,
        lease.device_time_s * 1e3,
        lease.memory_used_bytes
    );
    serve.shutdown().await?;
    Ok(())
}
