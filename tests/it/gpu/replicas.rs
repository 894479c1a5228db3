//! Shares of a GPU in replicas: what they get, what is refused and why, and that all of it comes back.

use std::time::Duration;

use actix_web::ResponseError;
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Capacity, Endpoint, GpuFailure, GpuShare, Resources, Serve,
    ServeError, ServeOptions,
    gpu::{DetectGpus, DeviceOptions, GpuDevice, GpuManager, SimulatedDevice, adapters},
};

use super::{
    backends::{Computes, Double, NUMBERS, Spin, computes, config, create, serving},
    open_simulated, simulated, vulkan,
};
use crate::{
    support::{metric, until},
    wire::post,
};

/// A message that nobody sends.
#[derive(actix::Message)]
#[rtype(result = "Result<(), ServeError>")]
struct Nothing;

/// A device with little memory.
fn small() -> GpuDevice {
    simulated(SimulatedDevice { memory_bytes: 1 << 20, ..Default::default() })
}

/// The kind of failure that an answer told.
fn failure<T: std::fmt::Debug>(answer: Result<T, ServeError>) -> GpuFailure {
    match answer {
        Err(ServeError::Gpu { failure, .. }) => failure,
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn a_backend_computes_on_its_share_for_handles_and_over_http() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let serve = serving(vec![device.clone()]).await;
    create(&serve, "a", 0.5).await;
    let handle = serve.handle::<Double>("a").unwrap();
    let values: Vec<f32> = (0..NUMBERS).map(|n| n as f32).collect();
    let doubled: Vec<f32> = values.iter().map(|x| 2.0 * x).collect();
    assert_eq!(handle.call(Double { values }).await.unwrap(), doubled);
    let address = serve.listen(greenroom::Listen::default()).await.unwrap();
    let answer = post(address, "/a", "{\"values\": [1.5, -2]}").await;
    assert_eq!(answer.json(), serde_json::json!([3.0, -4.0]));
    let status = &serve.status().gpus[0];
    assert_eq!((status.name.as_str(), status.free_share), (device.facts().name.as_str(), 0.5));
    let lease = &status.leases[0];
    assert_eq!((lease.backend.as_str(), lease.replica, lease.share_asked), ("a", 0, 0.5));
    assert_eq!(lease.memory_used_bytes, 4 * NUMBERS as u64);
    assert!(lease.jobs >= 2 && lease.device_time_s > 0.0, "{lease:?}");
    let labels = "backend=\"a\",replica=\"0\",device=\"0\"";
    assert_eq!(metric(&serve, "serve_gpu_memory_used_bytes", labels), 4 * NUMBERS as u64);
    assert_eq!(metric(&serve, "serve_gpu_memory_quota_bytes", labels), lease.memory_quota_bytes);
    assert!(metric(&serve, "serve_gpu_jobs_total", labels) >= 2);
    assert!(serve.metrics().contains(&format!("serve_gpu_share_asked{{{labels}}} 0.5")));
    serve.shutdown().await.unwrap();
    drop(handle);
    assert_eq!(device.free().ten_thousandths, 10_000, "all of it is given back");
}

#[actix_web::test]
async fn a_kernel_that_does_not_compile_is_told_with_its_place_to_that_caller_alone() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let serve = serving(vec![device.clone()]).await;
    create(&serve, "a", 0.5).await;
    let address = serve.listen(greenroom::Listen::default()).await.unwrap();
    let double = serve.handle::<Double>("a").unwrap();
    let good = (0..8).map(|_| double.call(Double { values: vec![1.0; 64] }));
    let body =
        serde_json::json!({"text": "@compute @workgroup_size(1)\nfn main() {\n    let x: u32 = 1.5;\n}"});
    let body = body.to_string();
    let head = ["x-serve-call-method: compile"];
    let bad = crate::wire::ask(address, "POST", "/a", &head, &body);
    let (good, bad) = tokio::join!(futures_util::future::join_all(good), bad);
    assert_eq!((bad.status, bad.code().as_str()), (500, "gpu_refused"));
    let detail = bad.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("WGSL, line 3, column "), "{detail}");
    good.into_iter().for_each(|answer| assert_eq!(answer.unwrap(), [2.0; 64]));
    serve.shutdown().await.unwrap();
}

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
async fn whole_devices_are_several_leases_and_parts_share_one() {
    let devices: Vec<GpuDevice> = (0..3).map(|_| small()).collect();
    let serve = serving(devices.clone()).await;
    serve.create_backend("half", computes(), config(0.5).num_replicas(2)).await.unwrap();
    let backend = Backend::<Computes>::new(|ctx| {
        let shares: Vec<_> = ctx.gpus().iter().map(|lease| lease.share().as_f64()).collect();
        Err(ServeError::invalid("seen", format!("{shares:?}")).into())
    });
    let seen = serve.create_backend("two", backend, config(2.0)).await.unwrap_err().to_string();
    assert!(seen.contains("[1.0, 1.0]"), "{seen}");
    let of: Vec<_> = serve.status().gpus.iter().map(|gpu| (gpu.leases.len(), gpu.free_share)).collect();
    assert_eq!(of, [(2, 0.0), (0, 1.0), (0, 1.0)]);
    let refused = serve.create_backend("three", computes(), config(3.0)).await.unwrap_err();
    assert_eq!(refused.code(), "no_resources");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn replicas_that_come_and_go_keep_to_the_devices_of_their_claims() {
    let serve = serving((0..2).map(|_| small()).collect()).await;
    serve.create_backend("a", computes(), config(0.6).num_replicas(2)).await.unwrap();
    for replicas in [1, 2, 0, 2, 1] {
        serve.update_backend_config("a", BackendUpdate::default().num_replicas(replicas)).await.unwrap();
        let shares: Vec<_> = serve.status().gpus.iter().map(|gpu| gpu.leases.len()).collect();
        assert!(shares.iter().all(|of| *of <= 1), "{shares:?}");
        assert_eq!(shares.iter().sum::<usize>(), replicas as usize);
    }
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
async fn devices_are_found_when_a_backend_first_asks_and_closed_in_the_end() {
    if adapters().is_empty() {
        return drop(vulkan(DeviceOptions::default()));
    }
    let detect = DetectGpus::default().software();
    let serve = Serve::start(ServeOptions::default().detect_gpus(detect)).await.unwrap();
    assert!(serve.status().gpus.is_empty());
    let both = tokio::join!(
        serve.create_backend("a", computes(), config(0.5)),
        serve.create_backend("b", computes(), config(0.5)),
    );
    assert_eq!(both, (Ok(()), Ok(())));
    assert_eq!((serve.status().gpus.len(), serve.status().gpus[0].leases.len()), (1, 2));
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
async fn a_hard_cap_holds_a_replica_to_its_share_of_an_idle_device() {
    let sharing = greenroom::gpu::ShareOptions { slice_max: Duration::from_millis(1), ..Default::default() };
    let spec = SimulatedDevice { workgroup: Duration::from_micros(20), ..Default::default() };
    let device = open_simulated(spec, DeviceOptions { sharing, ..Default::default() });
    let serve = serving(vec![device.clone()]).await;
    serve.create_backend("a", computes(), config(0.25).gpu_share(GpuShare::HardCap)).await.unwrap();
    serve.create_endpoint("a", Endpoint::new("a")).await.unwrap();
    let handle = serve.handle::<Spin>("a").unwrap();
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        handle.call(Spin(1)).await.unwrap();
    }
    let most = (began.elapsed() + Duration::from_millis(100)).mul_f64(0.25) + Duration::from_millis(4);
    assert!(device.busy() <= most, "{:?} of {most:?}", device.busy());
    let refused = serve.create_backend("b", computes(), config(0.0).gpu_share(GpuShare::HardCap)).await;
    assert!(refused.unwrap_err().to_string().starts_with("gpu_share: hard_cap was given"));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_rebuilt_replica_keeps_its_share_and_nobody_else_gets_it() {
    let device = simulated(SimulatedDevice::default());
    let serve = serving(vec![device.clone()]).await;
    let backend = Backend::from_fn(|_: Nothing| async {
        panic!("{}", crate::support::MEANT);
        #[expect(unreachable_code, reason = "it panics")]
        Ok(())
    });
    crate::support::quiet_panics();
    serve.create_backend("a", backend, config(1.0)).await.unwrap();
    serve.create_endpoint("a", Endpoint::new("a")).await.unwrap();
    let handle = serve.handle::<Nothing>("a").unwrap();
    for _ in 0..3 {
        assert_eq!(handle.call(Nothing).await.unwrap_err().code(), "panicked");
    }
    until("three restarts", || {
        metric(&serve, "serve_replica_restarts_total", "backend=\"a\",replica=\"0\"") == 3
    })
    .await;
    assert_eq!(serve.status().gpus[0].leases.len(), 1);
    let other = device.lease(greenroom::gpu::LeaseRequest::new(super::share(0.1))).await;
    assert_eq!(failure(other.map_err(ServeError::from)), GpuFailure::Unavailable);
    serve.shutdown().await.unwrap();
}

#[cfg(feature = "onnx")]
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

#[actix_web::test]
async fn devices_that_were_given_stay_open_for_whoever_gave_them() {
    let device = small();
    for _ in 0..2 {
        let serve = serving(vec![device.clone()]).await;
        create(&serve, "a", 1.0).await;
        serve.shutdown().await.unwrap();
    }
    device.status().await.unwrap();
}
