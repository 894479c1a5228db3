//! Shares of a GPU in replicas: what they get, what is refused and why, and that all of it comes back.

use std::time::Duration;

use greenroom::{
    Backend, BackendUpdate, Endpoint, GpuFailure, GpuShare, ResourcesUpdate, Serve, ServeError, ServeOptions,
    gpu::{DetectGpus, DeviceOptions, GpuDevice, SimulatedDevice, adapters},
};

use super::{
    Nothing,
    backends::{Computes, Double, NUMBERS, Spin, computes, config, create, serving},
    open_simulated, simulated, small, vulkan,
    work::{self, Release, Run, exact},
};
use crate::{
    support::{metric, until},
    wire::post,
};

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
    until("all of it given back", || device.free().ten_thousandths == 10_000).await;
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
    let of = || serve.status().gpus.iter().map(|gpu| (gpu.leases.len(), gpu.free_share)).collect::<Vec<_>>();
    until("the two devices given back", || of() == [(2, 0.0), (0, 1.0), (0, 1.0)]).await;
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

#[actix_web::test]
async fn a_replica_cannot_release_its_own_lease_and_goes_on_with_it() {
    let device = exact();
    let serve = serving(vec![device.clone()]).await;
    let run = work::create(&serve, "a", config(1.0)).await;
    let release = serve.handle::<Release>("a").unwrap();
    let release = || release.call(Release);
    for _ in 0..2 {
        assert_eq!(failure(release().await), GpuFailure::Refused);
        assert_eq!(device.free().ten_thousandths, 0, "it is the replica's");
        run.call(Run(1)).await.unwrap();
        device.lose().unwrap();
        device.status().await.unwrap();
        until("its lease renewed", || serve.status().gpus[0].leases.len() == 1).await;
    }
    serve.shutdown().await.unwrap();
    until("all of it given back", || device.free().ten_thousandths == 10_000).await;
}

#[cfg(feature = "onnx")]
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

#[actix_web::test]
async fn another_share_is_had_by_new_replicas_beside_the_old_or_in_their_place() {
    let serve = serving(vec![small()]).await;
    create(&serve, "a", 0.25).await;
    let handle = serve.handle::<Spin>("a").unwrap();
    // 0.25 and 0.5 fit beside each other, 0.5 and 0.9 do not.
    for share in [0.5, 0.9, 0.1, 1.0] {
        let resources = ResourcesUpdate { num_gpus: Some(share), ..Default::default() };
        serve.update_backend_config("a", BackendUpdate::default().resources(resources)).await.unwrap();
        until("the new share alone", || {
            let status = serve.status();
            let asked: Vec<f64> = status.gpus[0].leases.iter().map(|lease| lease.share_asked).collect();
            asked == [share] && (status.gpus[0].free_share - (1.0 - share)).abs() < 1e-9
        })
        .await;
        handle.call(Spin(1)).await.unwrap();
    }
    assert_eq!(serve.status().capacity.free.num_gpus.unwrap().as_f64(), 0.0);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_that_asks_for_a_gpu_later_has_it_opened_then() {
    if adapters().is_empty() {
        return drop(vulkan(DeviceOptions::default()));
    }
    let detect = DetectGpus::default().software();
    let serve = Serve::start(ServeOptions::default().detect_gpus(detect)).await.unwrap();
    let backend = Backend::from_fn(|_: Nothing| async { Ok(()) });
    serve.create_backend("a", backend, config(0.0)).await.unwrap();
    assert!(serve.status().gpus.is_empty());
    let resources = ResourcesUpdate { num_gpus: Some(0.5), ..Default::default() };
    serve.update_backend_config("a", BackendUpdate::default().resources(resources)).await.unwrap();
    assert_eq!(serve.status().gpus[0].leases[0].share_asked, 0.5);
    serve.shutdown().await.unwrap();
}
