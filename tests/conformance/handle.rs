//! Handles: functions and classes behind them, options, threads, composition, callers that leave.

use std::time::Duration;

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{Affinity, Backend, BackendConfig, Endpoint, Handle, ReplicaContext, Serve, ServeError};

use super::{Name, Pass, create_held, create_named, here};
use crate::{
    support::{Barrier, until},
    wire::block_on,
};

async fn reply(Pass(n): Pass) -> Result<u64, ServeError> {
    n.checked_add(1).ok_or_else(|| ServeError::backend(422, "too_large", "there is no number after this one"))
}

#[actix_web::test]
async fn a_function_is_called_and_its_error_comes_back_typed() {
    let serve = here().await;
    serve.create_backend("f", Backend::from_fn(reply), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("f", Endpoint::new("f")).await.unwrap();
    let handle = serve.handle::<Pass>("f").unwrap();
    assert_eq!(handle.call(Pass(1)).await, Ok(2));
    let error = ServeError::backend(422, "too_large", "there is no number after this one");
    assert_eq!(handle.call(Pass(u64::MAX)).await, Err(error));
    serve.shutdown().await.unwrap();
}

/// A class with an argument to its constructor, state, and two methods.
struct Adder {
    increment: u64,
    calls: u64,
}

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Calls;

impl Actor for Adder {
    type Context = ReplicaContext<Self>;
}

impl Handler<Pass> for Adder {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Pass(n): Pass, _: &mut Self::Context) -> Self::Result {
        self.calls += 1;
        Ok(n + self.increment)
    }
}

impl Handler<Calls> for Adder {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, _: Calls, _: &mut Self::Context) -> Self::Result {
        Ok(self.calls)
    }
}

