//! Batches: when they leave, what becomes of each item, whatever happens to the others.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Batch, Endpoint, Handle, ReplicaContext, ServeError,
    testing::Stage,
};
use tokio::time::Instant;

use crate::support::{Barrier, MEANT, metric, quiet_panics, until};

/// What an item makes its batch do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Do {
    Answer,
    Poison,
    Shorten,
    CloneBadly,
    DropBadly,
    Wait,
}

#[derive(Message, Debug)]
#[rtype(result = "Result<u64, ServeError>")]
struct Item(u64, Do);

impl Clone for Item {
    fn clone(&self) -> Self {
        assert_ne!(self.1, Do::CloneBadly, "{MEANT}: clone");
        Self(self.0, self.1)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if self.1 == Do::DropBadly && !std::thread::panicking() {
            panic!("{MEANT}: drop");
        }
    }
}

type Batches = Arc<Mutex<Vec<(Instant, Vec<u64>)>>>;

struct Gatherer(Batches, Barrier);

impl Actor for Gatherer {
    type Context = ReplicaContext<Self>;
}

impl Handler<Batch<Item>> for Gatherer {
    type Result = ResponseFuture<Result<Vec<Result<u64, ServeError>>, ServeError>>;
    fn handle(&mut self, batch: Batch<Item>, _: &mut Self::Context) -> Self::Result {
        let has = |what| batch.items().iter().any(|item| item.1 == what);
        let numbers: Vec<_> = batch.items().iter().map(|item| item.0).collect();
        self.0.lock().unwrap().push((Instant::now(), numbers.clone()));
        if has(Do::Poison) {
            panic!("{MEANT}: poison");
        }
        let (short, wait) = (has(Do::Shorten), has(Do::Wait).then(|| self.1.pass()));
        Box::pin(async move {
            if let Some(pass) = wait {
                pass.await;
            }
            Ok(numbers.into_iter().skip(usize::from(short)).map(Ok).collect())
        })
    }
}

struct Bench {
    stage: Stage,
    handle: Handle<Item>,
    batches: Batches,
    barrier: Barrier,
}

impl Bench {
    async fn new(config: BackendConfig) -> Self {
        quiet_panics();
        let (stage, batches, barrier) = (Stage::new().await.unwrap(), Batches::default(), Barrier::new());
        let (seen, held) = (Arc::clone(&batches), barrier.clone());
        let backend = Backend::new(move |_| Ok(Gatherer(Arc::clone(&seen), held.clone())));
        let backend = backend.batched::<Item>().retries_batches::<Item>();
        stage.serve().create_backend("b", backend, config).await.unwrap();
        stage.serve().create_endpoint("b", Endpoint::new("b")).await.unwrap();
        let handle = stage.serve().handle("b").unwrap();
        Self { stage, handle, batches, barrier }
    }

    fn call(&self, n: u64, what: Do) -> greenroom::Calling<u64> {
        self.handle.call(Item(n, what))
    }

    fn batches(&self) -> Vec<Vec<u64>> {
        self.batches.lock().unwrap().iter().map(|(_, numbers)| numbers.clone()).collect()
    }

    fn metric(&self, name: &str) -> u64 {
        metric(self.stage.serve(), name, "backend=\"b\",replica=\"0\"")
    }

    async fn end(self) {
        let gauges = ["serve_replica_processing_queries", "serve_replica_queued_queries"];
        until("the gauges are back", || gauges.iter().all(|gauge| self.metric(gauge) == 0)).await;
        self.stage.end().await.unwrap();
    }
}

fn of(size: usize, wait_ms: u64) -> BackendConfig {
    BackendConfig::default().max_batch_size(size).batch_wait_timeout(Duration::from_millis(wait_ms))
}

