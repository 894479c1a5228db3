//! Two models that share a GPU, each on a half of it, and one that wants a GPU of its own.
//!
//! `cargo run --features gpu --example fractional_gpus`; without a GPU a software device does, and the output says so.

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, BoxError, Endpoint, ReplicaContext, Resources, Serve, ServeError, ServeOptions,
    gpu::{Axis, DetectGpus, GpuBuffer, GpuKernel, GpuLease, Job, KernelSpec},
};
use serde::Deserialize;

/// Multiplies every number of a buffer. The device may cut it into slices along its grid.
const SCALE: &str = "
struct Parameters { first_group: u32, factor: f32 }
var<immediate> parameters: Parameters;
@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
    let at = (group.x + parameters.first_group) * 64u + i;
    if at < arrayLength(&values) { values[at] *= parameters.factor; }
}";

/// Most numbers in a request.
const VALUES_MAX: usize = 4096;

/// Asks a model to scale some numbers.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<Vec<f32>, ServeError>")]
pub struct Scale {
    pub values: Vec<f32>,
}

/// A model whose only weight is a factor.
pub struct Model {
    lease: GpuLease,
    kernel: GpuKernel,
    values: GpuBuffer,
    factor: f32,
}

impl Actor for Model {
    type Context = ReplicaContext<Self>;
}

impl Model {
    /// The replica has its share before this is called; what it makes with it is charged to it.
    fn load(ctx: &mut ReplicaContext<Self>, factor: f32) -> Result<Self, BoxError> {
        let lease = ctx.gpu()?.clone();
        let kernel = lease.create_kernel(KernelSpec::new(SCALE).split(Axis::X, 0)).wait()?;
        let values = lease.create_buffer(4 * VALUES_MAX as u64).wait()?;
        Ok(Self { lease, kernel, values, factor })
    }
}

impl Handler<Scale> for Model {
    type Result = ResponseFuture<Result<Vec<f32>, ServeError>>;

    fn handle(&mut self, Scale { values }: Scale, _: &mut Self::Context) -> Self::Result {
        if !(1..=VALUES_MAX).contains(&values.len()) {
            let told = format!("{} numbers; allowed: 1 to {VALUES_MAX}", values.len());
            return Box::pin(async { Err(ServeError::backend(422, "values", told)) });
        }
        let input: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (bytes, groups) = (input.len() as u64, (values.len() as u32).div_ceil(64));
        // The first four bytes are filled in: the group that a slice begins with.
        let parameters = [[0; 4], self.factor.to_le_bytes()].concat();
        let job = Job::new()
            .write(&self.values, 0, input)
            .dispatch_with(&self.kernel, &[&self.values], [groups, 1, 1], &parameters)
            .read(&self.values, 0, bytes);
        let done = self.lease.submit(job);
        Box::pin(async move {
            let read = done.await?.reads.swap_remove(0);
            Ok(read.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect())
        })
    }
}

fn model(factor: f32) -> Backend<Model> {
    Backend::new(move |ctx| Model::load(ctx, factor)).json::<Scale>()
}

/// The GPUs of this machine, or where there is none a software device.
pub fn options() -> ServeOptions {
    ServeOptions::default().detect_gpus(DetectGpus::default().software())
}

/// Two models on one GPU, half of its time and half of its memory for each.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    let half_gpu = BackendConfig::default().resources(Resources::none().num_gpus(0.5));
    serve.create_backend("my_gpu_backend_1", model(2.0), half_gpu.clone()).await?;
    serve.create_backend("my_gpu_backend_2", model(3.0), half_gpu).await?;
    let [double, triple] = [("my_gpu_backend_1", "/double"), ("my_gpu_backend_2", "/triple")]
        .map(|(backend, route)| Endpoint::new(backend).route(route).methods(["POST"]));
    serve.create_endpoint("double", double).await?;
    serve.create_endpoint("triple", triple).await
}

/// One that wants a whole GPU in each replica. It is refused while others have a part of the only one.
pub async fn whole(serve: &Serve) -> Result<(), ServeError> {
    let gpu = BackendConfig::default().resources(Resources::none().num_gpus(1.0));
    serve.create_backend("my_gpu_backend", model(10.0), gpu).await
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(options()).await?;
    deploy(&serve).await?;
    for endpoint in ["double", "triple"] {
        let scaled = serve.handle::<Scale>(endpoint)?.call(Scale { values: vec![1.0, 2.5] }).await?;
        println!("{endpoint} of [1.0, 2.5]: {scaled:?}");
    }
    for gpu in serve.status().gpus {
        let kind = if gpu.software { "a software device, as there is no GPU" } else { "a GPU" };
        println!("device {}: {}, {kind}; {} of it is free", gpu.device, gpu.name, gpu.free_share);
        for lease in gpu.leases {
            let mib = lease.memory_quota_bytes >> 20;
            println!("  {}: {} of its time, up to {mib} MiB of its memory", lease.backend, lease.share_asked);
        }
    }
    if let Err(refused) = whole(&serve).await {
        println!("{refused}");
    }
    serve.shutdown().await
}