async fn adder(serve: &Serve, increment: u64) {
    let backend =
        Backend::new(move |_| Ok(Adder { increment, calls: 0 })).handles::<Pass>().handles::<Calls>();
    serve.create_backend("adder", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("adder", Endpoint::new("adder")).await.unwrap();
}

#[actix_web::test]
async fn a_class_gets_its_arguments_keeps_its_state_and_the_message_chooses_the_method() {
    let serve = here().await;
    adder(&serve, 3).await;
    let (add, calls) = (serve.handle::<Pass>("adder").unwrap(), serve.handle::<Calls>("adder").unwrap());
    assert_eq!(
        (add.call(Pass(2)).await, add.call(Pass(10)).await, calls.call(Calls).await),
        (Ok(5), Ok(13), Ok(2))
    );
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_handle_for_a_message_that_the_backend_does_not_take_is_refused_and_says_what_it_takes() {
    let serve = here().await;
    adder(&serve, 1).await;
    let error = serve.handle::<Name>("adder").unwrap_err();
    assert_eq!(error.code(), "not_taken");
    let text = error.to_string();
    assert!(text.contains("Name") && text.contains("Pass") && text.contains("Calls"), "{text}");
    assert_eq!(serve.handle::<Name>("nobody").unwrap_err().code(), "unknown_endpoint");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn options_set_on_a_copy_leave_the_handle_as_it_was() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    serve.create_endpoint("e", Endpoint::new("a").affinity(Affinity::Backend)).await.unwrap();
    serve.create_backend("b", super::named("b"), BackendConfig::default()).await.unwrap();
    serve.set_traffic("e", [("a", 0.5), ("b", 0.5)]).await.unwrap();
    let base = serve.handle::<Name>("e").unwrap();
    let one = base.options().shard_key("one");
    let two = one.options().shard_key("two").timeout(Duration::from_secs(1));
    for _ in 0..20 {
        for handle in [&one, &two] {
            let (answer, why) = handle.call_explained(Name {}).await;
            assert!(
                answer.is_ok() && matches!(why.rule, Some(greenroom::RoutingRule::ShardKey(_))),
                "{why:?}"
            );
        }
        let (_, why) = base.call_explained(Name {}).await;
        assert!(matches!(why.rule, Some(greenroom::RoutingRule::Weight(_))), "{why:?}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn one_handle_is_called_from_many_threads_and_runtimes() {
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(1.try_into().unwrap())).await.unwrap();
    adder(&serve, 1).await;
    let handle = serve.handle::<Pass>("adder").unwrap();
    let plain = (0..4).map(|n| {
        let blocking = handle.blocking();
        move || blocking.call(Pass(n))
    });
    let without_runtime = {
        let handle = handle.clone();
        move || block_on(handle.call(Pass(4)))
    };
    let with_runtime = {
        let handle = handle.clone();
        move || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(handle.call(Pass(5)))
    };
    let mut threads: Vec<_> = plain.map(std::thread::spawn).collect();
    threads.extend([std::thread::spawn(without_runtime), std::thread::spawn(with_runtime)]);
    for (n, thread) in (0..).zip(threads) {
        let joined = tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        assert_eq!(joined, Ok(n + 1));
    }
    assert_eq!(handle.call(Pass(6)).await, Ok(7));
    serve.shutdown().await.unwrap();
}

/// Asks for the sum of some numbers.
#[derive(Message)]
#[rtype(result = "Result<f64, ServeError>")]
struct Sum(Vec<f64>);

/// Makes the numbers and has them added up by another backend.
struct Composed(Handle<Sum>);

impl Actor for Composed {
    type Context = ReplicaContext<Self>;
}

impl Handler<Pass> for Composed {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, Pass(n): Pass, _: &mut Self::Context) -> Self::Result {
        let sum = self.0.call(Sum(vec![1.0; n as usize]));
        Box::pin(async move { Ok(sum.await? as u64) })
    }
}

#[actix_web::test]
async fn a_backend_calls_another_and_an_array_goes_through_as_it_is() {
    let serve = here().await;
    let composed = Backend::new(|ctx| Ok(Composed(ctx.handle("sum")?))).handles::<Pass>();
    serve.create_backend("composed", composed, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("composed", Endpoint::new("composed")).await.unwrap();
    let handle = serve.handle::<Pass>("composed").unwrap();
    assert_eq!(
        handle.call(Pass(100)).await.unwrap_err().code(),
        "unknown_endpoint",
        "the other one is not there yet"
    );
    let sum = Backend::from_fn(|Sum(numbers)| async move { Ok(numbers.iter().sum()) });
    serve.create_backend("sum", sum, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("sum", Endpoint::new("sum")).await.unwrap();
    assert_eq!(handle.call(Pass(100)).await, Ok(100));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_queued_call_whose_caller_has_left_never_reaches_the_replica() {
    let serve = here().await;
    let barrier = Barrier::new();
    create_held(&serve, "e", &barrier, BackendConfig::default().max_concurrent_queries(1)).await;
    let handle = serve.handle::<Pass>("e").unwrap();
    let first = handle.call(Pass(0));
    until("the first runs", || barrier.inside() == 1).await;
    let left: Vec<_> = (1..10).map(|n| handle.call(Pass(n))).collect();
    let last = handle.call(Pass(10));
    drop(left);
    // More than are wanted, so that one too many would show and not hang.
    barrier.release(11);
    assert_eq!((first.await, last.await), (Ok(0), Ok(10)));
    assert_eq!(barrier.began(), 2);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_call_past_its_time_out_is_told_so_although_its_handler_would_go_on() {
    tokio::time::pause();
    let serve = here().await;
    let barrier = Barrier::new();
    create_held(&serve, "e", &barrier, BackendConfig::default()).await;
    let handle = serve.handle::<Pass>("e").unwrap().options().timeout(Duration::from_secs(1));
    assert_eq!(handle.call(Pass(0)).await, Err(ServeError::DeadlineExceeded));
    until("the handler has been dropped", || barrier.inside() == 0).await;
    serve.shutdown().await.unwrap();
}