#[actix_web::test]
async fn the_wait_starts_with_the_first_request() {
    let bench = Bench::new(of(8, 20)).await;
    tokio::time::pause();
    let begun = Instant::now();
    let first = bench.call(1, Do::Answer);
    tokio::time::sleep(Duration::from_millis(15)).await;
    let second = bench.call(2, Do::Answer);
    assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
    assert!((20..=21).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(bench.batches(), [[1, 2]]);
    bench.end().await;
}

#[actix_web::test]
async fn a_full_batch_leaves_at_once_and_is_never_larger() {
    let bench = Bench::new(of(4, 1000)).await;
    tokio::time::pause();
    let begun = Instant::now();
    let calls: Vec<_> = (0..8).map(|n| bench.call(n, Do::Answer)).collect();
    for (n, call) in (0..).zip(calls) {
        assert_eq!(call.await, Ok(n));
    }
    assert!(begun.elapsed() < Duration::from_millis(5));
    assert_eq!(bench.batches(), [[0, 1, 2, 3], [4, 5, 6, 7]]);
    assert_eq!(bench.metric("serve_batch_size_count"), 2);
    assert_eq!(bench.metric("serve_batch_size_sum"), 8);
    bench.end().await;
}

#[actix_web::test]
async fn without_a_wait_a_batch_takes_what_came_while_the_replica_was_busy() {
    let bench = Bench::new(of(8, 0)).await;
    let first = bench.call(0, Do::Wait);
    until("it runs", || bench.barrier.inside() == 1).await;
    let calls: Vec<_> = (1..6).map(|n| bench.call(n, Do::Answer)).collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(bench.batches().len(), 1);
    bench.barrier.release(1);
    assert_eq!(first.await, Ok(0));
    for (n, call) in (1..).zip(calls) {
        assert_eq!(call.await, Ok(n));
    }
    assert_eq!(bench.batches(), [vec![0], vec![1, 2, 3, 4, 5]]);
    bench.end().await;
}

#[actix_web::test]
async fn a_result_of_the_wrong_length_fails_that_batch_and_no_other() {
    let bench = Bench::new(of(2, 1000)).await;
    let calls = [Do::Answer, Do::Shorten, Do::Answer, Do::Answer];
    let calls: Vec<_> = (0..).zip(calls).map(|(n, what)| bench.call(n, what)).collect();
    let results: Vec<_> = futures_util::future::join_all(calls).await;
    let wrong = Err(ServeError::BatchLength { expected: 2, returned: 1 });
    assert_eq!(results, [wrong.clone(), wrong, Ok(2), Ok(3)]);
    bench.end().await;
}

#[actix_web::test]
async fn each_item_of_a_batch_that_panics_is_told_and_no_other_batch_is_hurt() {
    let bench = Bench::new(of(2, 1000)).await;
    let calls = [Do::Wait, Do::Answer, Do::Answer, Do::Poison, Do::Answer, Do::Answer];
    let calls: Vec<_> = (0..).zip(calls).map(|(n, what)| bench.call(n, what)).collect();
    until("the panic", || bench.metric("serve_replica_restarts_total") == 1).await;
    bench.barrier.release(1);
    let results: Vec<_> = futures_util::future::join_all(calls).await;
    for (n, result) in results.iter().enumerate() {
        match result {
            Err(ServeError::BatchPanicked { size: 2, message }) if n / 2 == 1 => {
                assert!(message.contains(MEANT))
            }
            other => assert_eq!(*other, Ok(n as u64)),
        }
    }
    bench.end().await;
}

#[actix_web::test]
async fn of_an_idempotent_batch_only_the_poison_item_fails() {
    let bench = Bench::new(of(8, 1000).idempotent(true)).await;
    let what = |n| if n == 5 { Do::Poison } else { Do::Answer };
    let calls: Vec<_> = (0..8).map(|n| bench.call(n, what(n))).collect();
    for (n, call) in (0..).zip(calls) {
        match call.await {
            Err(ServeError::BatchPanicked { size: 1, .. }) if n == 5 => {}
            other => assert_eq!(other, Ok(n)),
        }
    }
    let ran: Vec<_> = bench.batches().iter().map(Vec::len).collect();
    assert_eq!(ran, [8, 4, 4, 2, 1, 1, 2], "in halves, the halves one after the other");
    bench.end().await;
}

#[actix_web::test]
async fn items_whose_caller_has_left_or_whose_time_is_over_are_left_out() {
    let bench = Bench::new(of(8, 100)).await;
    tokio::time::pause();
    let stays = bench.call(1, Do::Answer);
    let left = bench.call(2, Do::DropBadly);
    let late = bench.handle.options().timeout(Duration::from_millis(10)).call(Item(3, Do::Answer));
    let last = bench.call(4, Do::Answer);
    drop(left);
    assert_eq!(late.await, Err(ServeError::DeadlineExceeded));
    assert_eq!((stays.await, last.await), (Ok(1), Ok(4)));
    assert_eq!(bench.batches(), [[1, 4]]);
    bench.end().await;
}

#[actix_web::test]
async fn a_message_that_cannot_be_cloned_or_dropped_costs_its_neighbours_nothing() {
    let bench = Bench::new(of(3, 1000).idempotent(true)).await;
    let running = bench.call(0, Do::Wait);
    let calls: Vec<_> =
        [(1, Do::Answer), (2, Do::Answer), (3, Do::Answer), (4, Do::CloneBadly), (5, Do::Answer)]
            .map(|(n, what)| bench.call(n, what))
            .into();
    bench.barrier.release(1);
    assert_eq!(running.await, Ok(0));
    for (n, call) in (1..).zip(calls) {
        assert_eq!(call.await, Ok(n));
    }
    let labels = "actor=\"batcher\"";
    assert_eq!(
        metric(bench.stage.serve(), "serve_actor_restarts_total", labels),
        0,
        "it was not even restarted"
    );
    bench.end().await;
}

#[actix_web::test]
async fn a_new_wait_and_a_new_size_hold_for_what_waits_already() {
    let bench = Bench::new(of(8, 10_000)).await;
    tokio::time::pause();
    let begun = Instant::now();
    let update = |update| bench.stage.serve().update_backend_config("b", update);
    let first = bench.call(1, Do::Answer);
    tokio::time::sleep(Duration::from_millis(5)).await;
    update(BackendUpdate::default().batch_wait_timeout(Duration::from_millis(50))).await.unwrap();
    assert_eq!(first.await, Ok(1));
    assert!((50..60).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    update(BackendUpdate::default().batch_wait_timeout(Duration::from_secs(10))).await.unwrap();
    let calls: Vec<_> = (0..4).map(|n| bench.call(n, Do::Answer)).collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    update(BackendUpdate::default().max_batch_size(2)).await.unwrap();
    futures_util::future::join_all(calls).await.into_iter().for_each(|result| assert!(result.is_ok()));
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert_eq!(bench.batches()[1..], [[0, 1], [2, 3]]);
    bench.end().await;
}

#[actix_web::test]
async fn calls_that_wait_for_company_go_to_a_sibling_when_their_replica_is_taken_away() {
    let bench = Bench::new(of(4, 3_600_000).num_replicas(2)).await;
    // Spread over both replicas; neither batch is full.
    let calls: Vec<_> = (0..4).map(|n| bench.call(n, Do::Answer)).collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let short = BackendUpdate::default().num_replicas(1).graceful_shutdown_timeout(Duration::from_millis(20));
    bench.stage.serve().update_backend_config("b", short).await.unwrap();
    let results: HashSet<_> =
        futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.len(), 4);
    bench.end().await;
}
