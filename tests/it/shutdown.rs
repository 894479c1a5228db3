//! How a Serve ends: in order, within its time, with all its threads, and with nothing of its host's.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, Endpoint, Handle, Listen, Placement, ReplicaContext, Serve, ServeError,
    ServeOptions,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::wire::{Client, block_on, eventually, get};

/// Answers when it is let.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<u64, ServeError>")]
struct Wait {}

/// What a test sees of the backend.
#[derive(Clone)]
struct Door {
    open: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

struct Porter(Door);

impl Actor for Porter {
    type Context = ReplicaContext<Self>;
    fn stopped(&mut self, _: &mut Self::Context) {
        self.0.stopped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler<Wait> for Porter {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, _: Wait, _: &mut Self::Context) -> Self::Result {
        let Door { open, inside, .. } = self.0.clone();
        inside.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            open.acquire().await.unwrap().forget();
            Ok(7)
        })
    }
}

async fn porter(serve: &Serve, config: BackendConfig) -> (Handle<Wait>, Door) {
    let door = Door { open: Arc::new(Semaphore::new(0)), inside: Arc::default(), stopped: Arc::default() };
    let inner = door.clone();
    let backend = Backend::new(move |_| Ok(Porter(inner.clone()))).json::<Wait>();
    serve.create_backend("wait", backend, config).await.unwrap();
    serve.create_endpoint("wait", Endpoint::new("wait").route("/wait")).await.unwrap();
    (serve.handle("wait").unwrap(), door)
}

fn options() -> ServeOptions {
    crate::support::uncounted().serving_threads(NonZeroUsize::MIN)
}

async fn listen(serve: &Serve) -> SocketAddr {
    serve.listen(Listen::default().threads(NonZeroUsize::MIN)).await.unwrap()
}

/// Ids of this process's threads.
fn threads() -> BTreeSet<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[actix_web::test]
async fn with_http_what_runs_is_answered_and_then_nothing_listens() {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
    let address = listen(&serve).await;
    let (_, door) = porter(&serve, BackendConfig::default()).await;
    let mut idle = Client::connect(address).await;
    idle.request("GET", "/-/healthz", &[], "").await;
    assert_eq!(idle.answer().await.status, 200);
    let mut running = Client::connect(address).await;
    running.request("GET", "/wait", &[], "").await;
    eventually("it runs", || door.inside.load(Ordering::SeqCst) == 1).await;

    let ended = Arc::new(AtomicBool::new(false));
    let (inner, done) = (serve.clone(), Arc::clone(&ended));
    let shutdown = actix_web::rt::spawn(async move {
        let result = inner.shutdown().await;
        done.store(true, Ordering::SeqCst);
        result
    });
    // A connection that is there is told to close once the end has begun.
    idle.request("GET", "/-/readyz", &[], "").await;
    let mut unready = idle.answer().await;
    while unready.status == 200 {
        idle.request("GET", "/-/readyz", &[], "").await;
        unready = idle.answer().await;
    }
    assert_eq!(unready.code(), "not_ready");
    assert!(!ended.load(Ordering::SeqCst), "it waits for what runs");
    door.open.add_permits(1);
    let answer = running.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "7"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(running.closed().await && idle.closed().await, "no connection is left");
    let began = Instant::now();
    shutdown.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "an idle connection holds nothing up");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
    assert_eq!(door.stopped.load(Ordering::SeqCst), 1, "the actor was told");
}

#[actix_web::test]
async fn with_handles_what_runs_is_answered_and_what_comes_later_is_refused() {
    let serve = Serve::start(options()).await.unwrap();
    let (handle, door) = porter(&serve, BackendConfig::default().max_concurrent_queries(1)).await;
    let (running, waiting) = (handle.call(Wait {}), handle.call(Wait {}));
    eventually("one runs", || door.inside.load(Ordering::SeqCst) == 1).await;
    let inner = serve.clone();
    let shutdown = actix_web::rt::spawn(async move { inner.shutdown().await });
    while serve.handle::<Wait>("wait").unwrap().tell(Wait {}).is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(handle.call(Wait {}).await, Err(ServeError::ShuttingDown));
    door.open.add_permits(100);
    assert_eq!((running.await, waiting.await), (Ok(7), Ok(7)), "also the one that only waited");
    shutdown.await.unwrap().unwrap();
    assert_eq!(handle.call(Wait {}).await, Err(ServeError::ShuttingDown));
    assert_eq!(handle.tell(Wait {}), Err(ServeError::ShuttingDown));
    let again = Backend::from_fn(|_: Wait| async { Ok(1) });
    let refused = serve.create_backend("again", again, BackendConfig::default()).await;
    assert_eq!(refused, Err(ServeError::ShuttingDown));
    assert_eq!(serve.delete_endpoint("wait").await, Err(ServeError::ShuttingDown));
    assert_eq!(serve.shutdown().await, Ok(()), "a second time changes nothing");
}

