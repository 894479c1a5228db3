//! What is told of GPUs, by values: metrics and status say the same, and series go with their replicas.

use std::time::Duration;

use greenroom::{
    BackendUpdate, ReplicaGpuStatus, Serve,
    gpu::{DeviceOptions, GpuDevice, SimulatedDevice},
};

use super::{
    backends::{config, serving},
    open_simulated, simulated,
    work::{BYTES, Run, create, exact, exactly},
};
use crate::support::until;

/// The value of a series; none: it is not there.
fn value(serve: &Serve, name: &str, labels: &str) -> Option<f64> {
    let start = format!("{name}{{{labels}}} ");
    serve.metrics().lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.parse().unwrap())
}

fn of(backend: &str, replica: u32) -> String {
    format!("backend=\"{backend}\",replica=\"{replica}\",device=\"0\"")
}

fn device(serve: &Serve, name: &str) -> Option<f64> {
    value(serve, &format!("serve_gpu_device_{name}"), "device=\"0\"")
}

fn lease(serve: &Serve) -> ReplicaGpuStatus {
    serve.status().gpus[0].leases[0].clone()
}

fn near(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-6
}

#[actix_web::test]
async fn what_a_replica_did_and_has_is_told_to_the_number() {
    let serve = serving(vec![exact()]).await;
    let run = create(&serve, "a", config(0.25).max_concurrent_queries(4)).await;
    let get = |name: &str| value(&serve, &format!("serve_gpu_{name}"), &of("a", 0)).unwrap();
    run.call(Run(100)).await.unwrap();
    assert!(get("queue_wait_seconds_total") < 0.1, "it waited for nobody");
    let (one, other) = tokio::join!(run.call(Run(100)), run.call(Run(100)));
    one.and(other).unwrap();
    until("three jobs", || get("jobs_total") == 3.0).await;
    let told = lease(&serve);
    assert_eq!((told.backend.as_str(), told.replica, told.jobs, told.slices), ("a", 0, 3, 3));
    assert_eq!((get("slices_total"), get("jobs_failed_total"), told.jobs_failed), (3.0, 0.0, 0));
    assert!(near(get("device_seconds_total"), 0.3) && near(told.device_time_s, 0.3), "{told:?}");
    // One of the two had to wait until the other had ended.
    assert!(get("queue_wait_seconds_total") >= 0.09 && told.queue_wait_s >= 0.09, "{told:?}");
    assert_eq!((get("share_asked"), told.share_asked), (0.25, 0.25));
    assert_eq!((get("memory_used_bytes"), told.memory_used_bytes), (BYTES as f64, BYTES));
    // A quarter of 1 MiB without the 5 % that are kept back.
    let quota = ((1 << 20) - (1 << 20) / 100 * 5) / 4 / 256 * 256;
    assert_eq!((get("memory_quota_bytes"), told.memory_quota_bytes), (f64::from(quota as u32), quota));
    assert_eq!((get("outstanding_jobs"), told.outstanding), (0.0, 0));
    assert!(near(device(&serve, "busy_seconds_total").unwrap(), 0.3));
    assert_eq!(device(&serve, "memory_bytes"), Some(f64::from(1 << 20)));
    until("its memory by both counts", || {
        let health = serve.status().gpus[0].health.clone();
        device(&serve, "memory_leased_bytes") == Some(BYTES as f64)
            && device(&serve, "memory_counted_bytes") == Some(BYTES as f64)
            && (health.memory_leased_bytes, health.memory_counted_bytes) == (BYTES, Some(BYTES))
    })
    .await;
    let info = "device=\"0\",name=\"simulated\",driver=\"none\",software=\"true\"";
    assert_eq!(value(&serve, "serve_gpu_info", info), Some(1.0));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_share_got_is_that_of_the_last_second_and_0_when_nothing_runs() {
    let serve = serving(vec![exact()]).await;
    let run = create(&serve, "a", config(0.25)).await;
    let got = || value(&serve, "serve_gpu_share_got", &of("a", 0)).unwrap();
    let seen = async {
        // Alone it has all of the device: ten jobs of 100 ms end in a second, and a little less on a busy machine.
        until("a busy second", || got() > 0.5).await;
        assert!(got() <= 1.0 && lease(&serve).share_got <= 1.0, "{}", got());
    };
    let load = async { while run.call(Run(100)).await.is_ok() {} };
    tokio::select! { () = seen => {}, () = load => {} }
    until("a second of nothing", || got() == 0.0 && lease(&serve).share_got == 0.0).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_slice_longer_than_a_second_is_a_share_of_each_second_that_it_covers_and_of_no_more() {
    let serve = serving(vec![exact()]).await;
    let run = create(&serve, "a", config(0.25)).await;
    let got = || {
        let gpu = serve.status().gpus[0].clone();
        let share = value(&serve, "serve_gpu_share_got", &of("a", 0)).unwrap();
        assert!(share <= 1.0 && gpu.leases[0].share_got <= 1.0 && gpu.busy_share <= 1.0, "{share} {gpu:?}");
        (share, gpu.busy_share, gpu.leases[0].slices)
    };
    let call = run.call(Run(2_500));
    until("all of a second while it runs", || {
        let (share, busy, slices) = got();
        assert_eq!(slices, 0, "it still runs");
        share > 0.99 && busy > 0.99
    })
    .await;
    let ended = async {
        until("its end", || got().2 == 1).await;
        until("a second of nothing", || got().0 == 0.0).await;
    };
    let (called, ()) = tokio::join!(call, ended);
    called.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn gauges_go_with_their_replica_and_everything_with_the_backend() {
    let serve = serving(vec![exact()]).await;
    let run = create(&serve, "a", config(0.25).num_replicas(2)).await;
    for _ in 0..4 {
        run.call(Run(1)).await.unwrap();
    }
    let gauges = ["share_asked", "share_got", "memory_used_bytes", "memory_quota_bytes", "outstanding_jobs"];
    let shown = |replica: u32| {
        let there = |name: &&str| value(&serve, &format!("serve_gpu_{name}"), &of("a", replica)).is_some();
        gauges.iter().filter(|name| there(name)).count()
    };
    assert_eq!((shown(0), shown(1)), (5, 5));
    serve.update_backend_config("a", BackendUpdate::default().num_replicas(1)).await.unwrap();
    assert_eq!((shown(0), shown(1)), (5, 0));
    assert!(value(&serve, "serve_gpu_jobs_total", &of("a", 1)).is_some(), "counters never go back");
    assert_eq!(serve.status().gpus[0].leases.len(), 1);
    serve.delete_endpoint("a").await.unwrap();
    serve.delete_backend("a", false).await.unwrap();
    let text = serve.metrics();
    let left: Vec<_> = text.lines().filter(|l| l.contains("serve_gpu_") && l.contains("backend=")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(device(&serve, "busy_seconds_total").is_some());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_loss_its_failed_jobs_and_the_recovery_are_counted() {
    let gpu = exact();
    let serve = serving(vec![gpu.clone()]).await;
    let run = create(&serve, "a", config(0.5).max_concurrent_queries(8)).await;
    assert_eq!((device(&serve, "open"), device(&serve, "recovery_seconds")), (Some(1.0), None));
    let calls: Vec<_> = (0..4).map(|_| run.call(Run(5_000))).collect();
    until("all are out", || lease(&serve).outstanding == 4).await;
    gpu.lose().unwrap();
    for call in calls {
        assert_eq!(call.await.unwrap_err().code(), "gpu_lost");
    }
    let failed = || value(&serve, "serve_gpu_jobs_failed_total", &of("a", 0)).unwrap();
    until("a new lease", || {
        let status = serve.status();
        status.gpus[0].leases.first().is_some_and(|own| own.jobs_failed == 4 && own.memory_used_bytes > 0)
    })
    .await;
    assert_eq!((failed(), lease(&serve).jobs), (4.0, 4));
    let status = &serve.status().gpus[0];
    assert_eq!((status.lost, status.health.watchdog, status.health.open), (1, 0, true));
    assert!(status.health.recovery_s.is_some_and(|took| took < 5.0), "{:?}", status.health);
    assert!(device(&serve, "recovery_seconds").is_some());
    assert_eq!(value(&serve, "serve_gpu_devices_lost_total", "device=\"0\""), Some(1.0));
    assert_eq!((device(&serve, "watchdog_total"), device(&serve, "abandoned")), (Some(0.0), Some(0.0)));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_job_without_an_end_is_suspect_and_then_counted_by_the_watchdog() {
    let options = DeviceOptions {
        suspect_after: Duration::from_millis(10),
        give_up_after: Duration::from_millis(2_500),
        ..Default::default()
    };
    let serve = serving(vec![open_simulated(exactly(), options)]).await;
    let run = create(&serve, "a", config(0.5)).await;
    let endless = run.call(Run(60_000));
    until("suspicion", || device(&serve, "suspect") == Some(1.0)).await;
    assert!(serve.status().gpus[0].health.suspect);
    assert_eq!(endless.await.unwrap_err().code(), "gpu_job_too_long");
    until("the verdict", || device(&serve, "watchdog_total") == Some(1.0)).await;
    assert_eq!(device(&serve, "suspect"), Some(0.0));
    let status = &serve.status().gpus[0];
    assert_eq!((status.lost, status.health.watchdog), (1, 1));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_device_that_does_not_open_again_is_told_as_closed_and_lost_once() {
    let gpu: GpuDevice = simulated(SimulatedDevice { openings_max: 1, ..exactly() });
    let serve = serving(vec![gpu.clone()]).await;
    create(&serve, "a", config(0.5)).await;
    gpu.lose().unwrap();
    until("that it is closed", || device(&serve, "open") == Some(0.0)).await;
    until("some attempts of the replica", || serve.status().backends[0].last_error.is_some()).await;
    let status = &serve.status().gpus[0];
    assert_eq!((status.health.open, status.lost, gpu.losses()), (false, 1, 1));
    assert!(status.leases.is_empty());
    serve.shutdown().await.unwrap();
}
