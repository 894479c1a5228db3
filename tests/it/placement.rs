//! On which thread a replica runs, and what a call on the same thread may do at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use actix::{Actor, Handler, Message, ResponseFuture};
use futures_util::FutureExt;
use greenroom::{
    Backend, BackendConfig, Endpoint, Handle, Placement, ReplicaContext, Serve, ServeError, testing::Stage,
};
use tokio::task::coop::unconstrained;

#[derive(Message)]
#[rtype(result = "Result<ThreadId, ServeError>")]
struct Where;
#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Light(u64);
#[derive(Message)]
#[rtype(result = "Result<(), ServeError>")]
struct Burn(Duration);

struct Worker;
impl Actor for Worker {
    type Context = ReplicaContext<Self>;
}
impl Handler<Where> for Worker {
    type Result = Result<ThreadId, ServeError>;
    fn handle(&mut self, _: Where, _: &mut Self::Context) -> Self::Result {
        Ok(thread::current().id())
    }
}
impl Handler<Light> for Worker {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Light(n): Light, _: &mut Self::Context) -> Self::Result {
        Ok(n)
    }
}
impl Handler<Burn> for Worker {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Burn(time): Burn, _: &mut Self::Context) -> Self::Result {
        let begun = Instant::now();
        while begun.elapsed() < time {
            std::hint::spin_loop();
        }
        Ok(())
    }
}

fn worker() -> Backend<Worker> {
    Backend::new(|_| Ok(Worker)).handles::<Where>().handles::<Light>().handles::<Burn>()
}

async fn add(serve: &Serve, name: &str, backend: Backend<Worker>, config: BackendConfig) {
    serve.create_backend(name, backend, config).await.unwrap();
    serve.create_endpoint(name, Endpoint::new(name)).await.unwrap();
}

async fn one_thread() -> Serve {
    Serve::start(crate::support::uncounted().serving_threads(1.try_into().unwrap())).await.unwrap()
}

#[actix_web::test]
async fn workers_share_the_serving_threads_and_dedicated_replicas_have_their_own() {
    let serve = one_thread().await;
    let dedicated = BackendConfig::default().placement(Placement::Dedicated);
    add(&serve, "a", worker(), BackendConfig::default()).await;
    add(&serve, "b", worker(), BackendConfig::default()).await;
    add(&serve, "c", worker(), dedicated).await;
    add(&serve, "d", worker().compute(), BackendConfig::default()).await;
    add(&serve, "e", worker().compute(), BackendConfig::default().placement(Placement::Worker)).await;
    let mut threads = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        threads.push(serve.handle::<Where>(name).unwrap().call(Where).await.unwrap());
    }
    let [a, b, c, d, e] = threads[..] else { panic!() };
    assert_eq!([a, a], [b, e]);
    assert!(c != a && d != a && c != d && !threads.contains(&thread::current().id()));
    serve.shutdown().await.unwrap();
}

/// p90 of light requests, 200 a second, beside a replica that computes 20 ms at a time without pause.
async fn light_p90(hog: Option<Placement>) -> Duration {
    let serve = one_thread().await;
    add(&serve, "light", worker(), BackendConfig::default()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut hogging = None;
    if let Some(placement) = hog {
        add(&serve, "hog", worker(), BackendConfig::default().placement(placement)).await;
        let (hog, stop) = (serve.handle::<Burn>("hog").unwrap(), Arc::clone(&stop));
        hogging = Some(actix_web::rt::spawn(async move {
            while !stop.load(SeqCst) {
                hog.call(Burn(Duration::from_millis(20))).await.unwrap();
            }
        }));
    }
    let handle = serve.handle::<Light>("light").unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..200 {
        ticks.tick().await;
        let handle = handle.clone();
        calls.spawn_local(async move {
            let begun = Instant::now();
            assert_eq!(handle.call(Light(n)).await, Ok(n));
            begun.elapsed()
        });
    }
    let mut times = calls.join_all().await;
    stop.store(true, SeqCst);
    if let Some(hogging) = hogging {
        hogging.await.unwrap();
    }
    serve.shutdown().await.unwrap();
    times.sort_unstable();
    // What the machine does beside us falls on few of them, a hog on the same thread on all.
    times[times.len() * 9 / 10]
}

#[actix_web::test]
async fn a_replica_that_computes_holds_up_light_requests_only_on_their_own_thread() {
    let alone = light_p90(None).await;
    let beside = light_p90(Some(Placement::Dedicated)).await;
    let control = light_p90(Some(Placement::Worker)).await;
    println!("p90 of light requests: alone {alone:?}, beside {beside:?}, on the same thread {control:?}");
    assert!(beside <= alone + Duration::from_millis(10), "{beside:?} against {alone:?}");
    assert!(control > alone + Duration::from_millis(10), "the measurement must see a hog: {control:?}");
}

#[actix_web::test]
async fn a_call_on_the_same_thread_to_an_idle_replica_is_answered_at_once() {
    let stage = Stage::new().await.unwrap();
    let handle: Handle<Light> = stage.replica("light", worker()).await.unwrap();
    for n in 0..1000 {
        assert_eq!(unconstrained(handle.call(Light(n))).now_or_never(), Some(Ok(n)));
    }
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_loop_of_answers_at_once_does_not_starve_a_timer() {
    let stage = Stage::new().await.unwrap();
    let handle: Handle<Light> = stage.replica("light", worker()).await.unwrap();
    let fired = Arc::new(AtomicBool::new(false));
    let timer = actix_web::rt::spawn({
        let fired = Arc::clone(&fired);
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            fired.store(true, SeqCst);
        }
    });
    let begun = Instant::now();
    while !fired.load(SeqCst) {
        handle.call(Light(1)).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "the timer starves");
    }
    println!("a timer of 5 ms fired after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    timer.await.unwrap();
    stage.end().await.unwrap();
}

/// Answers how often it was called below, by calling itself or the next one.
#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Down(u64);

struct Nested {
    next: Handle<Down>,
}
impl Actor for Nested {
    type Context = ReplicaContext<Self>;
}
impl Handler<Down> for Nested {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, Down(n): Down, _: &mut Self::Context) -> Self::Result {
        // Sent at once: the next handler runs on this stack where it may.
        let answer = (n > 0).then(|| self.next.call(Down(n - 1)));
        Box::pin(async move {
            match answer {
                Some(answer) => Ok(1 + answer.await?),
                None => Ok(0),
            }
        })
    }
}

