//! Deadlines that nobody but the runtime keeps, and how each one that was missed is counted: once.

use std::{sync::mpsc, time::Duration};

use actix::{Actor, Handler, Message, ResponseFuture};
use futures_util::FutureExt;
use greenroom::{
    Backend, BackendConfig, Batch, Endpoint, Handle, ReplicaContext, Route, Serve, ServeError, testing::Stage,
};
use tokio::time::Instant;

use crate::{
    support::{Barrier, metric, until},
    wire::{block_on, listening, post},
};

const LATE: Result<u64, ServeError> = Err(ServeError::DeadlineExceeded);

#[derive(Message, serde::Deserialize)]
#[rtype(result = "Result<u64, ServeError>")]
struct Nth(u64);

/// Waits at the barrier, alone or with a whole batch.
struct Held(Barrier);

impl Actor for Held {
    type Context = ReplicaContext<Self>;
}

impl Handler<Nth> for Held {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, Nth(n): Nth, _: &mut Self::Context) -> Self::Result {
        let pass = self.0.pass();
        Box::pin(async move {
            pass.await;
            Ok(n)
        })
    }
}

impl Handler<Batch<Nth>> for Held {
    type Result = ResponseFuture<Result<Vec<Result<u64, ServeError>>, ServeError>>;
    fn handle(&mut self, batch: Batch<Nth>, _: &mut Self::Context) -> Self::Result {
        let pass = self.0.pass();
        Box::pin(async move {
            pass.await;
            Ok(batch.into_iter().map(|Nth(n)| Ok(n)).collect())
        })
    }
}

struct Bench {
    stage: Stage,
    handle: Handle<Nth>,
    barrier: Barrier,
}

impl Bench {
    /// On this thread, with paused time.
    async fn new(config: BackendConfig) -> Self {
        let (stage, barrier) = (Stage::new().await.unwrap(), Barrier::new());
        let held = barrier.clone();
        let backend = Backend::new(move |_| Ok(Held(held.clone()))).handles::<Nth>().batched::<Nth>();
        let handle = stage.replicas("held", backend, config).await.unwrap();
        tokio::time::pause();
        Self { stage, handle, barrier }
    }

    fn hasty(&self, ms: u64) -> Handle<Nth> {
        self.handle.options().timeout(Duration::from_millis(ms))
    }

    fn load(&self) -> usize {
        self.stage.serve().status().backends[0].replicas[0].load
    }

    async fn route(&self) -> Result<u64, ServeError> {
        let route = Route { endpoint: "held".try_into().unwrap(), msg: Nth(1) };
        let sent = self.stage.serve().router().unwrap().send(route);
        tokio::time::timeout(Duration::from_secs(3), sent).await.expect("long after its deadline").unwrap()
    }

    fn counted(&self) -> (u64, u64) {
        counted(self.stage.serve())
    }

    async fn end(self) {
        until("nothing is left", || self.load() == 0).await;
        tokio::time::resume();
        self.stage.end().await.unwrap();
    }
}

/// Requests and errors of the backend.
fn counted(serve: &Serve) -> (u64, u64) {
    let of = |name| metric(serve, name, "backend=\"held\"");
    (of("serve_backend_request_counter_total"), of("serve_backend_error_counter_total"))
}

fn batched(size: usize, wait: Duration) -> BackendConfig {
    BackendConfig::default().max_batch_size(size).batch_wait_timeout(wait)
}

fn one_at_once() -> BackendConfig {
    BackendConfig::default().max_concurrent_queries(1)
}

/// Options with which a second call runs beside the first, waits for it, waits with it, or runs as a batch.
fn ways() -> [BackendConfig; 4] {
    [BackendConfig::default(), one_at_once(), batched(3, LONG), batched(3, Duration::ZERO)]
}

fn about(begun: Instant, ms: u128) -> bool {
    // Timers round up to a millisecond.
    (ms..=ms + 2).contains(&begun.elapsed().as_millis())
}

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);