#[actix_web::test]
async fn a_handler_that_never_ends_is_cut_off_after_the_shutdown_timeout() {
    let allowed = Duration::from_millis(100);
    let serve = Serve::start(options().shutdown_timeout(allowed)).await.unwrap();
    let address = listen(&serve).await;
    let (handle, door) = porter(&serve, BackendConfig::default()).await;
    let call = handle.call(Wait {});
    let mut client = Client::connect(address).await;
    client.request("GET", "/wait", &[], "").await;
    eventually("both run", || door.inside.load(Ordering::SeqCst) == 2).await;
    let began = Instant::now();
    let error = serve.shutdown().await.unwrap_err();
    assert_eq!(error, ServeError::TimedOut { what: "shutdown".into(), after: allowed });
    let took = began.elapsed();
    assert!(took >= allowed && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(call.await, Err(ServeError::Stopped));
    if let Some(answer) = client.try_answer(false).await {
        assert_eq!(answer.code(), "stopped");
    }
}

#[actix_web::test]
async fn a_caller_that_sends_half_a_request_does_not_hold_up_the_end() {
    let serve = Serve::start(options().shutdown_timeout(Duration::from_secs(1))).await.unwrap();
    let address = listen(&serve).await;
    let _door = porter(&serve, BackendConfig::default()).await;
    let (mut head, mut body) = (Client::connect(address).await, Client::connect(address).await);
    head.send("GET /wait HT").await;
    body.send("GET /wait HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\n{").await;
    // Its answer shows that the worker has read what came before it.
    assert_eq!(get(address, "/-/healthz").await.status, 200);
    let began = Instant::now();
    serve.shutdown().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// In a process of its own, since other tests start and end threads.
#[test]
fn with_or_without_a_shutdown_every_thread_ends() {
    const ALONE: &str = "GREENROOM_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "shutdown::with_or_without_a_shutdown_every_thread_ends"]).env(ALONE, "1");
        let output = again.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let before = threads();
    for orderly in [true, false, true, false] {
        block_on(async {
            let serve = Serve::start(options()).await.unwrap();
            listen(&serve).await;
            serve.listen_admin(Listen::default()).await.unwrap();
            porter(&serve, BackendConfig::default().num_replicas(2)).await;
            let own = BackendConfig::default().placement(Placement::Dedicated).num_replicas(2);
            serve.create_backend("own", Backend::from_fn(|_: Wait| async { Ok(1) }), own).await.unwrap();
            assert!(threads().len() >= before.len() + 7, "system, serving, 2 workers, 2 acceptors, 2 own");
            if orderly {
                serve.shutdown().await.unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(10);
        while threads() != before {
            assert!(Instant::now() < until, "orderly: {orderly}; {:?} then {:?}", before, threads());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

#[actix_web::test]
async fn dropped_without_a_shutdown_it_listens_no_more_and_calls_are_refused() {
    let serve = Serve::start(options()).await.unwrap();
    let address = listen(&serve).await;
    let (handle, door) = porter(&serve, BackendConfig::default()).await;
    let call = handle.call(Wait {});
    eventually("it runs", || door.inside.load(Ordering::SeqCst) == 1).await;
    drop(serve);
    assert_eq!(call.await, Err(ServeError::Stopped));
    assert_eq!(handle.call(Wait {}).await, Err(ServeError::ShuttingDown));
    eventually("nobody listens", || std::net::TcpStream::connect(address).is_err()).await;
}

/// An actor of the host's own.
struct Own;

impl Actor for Own {
    type Context = actix::Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u8")]
struct Ping;

impl Handler<Ping> for Own {
    type Result = u8;
    fn handle(&mut self, _: Ping, _: &mut Self::Context) -> u8 {
        1
    }
}

#[actix_web::test]
async fn a_host_s_system_and_its_actors_go_on() {
    let (own, elsewhere) = (Own.start(), actix::Arbiter::new());
    for orderly in [true, false] {
        // Replicas on the host's own thread as well.
        let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
        serve.lend_current_thread();
        let (handle, door) = porter(&serve, BackendConfig::default()).await;
        door.open.add_permits(1);
        assert_eq!(handle.call(Wait {}).await, Ok(7));
        if orderly {
            serve.shutdown().await.unwrap();
        }
        drop(serve);
        let (weak, open) = (Arc::downgrade(&door.open), door.open.clone());
        drop((door, open));
        eventually("nothing of it is left on the host's thread", || weak.strong_count() == 0).await;
    }
    assert_eq!(own.send(Ping).await, Ok(1));
    assert!(elsewhere.spawn(async {}), "its arbiters too");
    assert!(actix::System::try_current().is_some());
    elsewhere.stop();
}

#[actix_web::test]
async fn on_one_thread_in_paused_time_the_end_is_bounded_too() {
    tokio::time::pause();
    let allowed = Duration::from_secs(60);
    let serve =
        Serve::start(ServeOptions::default().current_thread().shutdown_timeout(allowed)).await.unwrap();
    let (handle, _door) = porter(&serve, BackendConfig::default()).await;
    let call = handle.call(Wait {});
    let (real, paused) = (Instant::now(), tokio::time::Instant::now());
    assert_eq!(serve.shutdown().await.unwrap_err().code(), "timed_out");
    assert!(paused.elapsed() >= allowed && real.elapsed() < Duration::from_secs(30), "{:?}", real.elapsed());
    assert_eq!(call.await, Err(ServeError::Stopped));
}
