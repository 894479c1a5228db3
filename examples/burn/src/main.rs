//! A Burn model in two backends that share a GPU, a quarter and three quarters: what each gets of it by shares, and in
//! order of arrival.
//!
//! `cargo run --manifest-path examples/burn/Cargo.toml`; without a GPU a software device does, and the output says so.

mod lent;
mod network;
mod replica;
#[path = "../../gpu_digits/weights.rs"]
#[allow(dead_code, reason = "the network on a CPU is not for here")]
mod weights;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use greenroom::{
    BackendConfig, BoxError, Capacity, Endpoint, ReplicaGpuStatus, Resources, Serve, ServeOptions,
    gpu::{DetectGpus, DeviceOptions, Order, ShareOptions},
};

use replica::{Classify, ROWS, digits};

pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/digits/digits.onnx");
const TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/digits/test.json");

/// Name, share and images a request of each backend: the smaller share has the longer turns.
const BACKENDS: [(&str, f64, usize); 2] = [("all", 0.25, 10 * ROWS), ("few", 0.75, ROWS)];

/// Callers of each backend, each with one request at a time.
const CALLERS: usize = 4;

/// Longest first turn: Burn tries its kernels then, which takes a software device a minute and more.
const FIRST_MAX: Duration = Duration::from_secs(600);

const WARM_UP: Duration = Duration::from_secs(2);
const LENGTH: Duration = Duration::from_secs(10);

/// Images that the network was not trained with, and what is on them.
struct HeldOut {
    images: Vec<Vec<f32>>,
    digits: Vec<i64>,
}

impl HeldOut {
    fn load() -> Result<Self, BoxError> {
        let mut read: serde_json::Value = serde_json::from_slice(&std::fs::read(TEST)?)?;
        let (images, digits) = (read["x"].take(), read["y"].take());
        Ok(Self { images: serde_json::from_value(images)?, digits: serde_json::from_value(digits)? })
    }
}

/// How far a run is, for its callers.
#[derive(Default)]
struct Progress {
    measured: AtomicBool,
    ended: AtomicBool,
}

/// What one backend got.
struct Got {
    /// Of the device's time that both had.
    share: f64,
    /// How long requests took, in order, in milliseconds.
    latencies: Vec<f64>,
    memory_bytes: u64,
}

/// How many images were asked for, and how many of them were read right.
#[derive(Clone, Copy, Default)]
struct Accuracy {
    right: usize,
    all: usize,
}

impl Got {
    fn latency(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1) as f64;
        self.latencies.get((last * part) as usize).copied().unwrap_or(f64::NAN)
    }
}

/// Both backends under load for a while; with the device's name, and whether it is one.
async fn run(order: Order, held_out: &Arc<HeldOut>) -> Result<(String, Vec<Got>, Accuracy), BoxError> {
    // A caller that comes back does so through the replica's thread, which has just been busy.
    let sharing = ShareOptions { order, anticipation: Duration::from_millis(2), ..Default::default() };
    let options = DeviceOptions { sharing, give_up_after: FIRST_MAX, ..Default::default() };
    let detect = DetectGpus::default().software().options(options);
    // On a software device a core is not what is shared.
    let options = ServeOptions::default().capacity(Capacity::default().num_cpus(None)).detect_gpus(detect);
    let serve = Serve::start(options).await?;
    for (name, share, _) in BACKENDS {
        let resources = Resources::none().num_gpus(share);
        let config = BackendConfig::default().resources(resources).startup_timeout(FIRST_MAX);
        serve.create_backend(name, digits(), config).await?;
        serve.create_endpoint(name, Endpoint::new(name)).await?;
    }
    let progress = Arc::<Progress>::default();
    let begun = turns(&serve);
    let callers: Vec<_> = BACKENDS
        .iter()
        .flat_map(|backend| [backend; CALLERS])
        .map(|(name, _, images)| {
            actix::spawn(call(serve.clone(), name, *images, Arc::clone(held_out), Arc::clone(&progress)))
        })
        .collect();
    // Whoever took longer for its first turn comes after the other until that is made up for.
    while turns(&serve).iter().zip(&begun).any(|(now, begun)| now == begun) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(WARM_UP).await;
    let before = times(&serve);
    progress.measured.store(true, Relaxed);
    tokio::time::sleep(LENGTH).await;
    let used: Vec<f64> = times(&serve).iter().zip(before).map(|(after, before)| after - before).collect();
    progress.ended.store(true, Relaxed);
    let mut accuracy = Accuracy::default();
    let mut latencies = Vec::new();
    for caller in callers {
        let (own, right) = caller.await??;
        latencies.push(own);
        accuracy = Accuracy { right: accuracy.right + right.right, all: accuracy.all + right.all };
    }
    let gpu = serve.status().gpus.swap_remove(0);
    let software = if gpu.software { ", a software device: there is no GPU" } else { "" };
    let got = (0..BACKENDS.len()).map(|place| {
        let of = gpu.leases.iter().filter(|lease| lease.backend.as_str() == BACKENDS[place].0);
        let mut latencies = latencies[place * CALLERS..(place + 1) * CALLERS].concat();
        latencies.sort_by(f64::total_cmp);
        Got {
            share: used[place] / used.iter().sum::<f64>(),
            latencies,
            memory_bytes: of.map(|lease| lease.memory_used_bytes).sum(),
        }
    });
    let got = got.collect();
    serve.shutdown().await?;
    Ok((format!("{}{software}", gpu.name), got, accuracy))
}

