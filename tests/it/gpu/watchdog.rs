//! A job that never ends: whose caller is told what, and that everybody computes again.

use std::time::Duration;

use actix::{Actor, Handler, ResponseFuture};
use actix_web::ResponseError;
use greenroom::{
    Backend, Endpoint, GpuFailure, ReplicaContext, ServeError,
    gpu::{DeviceOptions, GpuKernel, GpuLease, Job, KernelSpec, SimulatedDevice},
};

use super::{
    Nothing,
    backends::{Double, config, create, serving},
    open_simulated,
};
use crate::support::{metric, until};

/// Has a kernel that takes a minute and cannot be cut.
struct Endless {
    lease: GpuLease,
    kernel: GpuKernel,
}

impl Actor for Endless {
    type Context = ReplicaContext<Self>;
}

impl Handler<Nothing> for Endless {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, _: Nothing, _: &mut ReplicaContext<Self>) -> Self::Result {
        let done = self.lease.submit(Job::new().dispatch(&self.kernel, &[], [60_000, 1, 1]));
        Box::pin(async move { done.await.map(drop).map_err(ServeError::from) })
    }
}

#[actix_web::test]
async fn the_caller_of_a_job_that_never_ends_is_told_so_and_all_others_that_the_device_was_lost() {
    let spec = SimulatedDevice { workgroup: Duration::from_millis(1), ..Default::default() };
    let give_up_after = Duration::from_millis(80);
    let device = open_simulated(spec, DeviceOptions { give_up_after, ..Default::default() });
    let serve = serving(vec![device.clone()]).await;
    let endless = Backend::new(|ctx| {
        let lease = ctx.gpu()?.clone();
        let kernel = lease.create_kernel(KernelSpec::new("")).wait()?;
        Ok(Endless { lease, kernel })
    });
    serve.create_backend("endless", endless.handles::<Nothing>(), config(0.5)).await.unwrap();
    serve.create_endpoint("endless", Endpoint::new("endless")).await.unwrap();
    create(&serve, "a", 0.5).await;
    let double = serve.handle::<Double>("a").unwrap();
    let asked = || double.call(Double { values: vec![1.0; 64] });
    asked().await.unwrap();
    let never = serve.handle::<Nothing>("endless").unwrap().call(Nothing);
    let endless_jobs = || {
        let gpus = serve.status().gpus;
        gpus[0].leases.iter().find(|lease| lease.backend.as_str() == "endless").map_or(0, |l| l.outstanding)
    };
    until("it is on the device", || endless_jobs() == 1).await;
    let behind: Vec<_> = (0..4).map(|_| asked()).collect();
    let told = never.await.unwrap_err();
    assert_eq!(
        (told.code(), told.status_code().as_u16(), told.retryable()),
        ("gpu_job_too_long", 500, false)
    );
    assert!(told.to_string().contains("a slice of the job did not end within 80ms"), "{told}");
    for call in behind {
        // One may have come before the endless one began, or after the device was there again.
        let Err(told) = call.await else { continue };
        assert!(matches!(told, ServeError::Gpu { failure: GpuFailure::Lost, .. }), "{told}");
        assert_eq!((told.status_code().as_u16(), told.retryable()), (503, true));
    }
    assert_eq!(device.losses(), 1);
    let restarts =
        |name| metric(&serve, "serve_replica_restarts_total", &format!("backend=\"{name}\",replica=\"0\""));
    until("both are made anew", || restarts("a") == 1 && restarts("endless") == 1).await;
    asked().await.unwrap();
    serve.shutdown().await.unwrap();
}
