//! Replicas: as many as asked for, their states, how they end.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex},
    time::Duration,
};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, Placement, ReplicaContext, ReplicaState, RestartPolicy,
    Serve, ServeError,
};
use tokio::time::Instant;

use super::{Pass, create_held, here, named};
use crate::{
    support::{Barrier, until},
    wire::PATIENCE,
};

/// Asks which replica answers.
#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Who;

struct Worker;

impl Actor for Worker {
    type Context = ReplicaContext<Self>;
}

impl Handler<Who> for Worker {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, _: Who, ctx: &mut Self::Context) -> Self::Result {
        Ok(ctx.replica_id().generation)
    }
}

async fn workers(serve: &Serve, replicas: u32) {
    let config = BackendConfig::default().num_replicas(replicas);
    serve.create_backend("w", Backend::new(|_| Ok(Worker)).handles::<Who>(), config).await.unwrap();
    serve.create_endpoint("w", Endpoint::new("w")).await.unwrap();
}

async fn scale(serve: &Serve, replicas: u32) {
    serve.update_backend_config("w", BackendUpdate::default().num_replicas(replicas)).await.unwrap();
}

/// The replicas that there are.
fn generations(serve: &Serve) -> BTreeSet<u64> {
    serve.status().backends[0].replicas.iter().map(|replica| replica.id.generation).collect()
}

fn states(serve: &Serve) -> Vec<ReplicaState> {
    serve.status().backends.iter().flat_map(|b| &b.replicas).map(|replica| replica.state).collect()
}

