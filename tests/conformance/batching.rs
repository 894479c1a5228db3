//! Batches: when they leave, how large they are, what becomes of one that fails.

use std::{collections::BTreeMap, time::Duration};

use actix::{Actor, Handler, Message, ResponseFuture};
use futures_util::future::join_all;
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Batch, Calling, Endpoint, Handle, ReplicaContext, Serve,
    ServeError,
};
use tokio::time::Instant;

use super::{Pass, create_held, create_named, here};
use crate::support::{Barrier, MEANT, quiet_panics, until};

/// Answers with its number and how many shared its batch.
#[derive(Message)]
#[rtype(result = "Result<(u64, usize), ServeError>")]
struct A(u64);

/// The same as text.
#[derive(Message)]
#[rtype(result = "Result<String, ServeError>")]
struct B(u64);

/// A batch with 100 in it fails, one with 101 has an answer too few, one with 102 panics.
struct Batching;

impl Actor for Batching {
    type Context = ReplicaContext<Self>;
}

impl Handler<Batch<A>> for Batching {
    type Result = Result<Vec<Result<(u64, usize), ServeError>>, ServeError>;
    fn handle(&mut self, batch: Batch<A>, _: &mut Self::Context) -> Self::Result {
        let (size, has) = (batch.len(), |n| batch.items().iter().any(|A(number)| *number == n));
        if has(100) {
            return Err(ServeError::backend(500, "broken", "the whole batch is broken"));
        }
        assert!(!has(102), "{MEANT}");
        let short = usize::from(has(101));
        Ok(batch.into_iter().skip(short).map(|A(n)| Ok((n, size))).collect())
    }
}

impl Handler<Batch<B>> for Batching {
    type Result = ResponseFuture<Result<Vec<Result<String, ServeError>>, ServeError>>;
    fn handle(&mut self, batch: Batch<B>, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move { Ok(batch.into_iter().map(|B(n)| Ok(format!("b-{n}"))).collect()) })
    }
}

async fn batching(size: usize, wait: Duration) -> (Serve, Handle<A>) {
    let serve = here().await;
    let backend = Backend::new(|_| Ok(Batching)).batched::<A>().batched::<B>();
    let config = BackendConfig::default().max_batch_size(size).batch_wait_timeout(wait);
    serve.create_backend("b", backend, config).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle("e").unwrap();
    (serve, handle)
}

