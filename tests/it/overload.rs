//! More calls than a backend admits: exactly as many are served as it says, the others are refused at once.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use greenroom::{Backend, BackendConfig, Endpoint, Handle, Serve, ServeError, ServeOptions, testing::Stage};

use crate::support::{Barrier, metric, until};

#[derive(actix::Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Nth(u64);

const AT_ONCE: u64 = 10_000;

async fn held_back(options: ServeOptions, config: BackendConfig) -> (Serve, Handle<Nth>, Barrier) {
    let (serve, barrier) = (Serve::start(options).await.unwrap(), Barrier::new());
    let held = barrier.clone();
    let backend = Backend::from_fn(move |Nth(n): Nth| {
        let pass = held.pass();
        async move {
            pass.await;
            Ok(n)
        }
    });
    serve.create_backend("held", backend, config).await.unwrap();
    serve.create_endpoint("held", Endpoint::new("held")).await.unwrap();
    let handle = serve.handle("held").unwrap();
    (serve, handle, barrier)
}

/// Sends 10,000 calls at once; `admitted` must be served, `running` of them at once.
async fn flood(options: ServeOptions, replicas: u32, admitted: u64) -> Duration {
    let config =
        BackendConfig::default().num_replicas(replicas).max_concurrent_queries(64).max_queued_queries(64);
    let (serve, handle, barrier) = held_back(options, config).await;
    let (mut served, mut refusals) = (Vec::new(), Vec::new());
    for n in 0..AT_ONCE {
        let begun = Instant::now();
        let mut call = handle.call(Nth(n));
        // Without the budget that makes a loop of ready answers yield.
        match tokio::task::coop::unconstrained(&mut call).now_or_never() {
            None => served.push((n, call)),
            Some(Err(ServeError::Overloaded { backend, limit })) => {
                refusals.push(begun.elapsed());
                assert_eq!((backend.as_str(), limit as u64), ("held", admitted));
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((served.len() as u64, refusals.len() as u64), (admitted, AT_ONCE - admitted));
    let running = u64::from(replicas) * 64;
    until("as many run as may", || barrier.inside() == running).await;
    assert_eq!(sum(&serve, "serve_replica_processing_queries", replicas), running);
    assert_eq!(sum(&serve, "serve_replica_queued_queries", replicas), 64);
    assert_eq!(metric(&serve, "serve_overload_refused_total", "backend=\"held\""), AT_ONCE - admitted);
    barrier.release(AT_ONCE as usize);
    for (n, call) in served {
        assert_eq!(call.await, Ok(n));
    }
    assert_eq!(barrier.began(), admitted, "a refused call never began");
    assert_eq!(barrier.most(), running, "never more at once");
    until("the counters are back", || {
        sum(&serve, "serve_replica_processing_queries", replicas) == 0
            && sum(&serve, "serve_replica_queued_queries", replicas) == 0
    })
    .await;
    serve.shutdown().await.unwrap();
    refusals.sort_unstable();
    // The slowest ones are those during which the machine ran something else: `benches/message` has them.
    refusals[refusals.len() / 2]
}

fn sum(serve: &Serve, name: &str, replicas: u32) -> u64 {
    (0..replicas).map(|i| metric(serve, name, &format!("backend=\"held\",replica=\"{i}\""))).sum()
}

fn own_thread() -> ServeOptions {
    crate::support::uncounted().serving_threads(1.try_into().unwrap())
}

#[actix_web::test]
async fn of_ten_thousand_at_once_128_are_served_and_9872_refused_at_once() {
    for options in [ServeOptions::default().current_thread(), own_thread()] {
        let took = flood(options, 1, 128).await;
        assert!(took < Duration::from_micros(200), "a refusal took {took:?}");
    }
}

#[actix_web::test]
async fn three_replicas_admit_three_times_their_concurrency_and_the_queue_of_the_backend() {
    for options in [ServeOptions::default().current_thread(), own_thread()] {
        let took = flood(options, 3, 3 * 64 + 64).await;
        assert!(took < Duration::from_micros(200), "a refusal took {took:?}");
    }
}

/// Callers that call again when they are answered, and a millisecond after they were refused: what they are
/// served in ten seconds, and how often they are refused.
async fn served_to(callers: u64, handle: &Handle<Nth>) -> (u64, u64) {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    let loops = (0..callers).map(|n| async move {
        let (mut served, mut refused) = (0, 0);
        while tokio::time::Instant::now() < end {
            match handle.call(Nth(n)).await {
                Ok(_) => served += 1,
                Err(ServeError::Overloaded { .. }) => {
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
        (served, refused)
    });
    let all = futures_util::future::join_all(loops).await;
    all.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[actix_web::test]
async fn three_times_the_load_that_is_admitted_takes_nothing_from_what_is_served() {
    let stage = Stage::new().await.unwrap();
    let backend = Backend::from_fn(|Nth(n): Nth| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(n)
    });
    let config = BackendConfig::default().max_concurrent_queries(8).max_queued_queries(8);
    let handle = stage.replicas("held", backend, config).await.unwrap();
    tokio::time::pause();
    let (peak, refused) = served_to(16, &handle).await;
    assert!(peak >= 7_000 && refused == 0, "eight at once for 10 ms each: {peak}, {refused}");
    let (served, refused) = served_to(3 * 16, &handle).await;
    println!("peak {peak} in 10 s, at three times the load {served}, refused {refused}");
    assert!(served * 100 >= peak * 95 && refused > 0, "{served} of {peak}, {refused}");
    for gauge in ["serve_replica_processing_queries", "serve_replica_queued_queries"] {
        assert_eq!(sum(stage.serve(), gauge, 1), 0, "{gauge}");
    }
    tokio::time::resume();
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn calls_from_many_threads_are_counted_exactly() {
    let config = BackendConfig::default().max_concurrent_queries(64).max_queued_queries(64);
    let (serve, handle, barrier) = held_back(own_thread(), config).await;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let handle = handle.clone();
            std::thread::spawn(move || (0..2_500).map(|n| handle.call(Nth(n))).collect::<Vec<_>>())
        })
        .collect();
    let calls: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    barrier.release(AT_ONCE as usize);
    let (mut served, mut refused) = (0, 0);
    for call in calls {
        match call.await {
            Ok(_) => served += 1,
            Err(ServeError::Overloaded { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((served, refused), (128, AT_ONCE - 128));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_queue_of_zero_lets_nothing_wait() {
    let config = BackendConfig::default().max_concurrent_queries(2).max_queued_queries(0);
    let (serve, handle, barrier) = held_back(ServeOptions::default().current_thread(), config).await;
    let (a, b) = (handle.call(Nth(1)), handle.call(Nth(2)));
    assert!(matches!(handle.call(Nth(3)).await, Err(ServeError::Overloaded { limit: 2, .. })));
    barrier.release(3);
    assert_eq!((a.await, b.await), (Ok(1), Ok(2)));
    assert_eq!(handle.call(Nth(4)).await, Ok(4), "a place that was left is free again");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn calls_are_handled_in_the_order_in_which_they_came() {
    for options in [ServeOptions::default().current_thread(), own_thread()] {
        let (serve, seen) = (Serve::start(options).await.unwrap(), Barrier::new());
        #[expect(clippy::disallowed_methods, reason = "the test bounds what it sends")]
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        let gate = seen.clone();
        let backend = Backend::from_fn(move |Nth(n): Nth| {
            sender.send(n).unwrap();
            let pass = gate.pass();
            async move {
                pass.await;
                Ok(n)
            }
        });
        let config = BackendConfig::default().max_concurrent_queries(1);
        serve.create_backend("held", backend, config).await.unwrap();
        serve.create_endpoint("held", Endpoint::new("held")).await.unwrap();
        let handle = serve.handle::<Nth>("held").unwrap();
        let calls: Vec<_> = (0..500).map(|n| handle.call(Nth(n))).collect();
        seen.release(500);
        for (n, call) in (0..).zip(calls) {
            assert_eq!(call.await, Ok(n));
        }
        for n in 0..500 {
            assert_eq!(order.recv().await, Some(n));
        }
        assert_eq!(seen.most(), 1);
        serve.shutdown().await.unwrap();
    }
}