/// A caller that asks again and again; how long each request took that began while it was measured.
async fn call(
    serve: Serve,
    name: &str,
    count: usize,
    held_out: Arc<HeldOut>,
    progress: Arc<Progress>,
) -> Result<(Vec<f64>, Accuracy), greenroom::ServeError> {
    let handle = serve.handle::<Classify>(name)?;
    let requests: Vec<(Classify, &[i64])> = held_out
        .images
        .chunks(count)
        .zip(held_out.digits.chunks(count))
        .map(|(images, digits)| (Classify(images.into()), digits))
        .collect();
    let (mut latencies, mut accuracy) = (Vec::new(), Accuracy::default());
    for (request, digits) in requests.iter().cycle() {
        if progress.ended.load(Relaxed) {
            break;
        }
        let (sent, measured) = (Instant::now(), progress.measured.load(Relaxed));
        let found = handle.call(request.clone()).await?;
        if measured {
            latencies.push(sent.elapsed().as_secs_f64() * 1e3);
        }
        accuracy.all += digits.len();
        accuracy.right += found.iter().zip(*digits).filter(|(found, digit)| found == digit).count();
    }
    Ok((latencies, accuracy))
}

/// The device time that each backend has had, in seconds.
fn times(serve: &Serve) -> [f64; 2] {
    of_each(serve, |lease| lease.device_time_s)
}

/// The turns that each backend has had.
fn turns(serve: &Serve) -> [u64; 2] {
    of_each(serve, |lease| lease.jobs)
}

fn of_each<T: std::iter::Sum>(serve: &Serve, what: impl Fn(&ReplicaGpuStatus) -> T) -> [T; 2] {
    let gpus = serve.status().gpus;
    BACKENDS.map(|(name, ..)| {
        let leases = gpus.iter().flat_map(|gpu| &gpu.leases);
        leases.filter(|lease| lease.backend.as_str() == name).map(&what).sum()
    })
}

#[actix_web::main]
async fn main() -> Result<(), BoxError> {
    let held_out = Arc::new(HeldOut::load()?);
    let (device, shared, accuracy) = run(Order::Shares, &held_out).await?;
    let (_, unscheduled, _) = run(Order::Arrival, &held_out).await?;
    println!("{device}");
    println!("a Burn model in two backends, {CALLERS} callers each, {} s", LENGTH.as_secs());
    let (right, all) = (accuracy.right, accuracy.all);
    println!("digits read right: {right} of {all}, {:.1} %", 100.0 * right as f64 / all as f64);
    println!(
        "backend  share  turns   memory | by shares:  got  p50 ms  p99 ms | by arrival:  got  p50 ms  p99 ms"
    );
    for ((name, share, _), (by_share, by_arrival)) in
        BACKENDS.into_iter().zip(shared.iter().zip(&unscheduled))
    {
        let row = |got: &Got| format!("{:.3} {:7.1} {:7.1}", got.share, got.latency(0.5), got.latency(0.99));
        let (turns, mib) = (by_share.latencies.len(), by_share.memory_bytes as f64 / f64::from(1 << 20));
        println!(
            "{name:8} {share:5} {turns:6} {mib:4.1} MiB |           {} |            {}",
            row(by_share),
            row(by_arrival)
        );
    }
    Ok(())
}