#[actix_web::test]
async fn routed_and_told_calls_that_wait_for_company_end_at_their_deadline() {
    let bench = Bench::new(batched(2, LONG).request_timeout(SHORT)).await;
    let begun = Instant::now();
    assert_eq!(bench.route().await, LATE);
    assert!(about(begun, 200), "{:?}", begun.elapsed());
    bench.handle.tell(Nth(2)).unwrap();
    assert_eq!(bench.load(), 1);
    tokio::time::sleep(Duration::from_millis(203)).await;
    assert_eq!((bench.load(), bench.barrier.began()), (0, 0));
    assert_eq!(bench.counted(), (2, 2));
    bench.end().await;
}

#[actix_web::test]
async fn routed_calls_that_wait_for_room_end_at_their_deadline() {
    let config = BackendConfig::default().max_batch_size(1).max_concurrent_queries(1);
    let bench = Bench::new(config.request_timeout(SHORT)).await;
    let running = bench.handle.call(Nth(1));
    until("it runs", || bench.barrier.inside() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    let (routed, ran) = tokio::join!(bench.route(), async {
        let ran = running.await;
        // Now that it has ended, another one runs and holds the place until after the deadline.
        let next = bench.handle.call(Nth(2));
        (ran, next.await)
    });
    assert_eq!((routed, ran), (LATE, (LATE, LATE)));
    assert!(begun.elapsed() < Duration::from_millis(310));
    assert_eq!(bench.counted(), (3, 3));
    bench.end().await;
}

#[actix_web::test]
async fn a_batch_goes_on_without_those_whose_deadline_has_passed() {
    let bench = Bench::new(batched(2, LONG)).await;
    let patient = bench.handle.call(Nth(1));
    bench.hasty(100).tell(Nth(2)).unwrap();
    until("both run", || bench.barrier.inside() == 1).await;
    assert_eq!(bench.load(), 2);
    tokio::time::sleep(Duration::from_millis(103)).await;
    assert_eq!((bench.load(), bench.counted()), (1, (1, 1)), "the told one has ended");
    bench.barrier.release(1);
    assert_eq!(patient.await, Ok(1));
    assert_eq!(bench.counted(), (2, 1));
    bench.end().await;
}

#[actix_web::test]
async fn a_batch_ends_when_all_its_deadlines_have_passed() {
    let bench = Bench::new(batched(2, Duration::ZERO).request_timeout(SHORT)).await;
    let begun = Instant::now();
    assert_eq!(bench.route().await, LATE);
    assert!(about(begun, 200), "{:?}", begun.elapsed());
    assert_eq!(bench.barrier.began(), 1);
    until("its handler was dropped", || bench.barrier.inside() == 0).await;
    assert_eq!(bench.counted(), (1, 1));
    bench.end().await;
}

#[actix_web::test]
async fn a_told_call_behind_a_busy_replica_ends_at_its_deadline() {
    let bench = Bench::new(one_at_once()).await;
    let running = bench.handle.call(Nth(1));
    until("it runs", || bench.barrier.inside() == 1).await;
    for ms in [50, 20, 90] {
        bench.hasty(ms).tell(Nth(ms)).unwrap();
    }
    for (ms, left) in [(22, 3), (30, 2), (40, 1)] {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        assert_eq!(bench.load(), left);
    }
    assert_eq!(bench.counted(), (3, 3));
    bench.barrier.release(9);
    assert_eq!(running.await, Ok(1));
    assert_eq!((bench.counted(), bench.barrier.began()), ((4, 3), 1), "none of them began");
    bench.end().await;
}

#[actix_web::test]
async fn a_deadline_missed_by_what_runs_waits_or_is_gathered_counts_as_one_request_and_one_error() {
    for config in ways() {
        let bench = Bench::new(config).await;
        let first = bench.handle.call(Nth(1));
        assert_eq!(bench.hasty(100).call(Nth(2)).await, LATE);
        assert_eq!(bench.counted(), (1, 1));
        bench.barrier.release(9);
        drop(first);
        // Whatever the replica does with the rest of it.
        until("it has ended", || bench.load() == 0).await;
        assert_eq!(bench.counted(), (1, 1));
        bench.end().await;
    }
}

#[actix_web::test]
async fn a_caller_that_left_before_its_deadline_counts_no_error() {
    for config in ways() {
        let bench = Bench::new(config).await;
        let running = bench.handle.call(Nth(1));
        let mut left = bench.hasty(100).call(Nth(2));
        assert_eq!((&mut left).now_or_never(), None);
        drop(left);
        // Seen by the replica after the deadline, it is still no time-out.
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(running);
        until("they are gone", || bench.load() == 0).await;
        assert_eq!(bench.counted(), (0, 0));
        bench.end().await;
    }
}

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Block(mpsc::Receiver<()>);

/// Stops its thread until told.
struct Blocker;
impl Actor for Blocker {
    type Context = ReplicaContext<Self>;
}
impl Handler<Block> for Blocker {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Block(until): Block, _: &mut Self::Context) -> Self::Result {
        let _ = until.recv();
        Ok(1)
    }
}

