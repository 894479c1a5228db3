//! The only replica is replaced where there is no room for two: calls wait for the next one.

use futures_util::future::join_all;
use greenroom::{Resources, Route};
use tokio::time::Instant;

use super::*;
use crate::support::{metric, until};

/// One replica where there is room for one.
async fn alone(config: BackendConfig) -> Serve {
    let serve = serve_with(Capacity::unlimited().custom("seat", 1.0)).await;
    open(&serve, counter("old"), seated(config)).await;
    serve
}

fn seated(config: BackendConfig) -> BackendConfig {
    config.resources(Resources::none().custom("seat", 1.0))
}

/// A next version that takes a second to open; it has begun, and nobody takes calls.
async fn closed(serve: &Serve, config: BackendConfig) -> JoinHandle<Result<(), ServeError>> {
    let next = seated(config.version("2").user_config(json!({"ms": 1000})));
    let deployed = deploying(serve, counter("new"), next);
    let starting = || status(serve).replicas.iter().all(|r| r.state == ReplicaState::Starting);
    until("the next is started", || !status(serve).replicas.is_empty() && starting()).await;
    deployed
}

#[actix_web::test]
async fn calls_wait_and_the_next_one_answers_them_in_their_order() {
    tokio::time::pause();
    let serve = alone(config("1", 1)).await;
    let handle = serve.handle::<Work>("counter").unwrap();
    let before = handle.call(Work);
    let deployed = closed(&serve, config("1", 1)).await;
    let waiting: Vec<_> = (0..50).map(|_| handle.call(Work)).collect();
    assert_eq!(before.await.unwrap().made_as, "old", "what ran there is finished there");
    let shown = || metric(&serve, "serve_backend_waiting_queries", "backend=\"counter\"");
    assert_eq!((shown(), serve.ready()), (50, Ok(())), "they are seen, and will be answered");
    for answer in join_all(waiting).await {
        assert_eq!(answer.unwrap().made_as, "new");
    }
    assert_eq!(shown(), 0);
    deployed.await.unwrap().unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn as_many_wait_as_one_replica_lets_in_and_the_next_is_refused() {
    tokio::time::pause();
    let few = || config("1", 1).max_concurrent_queries(2).max_queued_queries(3);
    let serve = alone(few()).await;
    let deployed = closed(&serve, few()).await;
    let handle = serve.handle::<Work>("counter").unwrap();
    let waiting: Vec<_> = (0..5).map(|_| handle.call(Work)).collect();
    let refused = handle.call(Work).await.unwrap_err();
    assert!(matches!(refused, ServeError::Overloaded { limit: 5, .. }), "{refused}");
    drop(waiting);
    // Callers that left hold no place for long.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(handle.call(Work).await.unwrap().made_as, "new");
    deployed.await.unwrap().unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_call_that_waits_ends_at_its_deadline_whoever_keeps_it() {
    tokio::time::pause();
    let brief = || config("1", 1).request_timeout(Duration::from_millis(100));
    let serve = alone(brief()).await;
    let deployed = closed(&serve, brief()).await;
    let begun = Instant::now();
    let handled = serve.handle::<Work>("counter").unwrap().call(Work).await;
    assert_eq!(handled.unwrap_err().code(), "deadline_exceeded");
    let routed = serve
        .router()
        .unwrap()
        .send(Route { endpoint: "counter".try_into().unwrap(), msg: Work })
        .await
        .unwrap();
    assert_eq!(routed.unwrap_err().code(), "deadline_exceeded");
    assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    deployed.await.unwrap().unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_controller_that_crashes_meanwhile_still_lets_them_end_and_go() {
    tokio::time::pause();
    crate::support::quiet_panics();
    let serve = alone(config("1", 1)).await;
    let deployed = closed(&serve, config("1", 1)).await;
    let handle = serve.handle::<Work>("counter").unwrap();
    let waiting = handle.call(Work);
    for _ in 0..3 {
        serve.crash_controller().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(waiting.await.unwrap().made_as, "new");
    deployed.await.unwrap().unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn when_neither_the_next_nor_the_old_one_starts_they_are_told() {
    tokio::time::pause();
    let serve = serve_with(Capacity::unlimited().custom("seat", 1.0)).await;
    let made = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    // Only the first one can be made.
    let once = Backend::new(move |_: &mut ReplicaContext<Counter>| {
        match made.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Ok(Counter { seen: Seen { made_as: "old", generation: 1, threads: 1 } }),
            _ => Err("it is worn out".into()),
        }
    });
    open(&serve, once.json::<Work>().reconfigure::<Opening>(), seated(config("1", 1))).await;
    let deployed = deploying(&serve, counter("broken"), seated(config("2", 1)));
    until("none takes calls", || status(&serve).replicas.iter().all(|r| r.state != ReplicaState::Running))
        .await;
    let told = serve.handle::<Work>("counter").unwrap().call(Work).await.unwrap_err();
    assert_eq!(told.code(), "no_replica");
    assert_eq!(deployed.await.unwrap().unwrap_err().code(), "rollout_failed");
    let now = status(&serve);
    assert_eq!((now.state, now.reason.as_deref()), (BackendState::Unhealthy, Some("it is worn out")));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_waits_when_everything_ends_is_answered() {
    tokio::time::pause();
    for shutdown in [true, false] {
        let serve = alone(config("1", 1)).await;
        let deployed = closed(&serve, config("1", 1)).await;
        let waiting = serve.handle::<Work>("counter").unwrap().call(Work);
        if shutdown {
            serve.shutdown().await.unwrap();
            assert_eq!(waiting.await.unwrap().made_as, "new", "a shutdown waits for what was let in");
        } else {
            serve.delete_endpoint("counter").await.unwrap();
            serve.delete_backend("counter", false).await.unwrap();
            assert_eq!(waiting.await.unwrap_err().code(), "no_replica");
            serve.shutdown().await.unwrap();
        }
        drop(deployed);
    }
}
