//! The life of a state and of a replica: its hooks, its timers, its end, and what becomes of its calls then.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, Message, ResponseActFuture, Running,
};
use actix::{SpawnHandle, StreamHandler, fut};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, Handle, ReplicaContext, ReplicaState, RestartPolicy,
    Serve, ServeError, ServeOptions, testing::Stage,
};

use crate::{
    frail::{ActFuture, Atomic, Do, Future, Sync, Watch},
    support::{MEANT, metric, quiet_panics, until},
};

type Diary = Arc<Mutex<Vec<&'static str>>>;

/// Does with its context what it is told, and keeps a diary.
struct Clerk(Diary, Option<SpawnHandle>);

#[derive(Message, Clone, Copy)]
#[rtype(result = "Result<(), ServeError>")]
enum Order {
    Stop,
    Notify,
    NotifyFromFuture,
    Send,
    Later,
    CancelLater,
    Stream,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Write(&'static str);

impl Clerk {
    fn write(&self, line: &'static str) {
        self.0.lock().unwrap().push(line);
    }
}

impl Actor for Clerk {
    type Context = ReplicaContext<Self>;
    fn started(&mut self, _: &mut Self::Context) {
        self.write("started");
    }
    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.write("stopping");
        Running::Stop
    }
    fn stopped(&mut self, _: &mut Self::Context) {
        self.write("stopped");
    }
}
impl Handler<Write> for Clerk {
    type Result = ();
    fn handle(&mut self, Write(line): Write, _: &mut Self::Context) {
        self.write(line);
    }
}
impl StreamHandler<&'static str> for Clerk {
    fn handle(&mut self, line: &'static str, _: &mut Self::Context) {
        self.write(line);
    }
    fn finished(&mut self, _: &mut Self::Context) {
        self.write("end of stream");
    }
}
impl Handler<Order> for Clerk {
    type Result = ResponseActFuture<Self, Result<(), ServeError>>;
    fn handle(&mut self, order: Order, ctx: &mut Self::Context) -> Self::Result {
        match order {
            Order::Stop => ctx.stop(),
            Order::Notify => ctx.notify(Write("notified")),
            Order::Send => {
                let sent = ctx.address().send(Write("sent"));
                return Box::pin(fut::wrap_future::<_, Self>(sent).map(|sent, clerk, _| {
                    sent.map_err(ServeError::from_user)?;
                    clerk.write("answered");
                    Ok(())
                }));
            }
            Order::Later => {
                self.1 = Some(ctx.run_later(Duration::from_millis(50), |clerk, _| clerk.write("later")))
            }
            Order::CancelLater => {
                ctx.cancel_future(self.1.take().unwrap());
            }
            Order::Stream => {
                ctx.add_stream(futures_util::stream::iter(["one", "two"]));
            }
            Order::NotifyFromFuture => {
                return Box::pin(fut::wrap_future::<_, Self>(tokio::task::yield_now()).map(|(), _, ctx| {
                    ctx.notify(Write("notified"));
                    ctx.notify_later(Write("notified later"), Duration::from_millis(50));
                    Ok(())
                }));
            }
        }
        Box::pin(fut::ready(Ok(())))
    }
}

async fn clerk() -> (Stage, Handle<Order>, Diary) {
    let (stage, diary) = (Stage::new().await.unwrap(), Diary::default());
    let own = Arc::clone(&diary);
    let backend = Backend::new(move |_| Ok(Clerk(Arc::clone(&own), None))).handles::<Order>();
    let handle = stage.replica("clerk", backend).await.unwrap();
    tokio::time::pause();
    (stage, handle, diary)
}

async fn diary_of(order: Order, expected: &[&str]) {
    let (stage, handle, diary) = clerk().await;
    handle.call(order).await.unwrap();
    let written = || diary.lock().unwrap().clone();
    until("the diary", || written().len() == expected.len() + 1).await;
    assert_eq!(written()[1..], *expected);
    stage.end().await.unwrap();
    assert_eq!(written()[written().len() - 2..], ["stopping", "stopped"], "told on a drain");
    tokio::time::resume();
}

#[actix_web::test]
async fn the_context_notifies_sends_waits_and_streams_as_actix_does() {
    diary_of(Order::Notify, &["notified"]).await;
    diary_of(Order::NotifyFromFuture, &["notified", "notified later"]).await;
    diary_of(Order::Send, &["sent", "answered"]).await;
    diary_of(Order::Later, &["later"]).await;
    diary_of(Order::Stream, &["one", "two", "end of stream"]).await;
}

#[actix_web::test]
async fn a_state_that_stops_itself_is_replaced_by_a_fresh_one() {
    diary_of(Order::Stop, &["stopping", "stopped", "started"]).await;
}

#[actix_web::test]
async fn a_cancelled_timer_never_fires() {
    let (stage, handle, diary) = clerk().await;
    handle.call(Order::Later).await.unwrap();
    handle.call(Order::CancelLater).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(*diary.lock().unwrap(), ["started"]);
    stage.end().await.unwrap();
}

async fn frail(options: ServeOptions, config: BackendConfig) -> (Serve, Watch) {
    quiet_panics();
    let (serve, watch) = (Serve::start(options).await.unwrap(), Watch::new());
    serve.create_backend("frail", watch.backend(), config).await.unwrap();
    serve.create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    (serve, watch)
}

fn here() -> ServeOptions {
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
struct Hang(mpsc::Receiver<()>);
struct Hanger;
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
    let serve = Serve::start(ServeOptions::default().serving_threads(1.try_into().unwrap())).await.unwrap();
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
        frail(ServeOptions::default().serving_threads(2.try_into().unwrap()), BackendConfig::default()).await;
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
    let serve = Serve::start(ServeOptions::default().lent_threads()).await.unwrap();
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
