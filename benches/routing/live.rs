//! What happens while traffic runs: how fast a change is seen, and what a shadow that hangs does to others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use greenroom::{Backend, BackendConfig, Endpoint, Serve, ServeError, ServeOptions};

use crate::{Echo, endpoints, measure::median};

/// How long a change of traffic takes, in milliseconds, while two threads call: median, 99th and slowest of 1,000. When
/// it has returned every later call goes by it, which each change checks.
pub fn propagation(system: &actix::SystemRunner) -> Result<[f64; 3], ServeError> {
    system.block_on(async {
        let serve = Serve::start(ServeOptions::default().capacity(greenroom::Capacity::unlimited())).await?;
        endpoints(&serve, 2).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let (stop, handle) = (Arc::clone(&stop), serve.handle::<Echo>("plain")?.blocking());
                Ok(std::thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        assert!(handle.call(Echo { id: 1, text: String::new() }).is_ok());
                    }
                }))
            })
            .collect::<Result<_, ServeError>>()?;
        let handle = serve.handle::<Echo>("plain")?;
        let mut took = Vec::new();
        for i in 0..1_000 {
            let to = ["a", "b"][i % 2];
            let begun = Instant::now();
            serve.set_traffic("plain", [(to, 1.0)]).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
            let (_, why) = handle.call_explained(Echo { id: 1, text: String::new() }).await;
            assert_eq!(why.backend.as_ref().map(|name| name.as_str()), Some(to));
        }
        stop.store(true, Relaxed);
        callers.into_iter().for_each(|caller| drop(caller.join()));
        serve.shutdown().await?;
        took.sort_by(f64::total_cmp);
        Ok([took[500], took[990], took[999]])
    })
}

/// The 99th percentile of the latency of calls that come at a fixed pace, whatever became of those before: with a
/// shadow that hangs and is full, over that without one.
pub fn beside_a_hanging_shadow(
    system: &actix::SystemRunner,
    rounds: usize,
    seconds: f64,
) -> Result<f64, ServeError> {
    const PERIOD: Duration = Duration::from_micros(500);
    let serve = system.block_on(async {
        let serve = Serve::start(ServeOptions::default().capacity(greenroom::Capacity::unlimited())).await?;
        endpoints(&serve, 2).await?;
        let hangs = Backend::from_fn(|_: Echo| std::future::pending()).shadows::<Echo>();
        let config = BackendConfig::default().max_concurrent_queries(8).max_queued_queries(8);
        serve.create_backend("hangs", hangs, config).await?;
        serve.create_endpoint("alone", Endpoint::new("a")).await?;
        serve.create_endpoint("shadowed", Endpoint::new("a")).await?;
        serve.shadow_traffic("shadowed", "hangs", 1.0).await?;
        Ok::<_, ServeError>(serve)
    })?;
    let p99 = |endpoint: &str| {
        let handle = serve.handle::<Echo>(endpoint)?.blocking();
        let caller = std::thread::spawn(move || {
            let (begun, mut took) = (Instant::now(), Vec::new());
            for n in 0.. {
                let due = begun + PERIOD * n;
                if due.duration_since(begun).as_secs_f64() > seconds {
                    break;
                }
                while Instant::now() < due {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                assert!(handle.call(Echo { id: 1, text: "x".repeat(32) }).is_ok());
                took.push(due.elapsed().as_secs_f64());
            }
            took.sort_by(f64::total_cmp);
            took[took.len() * 99 / 100]
        });
        Ok::<_, ServeError>(caller.join().unwrap_or(f64::NAN))
    };
    p99("shadowed")?;
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let order = if round % 2 == 0 { ["alone", "shadowed"] } else { ["shadowed", "alone"] };
        let [first, second] = [p99(order[0])?, p99(order[1])?];
        ratios.push(if round % 2 == 0 { second / first } else { first / second });
    }
    // Without a drain: what hangs would be waited for.
    drop(serve);
    Ok(median(ratios))
}
