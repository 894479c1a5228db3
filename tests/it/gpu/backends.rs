//! Backends that compute on their share of a GPU.

use actix::{Actor, Handler, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, Capacity, Endpoint, ReplicaContext, Resources, Serve, ServeError, ServeOptions,
    gpu::{GpuBuffer, GpuDevice, GpuKernel, GpuLease, GpuManager, Job, KernelSpec},
};
use serde::Deserialize;

use super::{bytes, floats, kernels};

/// Numbers that a doubler's buffer holds, 64 a workgroup.
pub const NUMBERS: usize = 64 * 64;

/// Doubles numbers.
#[derive(actix::Message, Clone, Deserialize)]
#[rtype(result = "Result<Vec<f32>, ServeError>")]
pub struct Double {
    pub values: Vec<f32>,
}

/// Keeps the device busy for so many rounds.
#[derive(actix::Message, Clone)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Spin(pub u32);

/// Compiles a kernel.
#[derive(actix::Message, Clone, Deserialize)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Compile {
    pub text: String,
}

pub struct Computes {
    lease: GpuLease,
    buffer: GpuBuffer,
    double: GpuKernel,
    spin: GpuKernel,
}

impl Computes {
    fn new(ctx: &mut ReplicaContext<Self>) -> Result<Self, greenroom::BoxError> {
        let lease = ctx.gpu()?.clone();
        let buffer = lease.create_buffer(4 * NUMBERS as u64).wait()?;
        let double = lease.create_kernel(kernels::double()).wait()?;
        let spin = lease.create_kernel(kernels::spin()).wait()?;
        Ok(Self { lease, buffer, double, spin })
    }
}

impl Actor for Computes {
    type Context = ReplicaContext<Self>;
}

impl Handler<Double> for Computes {
    type Result = ResponseFuture<Result<Vec<f32>, ServeError>>;
    fn handle(&mut self, Double { values }: Double, _: &mut ReplicaContext<Self>) -> Self::Result {
        let size = 4 * values.len() as u64;
        let groups = (values.len() as u32).div_ceil(64);
        let job = Job::new()
            .write(&self.buffer, 0, bytes(&values))
            .dispatch(&self.double, &[&self.buffer], [groups, 1, 1])
            .read(&self.buffer, 0, size);
        let done = self.lease.submit(job);
        Box::pin(async move { Ok(floats(&done.await?.reads[0])) })
    }
}

impl Handler<Spin> for Computes {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, Spin(rounds): Spin, _: &mut ReplicaContext<Self>) -> Self::Result {
        let immediates = kernels::rounds(rounds);
        let job = Job::new().dispatch_with(&self.spin, &[&self.buffer], [64, 1, 1], &immediates);
        let done = self.lease.submit(job);
        Box::pin(async move { done.await.map(drop).map_err(ServeError::from) })
    }
}

impl Handler<Compile> for Computes {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, Compile { text }: Compile, _: &mut ReplicaContext<Self>) -> Self::Result {
        let made = self.lease.create_kernel(KernelSpec::new(text));
        Box::pin(async move { made.await.map(drop).map_err(ServeError::from) })
    }
}

/// The backend of them.
pub fn computes() -> Backend<Computes> {
    Backend::new(Computes::new).json::<Double>().json::<Compile>().handles::<Spin>()
}

/// Options of a backend with this share in each replica.
pub fn config(gpus: f64) -> BackendConfig {
    BackendConfig::default().resources(Resources::none().num_gpus(gpus))
}

/// A Serve that has these devices.
pub async fn serving(devices: Vec<GpuDevice>) -> Serve {
    let options = ServeOptions::default().capacity(Capacity::unlimited());
    Serve::start(options.gpus(GpuManager::new(devices))).await.unwrap()
}

/// A backend and an endpoint of this name, with this share in its one replica.
pub async fn create(serve: &Serve, name: &str, gpus: f64) {
    serve.create_backend(name, computes(), config(gpus)).await.unwrap();
    let endpoint = Endpoint::new(name).route(format!("/{name}")).methods(["POST"]);
    serve.create_endpoint(name, endpoint).await.unwrap();
}
