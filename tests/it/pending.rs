//! What is told and done while a replica starts, restarts or has gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::Poll,
    time::Duration,
};

use actix::{Actor, AsyncContext, Handler, Message};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, ReplicaContext, RestartPolicy, Serve, ServeError,
    ServeOptions,
};

use crate::{
    frail::{Do, Future, Watch},
    support::{MEANT, quiet_panics, until},
};

const WORKS: usize = 0;
const FAILS: usize = 1;
const IS_USELESS: usize = 2;

#[derive(Clone, Default)]
struct Factory {
    mode: Arc<AtomicUsize>,
    attempts: Arc<AtomicUsize>,
    /// Turns of the loops of all its replicas.
    turns: Arc<AtomicUsize>,
}

#[derive(Message)]
#[rtype(result = "Result<(), ServeError>")]
struct Poke {
    panic: bool,
}

struct Fickle(Arc<AtomicUsize>);
impl Actor for Fickle {
    type Context = ReplicaContext<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        let turns = Arc::clone(&self.0);
        let each_turn = std::future::poll_fn(move |_| {
            turns.fetch_add(1, SeqCst);
            Poll::<()>::Pending
        });
        ctx.spawn(actix::fut::wrap_future(each_turn));
    }
}
impl Handler<Poke> for Fickle {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, poke: Poke, _: &mut Self::Context) -> Self::Result {
        assert!(!poke.panic, "{MEANT}");
        Ok(())
    }
}

impl Factory {
    fn backend(&self) -> Backend<Fickle> {
        let own = self.clone();
        Backend::new(move |_| {
            own.attempts.fetch_add(1, SeqCst);
            match own.mode.load(SeqCst) {
                WORKS => Ok(Fickle(Arc::clone(&own.turns))),
                FAILS => Err("not now".into()),
                _ => Err(ServeError::invalid("file", "it is not there").into()),
            }
        })
        .handles::<Poke>()
    }
}

fn patient(backoff: Duration) -> BackendConfig {
    BackendConfig::default().restart(RestartPolicy {
        max_restarts: 10_000,
        window: Duration::from_secs(1),
        backoff,
    })
}

async fn here() -> Serve {
    quiet_panics();
    Serve::start(ServeOptions::default().current_thread()).await.unwrap()
}

fn replicas(serve: &Serve) -> usize {
    serve.status().backends.first().map_or(0, |backend| backend.replicas.len())
}

