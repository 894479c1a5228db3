//! More and fewer replicas, and limits that change while calls run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use greenroom::{Backend, BackendConfig, BackendUpdate, Endpoint, Handle, Serve};
use tokio::sync::Semaphore;

use super::{Next, adder, here};

fn replicas(n: u32) -> BackendUpdate {
    BackendUpdate::default().num_replicas(n)
}

#[actix_web::test]
async fn ten_replicas_then_two_and_all_slots_are_reused() {
    let serve = here().await;
    let (backend, living) = adder();
    serve.create_backend("add", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("add", Endpoint::new("add")).await.unwrap();
    let handle = serve.handle::<Next>("add").unwrap();
    for n in [10, 2, 0, 3] {
        serve.update_backend_config("add", replicas(n)).await.unwrap();
        assert_eq!(living.load(Ordering::SeqCst), n as usize, "once update has returned");
        let slots: Vec<_> = serve.status().backends[0].replicas.iter().map(|r| r.id.slot).collect();
        assert_eq!(slots, (0..n).collect::<Vec<_>>());
        match n {
            0 => assert_eq!(handle.call(Next(1)).await.unwrap_err().code(), "no_replica"),
            _ => assert_eq!(handle.call(Next(1)).await, Ok(2)),
        }
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn scaling_down_loses_no_call_that_runs_or_waits() {
    tokio::time::pause();
    let serve = here().await;
    let slow = Backend::from_fn(|Next(n): Next| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(n)
    });
    let config = BackendConfig::default().num_replicas(10).max_concurrent_queries(2);
    serve.create_backend("slow", slow, config).await.unwrap();
    serve.create_endpoint("slow", Endpoint::new("slow")).await.unwrap();
    let handle = serve.handle::<Next>("slow").unwrap();
    let calls: Vec<_> = (0..100).map(|n| handle.call(Next(n))).collect();
    let (updated, answers) = futures_util::future::join(
        serve.update_backend_config("slow", replicas(2)),
        futures_util::future::join_all(calls),
    )
    .await;
    updated.unwrap();
    assert_eq!(answers, (0..100).map(Ok).collect::<Vec<_>>());
    assert_eq!(serve.status().backends[0].replicas.len(), 2);
    serve.shutdown().await.unwrap();
}

/// A backend that answers when it is let, and how many of its handlers run.
async fn gated(serve: &Serve, config: BackendConfig) -> (Handle<Next>, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (open, running) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let (inner, count) = (Arc::clone(&open), Arc::clone(&running));
    let backend = Backend::from_fn(move |Next(n): Next| {
        let (open, running) = (Arc::clone(&inner), Arc::clone(&count));
        async move {
            running.fetch_add(1, Ordering::SeqCst);
            open.acquire().await.unwrap().forget();
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(n)
        }
    });
    serve.create_backend("gated", backend, config).await.unwrap();
    serve.create_endpoint("gated", Endpoint::new("gated")).await.unwrap();
    (serve.handle("gated").unwrap(), open, running)
}

/// Lets everything that can go on go on.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn limits_changed_at_run_time_hold_at_once() {
    let serve = here().await;
    let config = BackendConfig::default().max_concurrent_queries(2).max_queued_queries(1);
    let (handle, open, running) = gated(&serve, config).await;
    let mut calls: Vec<_> = (0..3).map(|n| handle.call(Next(n))).collect();
    settle().await;
    assert_eq!(running.load(Ordering::SeqCst), 2);
    assert_eq!(handle.call(Next(9)).await.unwrap_err().code(), "overloaded");

    let more = BackendUpdate::default().max_concurrent_queries(3).max_queued_queries(2);
    serve.update_backend_config("gated", more).await.unwrap();
    calls.extend((3..5).map(|n| handle.call(Next(n))));
    settle().await;
    assert_eq!(running.load(Ordering::SeqCst), 3, "one that waited has begun");
    assert_eq!(handle.call(Next(9)).await.unwrap_err().code(), "overloaded");

    let fewer = BackendUpdate::default().max_concurrent_queries(1).max_queued_queries(0);
    serve.update_backend_config("gated", fewer).await.unwrap();
    assert_eq!(handle.call(Next(9)).await.unwrap_err().code(), "overloaded");
    for (answered, running_then) in [(1, 2), (2, 1), (3, 1), (4, 1), (5, 0)] {
        open.add_permits(1);
        settle().await;
        assert_eq!(running.load(Ordering::SeqCst), running_then, "after {answered} answers");
    }
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(answers, (0..5).map(Ok).collect::<Vec<_>>(), "what was let in is answered");
    open.add_permits(1);
    assert_eq!(handle.call(Next(7)).await, Ok(7));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_request_timeout_given_later_holds_for_the_next_call() {
    tokio::time::pause();
    let serve = here().await;
    let (handle, _open, running) = gated(&serve, BackendConfig::default()).await;
    let old = handle.call(Next(1));
    let timeout = BackendUpdate::default().request_timeout(Duration::from_secs(2));
    serve.update_backend_config("gated", timeout).await.unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(handle.call(Next(2)).await.unwrap_err().code(), "deadline_exceeded");
    assert_eq!(began.elapsed().as_secs(), 2);
    settle().await;
    assert_eq!(
        running.load(Ordering::SeqCst),
        2,
        "the counter is of handlers that began; the old one still runs"
    );
    drop(old);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_size_of_batches_changes_while_they_run() {
    tokio::time::pause();
    let serve = here().await;
    let config = BackendConfig::default().max_batch_size(2).batch_wait_timeout(Duration::from_secs(1));
    serve.create_backend("add", adder().0.batched::<Next>(), config).await.unwrap();
    serve.create_endpoint("add", Endpoint::new("add")).await.unwrap();
    let handle = serve.handle::<Next>("add").unwrap();
    let waited = |n: u64| {
        let handle = handle.clone();
        async move {
            let began = tokio::time::Instant::now();
            let calls = (0..n).map(|i| handle.call(Next(i)));
            let answers = futures_util::future::join_all(calls).await;
            assert_eq!(answers, (1..=n).map(Ok).collect::<Vec<_>>());
            began.elapsed().as_secs()
        }
    };
    assert_eq!((waited(2).await, waited(1).await), (0, 1));
    serve.update_backend_config("add", BackendUpdate::default().max_batch_size(4)).await.unwrap();
    assert_eq!((waited(2).await, waited(4).await), (1, 0));
    serve.shutdown().await.unwrap();
}