fn calls(handle: &Handle<A>, numbers: impl IntoIterator<Item = u64>) -> Vec<Calling<(u64, usize)>> {
    numbers.into_iter().map(|n| handle.call(A(n))).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[actix_web::test]
async fn twenty_calls_at_once_with_a_batch_size_of_five_are_four_batches() {
    tokio::time::pause();
    let (serve, handle) = batching(5, SECOND).await;
    let begun = Instant::now();
    let answers = join_all(calls(&handle, 0..20)).await;
    assert_eq!(answers, (0..20).map(|n| Ok((n, 5))).collect::<Vec<_>>());
    assert!(begun.elapsed() < SECOND, "full batches do not wait");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn three_calls_with_a_batch_size_of_two_are_a_batch_of_two_and_one_of_one() {
    tokio::time::pause();
    let (serve, handle) = batching(2, SECOND).await;
    let begun = Instant::now();
    let sizes: Vec<_> = join_all(calls(&handle, 0..3)).await.into_iter().map(|r| r.unwrap().1).collect();
    assert_eq!(sizes, [2, 2, 1]);
    assert!(begun.elapsed() >= SECOND, "the last one has waited for company");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn with_a_batch_size_of_one_nothing_waits_for_company() {
    tokio::time::pause();
    let (serve, handle) = batching(1, 60 * SECOND).await;
    let begun = Instant::now();
    assert_eq!(join_all(calls(&handle, 0..3)).await, [Ok((0, 1)), Ok((1, 1)), Ok((2, 1))]);
    assert!(begun.elapsed() < SECOND);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn without_a_wait_a_lone_call_leaves_at_once() {
    tokio::time::pause();
    let (serve, handle) = batching(10, Duration::ZERO).await;
    let begun = Instant::now();
    assert_eq!(handle.call(A(1)).await, Ok((1, 1)));
    assert!(begun.elapsed() < Duration::from_millis(10));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn with_a_long_wait_a_batch_leaves_as_soon_as_it_is_full() {
    tokio::time::pause();
    let (serve, handle) = batching(10, 3600 * SECOND).await;
    let mut early = calls(&handle, 0..9);
    assert!(tokio::time::timeout(60 * SECOND, &mut early[0]).await.is_err(), "nine of ten wait");
    early.push(handle.call(A(9)));
    assert_eq!(join_all(early).await, (0..10).map(|n| Ok((n, 10))).collect::<Vec<_>>());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_handler_that_fails_fails_every_call_of_its_batch_and_no_other() {
    quiet_panics();
    let (serve, handle) = batching(2, SECOND).await;
    let answers = join_all(calls(&handle, [1, 100, 2, 101, 3, 102, 4, 5])).await;
    let codes: Vec<_> = answers.iter().map(|r| r.as_ref().map_or_else(ServeError::code, |_| "ok")).collect();
    let want =
        ["broken", "broken", "batch_length", "batch_length", "batch_panicked", "batch_panicked", "ok", "ok"];
    assert_eq!(codes, want);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn messages_of_two_types_at_once_get_each_their_own_answers() {
    tokio::time::pause();
    let (serve, a) = batching(10, SECOND).await;
    let b = serve.handle::<B>("e").unwrap();
    let (a0, b0, a1, b1) = (a.call(A(0)), b.call(B(0)), a.call(A(1)), b.call(B(1)));
    assert_eq!((a0.await, a1.await), (Ok((0, 2)), Ok((1, 2))));
    assert_eq!((b0.await, b1.await), (Ok("b-0".into()), Ok("b-1".into())));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_batch_size_for_a_backend_that_takes_no_batches_is_refused_at_creation_and_update() {
    let serve = here().await;
    let two = BackendConfig::default().max_batch_size(2);
    let error = serve.create_backend("a", super::named("a"), two).await.unwrap_err();
    assert!(error.to_string().contains("max_batch_size"), "{error}");
    assert!(serve.list_backends().is_empty());
    create_named(&serve, &["a"]).await;
    let two = BackendUpdate::default().max_batch_size(2);
    let error = serve.update_backend_config("a", two).await.unwrap_err();
    assert!(error.to_string().contains("max_batch_size"), "{error}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_new_batch_size_holds_for_the_next_batch() {
    tokio::time::pause();
    let (serve, handle) = batching(5, SECOND).await;
    assert_eq!(join_all(calls(&handle, 0..5)).await[0], Ok((0, 5)));
    serve.update_backend_config("b", BackendUpdate::default().max_batch_size(2)).await.unwrap();
    let mut sizes = BTreeMap::new();
    for answer in join_all(calls(&handle, 0..6)).await {
        *sizes.entry(answer.unwrap().1).or_insert(0) += 1;
    }
    assert_eq!(sizes, BTreeMap::from([(2, 6)]));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn ten_asynchronous_calls_are_inside_at_once_and_the_eleventh_waits() {
    let serve = here().await;
    let barrier = Barrier::new();
    create_held(&serve, "e", &barrier, BackendConfig::default().max_concurrent_queries(10)).await;
    let handle = serve.handle::<Pass>("e").unwrap();
    let calls: Vec<_> = (0..11).map(|n| handle.call(Pass(n))).collect();
    until("ten meet", || barrier.inside() == 10).await;
    barrier.release(11);
    assert_eq!(join_all(calls).await.len(), 11);
    assert_eq!((barrier.most(), barrier.began()), (10, 11));
    serve.shutdown().await.unwrap();
}
