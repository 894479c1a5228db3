//! A backend whose calls are jobs of a known length, or hang.

use std::{sync::mpsc, time::Duration};

use actix::{Actor, Handler, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, Endpoint, Handle, ReplicaContext, Serve, ServeError,
    gpu::{GpuBuffer, GpuDevice, GpuError, GpuKernel, GpuLease, Job, KernelSpec, SimulatedDevice},
};

use super::simulated;

/// Memory that a replica holds.
pub const BYTES: u64 = 64 << 10;

/// One job of so many milliseconds.
#[derive(actix::Message, Clone)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Run(pub u32);

/// Blocks the replica's thread until the other end of the first is dropped; then what its lease is good for is told.
#[derive(actix::Message)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Hang(pub mpsc::Receiver<()>, pub mpsc::Sender<Vec<Result<(), GpuError>>>);

/// Tries to release the lease of the replica.
#[derive(actix::Message)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Release;

/// Has so many jobs of so many milliseconds outstanding and blocks the replica's thread with waiting for them.
#[derive(actix::Message)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Block(pub u32, pub u32, pub mpsc::Sender<Result<(), GpuError>>);

pub struct Works {
    lease: GpuLease,
    buffer: GpuBuffer,
    kernel: GpuKernel,
}

impl Works {
    pub fn new(ctx: &mut ReplicaContext<Self>) -> Result<Self, greenroom::BoxError> {
        let lease = ctx.gpu()?.clone();
        let buffer = lease.create_buffer(BYTES).wait()?;
        let kernel = lease.create_kernel(KernelSpec::new("")).wait()?;
        Ok(Self { lease, buffer, kernel })
    }

    fn job(&self, milliseconds: u32) -> Job {
        Job::new().dispatch(&self.kernel, &[&self.buffer], [milliseconds, 1, 1])
    }
}

impl Actor for Works {
    type Context = ReplicaContext<Self>;
}

impl Handler<Run> for Works {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, Run(milliseconds): Run, _: &mut ReplicaContext<Self>) -> Self::Result {
        let done = self.lease.submit(self.job(milliseconds));
        Box::pin(async move { done.await.map(drop).map_err(ServeError::from) })
    }
}

impl Handler<Hang> for Works {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Hang(until, told): Hang, _: &mut ReplicaContext<Self>) -> Self::Result {
        let _ = until.recv();
        let tried = vec![
            self.lease.create_buffer(64).wait().map(drop),
            self.lease.submit(self.job(1)).wait().map(drop),
            self.lease.create_kernel(KernelSpec::new("")).wait().map(drop),
            self.lease.renew().wait().map(drop),
        ];
        let _ = told.send(tried);
        Ok(())
    }
}

impl Handler<Release> for Works {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, Release: Release, _: &mut ReplicaContext<Self>) -> Self::Result {
        let released = self.lease.clone().release();
        Box::pin(async move { released.await.map_err(ServeError::from) })
    }
}

impl Handler<Block> for Works {
    type Result = Result<(), ServeError>;
    fn handle(
        &mut self,
        Block(jobs, milliseconds, told): Block,
        _: &mut ReplicaContext<Self>,
    ) -> Self::Result {
        let jobs: Vec<_> = (0..jobs).map(|_| self.lease.submit(self.job(milliseconds))).collect();
        for job in jobs {
            let _ = told.send(job.wait().map(drop));
        }
        Ok(())
    }
}

/// The backend of them.
pub fn works() -> Backend<Works> {
    Backend::new(Works::new).handles::<Run>().handles::<Hang>().handles::<Block>().handles::<Release>()
}

/// A device on which a workgroup takes a millisecond and nothing else takes any time.
pub fn exact() -> GpuDevice {
    simulated(exactly())
}

pub fn exactly() -> SimulatedDevice {
    SimulatedDevice {
        workgroup: Duration::from_millis(1),
        slice: Duration::ZERO,
        bytes_per_us: u64::MAX,
        memory_bytes: 1 << 20,
        ..Default::default()
    }
}

/// A backend of them and an endpoint of the same name.
pub async fn create(serve: &Serve, name: &str, config: BackendConfig) -> Handle<Run> {
    serve.create_backend(name, works(), config).await.unwrap();
    serve.create_endpoint(name, Endpoint::new(name)).await.unwrap();
    serve.handle::<Run>(name).unwrap()
}
