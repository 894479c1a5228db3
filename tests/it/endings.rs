//! How replicas end: drained, forced, given up, with their thread; and what becomes of their calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, ReplicaContext, ReplicaState, RestartPolicy, Serve,
    ServeError, ServeOptions,
};

use crate::{
    frail::{ActFuture, Atomic, Do, Future, Sync, Watch},
    support::{MEANT, metric, quiet_panics, until},
};

pub async fn frail(options: ServeOptions, config: BackendConfig) -> (Serve, Watch) {
    quiet_panics();
    let (serve, watch) = (Serve::start(options).await.unwrap(), Watch::new());
    serve.create_backend("frail", watch.backend(), config).await.unwrap();
    serve.create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    (serve, watch)
}

pub fn here() -> ServeOptions {
    ServeOptions::default().current_thread()
}

fn replicas(n: u32) -> BackendUpdate {
    BackendUpdate::default().num_replicas(n)
}

#[actix_web::test]
async fn nothing_else_is_handled_during_an_atomic_response() {
    let (serve, watch) = frail(here(), BackendConfig::default()).await;
    let atomic = serve.handle::<Atomic>("frail").unwrap().call(Atomic(Do::Wait));
    let mut other = serve.handle::<Sync>("frail").unwrap().call(Sync(Do::Answer));
    until("it runs", || watch.barrier.inside() == 1).await;
    let waited = tokio::time::timeout(Duration::from_millis(20), &mut other).await;
    assert!(waited.is_err(), "it was handled meanwhile");
    watch.barrier.release(1);
    assert_eq!(atomic.await, Ok(1));
    assert_eq!(other.await, Ok(2));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_drain_finishes_what_runs_and_what_waits() {
    let (serve, watch) = frail(here(), BackendConfig::default().max_concurrent_queries(2)).await;
    let handle = serve.handle::<ActFuture>("frail").unwrap();
    let calls: Vec<_> = (0..6).map(|_| handle.call(ActFuture(Do::Wait))).collect();
    until("two run", || watch.barrier.inside() == 2).await;
    let release = async {
        until("it drains", || serve.status().backends[0].replicas[0].state == ReplicaState::Draining).await;
        assert!(matches!(handle.call(ActFuture(Do::Answer)).await, Err(ServeError::NoReplica { .. })));
        watch.barrier.release(6);
    };
    let (updated, ()) = tokio::join!(serve.update_backend_config("frail", replicas(0)), release);
    updated.unwrap();
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(watch.barrier.began(), 6);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_forced_stop_tells_what_runs_and_sends_what_waits_to_a_sibling() {
    let config = BackendConfig::default()
        .max_concurrent_queries(1)
        .num_replicas(2)
        .graceful_shutdown_timeout(Duration::from_millis(20));
    let (serve, watch) = frail(here(), config).await;
    let handle = serve.handle::<Future>("frail").unwrap();
    let running = [handle.call(Future(Do::Wait)), handle.call(Future(Do::Wait))];
    let waiting: Vec<_> = (0..10).map(|_| handle.call(Future(Do::Answer))).collect();
    serve.update_backend_config("frail", replicas(1)).await.unwrap();
    watch.barrier.release(2);
    let results = futures_util::future::join_all(running).await;
    assert_eq!(results.iter().filter(|r| **r == Err(ServeError::Stopped)).count(), 1, "{results:?}");
    for result in futures_util::future::join_all(waiting).await {
        assert!(result.is_ok(), "{result:?}");
    }
    serve.shutdown().await.unwrap();
}

#[derive(Message)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Hang(mpsc::Receiver<()>);
pub struct Hanger;
impl Actor for Hanger {
    type Context = ReplicaContext<Self>;
}
impl Handler<Hang> for Hanger {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Hang(until): Hang, _: &mut Self::Context) -> Self::Result {
        let _ = until.recv();
        Ok(())
    }
}

#[actix_web::test]
async fn what_waits_behind_a_handler_that_hangs_is_let_go_by_force() {
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(1.try_into().unwrap())).await.unwrap();
    let backend = Backend::new(|_| Ok(Hanger)).handles::<Hang>().compute();
    serve.create_backend("hanger", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("hanger", Endpoint::new("hanger")).await.unwrap();
    let handle = serve.handle::<Hang>("hanger").unwrap();
    let ((release, hang), (_free, behind)) = (mpsc::channel(), mpsc::channel());
    let (hangs, behind) = (handle.call(Hang(hang)), handle.call(Hang(behind)));
    serve.delete_endpoint("hanger").await.unwrap();
    serve.delete_backend("hanger", true).await.unwrap();
    assert!(matches!(behind.await, Err(ServeError::NoReplica { .. })), "it never began");
    drop(release);
    assert_eq!(hangs.await, Ok(()));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn scaling_up_and_down_under_load_loses_nothing() {
    let (serve, _) =
        frail(crate::support::uncounted().serving_threads(2.try_into().unwrap()), BackendConfig::default())
            .await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|i| {
            let (stop, serve) = (Arc::clone(&stop), serve.clone());
            actix_web::rt::spawn(async move {
                let what = if i % 2 == 0 { Do::Yield } else { Do::Answer };
                while !stop.load(SeqCst) {
                    let result = match i % 3 {
                        0 => serve.handle::<Sync>("frail").unwrap().call(Sync(Do::Answer)).await,
                        1 => serve.handle::<Future>("frail").unwrap().call(Future(what)).await,
                        _ => serve.handle::<ActFuture>("frail").unwrap().call(ActFuture(what)).await,
                    };
                    assert!(result.is_ok(), "{result:?}");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..5 {
        serve.update_backend_config("frail", replicas(4)).await.unwrap();
        assert_eq!(serve.status().backends[0].replicas.len(), 4);
        serve.update_backend_config("frail", replicas(1)).await.unwrap();
        assert_eq!(serve.status().backends[0].replicas.len(), 1);
    }
    stop.store(true, SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_replica_that_gives_up_is_replaced_and_its_waiting_calls_go_elsewhere() {
    let once = RestartPolicy { max_restarts: 0, ..RestartPolicy::default() };
    let config = BackendConfig::default().num_replicas(2).max_concurrent_queries(1).restart(once);
    let (serve, watch) = frail(here(), config).await;
    let (wait, sync) = (serve.handle::<Future>("frail").unwrap(), serve.handle::<Sync>("frail").unwrap());
    let running = [wait.call(Future(Do::Wait)), wait.call(Future(Do::Wait))];
    let poison = sync.call(Sync(Do::Panic));
    let waiting: Vec<_> = (0..10).map(|_| sync.call(Sync(Do::Answer))).collect();
    watch.fail_factory.store(1, SeqCst);
    watch.barrier.release(2);
    for call in running {
        assert!(call.await.is_ok());
    }
    match poison.await {
        Err(ServeError::Panicked { message }) => assert!(message.contains(MEANT)),
        other => panic!("{other:?}"),
    }
    for result in futures_util::future::join_all(waiting).await {
        assert!(result.is_ok(), "{result:?}");
    }
    until("it is replaced", || {
        let status = serve.status();
        let replicas = &status.backends[0].replicas;
        replicas.len() == 2
            && replicas.iter().all(|r| r.state == ReplicaState::Running && r.id.generation <= 3)
    })
    .await;
    assert_eq!(watch.births.load(SeqCst), 3);
    let restarts = |slot| {
        metric(&serve, "serve_replica_restarts_total", &format!("backend=\"frail\",replica=\"{slot}\""))
    };
    assert_eq!(restarts(0) + restarts(1), 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_replicas_of_a_host_thread_that_ended_are_replaced_elsewhere() {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
    serve.lend_current_thread();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let (lent, is_lent) = mpsc::channel();
    let host = std::thread::spawn({
        let serve = serve.clone();
        move || {
            actix_web::rt::System::new().block_on(async {
                serve.lend_current_thread();
                lent.send(()).unwrap();
                let _ = ended.await;
            });
        }
    });
    is_lent.recv().unwrap();
    let watch = Watch::new();
    let config = BackendConfig::default().num_replicas(4).max_concurrent_queries(1);
    serve.create_backend("frail", watch.backend(), config).await.unwrap();
    serve.create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    let handle = serve.handle::<Future>("frail").unwrap();
    let calls: Vec<_> = (0..24).map(|_| handle.call(Future(Do::Wait))).collect();
    until("four run", || watch.barrier.inside() == 4).await;
    end.send(()).unwrap();
    actix_web::rt::task::spawn_blocking(|| host.join().unwrap()).await.unwrap();
    watch.barrier.release(100);
    let results = futures_util::future::join_all(calls).await;
    let stopped = results.iter().filter(|result| **result == Err(ServeError::Stopped)).count();
    assert_eq!(stopped, 2, "those that ran there: {results:?}");
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 22, "{results:?}");
    until("four run again", || {
        let status = serve.status();
        let running = |r: &&greenroom::ReplicaStatus| r.state == ReplicaState::Running;
        status.backends[0].replicas.iter().filter(running).count() == 4
    })
    .await;
    assert!(handle.call(Future(Do::Yield)).await.is_ok());
    serve.shutdown().await.unwrap();
}
