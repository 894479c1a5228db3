//! A panic costs the call that panicked, and nothing else: wherever it happens, and however often.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use greenroom::{BackendConfig, Endpoint, Handle, Request, Serve, ServeError, testing::Stage};

use crate::{
    frail::{ActFuture, Atomic, Brittle, Do, Future, Sync, Watch, WithBrittle},
    support::{MEANT, metric, quiet_panics, until},
};

async fn stage(config: BackendConfig) -> (Stage, Watch) {
    quiet_panics();
    let (stage, watch) = (Stage::new().await.unwrap(), Watch::new());
    let serve = stage.serve();
    serve.create_backend("frail", watch.backend(), config).await.unwrap();
    serve.create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    (stage, watch)
}

fn handle<M: Request>(serve: &Serve) -> Handle<M> {
    serve.handle("frail").unwrap()
}

fn restarts(serve: &Serve) -> u64 {
    metric(serve, "serve_replica_restarts_total", "backend=\"frail\",replica=\"0\"")
}

#[track_caller]
fn assert_panicked(result: Result<u64, ServeError>) {
    match result {
        Err(ServeError::Panicked { message }) => assert!(message.contains(MEANT), "{message}"),
        other => panic!("not a panic: {other:?}"),
    }
}

/// One panicking call among two that run and three that wait behind it.
async fn one_of_many<M: Request<Response = u64>>(make: fn(Do) -> M, what: Do) {
    let (stage, watch) = stage(BackendConfig::default().max_concurrent_queries(3)).await;
    let serve = stage.serve();
    let running = (
        handle::<Future>(serve).call(Future(Do::Wait)),
        handle::<ActFuture>(serve).call(ActFuture(Do::Wait)),
        handle::<Future>(serve).call(Future(Do::Wait)),
    );
    until("three calls run", || watch.barrier.inside() == 3).await;
    let poison = handle(serve).call(make(what));
    let waiting = (
        handle::<Sync>(serve).call(Sync(Do::Answer)),
        handle::<Future>(serve).call(Future(Do::Yield)),
        handle::<Atomic>(serve).call(Atomic(Do::Yield)),
    );
    // Room for one: the poison, then those behind it.
    watch.barrier.release(1);
    assert_panicked(poison.await);
    assert_eq!(waiting.0.await, Ok(1), "the first call of a fresh state");
    assert_eq!(waiting.1.await, Ok(2));
    assert_eq!(waiting.2.await, Ok(3));
    watch.barrier.release(2);
    assert_eq!(running.0.await, Ok(1), "it ran on, with what it had");
    assert_eq!(running.1.await, Ok(3), "it ran on and sees the state of now");
    assert_eq!(running.2.await, Ok(3), "it ran on, with what it had");
    assert_eq!(watch.births.load(SeqCst), 2);
    assert_eq!(restarts(serve), 1);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_sync_handler_that_panics_costs_one_call() {
    one_of_many(Sync, Do::Panic).await;
}

#[actix_web::test]
async fn a_response_future_that_panics_costs_one_call() {
    one_of_many(Future, Do::Panic).await;
    one_of_many(Future, Do::PanicLater).await;
}

#[actix_web::test]
async fn a_response_act_future_that_panics_costs_one_call() {
    one_of_many(ActFuture, Do::Panic).await;
    one_of_many(ActFuture, Do::PanicLater).await;
}

#[actix_web::test]
async fn an_atomic_response_that_panics_costs_one_call() {
    one_of_many(Atomic, Do::Panic).await;
    one_of_many(Atomic, Do::PanicLater).await;
}

#[actix_web::test]
async fn calls_that_panic_at_the_same_moment_are_restarts_each() {
    let (stage, watch) = stage(BackendConfig::default()).await;
    let calls: Vec<_> =
        (0..10).map(|_| handle::<Future>(stage.serve()).call(Future(Do::PanicLater))).collect();
    for call in calls {
        assert_panicked(call.await);
    }
    until("ten restarts", || restarts(stage.serve()) == 10).await;
    assert_eq!(watch.births.load(SeqCst), 11);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_timer_that_panics_rebuilds_the_state_and_costs_no_call() {
    let (stage, watch) = stage(BackendConfig::default()).await;
    tokio::time::pause();
    let running = handle::<ActFuture>(stage.serve()).call(ActFuture(Do::Wait));
    watch.tick_panics.store(true, SeqCst);
    until("the restart", || restarts(stage.serve()) == 1).await;
    watch.barrier.release(1);
    assert_eq!(running.await, Ok(0), "it ends in the fresh state");
    assert_eq!(watch.births.load(SeqCst), 2);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn timers_do_not_multiply_with_rebuilds() {
    let (stage, watch) = stage(BackendConfig::default()).await;
    tokio::time::pause();
    for _ in 0..10 {
        assert_panicked(handle::<Sync>(stage.serve()).call(Sync(Do::Panic)).await);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    watch.ticks.store(0, SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ticks = watch.ticks.load(SeqCst);
    assert!((99..=101).contains(&ticks), "{ticks} ticks of 10 ms in a second");
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_factory_that_fails_at_rebuild_is_tried_again_after_growing_pauses() {
    tokio::time::pause();
    for started in [false, true] {
        let (stage, watch) = stage(BackendConfig::default()).await;
        let running = handle::<Future>(stage.serve()).call(Future(Do::Wait));
        if started { &watch.fail_started } else { &watch.fail_factory }.store(3, SeqCst);
        let begun = tokio::time::Instant::now();
        assert_panicked(handle::<Sync>(stage.serve()).call(Sync(Do::Panic)).await);
        let waiting = handle::<Sync>(stage.serve()).call(Sync(Do::Answer));
        tokio::time::sleep(Duration::from_millis(1)).await;
        watch.barrier.release(1);
        assert_eq!(running.await, Ok(1), "calls that run need no state");
        assert!(begun.elapsed() < Duration::from_millis(50));
        assert_eq!(waiting.await, Ok(1));
        let took = begun.elapsed().as_millis();
        assert!((695..760).contains(&took), "100, 200 and 400 ms of pauses took {took} ms");
        assert_eq!(restarts(stage.serve()), 1, "a start that failed is no restart");
        stage.end().await.unwrap();
    }
}

#[actix_web::test]
async fn a_panic_while_the_state_is_missing_does_not_rebuild_it_twice() {
    let (stage, watch) = stage(BackendConfig::default()).await;
    tokio::time::pause();
    let doomed = handle::<Future>(stage.serve()).call(Future(Do::PanicLater));
    watch.fail_factory.store(1, SeqCst);
    assert_panicked(handle::<Sync>(stage.serve()).call(Sync(Do::Panic)).await);
    assert_panicked(doomed.await);
    assert_eq!(handle::<Sync>(stage.serve()).call(Sync(Do::Answer)).await, Ok(1));
    assert_eq!(handle::<Sync>(stage.serve()).call(Sync(Do::Answer)).await, Ok(2));
    assert_eq!(watch.births.load(SeqCst), 2);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_state_whose_drop_panics_is_replaced_like_any_other() {
    let (stage, watch) = stage(BackendConfig::default()).await;
    let running = handle::<Future>(stage.serve()).call(Future(Do::Wait));
    watch.drop_panics.store(true, SeqCst);
    assert_panicked(handle::<Sync>(stage.serve()).call(Sync(Do::Panic)).await);
    assert_eq!(handle::<Sync>(stage.serve()).call(Sync(Do::Answer)).await, Ok(1));
    watch.barrier.release(1);
    assert_eq!(running.await, Ok(1));
    assert_eq!(restarts(stage.serve()), 1);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_message_whose_drop_panics_costs_nobody_else_a_call() {
    let (stage, watch) = stage(BackendConfig::default().max_concurrent_queries(1)).await;
    let brittle = handle::<WithBrittle>(stage.serve());
    // Dropped by the handler.
    assert_panicked(brittle.call(WithBrittle(Do::Panic, Brittle)).await);
    // Dropped in the queue, after its caller has left.
    let running = handle::<Future>(stage.serve()).call(Future(Do::Wait));
    let left = brittle.call(WithBrittle(Do::Answer, Brittle));
    let waiting = handle::<Sync>(stage.serve()).call(Sync(Do::Answer));
    drop(left);
    watch.barrier.release(1);
    assert!(running.await.is_ok());
    assert!(waiting.await.is_ok());
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_request_future_whose_drop_panics_costs_nobody_else_a_call() {
    let (stage, watch) = stage(BackendConfig::default()).await;
    let running = handle::<ActFuture>(stage.serve()).call(ActFuture(Do::Wait));
    let left = handle::<WithBrittle>(stage.serve()).call(WithBrittle(Do::Wait, Brittle));
    until("both run", || watch.barrier.inside() == 2).await;
    drop(left);
    until("the restart", || restarts(stage.serve()) == 1).await;
    watch.barrier.release(1);
    assert_eq!(running.await, Ok(0));
    stage.end().await.unwrap();
}

/// 1,000 panics in a row beside 64 callers with 2,000 requests each, all kinds of handlers mixed.
async fn storm(serve: Serve, watch: Watch) {
    serve.create_backend("frail", watch.backend(), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    async fn one(serve: &Serve, kind: usize, what: Do) -> Result<u64, ServeError> {
        match kind % 4 {
            0 => handle::<Sync>(serve).call(Sync(what)).await,
            1 => handle::<Future>(serve).call(Future(what)).await,
            2 => handle::<ActFuture>(serve).call(ActFuture(what)).await,
            _ => handle::<Atomic>(serve).call(Atomic(what)).await,
        }
    }
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..64 {
        let serve = serve.clone();
        callers.spawn_local(async move {
            for i in 0..2_000 {
                let what = if i % 2 == 0 { Do::Yield } else { Do::Answer };
                assert!(one(&serve, caller + i, what).await.is_ok());
            }
        });
    }
    for i in 0..1_000 {
        let what = if i % 8 < 4 { Do::Panic } else { Do::PanicLater };
        assert_panicked(one(&serve, i, what).await);
    }
    while let Some(done) = callers.join_next().await {
        done.expect("no other request is lost");
    }
    until("1,000 restarts", || restarts(&serve) == 1_000).await;
    assert_eq!(watch.births.load(SeqCst), 1_001);
    assert_eq!(metric(&serve, "serve_replica_processing_queries", "backend=\"frail\",replica=\"0\""), 0);
    assert_eq!(metric(&serve, "serve_replica_queued_queries", "backend=\"frail\",replica=\"0\""), 0);
    assert_eq!(metric(&serve, "serve_backend_error_counter_total", "backend=\"frail\""), 1_000);
    assert_eq!(metric(&serve, "serve_backend_request_counter_total", "backend=\"frail\""), 129_000);
}

#[actix_web::test]
async fn a_storm_of_panics_loses_no_other_request_on_one_thread() {
    quiet_panics();
    let stage = Stage::new().await.unwrap();
    let watch = Watch::new();
    storm(stage.serve().clone(), watch.clone()).await;
    tokio::time::pause();
    watch.ticks.store(0, SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ticks = watch.ticks.load(SeqCst);
    assert!((99..=101).contains(&ticks), "{ticks} ticks of 10 ms in a second");
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_storm_of_panics_loses_no_other_request_across_threads() {
    quiet_panics();
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(2.try_into().unwrap())).await.unwrap();
    storm(serve.clone(), Watch::new()).await;
    serve.shutdown().await.unwrap();
}
