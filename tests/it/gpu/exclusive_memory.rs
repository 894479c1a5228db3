//! Memory that closures leave in use: counted by the device itself, charged to their lease, and never above its quota.

use std::{cell::RefCell, rc::Rc};

use actix::{Actor, Handler, Message, ResponseFuture};
use futures_util::FutureExt;
use greenroom::{
    Backend, Endpoint, GpuFailure, ReplicaContext, Resources, ServeError,
    gpu::{DeviceOptions, ExclusiveDevice, GpuDevice, GpuError, GpuLease, wgpu},
};

use super::{
    backends::{config, serving},
    lease, vulkan,
};
use crate::support::{metric, until};

/// A buffer that the lease knows nothing of.
fn buffer(lent: &ExclusiveDevice, size: u64) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE;
    lent.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    })
}

fn counted(device: &GpuDevice) -> (u64, Option<u64>) {
    let status = device.status().wait().unwrap();
    (status.leased_bytes, status.counted_bytes)
}

#[test]
fn what_a_closure_leaves_in_use_is_charged_until_one_frees_it() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let (one, other) = (lease(&device, 0.5, 8 << 20), lease(&device, 0.5, 8 << 20));
    let _held = one.create_buffer(1024).wait().unwrap();
    let mut kept = Vec::new();
    one.exclusive(|lent| kept.push(buffer(lent, 1 << 20))).wait().unwrap();
    // Another lease's buffers, and what is freed in the closure, are not its own.
    let made = std::thread::scope(|scope| {
        let turn = one.exclusive(|lent| {
            let made = scope.spawn(|| other.create_buffer(4096).wait().unwrap()).join().unwrap();
            drop(buffer(lent, 2 << 20));
            kept.push(buffer(lent, 1 << 20));
            made
        });
        turn.wait().unwrap()
    });
    assert_eq!(one.memory_used_bytes(), 1024 + (2 << 20));
    assert_eq!(other.memory_used_bytes(), 4096);
    let all = 1024 + 4096 + (2 << 20);
    assert_eq!(counted(&device), (all, Some(all)));
    let refused = one.create_buffer(7 << 20).wait();
    assert!(matches!(refused, Err(GpuError::QuotaExceeded { .. })), "{refused:?}");
    one.exclusive(|_| kept.clear()).wait().unwrap();
    assert_eq!(one.memory_used_bytes(), 1024);
    drop(made);
    assert_eq!(counted(&device), (1024, Some(1024)));
}

#[test]
fn a_lease_whose_closures_leave_more_than_its_quota_is_ended() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let (one, other) = (lease(&device, 0.5, 1 << 20), lease(&device, 0.5, 1 << 20));
    let _held = one.create_buffer(256).wait().unwrap();
    let mut lost = Box::pin(one.lost());
    assert!((&mut lost).now_or_never().is_none() && !one.is_lost());
    let mut kept = None;
    let over = one.exclusive(|lent| kept = Some(buffer(lent, 1 << 20))).wait().unwrap_err();
    assert_eq!(over, GpuError::OverQuota { used_bytes: (1 << 20) + 256, quota_bytes: 1 << 20 });
    assert_eq!(one.create_buffer(64).wait().unwrap_err(), over, "from then on");
    assert_eq!(one.exclusive(|_| ()).wait(), Err(over));
    assert!(lost.now_or_never().is_some() && one.is_lost(), "who holds it is told");
    assert_eq!(device.free().ten_thousandths, 0, "its share is still its own");
    other.exclusive(|_| ()).wait().unwrap();
    drop(kept);
    let renewed = one.renew().wait().unwrap();
    renewed.exclusive(|lent| drop(buffer(lent, 1 << 20))).wait().unwrap();
    assert_eq!((renewed.epoch(), renewed.memory_used_bytes()), (1, 0));
}

#[test]
fn what_a_lease_that_goes_leaves_in_use_is_nobody_else_s() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let (one, other) = (lease(&device, 0.5, 8 << 20), lease(&device, 0.5, 1 << 20));
    let mut kept = None;
    one.exclusive(|lent| kept = Some(buffer(lent, 4 << 20))).wait().unwrap();
    other.exclusive(|_| one.release().wait().unwrap()).wait().unwrap();
    assert_eq!((other.memory_used_bytes(), counted(&device)), (0, (0, Some(4 << 20))));
    drop(kept);
}

#[test]
fn a_device_has_all_features_of_its_adapter_that_are_not_experimental() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let lease = lease(&device, 1.0, 1 << 20);
    let missing = lease.exclusive(|lent| lent.adapter().features() - lent.device().features());
    let experimental = wgpu::Features::all_experimental_mask();
    let missing = missing.wait().unwrap();
    assert!((missing - experimental).is_empty(), "{missing:?}");
}

/// Makes a buffer in a turn and keeps it.
#[derive(Message, Clone)]
#[rtype(result = "Result<u64, ServeError>")]
struct Keep(u64);

struct Keeper {
    lease: GpuLease,
    kept: Rc<RefCell<Vec<wgpu::Buffer>>>,
}

impl Actor for Keeper {
    type Context = ReplicaContext<Self>;
}

impl Handler<Keep> for Keeper {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, Keep(bytes): Keep, _: &mut Self::Context) -> Self::Result {
        let (lease, kept) = (self.lease.clone(), Rc::clone(&self.kept));
        let turn = lease.exclusive(move |lent| kept.borrow_mut().push(buffer(lent, bytes)));
        Box::pin(async move {
            turn.await?;
            Ok(lease.memory_used_bytes())
        })
    }
}

#[actix_web::test]
async fn a_replica_whose_lease_is_over_its_quota_is_made_anew_with_another() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let serve = serving(vec![device.clone()]).await;
    let keeper = Backend::new(|ctx| Ok(Keeper { lease: ctx.gpu()?.clone(), kept: Rc::default() }));
    let resources = Resources::none().num_gpus(0.5).gpu_memory_bytes(1 << 20);
    serve.create_backend("keeper", keeper.handles::<Keep>(), config(0.5).resources(resources)).await.unwrap();
    serve.create_endpoint("keeper", Endpoint::new("keeper")).await.unwrap();
    let handle = serve.handle::<Keep>("keeper").unwrap();
    assert_eq!(handle.call(Keep(1 << 19)).await.unwrap(), 1 << 19);
    let refused = handle.call(Keep(1 << 20)).await;
    let kind = matches!(&refused, Err(ServeError::Gpu { failure: GpuFailure::OutOfMemory, .. }));
    assert!(kind, "{refused:?}");
    let restarts = || metric(&serve, "serve_replica_restarts_total", "backend=\"keeper\",replica=\"0\"");
    until("the state made anew", || restarts() == 1).await;
    assert_eq!(handle.call(Keep(1 << 18)).await.unwrap(), 1 << 18, "what was kept is gone");
    serve.shutdown().await.unwrap();
}
