//! Two models that share a GPU, a quarter and three quarters: what each gets of it and how long its callers wait, and
//! the same in order of arrival, where shares are only promised.
//!
//! `cargo run --release --features gpu --example gpu_fraction`; without a GPU a software device does. With `-- --seconds N`
//! each run is that long instead of 10 seconds.

mod model;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use greenroom::{
    BackendConfig, Capacity, Endpoint, Resources, Serve, ServeError, ServeOptions,
    gpu::{DetectGpus, DeviceOptions, Order, ShareOptions},
};

use model::{Forward, stack};

/// Name, share and layers of each model: the smaller share has the longer jobs.
const MODELS: [(&str, f64, u32); 2] = [("large", 0.25, 20), ("small", 0.75, 2)];

/// Callers of each model, each with one request at a time.
const CALLERS: usize = 4;

/// What one model got.
pub struct Got {
    pub name: &'static str,
    pub asked: f64,
    /// Of the device's time that both had.
    pub share: f64,
    /// How long requests took, in order.
    pub latencies: Vec<Duration>,
}

impl Got {
    fn latency(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1) as f64;
        self.latencies.get((last * part) as usize).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Both models for a while; with the device's name, and whether it is one.
pub async fn run(
    order: Order,
    warm_up: Duration,
    length: Duration,
) -> Result<(String, Vec<Got>), ServeError> {
    let sharing = ShareOptions { order, ..ShareOptions::default() };
    let options = DeviceOptions { sharing, ..DeviceOptions::default() };
    let detect = DetectGpus::default().software().options(options);
    // On a software device a core is not what is shared.
    let options = ServeOptions::default().capacity(Capacity::default().num_cpus(None)).detect_gpus(detect);
    let serve = Serve::start(options).await?;
    for (name, share, layers) in MODELS {
        let config = BackendConfig::default().resources(Resources::none().num_gpus(share));
        serve.create_backend(name, stack(layers), config).await?;
        serve.create_endpoint(name, Endpoint::new(name)).await?;
    }
    let callers: Vec<_> = MODELS.iter().map(|(name, ..)| call(&serve, name, warm_up, length)).collect();
    tokio::time::sleep(warm_up).await;
    let before = times(&serve);
    tokio::time::sleep(length).await;
    let used: Vec<f64> = times(&serve).iter().zip(before).map(|(after, before)| after - before).collect();
    let all: f64 = used.iter().sum();
    let mut got = Vec::new();
    for (((name, asked, _), callers), used) in MODELS.into_iter().zip(callers).zip(used) {
        let mut latencies = Vec::new();
        for caller in callers {
            latencies.extend(caller.await.map_err(ServeError::from_user)??);
        }
        latencies.sort_unstable();
        got.push(Got { name, asked, share: used / all, latencies });
    }
    let gpus = serve.status().gpus;
    let software = if gpus[0].software { ": a software device, as there is no GPU here" } else { "" };
    let device = format!("{}{software}", gpus[0].name);
    serve.shutdown().await?;
    Ok((device, got))
}

type Caller = tokio::task::JoinHandle<Result<Vec<Duration>, ServeError>>;

/// Callers that ask again and again; how long each request took that began after the warm-up.
fn call(serve: &Serve, name: &str, warm_up: Duration, length: Duration) -> Vec<Caller> {
    let began = Instant::now();
    let caller = |_| {
        let handle = serve.handle::<Forward>(name);
        actix::spawn(async move {
            let handle = handle?;
            let mut latencies = Vec::new();
            while began.elapsed() < warm_up + length {
                let sent = Instant::now();
                handle.call(Forward(1.0)).await?;
                if sent.duration_since(began) >= warm_up {
                    latencies.push(sent.elapsed());
                }
            }
            Ok(latencies)
        })
    };
    (0..CALLERS).map(caller).collect()
}

/// The device time that each model has had, in seconds.
fn times(serve: &Serve) -> [f64; 2] {
    let gpus = serve.status().gpus;
    MODELS.map(|(name, ..)| {
        let of = gpus[0].leases.iter().filter(|lease| lease.backend.as_str() == name);
        of.map(|lease| lease.device_time_s).sum()
    })
}

/// Longest run, in seconds: what is measured is kept until its end.
const SECONDS_MAX: u64 = 600;

/// How long each run is by the arguments; none where they are others than those that are allowed.
pub fn length(arguments: &[String]) -> Option<Duration> {
    let seconds = match arguments {
        [] => 10,
        [name, seconds] if name == "--seconds" => seconds.parse().ok()?,
        _ => return None,
    };
    (1..=SECONDS_MAX).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[actix_web::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Some(length) = length(&std::env::args().skip(1).collect::<Vec<_>>()) else {
        eprintln!(
            "gpu_fraction: the only argument that is allowed is --seconds N, with N from 1 to {SECONDS_MAX}"
        );
        return Ok(ExitCode::from(2));
    };
    let warm_up = Duration::from_secs(1);
    let seconds = length.as_secs();
    println!(
        "two models share a GPU; {CALLERS} callers of each ask again and again, {seconds} s for each run"
    );
    println!("first by shares...");
    let (device, shared) = run(Order::Shares, warm_up, length).await?;
    println!("then in order of arrival, where shares are only bookkeeping...");
    let (_, unscheduled) = run(Order::Arrival, warm_up, length).await?;
    println!("\non {device}\n");
    println!("{:15}{:^34}   {:^34}", "", "by shares", "in order of arrival");
    let columns = "     got    p50 ms    p99 ms     /s";
    println!("model    share {columns}   {columns}");
    for (by_share, by_arrival) in shared.iter().zip(&unscheduled) {
        let row = |got: &Got| {
            let a_second = got.latencies.len() as f64 / length.as_secs_f64();
            let (p50, p99) = (got.latency(0.5), got.latency(0.99));
            format!("{:8.3}{p50:10.1}{p99:10.1}{a_second:7.0}", got.share)
        };
        println!("{:9}{:5.2} {}   {}", by_share.name, by_share.asked, row(by_share), row(by_arrival));
    }
    println!("\ngot: the part of the device's time that both had; /s: requests answered a second");
    Ok(ExitCode::SUCCESS)
}