/// As [`Block`], while its future is polled.
#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct BlockLater(mpsc::Receiver<()>);

impl Handler<BlockLater> for Blocker {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, BlockLater(until): BlockLater, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let _ = until.recv();
            Ok(1)
        })
    }
}

async fn blocker() -> (Serve, Handle<Block>) {
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(1.try_into().unwrap())).await.unwrap();
    let backend = Backend::new(|_| Ok(Blocker)).handles::<Block>().handles::<BlockLater>();
    serve.create_backend("held", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("held", Endpoint::new("held")).await.unwrap();
    let handle = serve.handle("held").unwrap();
    (serve, handle)
}

#[actix_web::test]
async fn a_sync_handler_that_overran_is_counted_once() {
    let (serve, handle) = blocker().await;
    let handle = handle.options().timeout(Duration::from_millis(20));
    let (release, blocked) = mpsc::channel();
    assert_eq!(handle.call(Block(blocked)).await, LATE);
    assert_eq!(counted(&serve), (1, 1), "while it still hangs there");
    drop(release);
    until("it has ended", || serve.status().backends[0].replicas[0].load == 0).await;
    assert_eq!(counted(&serve), (1, 1));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_future_whose_poll_overran_is_counted_once() {
    let (serve, _) = blocker().await;
    let handle = serve.handle::<BlockLater>("held").unwrap().options().timeout(Duration::from_millis(20));
    let (release, blocked) = mpsc::channel();
    assert_eq!(handle.call(BlockLater(blocked)).await, LATE);
    drop(release);
    until("it has ended", || serve.status().backends[0].replicas[0].load == 0).await;
    assert_eq!(counted(&serve), (1, 1));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_time_out_over_http_is_counted_once() {
    let (serve, address) = listening(1).await;
    let barrier = Barrier::new();
    let held = barrier.clone();
    let backend = Backend::new(move |_| Ok(Held(held.clone()))).json::<Nth>();
    let config = BackendConfig::default().request_timeout(Duration::from_millis(20));
    serve.create_backend("held", backend, config).await.unwrap();
    serve.create_endpoint("held", Endpoint::new("held").route("/held").methods(["POST"])).await.unwrap();
    assert_eq!(post(address, "/held", "1").await.status, 504);
    until("its handler was dropped", || barrier.inside() == 0).await;
    assert_eq!(counted(&serve), (1, 1));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_caller_without_a_runtime_is_told_when_its_serve_goes_while_it_waits() {
    let (serve, handle) = blocker().await;
    let handle = handle.options().timeout(Duration::from_secs(100));
    let (release, blocked) = mpsc::channel();
    let caller = std::thread::spawn(move || block_on(handle.call(Block(blocked))));
    until("it runs", || serve.status().backends[0].replicas[0].load == 1).await;
    drop(serve);
    until("the caller has been told", || caller.is_finished()).await;
    assert_eq!(caller.join().unwrap(), Err(ServeError::ShuttingDown));
    drop(release);
}

#[actix_web::test]
async fn callers_without_a_runtime_are_answered_at_their_deadline_or_before() {
    let (serve, handle) = blocker().await;
    let (release, blocked) = mpsc::channel();
    let hasty = handle.options().timeout(Duration::from_millis(20));
    let caller = std::thread::spawn(move || {
        let late = block_on(hasty.call(Block(blocked)));
        release.send(()).unwrap();
        let (go, first) = mpsc::channel();
        go.send(()).unwrap();
        (late, block_on(handle.options().timeout(Duration::from_secs(100)).call(Block(first))))
    });
    until("both are answered", || caller.is_finished()).await;
    assert_eq!(caller.join().unwrap(), (LATE, Ok(1)));
    serve.shutdown().await.unwrap();
}