#[actix_web::test]
async fn an_update_does_not_end_the_wait_for_a_creation() {
    let (serve, factory) = (here().await, Factory::default());
    factory.mode.store(FAILS, SeqCst);
    let create = serve.create_backend("b", factory.backend(), patient(Duration::from_millis(1)));
    let meanwhile = async {
        until("it fails to start", || factory.attempts.load(SeqCst) > 0).await;
        let refused = serve.update_backend_config("b", BackendUpdate::default().num_replicas(2)).await;
        assert_eq!(refused.unwrap_err().code(), "invalid");
        factory.mode.store(IS_USELESS, SeqCst);
    };
    let (created, ()) = tokio::join!(create, meanwhile);
    assert!(matches!(created, Err(ServeError::StartFailed { .. })), "{created:?}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_failed_update_goes_back_to_the_options_before_those_it_joined() {
    let (serve, factory) = (here().await, Factory::default());
    serve.create_backend("b", factory.backend(), patient(Duration::from_millis(1))).await.unwrap();
    factory.mode.store(FAILS, SeqCst);
    let confirmed = serve.get_backend_config("b").unwrap();
    let update = |n| serve.update_backend_config("b", BackendUpdate::default().num_replicas(n));
    let second = async {
        until("the first is under way", || replicas(&serve) == 2).await;
        let fail = async {
            until("the second is under way", || replicas(&serve) == 3).await;
            factory.mode.store(IS_USELESS, SeqCst);
        };
        tokio::join!(update(3), fail).0
    };
    let (first, second) = tokio::join!(update(2), second);
    assert!(matches!(first, Err(ServeError::StartFailed { .. })), "{first:?}");
    assert!(matches!(second, Err(ServeError::StartFailed { .. })), "{second:?}");
    assert_eq!(serve.get_backend_config("b"), Ok(confirmed));
    until("the one replica is left", || replicas(&serve) == 1).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_factory_that_says_invalid_is_not_tried_again() {
    let (serve, factory) = (here().await, Factory::default());
    factory.mode.store(IS_USELESS, SeqCst);
    let created = serve.create_backend("b", factory.backend(), BackendConfig::default()).await;
    assert!(created.unwrap_err().to_string().contains("it is not there"));
    assert_eq!(factory.attempts.load(SeqCst), 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn calls_pass_by_a_replica_that_pauses_before_its_next_start() {
    let (serve, factory) = (here().await, Factory::default());
    let config = patient(Duration::from_secs(10)).num_replicas(2);
    serve.create_backend("b", factory.backend(), config).await.unwrap();
    serve.create_endpoint("b", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle::<Poke>("b").unwrap();
    factory.mode.store(FAILS, SeqCst);
    assert!(matches!(handle.call(Poke { panic: true }).await, Err(ServeError::Panicked { .. })));
    until("its restart failed", || factory.attempts.load(SeqCst) == 3).await;
    for _ in 0..30 {
        let call = tokio::time::timeout(Duration::from_secs(2), handle.call(Poke { panic: false }));
        assert_eq!(call.await, Ok(Ok(())));
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_direct_call_that_leaves_nothing_behind_does_not_turn_the_loop() {
    let (serve, factory) = (here().await, Factory::default());
    serve.create_backend("b", factory.backend(), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("b", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle::<Poke>("b").unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let before = factory.turns.load(SeqCst);
    for _ in 0..20 {
        handle.call(Poke { panic: false }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let turns = factory.turns.load(SeqCst) - before;
    assert!(turns < 10, "{turns} turns for 20 calls");
    serve.shutdown().await.unwrap();
}

/// A Serve whose one lent thread serves while `serves` runs there and then ends.
async fn lent(serves: impl FnOnce() + Send + 'static, in_turn: bool) -> (Serve, std::thread::JoinHandle<()>) {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
    let (lent, is_lent) = mpsc::channel();
    let host = std::thread::spawn({
        let serve = serve.clone();
        move || {
            actix_web::rt::System::new().block_on(async move {
                serve.lend_current_thread();
                lent.send(()).unwrap();
                if in_turn {
                    tokio::task::spawn_blocking(serves).await.unwrap();
                } else {
                    serves();
                }
            });
        }
    });
    is_lent.recv().unwrap();
    (serve, host)
}

#[actix_web::test]
async fn a_start_that_its_thread_never_came_to_is_told_at_once() {
    let (end, ended) = mpsc::channel::<()>();
    let (serve, host) = lent(move || while ended.recv().is_ok() {}, false).await;
    let factory = Factory::default();
    let create = serve.create_backend("b", factory.backend(), BackendConfig::default());
    let meanwhile = async {
        until("the start waits", || replicas(&serve) == 1).await;
        drop(end);
    };
    let both = async { tokio::join!(create, meanwhile).0 };
    let created =
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("long before its time-out");
    assert!(created.unwrap_err().to_string().contains("its thread ended"));
    assert_eq!(factory.attempts.load(SeqCst), 0);
    host.join().unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_call_that_never_began_and_has_no_sibling_may_be_sent_again() {
    let (end, ended) = mpsc::channel::<()>();
    let (serve, host) = lent(move || while ended.recv().is_ok() {}, true).await;
    let watch = Watch::new();
    let config = BackendConfig::default().max_concurrent_queries(1);
    serve.create_backend("frail", watch.backend(), config).await.unwrap();
    serve.create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    let handle = serve.handle::<Future>("frail").unwrap();
    let running = handle.call(Future(Do::Wait));
    until("it runs", || watch.barrier.inside() == 1).await;
    let waiting = handle.call(Future(Do::Answer));
    drop(end);
    assert_eq!(running.await, Err(ServeError::Stopped));
    let told = waiting.await.unwrap_err();
    assert!(matches!(told, ServeError::NoReplica { .. }) && told.retryable(), "{told:?}");
    host.join().unwrap();
    serve.shutdown().await.unwrap();
}
