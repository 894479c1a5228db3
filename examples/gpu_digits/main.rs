//! A real model on a quarter of a GPU: many images in one job, and the CPU where there is no GPU.
//!
//! `cargo run --release --features gpu --example gpu_digits`, then
//! `curl --json '{"pixels": [0, 0, 6, ...]}' http://127.0.0.1:8000/digits` with 64 pixels, 0 to 16. With the argument
//! `--gpu-only` it ends where there is no GPU, instead of going on with the CPU.

mod network;
mod weights;

use std::process::ExitCode;

use actix::{Actor, Handler, Message, ResponseFuture};
use futures_util::future::try_join_all;
use greenroom::{
    Backend, BackendConfig, Batch, Endpoint, GpuFailure, Listen, ReplicaContext, Resources, Serve,
    ServeError, ServeOptions,
    gpu::{DetectGpus, GpuError},
};
use serde::Deserialize;

use network::Network;
use weights::{PIXELS, Weights};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits/digits.onnx");

/// Which digit is on this image of 8x8 pixels, 0 to 16?
#[derive(Message, Deserialize)]
#[rtype(result = "Result<u32, ServeError>")]
pub struct Classify {
    pub pixels: Vec<f32>,
}

/// One replica.
pub enum Digits {
    Gpu(Network),
    Cpu(std::sync::Arc<Weights>),
}

impl Actor for Digits {
    type Context = ReplicaContext<Self>;
}

/// Many at once: one job for all of them. Those that are no images fail alone.
impl Handler<Batch<Classify>> for Digits {
    type Result = ResponseFuture<Result<Vec<Result<u32, ServeError>>, ServeError>>;
    fn handle(&mut self, batch: Batch<Classify>, _: &mut Self::Context) -> Self::Result {
        let images: Vec<Vec<f32>> = batch.into_iter().map(|Classify { pixels }| pixels).collect();
        let refused = |pixels: &Vec<f32>| {
            let why = || format!("{PIXELS} pixels are needed, {} were given", pixels.len());
            (pixels.len() != PIXELS).then(|| ServeError::backend(422, "not_an_image", why()))
        };
        let refused: Vec<_> = images.iter().map(refused).collect();
        let good: Vec<_> = images.into_iter().filter(|pixels| pixels.len() == PIXELS).collect();
        let together = move |found: Vec<u32>| {
            let mut found = found.into_iter();
            let answer = |refused: Option<ServeError>| match refused {
                Some(why) => Err(why),
                None => found.next().ok_or(ServeError::NoAnswer),
            };
            refused.into_iter().map(answer).collect()
        };
        match self {
            Self::Gpu(network) => {
                let jobs = network.classify(&good);
                Box::pin(async move {
                    let done = try_join_all(jobs).await?;
                    Ok(together(done.iter().flat_map(network::digits).collect()))
                })
            }
            Self::Cpu(weights) => {
                let found = good.iter().map(|pixels| weights.classify(pixels)).collect();
                Box::pin(std::future::ready(Ok(together(found))))
            }
        }
    }
}

/// The network as a backend. Its replicas compute on the GPU if their options give them a share of one.
pub fn digits() -> Backend<Digits> {
    let load = || Ok(Weights::load(MODEL)?);
    let backend = Backend::with_shared(load, |weights, ctx| match ctx.gpu() {
        Ok(lease) => Ok(Digits::Gpu(Network::load(lease, weights, ctx.max_batch_size())?)),
        Err(GpuError::NoLease { .. }) => Ok(Digits::Cpu(std::sync::Arc::clone(weights))),
        Err(other) => Err(other.into()),
    });
    backend.json_batched::<Classify>()
}

/// What to do where there is no GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WithoutGpu {
    UseCpu,
    Refuse,
}

/// Makes the backend and its endpoint; says on what it computes.
pub async fn deploy(serve: &Serve, without: WithoutGpu) -> Result<String, ServeError> {
    let config = BackendConfig::default().max_batch_size(64);
    let quarter = config.clone().resources(Resources::none().num_gpus(0.25));
    let on = match serve.create_backend("digits", digits(), quarter).await {
        Err(ServeError::Gpu { failure: GpuFailure::Unavailable, why }) if without == WithoutGpu::UseCpu => {
            serve.create_backend("digits", digits(), config).await?;
            format!("on the CPU: {why}")
        }
        made => {
            made?;
            let status = serve.status();
            let gpu = status.gpus.first().ok_or(ServeError::NoAnswer)?;
            let software = if gpu.software { ", a software device: there is no GPU" } else { "" };
            format!("on a quarter of {}{software}", gpu.name)
        }
    };
    serve.create_endpoint("digits", Endpoint::new("digits").route("/digits").methods(["POST"])).await?;
    Ok(on)
}

/// What the arguments say; none where they are others than those that are allowed.
pub fn asked(arguments: &[String]) -> Option<WithoutGpu> {
    match arguments {
        [] => Some(WithoutGpu::UseCpu),
        [only] if only == "--gpu-only" => Some(WithoutGpu::Refuse),
        _ => None,
    }
}

#[actix_web::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Some(without) = asked(&std::env::args().skip(1).collect::<Vec<_>>()) else {
        eprintln!("gpu_digits: the only argument that is allowed is --gpu-only");
        return Ok(ExitCode::from(2));
    };
    let detect = DetectGpus::default();
    let detect = if without == WithoutGpu::UseCpu { detect.software() } else { detect };
    let serve = Serve::start(ServeOptions::default().detect_gpus(detect)).await?;
    println!("the network computes {}", deploy(&serve, without).await?);
    let address = serve.listen(Listen::on("127.0.0.1", 8000)).await?;
    println!("http://{address}/digits");
    serve.run_until_signal().await?;
    Ok(ExitCode::SUCCESS)
}
