//! The share of a GPU that a replica's context has.

use actix::Actor;

use crate::{
    actors::context::ReplicaContext,
    gpu::{GpuError, GpuLease},
};

impl<A: Actor> ReplicaContext<A> {
    /// The replica's share of a GPU, as its backend's `resources.num_gpus` asks for; of the first one, where that asks
    /// for several. With it buffers, kernels and jobs are made; clones of it are the same share.
    ///
    /// It is there before the factory runs. When the device is lost, the replica's state is made anew with a new lease;
    /// jobs of the old one fail with [`GpuError::DeviceLost`]. It ends with the replica, also when that is given up because
    /// its thread hangs: then whatever clones are left fail with [`GpuError::Revoked`].
    ///
    /// ```
    /// use actix::{Actor, Handler, ResponseFuture};
    /// use greenroom::{Backend, BackendConfig, Endpoint, ReplicaContext, Resources, Serve, ServeError, ServeOptions};
    /// use greenroom::gpu::{DeviceOptions, DeviceSource, GpuBuffer, GpuDevice, GpuLease, GpuManager, Job};
    ///
    /// #[derive(actix::Message)]
    /// #[rtype(result = "Result<Vec<u8>, ServeError>")]
    /// struct Keep(Vec<u8>);
    ///
    /// /// Writes into memory of the device, and reads it back.
    /// struct Keeper { lease: GpuLease, buffer: GpuBuffer }
    /// impl Actor for Keeper {
    ///     type Context = ReplicaContext<Self>;
    /// }
    /// impl Handler<Keep> for Keeper {
    ///     type Result = ResponseFuture<Result<Vec<u8>, ServeError>>;
    ///     fn handle(&mut self, Keep(bytes): Keep, _: &mut ReplicaContext<Self>) -> Self::Result {
    ///         let job = Job::new().write(&self.buffer, 0, bytes).read(&self.buffer, 0, 4);
    ///         let done = self.lease.submit(job);
    ///         Box::pin(async move { Ok(done.await?.reads.swap_remove(0)) })
    ///     }
    /// }
    ///
    /// # #[actix_web::main]
    /// # async fn main() -> Result<(), ServeError> {
    /// // Without this line: the GPUs of the machine, opened when a backend first asks for one.
    /// let device = GpuDevice::open(DeviceOptions { source: DeviceSource::Noop, ..Default::default() }).await?;
    /// let serve = Serve::start(ServeOptions::default().gpus(GpuManager::new(vec![device]))).await?;
    /// let keeper = Backend::new(|ctx| {
    ///     let lease = ctx.gpu()?.clone();
    ///     let buffer = lease.create_buffer(64).wait()?;
    ///     Ok(Keeper { lease, buffer })
    /// });
    /// let half = BackendConfig::default().resources(Resources::none().num_gpus(0.5));
    /// serve.create_backend("keeper", keeper.handles::<Keep>(), half).await?;
    /// serve.create_endpoint("keeper", Endpoint::new("keeper")).await?;
    /// assert_eq!(serve.handle::<Keep>("keeper")?.call(Keep(vec![7; 4])).await?, [7; 4]);
    /// # serve.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`GpuError::NoLease`] with the reason.
    pub fn gpu(&self) -> Result<&GpuLease, GpuError> {
        self.leases.held().first().ok_or_else(|| self.leases.none())
    }

    /// Its shares of all the GPUs that it has: one for each of the whole devices that `resources.num_gpus` asks for.
    pub fn gpus(&self) -> &[GpuLease] {
        self.leases.held()
    }
}