#[actix_web::test]
async fn two_replicas_share_the_calls_and_after_scaling_down_one_takes_them_all() {
    let serve = here().await;
    workers(&serve, 2).await;
    let handle = serve.handle::<Who>("w").unwrap();
    let ten = || async {
        let calls = futures_util::future::try_join_all((0..10).map(|_| handle.call(Who)));
        calls.await.unwrap().into_iter().collect::<BTreeSet<_>>()
    };
    let mut answered = BTreeSet::new();
    for _ in 0..10 {
        answered.extend(ten().await);
    }
    assert_eq!(answered, generations(&serve), "each of the two answers some");
    scale(&serve, 1).await;
    assert_eq!((ten().await, answered.len()), (generations(&serve), 2));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_change_of_the_number_of_replicas_is_done_when_it_returns_and_starts_only_the_difference() {
    let serve = here().await;
    workers(&serve, 2).await;
    let two = generations(&serve);
    scale(&serve, 4).await;
    let four = generations(&serve);
    assert!(four.len() == 4 && four.is_superset(&two), "{two:?} {four:?}");
    assert_eq!(states(&serve), [ReplicaState::Running; 4]);
    scale(&serve, 2).await;
    assert_eq!(generations(&serve), two, "the newest leave first");
    scale(&serve, 0).await;
    assert!(generations(&serve).is_empty());
    let error = serve.handle::<Who>("w").unwrap().call(Who).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("no_replica", true));
    scale(&serve, 1).await;
    assert!(serve.handle::<Who>("w").unwrap().call(Who).await.is_ok());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_replica_is_starting_until_its_factory_succeeds_and_draining_until_its_last_call_ends() {
    tokio::time::pause();
    let serve = here().await;
    let tries = std::sync::atomic::AtomicU32::new(0);
    let backend = Backend::new(move |_| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Err("not yet".into()),
        _ => Ok(Worker),
    });
    let restart = RestartPolicy { backoff: Duration::from_secs(3), ..Default::default() };
    let config = BackendConfig::default().restart(restart);
    let created = serve.create_backend("w", backend.handles::<Who>(), config);
    let look = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        states(&serve)
    };
    let (created, during) = tokio::join!(created, look);
    created.unwrap();
    assert_eq!((during, states(&serve)), (vec![ReplicaState::Starting], vec![ReplicaState::Running]));
    serve.delete_backend("w", false).await.unwrap();

    let barrier = Barrier::new();
    create_held(&serve, "held", &barrier, BackendConfig::default()).await;
    let call = serve.handle::<Pass>("held").unwrap().call(Pass(1));
    serve.delete_endpoint("held").await.unwrap();
    let deleted = serve.delete_backend("held", false);
    let look = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let during = states(&serve);
        barrier.release(1);
        during
    };
    let (deleted, during) = tokio::join!(deleted, look);
    deleted.unwrap();
    assert_eq!((during, states(&serve), call.await), (vec![ReplicaState::Draining], vec![], Ok(1)));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn deleting_waits_for_what_runs_and_for_what_is_queued() {
    tokio::time::pause();
    let serve = here().await;
    let barrier = Barrier::new();
    create_held(&serve, "held", &barrier, BackendConfig::default().max_concurrent_queries(6)).await;
    let handle = serve.handle::<Pass>("held").unwrap();
    let calls: Vec<_> = (0..10).map(|n| handle.call(Pass(n))).collect();
    until("six run", || barrier.inside() == 6).await;
    serve.delete_endpoint("held").await.unwrap();
    let release = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(serve.list_backends().len(), 1, "it is still going");
        barrier.release(10);
    };
    let (deleted, ()) = tokio::join!(serve.delete_backend("held", false), release);
    deleted.unwrap();
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(answers, (0..10).map(Ok).collect::<Vec<_>>());
    assert!(serve.list_backends().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_call_that_never_ends_is_cut_off_after_the_graceful_shutdown_timeout() {
    tokio::time::pause();
    let serve = here().await;
    let timeout = Duration::from_secs(1);
    let config = BackendConfig::default().graceful_shutdown_timeout(timeout);
    create_held(&serve, "held", &Barrier::new(), config).await;
    let call = serve.handle::<Pass>("held").unwrap().call(Pass(1));
    serve.delete_endpoint("held").await.unwrap();
    let begun = Instant::now();
    serve.delete_backend("held", false).await.unwrap();
    let took = begun.elapsed();
    assert!(took >= timeout && took < 2 * timeout, "{took:?}");
    assert_eq!(call.await, Err(ServeError::Stopped));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_saturated_replica_does_not_hold_up_changes_of_its_backend() {
    let serve = here().await;
    let barrier = Barrier::new();
    create_held(&serve, "w", &barrier, BackendConfig::default().max_concurrent_queries(1)).await;
    let handle = serve.handle::<Pass>("w").unwrap();
    let calls: Vec<_> = (0..100).map(|n| handle.call(Pass(n))).collect();
    until("one runs", || barrier.inside() == 1).await;
    scale(&serve, 2).await;
    assert_eq!(states(&serve), [ReplicaState::Running; 2]);
    let more = handle.call(Pass(100));
    until("the second replica runs one", || barrier.inside() == 2).await;
    barrier.release(101);
    assert_eq!((futures_util::future::join_all(calls).await.len(), more.await), (100, Ok(100)));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_name_is_free_while_nothing_of_its_old_backend_is_left() {
    let serve = here().await;
    for _ in 0..3 {
        serve.create_backend("b", named("b"), BackendConfig::default().num_replicas(3)).await.unwrap();
        serve.delete_backend("b", false).await.unwrap();
        assert!(states(&serve).is_empty());
        assert_eq!(serve.delete_backend("b", false).await.unwrap_err().code(), "unknown_backend");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn replicas_of_a_backend_are_started_at_the_same_time() {
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(2.try_into().unwrap())).await.unwrap();
    for placement in [Placement::Worker, Placement::Dedicated] {
        let met = (Mutex::new(0), Condvar::new());
        // Each factory waits until the other has begun.
        let backend = Backend::new(move |_| {
            let (begun, changed) = &met;
            let mut count = begun.lock().unwrap();
            *count += 1;
            changed.notify_all();
            let (count, _) = changed.wait_timeout_while(count, PATIENCE, |count| *count < 2).unwrap();
            if *count < 2 { Err("the other one did not begin".into()) } else { Ok(Worker) }
        });
        let config = BackendConfig::default().num_replicas(2).placement(placement);
        serve.create_backend("b", backend.handles::<Who>(), config).await.unwrap();
        serve.delete_backend("b", false).await.unwrap();
    }
    serve.shutdown().await.unwrap();
}
