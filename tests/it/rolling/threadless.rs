//! Replicas whose threads end under them or hang: whoever waits for them is told in time. Real threads, in real time.

use std::{
    sync::{Mutex, mpsc},
    thread,
};

use greenroom::{Placement, Resources};
use tokio::{sync::oneshot, time::timeout};

use super::*;
use crate::support::{quiet_panics, uncounted, until};

/// Far longer than all of it takes.
const LONG: Duration = Duration::from_secs(20);

/// Lends a thread of its own until told to end.
async fn lend(serve: &Serve) -> (oneshot::Sender<()>, thread::JoinHandle<()>) {
    let (end, ends) = oneshot::channel();
    let (lent, is_lent) = oneshot::channel();
    let serve = serve.clone();
    let thread = thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            serve.lend_current_thread();
            lent.send(()).unwrap();
            let _ = ends.await;
        });
    });
    is_lent.await.unwrap();
    (end, thread)
}

#[actix_web::test]
async fn calls_that_wait_for_the_next_replica_are_told_when_the_last_thread_has_ended() {
    let options = uncounted().lent_threads().capacity(Capacity::unlimited().custom("seat", 1.0));
    let serve = Serve::start(options).await.unwrap();
    let seated = |version: &str, ms: u64| {
        let config = config(version, 1).resources(Resources::none().custom("seat", 1.0));
        config.user_config(json!({"ms": ms})).startup_timeout(Duration::from_millis(700))
    };
    let (end, thread) = lend(&serve).await;
    open(&serve, counter("old"), seated("1", 1)).await;
    let deployed = deploying(&serve, counter("new"), seated("2", 60_000));
    let starting = || status(&serve).replicas.iter().all(|r| r.state == ReplicaState::Starting);
    until("the next is started", || !status(&serve).replicas.is_empty() && starting()).await;
    let waiting = serve.handle::<Work>("counter").unwrap().call(Work);
    end.send(()).unwrap();
    thread.join().unwrap();
    let told = timeout(LONG, waiting).await.expect("it is told in time");
    assert_eq!(told.unwrap_err().code(), "no_replica");
    let told = timeout(LONG, deployed).await.expect("it is told in time");
    assert_eq!(told.unwrap().unwrap_err().code(), "rollout_failed");
    let refused = serve.handle::<Work>("counter").unwrap().call(Work).await;
    assert_eq!(refused.unwrap_err().code(), "no_replica", "nobody waits any more");
    let (end, thread) = lend(&serve).await;
    until("another thread has it", || serve.ready().is_ok()).await;
    assert_all(&serve, "old", 1).await;
    serve.shutdown().await.unwrap();
    drop(end);
    thread.join().unwrap();
}

#[actix_web::test]
async fn what_starts_and_hangs_keeps_no_deletion_waiting_also_when_the_controller_crashes() {
    quiet_panics();
    for force in [false, true] {
        let serve = Serve::start(uncounted().serving_threads(std::num::NonZeroUsize::MIN)).await.unwrap();
        let patient =
            |version| config(version, 1).graceful_shutdown_timeout(3 * LONG).startup_timeout(3 * LONG);
        serve.create_backend("counter", counter("old"), patient("1")).await.unwrap();
        let (let_go, hangs) = mpsc::channel::<()>();
        let hangs = Mutex::new(hangs);
        let stuck = Backend::new(move |_: &mut ReplicaContext<Counter>| {
            let _ = hangs.lock().unwrap().recv_timeout(3 * LONG);
            Err("it hung".into())
        });
        let stuck = stuck.json::<Work>().reconfigure::<Opening>();
        let deployed = deploying(&serve, stuck, patient("2").placement(Placement::Dedicated));
        until("it is started", || status(&serve).replicas.iter().any(|r| r.release == 2)).await;
        let both = async { tokio::join!(serve.delete_backend("counter", force), serve.crash_controller()) };
        let (deleted, ()) = timeout(LONG, both).await.expect("it is gone in time");
        deleted.unwrap();
        drop(let_go);
        assert_eq!(deployed.await.unwrap().unwrap_err().code(), "unknown_backend");
        serve.shutdown().await.unwrap();
    }
}
