//! Replicas on a GPU under load: shares that are got, and a device that is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use greenroom::{
    GpuFailure, Handle, Serve, ServeError,
    gpu::{DeviceOptions, GpuDevice, SimulatedDevice},
};

use super::{
    backends::{Double, Spin, create, serving},
    kernels, simulated, vulkan,
};
use crate::support::{metric, until};

/// Callers that ask again and again until told to end; what they were answered.
struct Load {
    end: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<Vec<Result<(), ServeError>>>>,
}

impl Load {
    fn new(serve: &Serve, endpoint: &str, callers: usize, rounds: u32) -> Self {
        let end = Arc::<AtomicBool>::default();
        let caller = |_| {
            let (handle, end) = (serve.handle::<Spin>(endpoint).unwrap(), Arc::clone(&end));
            actix_web::rt::spawn(async move {
                let mut answers = Vec::new();
                while !end.load(SeqCst) {
                    answers.push(handle.call(Spin(rounds)).await);
                    if answers.last().is_some_and(Result::is_err) {
                        actix_web::rt::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                answers
            })
        };
        let callers = (0..callers).map(caller).collect();
        Self { end, callers }
    }

    async fn ended(self) -> Vec<Result<(), ServeError>> {
        self.end.store(true, SeqCst);
        let mut answers = Vec::new();
        for caller in self.callers {
            answers.extend(caller.await.unwrap());
        }
        answers
    }
}

/// Loses the device under load: how long it took until two backends answered again.
async fn lost_under_load(device: &GpuDevice) -> Duration {
    let serve = serving(vec![device.clone()]).await;
    create(&serve, "a", 0.25).await;
    create(&serve, "b", 0.75).await;
    let loads = [Load::new(&serve, "a", 4, 4), Load::new(&serve, "b", 4, 4)];
    until("jobs", || serve.status().gpus[0].leases.iter().all(|lease| lease.jobs > 20)).await;
    device.lose().unwrap();
    let began = Instant::now();
    let handles: Vec<Handle<Double>> = ["a", "b"].iter().map(|name| serve.handle(name).unwrap()).collect();
    for handle in &handles {
        loop {
            // The loss is noticed by the device's own thread, a moment later.
            let again = device.epoch() == 2 && handle.call(Double { values: vec![1.0; 64] }).await.is_ok();
            if again {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it did not come back");
            actix_web::rt::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let recovered = began.elapsed();
    println!(
        "recovered after {recovered:?}, of which {:?} to open it",
        device.status().await.unwrap().recovery
    );
    let mut failed = 0;
    for load in loads {
        for answer in load.ended().await {
            match answer {
                Ok(()) => {}
                Err(ServeError::Gpu { failure: GpuFailure::Lost, .. }) => failed += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(failed > 0, "jobs were under way");
    for name in ["a", "b"] {
        let labels = format!("backend=\"{name}\",replica=\"0\"");
        assert_eq!(metric(&serve, "serve_replica_restarts_total", &labels), 1, "{name}");
        let jobs = metric(&serve, "serve_gpu_jobs_total", &format!("{labels},device=\"0\""));
        assert!(jobs > 20, "counts go on: {jobs}");
    }
    assert_eq!(metric(&serve, "serve_gpu_devices_lost_total", "device=\"0\""), 1);
    let status = serve.status();
    assert_eq!((status.gpus[0].epoch, status.gpus[0].lost, status.gpus[0].leases.len()), (2, 1, 2));
    assert!(status.backends.iter().all(|backend| backend.replicas[0].id.generation == 1), "in place");
    serve.shutdown().await.unwrap();
    recovered
}

#[actix_web::test]
async fn every_call_is_answered_when_a_device_is_lost_and_its_replicas_compute_again() {
    let device = simulated(SimulatedDevice { workgroup: Duration::from_micros(20), ..Default::default() });
    let recovered = lost_under_load(&device).await;
    assert!(recovered < Duration::from_millis(250), "{recovered:?}");
}

#[actix_web::test]
async fn the_same_on_a_driver_s_device() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let mut quickest = lost_under_load(&device).await;
    // Kernels are compiled again, on a processor that others use too, which only ever adds: on a busy one it may take
    // a few times as long as the same without replicas.
    let began = Instant::now();
    for _ in 0..2 {
        let Some(device) = vulkan(DeviceOptions::default()) else { return };
        let lease = super::lease(&device, 1.0, 1 << 20);
        for spec in [kernels::double(), kernels::spin()] {
            lease.create_kernel(spec).await.unwrap();
        }
    }
    let without = began.elapsed() / 2;
    for _ in 0..2 {
        let Some(device) = vulkan(DeviceOptions::default()) else { return };
        quickest = quickest.min(lost_under_load(&device).await);
    }
    println!("the quickest took {quickest:?}; opening and compiling alone {without:?}");
    assert!(quickest <= (4 * without).max(Duration::from_millis(250)), "{quickest:?}");
}

#[actix_web::test]
async fn a_device_that_does_not_come_back_fails_calls_with_the_reason() {
    let device = simulated(SimulatedDevice { openings_max: 1, ..Default::default() });
    let serve = serving(vec![device.clone()]).await;
    create(&serve, "a", 0.5).await;
    device.lose().unwrap();
    until("the reason", || {
        let error = serve.status().backends[0].last_error.clone();
        error.is_some_and(|why| why.contains("the simulated device opens no more"))
    })
    .await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn two_backends_get_their_shares_of_a_device() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let serve = serving(vec![device.clone()]).await;
    create(&serve, "a", 0.25).await;
    create(&serve, "b", 0.75).await;
    // Enough is outstanding that a caller which the processor keeps waiting is not missed.
    let loads = [Load::new(&serve, "a", 8, 150), Load::new(&serve, "b", 32, 30)];
    let used = || {
        let status = serve.status();
        [0, 1].map(|i| status.gpus[0].leases[i].device_time_s)
    };
    // Until costs are learned and both have all their calls out.
    until("both", || used().iter().all(|used| *used > 0.2)).await;
    let before = used();
    until("three seconds of the device", || used().iter().sum::<f64>() - before.iter().sum::<f64>() > 3.0)
        .await;
    let after = used();
    for load in loads {
        assert!(load.ended().await.iter().all(Result::is_ok));
    }
    let (a, b) = (after[0] - before[0], after[1] - before[1]);
    let got = a / (a + b);
    println!("0.25 got {got:.4}");
    // In order of arrival it would be 0.5 and more. `gpu::shares` is stricter: here calls come through replicas, whose
    // threads a busy machine keeps waiting too.
    assert!((got - 0.25).abs() / 0.25 <= 0.1, "{got}");
    serve.shutdown().await.unwrap();
}
