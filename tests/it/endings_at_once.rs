//! The same end asked for several times at once: deletions, forced and not, and shutdowns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use greenroom::{Backend, BackendConfig, ReplicaState, RestartPolicy, Serve, ServeError};

use crate::{
    endings::{Hang, Hanger, frail, here},
    frail::{Do, Future, Watch},
    support::until,
};

/// One call that runs until it is let, at a backend that no endpoint names any more.
async fn held() -> (Serve, Watch, impl std::future::Future<Output = Result<u64, ServeError>>) {
    let (serve, watch) = frail(here(), BackendConfig::default()).await;
    let running = serve.handle::<Future>("frail").unwrap().call(Future(Do::Wait));
    until("it runs", || watch.barrier.inside() == 1).await;
    serve.delete_endpoint("frail").await.unwrap();
    (serve, watch, running)
}

#[actix_web::test]
async fn a_backend_that_drains_is_deleted_at_once_by_force_and_all_who_deleted_it_are_told() {
    tokio::time::pause();
    let (serve, _watch, running) = held().await;
    let begun = tokio::time::Instant::now();
    let mut plain = Box::pin(futures_util::future::join(
        serve.delete_backend("frail", false),
        serve.delete_backend("frail", false),
    ));
    assert!(tokio::time::timeout(Duration::from_secs(5), &mut plain).await.is_err(), "it drains");
    assert_eq!(serve.delete_backend("frail", true).await, Ok(()));
    assert_eq!(plain.await, (Ok(()), Ok(())));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(running.await, Err(ServeError::Stopped));
    assert!(matches!(serve.delete_backend("frail", true).await, Err(ServeError::UnknownBackend(_))));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_second_plain_delete_waits_for_the_drain_as_the_first_does() {
    let (serve, watch, running) = held().await;
    let deletes = futures_util::future::join(
        serve.delete_backend("frail", false),
        serve.delete_backend("frail", false),
    );
    let release = async {
        until("it drains", || serve.status().backends[0].replicas[0].state == ReplicaState::Draining).await;
        watch.barrier.release(1);
        running.await
    };
    let (deleted, answer) = tokio::join!(deletes, release);
    assert_eq!((deleted, answer), ((Ok(()), Ok(())), Ok(1)));
    assert!(serve.list_backends().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_deleted_while_its_creation_is_undone_is_deleted_and_was_not_created() {
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(1.try_into().unwrap())).await.unwrap();
    let (begun, (let_go, held)) = (Arc::new(AtomicBool::new(false)), mpsc::channel::<()>());
    let held = std::sync::Mutex::new(held);
    let backend = Backend::new(move |_| {
        if !begun.swap(true, SeqCst) {
            return Err("not this one".into());
        }
        // What is started hangs.
        let _ = held.lock().unwrap().recv();
        Ok(Hanger)
    });
    let once = RestartPolicy { max_restarts: 0, ..RestartPolicy::default() };
    let config = BackendConfig::default().num_replicas(2).restart(once);
    let create = serve.create_backend("hanger", backend.handles::<Hang>().compute(), config);
    let delete = async {
        let states = || serve.status().backends.first().map(|b| b.replicas.iter().map(|r| r.state).collect());
        until("it is undone", || states() == Some(vec![ReplicaState::Draining])).await;
        serve.delete_backend("hanger", false).await
    };
    let (created, deleted) = tokio::join!(create, delete);
    drop(let_go);
    assert!(matches!(created, Err(ServeError::StartFailed { .. })), "{created:?}");
    assert_eq!(deleted, Ok(()));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn shutdowns_at_the_same_time_end_together_and_say_the_same() {
    for lets in [true, false] {
        tokio::time::pause();
        let options = here().shutdown_timeout(Duration::from_secs(5));
        let (serve, watch) = frail(options, BackendConfig::default()).await;
        let running = serve.handle::<Future>("frail").unwrap().call(Future(Do::Wait));
        until("it runs", || watch.barrier.inside() == 1).await;
        // One that nobody waits for any longer leaves its work to the others.
        let mut left = Box::pin(serve.shutdown());
        assert!(futures_util::FutureExt::now_or_never(&mut left).is_none());
        let mut both = Box::pin(futures_util::future::join(serve.shutdown(), serve.shutdown()));
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut both).await.is_err(), "a call runs");
        drop(left);
        if lets {
            watch.barrier.release(1);
        }
        let (first, second) = both.await;
        assert_eq!((first.is_ok(), &first), (lets, &second));
        assert_eq!(serve.shutdown().await, first, "also afterwards");
        assert_eq!(running.await.is_ok(), lets);
        tokio::time::resume();
    }
}
