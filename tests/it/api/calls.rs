//! Functions as backends, handles made before their endpoints, backends that call each other, options of a call.

use std::time::Duration;

use actix::{Actor, Handler, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, Endpoint, Handle, Meta, ReplicaContext, RequestId, Route, Serve, ServeError,
};

use super::{Next, here};

/// Calls the other one until it reaches zero.
struct Ball(Handle<Next>);

impl Actor for Ball {
    type Context = ReplicaContext<Self>;
}

impl Handler<Next> for Ball {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, Next(left): Next, _: &mut Self::Context) -> Self::Result {
        let other = self.0.clone();
        Box::pin(async move { if left == 0 { Ok(0) } else { Ok(1 + other.call(Next(left - 1)).await?) } })
    }
}

async fn ball(serve: &Serve, name: &'static str, other: &'static str) {
    let backend = Backend::new(move |ctx| Ok(Ball(ctx.handle(other)?))).handles::<Next>();
    serve.create_backend(name, backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint(name, Endpoint::new(name)).await.unwrap();
}

#[actix_web::test]
async fn backends_that_call_each_other_start_in_either_order() {
    for (first, second) in [("ping", "pong"), ("pong", "ping")] {
        let serve = here().await;
        ball(&serve, first, second).await;
        let handle = serve.handle::<Next>(first).unwrap();
        assert_eq!(handle.call(Next(0)).await, Ok(0));
        let early = handle.call(Next(1)).await.unwrap_err();
        assert_eq!(early, ServeError::UnknownEndpoint(second.try_into().unwrap()), "until it appears");
        ball(&serve, second, first).await;
        assert_eq!(handle.call(Next(50)).await, Ok(50), "deeper than any stack is taken for");
        assert_eq!(serve.handle::<Next>(second).unwrap().call(Next(7)).await, Ok(7));
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn a_name_that_cannot_be_one_fails_in_the_factory() {
    let serve = here().await;
    let backend = Backend::new(|ctx| Ok(Ball(ctx.handle("no name")?))).handles::<Next>();
    let config =
        BackendConfig::default().restart(greenroom::RestartPolicy { max_restarts: 0, ..Default::default() });
    let error = serve.create_backend("b", backend, config).await.unwrap_err();
    assert!(error.to_string().contains("\"no name\" is not a valid name"), "{error}");
    serve.shutdown().await.unwrap();
}

async fn double(Next(n): Next) -> Result<u64, ServeError> {
    tokio::task::yield_now().await;
    if n > 99 { Err(ServeError::backend(422, "too_large", "at most 99")) } else { Ok(2 * n) }
}

#[actix_web::test]
async fn a_function_is_a_backend() {
    let serve = here().await;
    serve.create_backend("double", Backend::from_fn(double), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("double", Endpoint::new("double")).await.unwrap();
    let handle = serve.handle::<Next>("double").unwrap();
    assert_eq!(handle.call(Next(21)).await, Ok(42));
    assert_eq!(handle.call(Next(100)).await.unwrap_err().code(), "too_large");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn options_of_a_handle_travel_with_each_call_and_leave_the_handle_alone() {
    let serve = here().await;
    let backend = Backend::from_fn(|_: Next| async {
        let meta = Meta::current().unwrap();
        let key = meta.shard_key.map_or(String::new(), |key| key.as_str().to_owned());
        let left = meta.deadline.map_or(0, |at| at.duration_since(tokio::time::Instant::now()).as_secs());
        Err(ServeError::backend(418, "seen", format!("{} {key} {left}", meta.request_id)))
    });
    tokio::time::pause();
    serve.create_backend("look", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("look", Endpoint::new("look")).await.unwrap();
    let handle = serve.handle::<Next>("look").unwrap();
    let own = handle.options().shard_key("user").timeout(Duration::from_secs(9));
    let own = own.request_id(RequestId::given("mine").unwrap());
    assert_eq!(own.call(Next(0)).await.unwrap_err().to_string(), "mine user 9");
    let plain = handle.call(Next(0)).await.unwrap_err().to_string();
    assert!(plain.ends_with("  0") && plain.len() == 32 + 3, "{plain:?}");
    let both = own.deadline(tokio::time::Instant::now() + Duration::from_secs(3));
    assert_eq!(both.call(Next(0)).await.unwrap_err().to_string(), "mine user 3", "the tighter one");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_actix_message_to_the_router_is_answered_like_a_call() {
    let serve = here().await;
    let backend = Backend::from_fn(|Next(n): Next| async move { Ok(n + 1) });
    serve.create_backend("add", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("add", Endpoint::new("add")).await.unwrap();
    let router = serve.router().unwrap();
    let route = |to: &str| Route { endpoint: to.try_into().unwrap(), msg: Next(1) };
    assert_eq!(router.send(route("add")).await.unwrap(), Ok(2));
    assert_eq!(router.send(route("none")).await.unwrap().unwrap_err().code(), "unknown_endpoint");
    serve.shutdown().await.unwrap();
    assert!(serve.router().is_none());
}
