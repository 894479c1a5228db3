//! Callers that leave: what has not begun never does, what runs ends, and the counters go back to zero.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, Batch, Endpoint, Handle, ReplicaContext, Request, Serve, ServeError,
    ServeOptions, testing::Stage,
};

use crate::{
    frail::{ActFuture, Atomic, Do, Future, Sync, Watch},
    support::{Barrier, metric, until},
};

const CALLS: usize = 10_000;

fn gauges(serve: &Serve, backend: &str) -> (u64, u64) {
    let labels = format!("backend=\"{backend}\",replica=\"0\"");
    let read = |name| metric(serve, name, &labels);
    (read("serve_replica_processing_queries"), read("serve_replica_queued_queries"))
}

/// 10,000 callers leave; `running` of their handlers had begun.
async fn all_leave<M: Request<Response = u64>>(serve: &Serve, make: fn(Do) -> M, running: usize) {
    let watch = Watch::new();
    let config = BackendConfig::default().max_concurrent_queries(5_000).max_queued_queries(5_000);
    serve.create_backend("frail", watch.backend(), config).await.unwrap();
    serve.create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    let handle: Handle<M> = serve.handle("frail").unwrap();
    let calls: Vec<_> = (0..CALLS).map(|_| handle.call(make(Do::Wait))).collect();
    until("the handlers run", || watch.barrier.inside() == running as u64).await;
    until("the gauges tell", || gauges(serve, "frail") == (5_000, 5_000) || running == 1).await;
    // The queued ones first: a running one that ends makes room for the next, whose caller may still be here.
    calls.into_iter().rev().for_each(drop);
    let left = Instant::now();
    until("nothing runs", || watch.barrier.inside() == 0 && gauges(serve, "frail") == (0, 0)).await;
    let took = left.elapsed();
    println!("all had ended after {took:?}");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert_eq!(watch.barrier.began(), running as u64, "what had not begun never did");
    // It takes calls as before.
    let sync: Handle<Sync> = serve.handle("frail").unwrap();
    assert_eq!(sync.call(Sync(Do::Answer)).await, Ok(running as u64 + 1));
}

