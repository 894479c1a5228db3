//! Batches from concurrent callers to a model that blocks its own thread for 2 ms and 0.05 ms a request.
//!
//! `cargo bench --bench batcher`; `ROUNDS` and `SECONDS` set how often and how long. Batches hold at most 32 and
//! wait at most 2 ms. The ideal is what the model could do if no time passed between its batches: full ones from
//! 32 callers on, below that all callers together after the wait.

mod measure;

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, Batch, Endpoint, Handle, ReplicaContext, Serve, ServeError, ServeOptions,
};
use measure::{Table, env, median};

const WAIT: Duration = Duration::from_millis(2);
const SIZE_MAX: usize = 32;

fn compute(size: usize) -> Duration {
    Duration::from_micros(2000 + 50 * size as u64)
}

#[derive(Message)]
#[rtype(result = "Result<f64, ServeError>")]
struct Double(f64);

struct Model;

impl Actor for Model {
    type Context = ReplicaContext<Self>;
}

impl Handler<Batch<Double>> for Model {
    type Result = Result<Vec<Result<f64, ServeError>>, ServeError>;
    #[expect(clippy::disallowed_methods, reason = "the model blocks its own thread, as a computation does")]
    fn handle(&mut self, batch: Batch<Double>, _: &mut Self::Context) -> Self::Result {
        std::thread::sleep(compute(batch.len()));
        Ok(batch.into_iter().map(|Double(x)| Ok(2.0 * x)).collect())
    }
}

/// Requests a second that `clients` callers could get at best.
fn ideal(clients: usize) -> f64 {
    if clients >= SIZE_MAX {
        return SIZE_MAX as f64 / compute(SIZE_MAX).as_secs_f64();
    }
    clients as f64 / (WAIT + compute(clients)).as_secs_f64()
}

/// Requests a second and the median latency of `clients` callers in a closed loop.
async fn load(handle: &Handle<Double>, clients: usize, seconds: f64) -> (f64, Duration) {
    let (start, answered) = (Instant::now(), Rc::new(Cell::new(0_usize)));
    let end = start + Duration::from_secs_f64(seconds);
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (handle, answered) = (handle.clone(), Rc::clone(&answered));
            actix::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < end {
                    let sent = Instant::now();
                    assert!(matches!(handle.call(Double(1.5)).await, Ok(3.0)));
                    took.push(sent.elapsed());
                    answered.set(answered.get() + 1);
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap_or_default());
    }
    took.sort_unstable();
    let rate = answered.get() as f64 / start.elapsed().as_secs_f64();
    (rate, took.get(took.len() / 2).copied().unwrap_or_default())
}

fn main() -> Result<(), ServeError> {
    let (rounds, seconds) = (env("ROUNDS", 5), env("SECONDS", 2) as f64);
    actix::System::new().block_on(async {
        let serve = Serve::start(ServeOptions::default().capacity(greenroom::Capacity::unlimited())).await?;
        let config = BackendConfig::default().max_batch_size(SIZE_MAX).batch_wait_timeout(WAIT);
        serve
            .create_backend("model", Backend::new(|_| Ok(Model)).batched::<Double>().compute(), config)
            .await?;
        serve.create_endpoint("model", Endpoint::new("model")).await?;
        let handle = serve.handle::<Double>("model")?;
        let callers = [1, 8, 32, 64, 256];
        let mut rates: [Vec<f64>; 5] = Default::default();
        let mut waits = Vec::new();
        for _ in 0..rounds {
            for (i, clients) in callers.into_iter().enumerate() {
                let (rate, latency) = load(&handle, clients, seconds).await;
                rates[i].push(rate);
                if clients == 1 {
                    // A sleep lasts longer than asked for; what the machine adds to this one is no wait of ours.
                    let slept = Instant::now();
                    #[expect(clippy::disallowed_methods, reason = "nothing else runs on this thread now")]
                    std::thread::sleep(compute(1));
                    waits.push(latency.saturating_sub(slept.elapsed()).as_secs_f64() / WAIT.as_secs_f64());
                }
            }
        }
        let mut table = Table::new(["callers", "req/s", "ideal", "share of ideal"]);
        let mut shares = Vec::new();
        for (clients, rates) in callers.into_iter().zip(rates) {
            let rate = median(rates);
            shares.push(rate / ideal(clients));
            table.row([
                clients.to_string(),
                format!("{rate:.0}"),
                format!("{:.0}", ideal(clients)),
                format!("{:.3}", rate / ideal(clients)),
            ]);
        }
        table.print();
        let lone = median(waits);
        println!("wait of a lone caller: {lone:.3} of the configured 2 ms");
        println!(
            "{}",
            serde_json::json!({"batcher": {
                "efficiency_8": shares[1], "efficiency_32": shares[2], "efficiency_64": shares[3],
                "efficiency_256": shares[4], "lone_wait_ratio": lone,
            }})
        );
        serve.shutdown().await
    })
}
