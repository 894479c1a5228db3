//! What is refused to replicas that ask for a share of a GPU, and why.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use actix_web::ResponseError;
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Capacity, Resources, Serve, ServeError, ServeOptions,
    gpu::{DetectGpus, DeviceOptions, GpuManager, adapters},
};

use super::{
    Nothing,
    backends::{Computes, computes, config, create, serving},
    small, vulkan,
};

#[actix_web::test]
async fn a_kernel_that_does_not_compile_in_a_factory_ends_the_start_at_once() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let serve = serving(vec![device.clone()]).await;
    let backend = Backend::<Computes>::new(|ctx| {
        let wrong = greenroom::gpu::KernelSpec::new("fn main( {");
        Err(ctx.gpu()?.create_kernel(wrong).wait().unwrap_err().into())
    });
    let refused = serve.create_backend("a", backend, config(0.5)).await.unwrap_err();
    assert!(refused.to_string().contains("WGSL, line 1, column "), "{refused}");
    assert_eq!(refused.code(), "start_failed");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_buffer_above_the_whole_quota_in_a_factory_ends_the_start_at_once() {
    let serve = serving(vec![small()]).await;
    let tries = Arc::<AtomicU32>::default();
    let counts = Arc::clone(&tries);
    let backend = Backend::<Computes>::new(move |ctx| {
        counts.fetch_add(1, Ordering::Relaxed);
        Err(ctx.gpu()?.create_buffer(64 << 10).wait().unwrap_err().into())
    });
    let tiny = config(0.5).resources(Resources::none().num_gpus(0.5).gpu_memory_bytes(1024));
    let refused = serve.create_backend("a", backend, tiny).await.unwrap_err();
    assert!(refused.to_string().contains("65536 bytes more would pass the lease's quota"), "{refused}");
    assert_eq!((refused.code(), tries.load(Ordering::Relaxed)), ("start_failed", 1));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_share_of_0_is_no_lease_and_opens_nothing() {
    let serve =
        Serve::start(ServeOptions::default().detect_gpus(DetectGpus::default().software())).await.unwrap();
    let backend = Backend::<Computes>::new(|ctx| {
        assert!(ctx.gpus().is_empty());
        Err(ctx.gpu().unwrap_err().into())
    });
    let refused = serve.create_backend("a", backend, config(0.0)).await.unwrap_err();
    assert!(
        refused.to_string().ends_with("this backend asks for none; set `resources.num_gpus`"),
        "{refused}"
    );
    assert!(serve.status().gpus.is_empty());
    assert!(!serve.metrics().contains("serve_gpu_"));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn shares_above_1_are_refused_and_what_goes_makes_room() {
    let device = small();
    let serve = serving(vec![device.clone()]).await;
    create(&serve, "a", 0.7).await;
    let refused = serve.create_backend("b", computes(), config(0.4)).await.unwrap_err();
    assert!(
        refused.to_string().contains("each replica asks for num_gpus 0.4, free: num_gpus 0.3 of 1"),
        "{refused}"
    );
    assert_eq!((refused.code(), refused.status_code().as_u16()), ("no_resources", 409));
    let more = serve.update_backend_config("a", BackendUpdate::default().num_replicas(2)).await;
    assert_eq!(more.unwrap_err().code(), "no_resources");
    serve.delete_endpoint("a").await.unwrap();
    serve.delete_backend("a", false).await.unwrap();
    serve.create_backend("b", computes(), config(0.25).num_replicas(4)).await.unwrap();
    assert_eq!(serve.status().capacity.free.num_gpus.unwrap().as_f64(), 0.0);
    assert_eq!(device.free().ten_thousandths, 0);
    serve.update_backend_config("b", BackendUpdate::default().num_replicas(1)).await.unwrap();
    assert_eq!(serve.status().capacity.free.num_gpus.unwrap().as_f64(), 0.75);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn memory_above_the_device_is_refused_with_what_would_fit() {
    let device = small();
    let serve = serving(vec![device.clone()]).await;
    let large =
        |bytes| BackendConfig::default().resources(Resources::none().num_gpus(0.1).gpu_memory_bytes(bytes));
    let refused = serve.create_backend("a", computes(), large(1 << 20)).await.unwrap_err().to_string();
    let free = (1 << 20) - (1 << 20) / 100 * 5;
    assert!(
        refused.contains(&format!("gpu_memory_bytes 1048576, free: gpu_memory_bytes {free} of {free}")),
        "{refused}"
    );
    let cure = refused.rsplit_once("set resources.gpu_memory_bytes to at most ").unwrap().1;
    serve.create_backend("a", computes(), large(cure.parse().unwrap())).await.unwrap();
    assert_eq!(serve.status().gpus[0].leases[0].memory_quota_bytes, cure.parse::<u64>().unwrap());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_buffer_above_the_quota_is_refused_to_its_replica() {
    let serve = serving(vec![small()]).await;
    let backend = Backend::<Computes>::new(|ctx| {
        let lease = ctx.gpu()?;
        Err(ServeError::from(lease.create_buffer(lease.memory_quota_bytes() + 4).wait().unwrap_err()).into())
    });
    let config = config(0.5).restart(greenroom::RestartPolicy { max_restarts: 0, ..Default::default() });
    let refused = serve.create_backend("a", backend, config).await.unwrap_err();
    assert!(refused.to_string().contains("would pass the lease's quota"), "{refused}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_capacity_counts_the_first_devices_and_never_more_than_there_are() {
    let start = |gpus| {
        let capacity = Capacity::unlimited().num_gpus(gpus);
        Serve::start(ServeOptions::default().capacity(capacity).gpus(GpuManager::new(vec![small(), small()])))
    };
    let refused = start(3).await.unwrap_err();
    assert_eq!(refused.to_string(), "capacity.num_gpus is 3, and there are 2 devices");
    let serve = start(1).await.unwrap();
    assert_eq!(serve.status().capacity.total.num_gpus, Some(1));
    let refused = serve.create_backend("a", computes(), config(2.0)).await.unwrap_err();
    assert_eq!(refused.code(), "no_resources");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn gpus_that_are_only_counted_are_no_leases() {
    let options = ServeOptions::default().capacity(Capacity::unlimited().num_gpus(1)).count_gpus();
    let serve = Serve::start(options).await.unwrap();
    let refused = serve.create_backend("a", computes(), config(0.5)).await.unwrap_err();
    assert!(refused.to_string().ends_with("num_gpus is only counted in this Serve"), "{refused}");
    let backend = Backend::from_fn(|_: Nothing| async { Ok(()) });
    serve.create_backend("b", backend, config(0.5)).await.unwrap();
    assert_eq!(serve.status().capacity.free.num_gpus.unwrap().as_f64(), 0.5);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn without_a_gpu_the_refusal_says_what_was_found() {
    if adapters().iter().any(|adapter| !adapter.software) {
        return eprintln!("SKIPPED: this machine has a GPU");
    }
    let serve = Serve::start(ServeOptions::default()).await.unwrap();
    let refused = serve.create_backend("a", computes(), config(0.5)).await.unwrap_err();
    assert_eq!((refused.code(), refused.status_code().as_u16()), ("gpu_unavailable", 503));
    assert!(refused.to_string().starts_with("no GPU device: Vulkan lists "), "{refused}");
    assert!(serve.status().backends.is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_model_that_computes_on_cpus_is_refused_a_gpu_with_the_reason() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits/digits.onnx");
    let serve = serving(vec![small()]).await;
    let refused = serve.create_backend("a", Backend::onnx(path), config(0.5)).await.unwrap_err();
    let why = "resources.num_gpus: an ONNX model is run on CPUs here and can use no GPU; ask for num_cpus";
    assert_eq!((refused.to_string().as_str(), refused.code()), (why, "invalid"));
    let file = format!("backends:\n  - {{name: a, onnx: {path}, resources: {{num_gpus: 0.5}}}}\n");
    let refused =
        greenroom::ServeConfig::from_yaml(&file, std::path::Path::new(".")).unwrap_err().to_string();
    assert!(refused.contains("backends[0].resources.num_gpus (line 2, column "), "{refused}");
    assert!(refused.contains("can use no GPU"), "{refused}");
    serve.shutdown().await.unwrap();
}