#[actix_web::test]
async fn ten_thousand_callers_that_leave_end_their_response_futures() {
    let stage = Stage::new().await.unwrap();
    all_leave(stage.serve(), Future, 5_000).await;
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn ten_thousand_callers_that_leave_end_their_response_act_futures() {
    let stage = Stage::new().await.unwrap();
    all_leave(stage.serve(), ActFuture, 5_000).await;
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn ten_thousand_callers_that_leave_end_the_one_atomic_response_that_runs() {
    let stage = Stage::new().await.unwrap();
    all_leave(stage.serve(), Atomic, 1).await;
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn callers_of_another_thread_end_their_handlers_as_well() {
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(1.try_into().unwrap())).await.unwrap();
    all_leave(&serve, Future, 5_000).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_call_in_the_queue_never_begins_once_its_caller_has_left() {
    let stage = Stage::new().await.unwrap();
    let watch = Watch::new();
    let config = BackendConfig::default().max_concurrent_queries(1).max_queued_queries(CALLS);
    stage.serve().create_backend("frail", watch.backend(), config).await.unwrap();
    stage.serve().create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    let (first, sync) =
        (stage.serve().handle::<Future>("frail").unwrap(), stage.serve().handle("frail").unwrap());
    let running = first.call(Future(Do::Wait));
    let queued: Vec<_> = (1..CALLS).map(|_| sync.call(Sync(Do::Answer))).collect();
    let stays = sync.call(Sync(Do::Answer));
    drop(queued);
    watch.barrier.release(1);
    assert_eq!(running.await, Ok(1));
    assert_eq!(stays.await, Ok(2), "no handler ran in between");
    assert_eq!(gauges(stage.serve(), "frail"), (0, 0));
    stage.end().await.unwrap();
}

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Pass;

/// Hands every call on to the next endpoint.
struct Relay {
    next: Handle<Pass>,
    inside: Arc<AtomicU64>,
}

impl Actor for Relay {
    type Context = ReplicaContext<Self>;
}

struct Inside(Arc<AtomicU64>);
impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Handler<Pass> for Relay {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, msg: Pass, _: &mut Self::Context) -> Self::Result {
        self.inside.fetch_add(1, SeqCst);
        let (inside, answer) = (Inside(Arc::clone(&self.inside)), self.next.call(msg));
        Box::pin(async move {
            let _inside = inside;
            answer.await
        })
    }
}

#[actix_web::test]
async fn the_children_of_a_composed_call_end_when_the_outermost_caller_leaves() {
    for options in [
        ServeOptions::default().current_thread(),
        crate::support::uncounted().serving_threads(2.try_into().unwrap()),
    ] {
        let serve = Serve::start(options).await.unwrap();
        let (inside, barrier) = (Arc::<AtomicU64>::default(), Barrier::new());
        for (name, next) in [("gateway", "a"), ("a", "b")] {
            let inside = Arc::clone(&inside);
            let backend =
                Backend::new(move |ctx| Ok(Relay { next: ctx.handle(next)?, inside: Arc::clone(&inside) }));
            serve.create_backend(name, backend.handles::<Pass>(), BackendConfig::default()).await.unwrap();
            serve.create_endpoint(name, Endpoint::new(name)).await.unwrap();
        }
        let last = barrier.clone();
        let last = Backend::from_fn(move |_: Pass| {
            let pass = last.pass();
            async move {
                pass.await;
                Ok(0)
            }
        });
        serve.create_backend("b", last, BackendConfig::default()).await.unwrap();
        serve.create_endpoint("b", Endpoint::new("b")).await.unwrap();
        let gateway = serve.handle::<Pass>("gateway").unwrap();
        let calls: Vec<_> = (0..50).map(|_| gateway.call(Pass)).collect();
        until("all wait in b", || barrier.inside() == 50 && inside.load(SeqCst) == 100).await;
        drop(calls);
        until("all have ended", || barrier.inside() == 0 && inside.load(SeqCst) == 0).await;
        for name in ["gateway", "a", "b"] {
            until("the gauges", || gauges(&serve, name) == (0, 0)).await;
        }
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn a_call_that_was_told_runs_to_its_end_although_nobody_waits() {
    let stage = Stage::new().await.unwrap();
    let watch = Watch::new();
    stage.serve().create_backend("frail", watch.backend(), BackendConfig::default()).await.unwrap();
    stage.serve().create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    stage.serve().handle::<Future>("frail").unwrap().tell(Future(Do::Wait)).unwrap();
    stage.serve().handle::<ActFuture>("frail").unwrap().tell(ActFuture(Do::Wait)).unwrap();
    until("both run", || watch.barrier.inside() == 2).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(watch.barrier.inside(), 2);
    watch.barrier.release(2);
    until("both ended", || gauges(stage.serve(), "frail") == (0, 0)).await;
    let answered = metric(stage.serve(), "serve_backend_request_counter_total", "backend=\"frail\"");
    assert_eq!(answered, 2, "they ended and were not dropped");
    stage.end().await.unwrap();
}

/// Holds its batch until nobody waits for it.
struct Holder(Barrier);

impl Actor for Holder {
    type Context = ReplicaContext<Self>;
}

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Hold;

impl Handler<Batch<Hold>> for Holder {
    type Result = ResponseFuture<Result<Vec<Result<u64, ServeError>>, ServeError>>;
    fn handle(&mut self, _: Batch<Hold>, _: &mut Self::Context) -> Self::Result {
        let never = self.0.pass();
        Box::pin(async move {
            never.await;
            Ok(Vec::new())
        })
    }
}

#[actix_web::test]
async fn a_batch_ends_with_the_last_of_its_callers() {
    let stage = Stage::new().await.unwrap();
    let barrier = Barrier::new();
    let held = barrier.clone();
    let backend = Backend::new(move |_| Ok(Holder(held.clone()))).batched::<Hold>();
    let config = BackendConfig::default().max_batch_size(2);
    let handle: Handle<Hold> = stage.replicas("hold", backend, config).await.unwrap();
    let (first, second) = (handle.call(Hold), handle.call(Hold));
    until("the batch runs", || barrier.inside() == 1).await;
    drop(first);
    until("the calls are counted", || gauges(stage.serve(), "hold") == (2, 0)).await;
    assert_eq!(barrier.inside(), 1, "one caller still waits");
    drop(second);
    until("nothing runs", || barrier.inside() == 0 && gauges(stage.serve(), "hold") == (0, 0)).await;
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn callers_that_have_left_hold_no_place_although_nothing_ends() {
    let stage = Stage::new().await.unwrap();
    for batched in [false, true] {
        let barrier = Barrier::new();
        let held = barrier.clone();
        let backend = Backend::new(move |_| Ok(Holder(held.clone()))).batched::<Hold>();
        let config = BackendConfig::default().max_concurrent_queries(1).max_queued_queries(3);
        let config = if batched { config.max_batch_size(1) } else { config };
        let name = format!("hold{batched}");
        let handle: Handle<Hold> = stage.replicas(&name, backend, config).await.unwrap();
        let _runs = handle.call(Hold);
        until("one runs", || barrier.inside() == 1).await;
        let waiting: Vec<_> = (0..3).map(|_| handle.call(Hold)).collect();
        assert!(matches!(handle.call(Hold).await, Err(ServeError::Overloaded { .. })));
        // Until the Batcher has taken them out of its lane, where a glance at each would do.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        drop(waiting);
        #[expect(clippy::async_yields_async, reason = "the call that waits is wanted, not its answer")]
        let next = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                let mut next = Box::pin(handle.call(Hold));
                tokio::select! {
                    biased;
                    refused = &mut next => assert!(matches!(refused, Err(ServeError::Overloaded { .. }))),
                    () = tokio::time::sleep(Duration::from_millis(2)) => return next,
                }
            }
        });
        assert!(next.await.is_ok(), "a caller that waits is let in, batched: {batched}");
    }
    stage.end().await.unwrap();
}