fn nested(next: String) -> Backend<Nested> {
    Backend::new(move |ctx| Ok(Nested { next: ctx.handle(&next)? })).handles::<Down>()
}

#[actix_web::test]
async fn a_chain_of_handlers_deeper_than_any_stack_should_be_works() {
    let stage = Stage::new().await.unwrap();
    for i in 0..40 {
        let next = format!("n{}", (i + 1) % 40);
        let _: Handle<Down> = stage.replica(&format!("n{i}"), nested(next)).await.unwrap();
    }
    let first = stage.serve().handle::<Down>("n0").unwrap();
    assert_eq!(first.call(Down(39)).await, Ok(39), "each replica once");
    assert_eq!(first.call(Down(99)).await, Ok(99), "round and round");
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_replica_that_calls_itself_queues_and_does_not_deadlock() {
    let stage = Stage::new().await.unwrap();
    let own: Handle<Down> = stage.replica("own", nested("own".into())).await.unwrap();
    let calls: Vec<_> = (0..10).map(|n| own.call(Down(n))).collect();
    for (n, call) in (0..).zip(calls) {
        assert_eq!(call.await, Ok(n));
    }
    stage.end().await.unwrap();
}

/// Sends itself three messages from one handler; they must come in that order.
struct Ordered(Handle<Light>, Arc<std::sync::Mutex<Vec<u64>>>);
impl Actor for Ordered {
    type Context = ReplicaContext<Self>;
}
impl Handler<Where> for Ordered {
    type Result = ResponseFuture<Result<ThreadId, ServeError>>;
    fn handle(&mut self, _: Where, _: &mut Self::Context) -> Self::Result {
        let calls: Vec<_> = (0..3).map(|n| self.0.call(Light(n))).collect();
        Box::pin(async move {
            for (n, call) in (0..).zip(calls) {
                assert_eq!(call.await?, n);
            }
            Ok(thread::current().id())
        })
    }
}
impl Handler<Light> for Ordered {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Light(n): Light, _: &mut Self::Context) -> Self::Result {
        self.1.lock().unwrap().push(n);
        Ok(n)
    }
}

#[actix_web::test]
async fn calls_to_the_own_replica_keep_their_order() {
    let (stage, seen) = (Stage::new().await.unwrap(), Arc::<std::sync::Mutex<Vec<u64>>>::default());
    let own = Arc::clone(&seen);
    let backend = Backend::new(move |ctx| Ok(Ordered(ctx.handle("own")?, Arc::clone(&own))));
    let handle: Handle<Where> =
        stage.replica("own", backend.handles::<Where>().handles::<Light>()).await.unwrap();
    handle.call(Where).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2]);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_call_that_could_be_answered_at_once_overtakes_none_that_waits() {
    let (stage, seen) = (Stage::new().await.unwrap(), Arc::<std::sync::Mutex<Vec<u64>>>::default());
    let own = Arc::clone(&seen);
    let backend = Backend::new(move |ctx| Ok(Ordered(ctx.handle("own")?, Arc::clone(&own))));
    let handle: Handle<Light> = stage.replica("own", backend.handles::<Light>()).await.unwrap();
    // This thread, which is the replica's, is held meanwhile: both wait in the lane.
    let other = handle.clone();
    let before = thread::spawn(move || [other.call(Light(1)), other.call(Light(2))]).join().unwrap();
    assert_eq!(handle.call(Light(3)).await, Ok(3));
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);
    drop(before);
    stage.end().await.unwrap();
}
