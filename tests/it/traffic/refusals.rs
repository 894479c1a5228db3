//! What cannot be is refused, says why, and changes nothing.

use std::time::Duration;

use greenroom::{
    Backend, BackendConfig, Endpoint, HttpCall, ReplicaContext, ServeError, ShadowRule, TrafficPolicy,
};

use super::{Who, backends, here};
use crate::support::until;

#[actix_web::test]
async fn bad_weights_and_unknown_names_are_refused_and_change_nothing() {
    let serve = here().await;
    backends(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    let none: [(&str, f64); 0] = [];
    let refusals = [
        (serve.set_traffic("e", [("a", -0.5), ("b", 1.5)]).await, "traffic.a: a weight of -0.5"),
        (serve.set_traffic("e", [("a", f64::NAN)]).await, "a weight of NaN"),
        (serve.set_traffic("e", [("a", 0.5), ("b", 0.4)]).await, "add up to 0.9"),
        (serve.set_traffic("e", none).await, "no backend was given"),
        (serve.set_traffic("e", [("a", 0.5), ("a", 0.5)]).await, "named twice"),
        (serve.set_traffic("e", [("no name", 1.0)]).await, "not a valid name"),
        (serve.set_traffic("e", [("c", 1.0)]).await, "no backend c"),
        (serve.set_traffic("nobody", [("a", 1.0)]).await, "no endpoint nobody"),
        (serve.shadow_traffic("e", "b", 1.01).await, "a proportion of 1.01"),
        (serve.shadow_traffic("e", "b", -0.01).await, "a proportion of -0.01"),
        (serve.shadow_traffic("e", "b", f64::NAN).await, "a proportion of NaN"),
        (serve.shadow_traffic("e", "c", 0.5).await, "no backend c"),
        (serve.shadow_traffic("e", "c", 0.0).await, "no backend c"),
        (serve.shadow_traffic("nobody", "b", 0.5).await, "no endpoint nobody"),
        (serve.shadow_traffic("e", "a", 0.5).await, "cannot be its shadow too"),
        (
            serve.create_endpoint("f", Endpoint::new("a").shadow(ShadowRule::new("a", 0.5).unwrap())).await,
            "cannot be its shadow too",
        ),
        (
            serve
                .create_endpoint(
                    "f",
                    Endpoint::new("a")
                        .shadow(ShadowRule::new("b", 0.5).unwrap())
                        .shadow(ShadowRule::new("b", 0.1).unwrap()),
                )
                .await,
            "two shadow rules",
        ),
    ];
    for (refused, says) in refusals {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
    let endpoints = serve.list_endpoints();
    assert_eq!((endpoints.len(), endpoints[0].shadow.len()), (1, 0));
    assert_eq!(endpoints[0].traffic, TrafficPolicy::new([("a", 1.0)]).unwrap());
    assert_eq!(serve.handle::<Who>("e").unwrap().call(Who {}).await.unwrap(), "a");
    let metrics = serve.metrics();
    for name in ["backend=\"c\"", "endpoint=\"f\"", "endpoint=\"nobody\"", "serve_shadow_requests_total{"] {
        assert!(!metrics.contains(name), "a refusal leaves no series: {name}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_that_is_still_starting_gets_no_traffic_yet() {
    let serve = here().await;
    backends(&serve, &["a"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    let failing = Backend::new(|_| -> Result<Never, _> { Err("not yet".into()) }).handles::<Who>();
    let creating = serve.clone();
    let creating = actix_web::rt::spawn(async move {
        let config = BackendConfig::default().startup_timeout(Duration::from_secs(1));
        creating.create_backend("late", failing.shadows::<Who>(), config).await
    });
    until("it is being created", || serve.status().backends.iter().any(|b| b.name.as_str() == "late")).await;
    for refused in [
        serve.set_traffic("e", [("late", 1.0)]).await,
        serve.shadow_traffic("e", "late", 1.0).await,
        serve.create_endpoint("f", Endpoint::new("late")).await,
    ] {
        assert!(refused.unwrap_err().to_string().contains("still being created"));
    }
    assert!(creating.await.unwrap().is_err());
    assert_eq!(serve.handle::<Who>("e").unwrap().call(Who {}).await.unwrap(), "a");
    serve.shutdown().await.unwrap();
}

/// Never made.
struct Never;

impl actix::Actor for Never {
    type Context = ReplicaContext<Self>;
}

impl actix::Handler<Who> for Never {
    type Result = Result<String, ServeError>;
    fn handle(&mut self, _: Who, _: &mut Self::Context) -> Self::Result {
        Ok(String::new())
    }
}

#[actix_web::test]
async fn a_message_that_cannot_be_copied_is_named() {
    #[derive(actix::Message)]
    #[rtype(result = "Result<(), ServeError>")]
    struct Unique;
    let serve = here().await;
    for name in ["main", "shadow"] {
        let backend = Backend::from_fn(|_: Unique| async { Ok(()) });
        serve.create_backend(name, backend, BackendConfig::default()).await.unwrap();
    }
    serve.create_endpoint("e", Endpoint::new("main")).await.unwrap();
    let error = serve.shadow_traffic("e", "shadow", 0.5).await.unwrap_err();
    assert_eq!(error.code(), "not_copied");
    let text = error.to_string();
    assert!(text.contains("Unique") && text.contains("shadow") && text.contains(".shadows::<M>()"), "{text}");
    assert!(serve.list_endpoints()[0].shadow.is_empty());
    // Both have an HTTP form as well, which nobody can send to an endpoint without a route.
    for name in ["main-http", "shadow-http"] {
        let backend = Backend::new(|_| Ok(Never)).json::<Who>();
        serve.create_backend(name, backend, BackendConfig::default()).await.unwrap();
    }
    serve.create_endpoint("typed", Endpoint::new("main-http")).await.unwrap();
    let error = serve.shadow_traffic("typed", "shadow-http", 0.5).await.unwrap_err();
    assert!(error.code() == "not_copied" && error.to_string().contains("Who"), "{error}");
    serve.create_endpoint("routed", Endpoint::new("main-http").route("/who")).await.unwrap();
    serve.shadow_traffic("routed", "shadow-http", 0.5).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_that_does_not_take_the_requests_can_neither_serve_nor_shadow_them() {
    #[derive(actix::Message, Clone)]
    #[rtype(result = "Result<(), ServeError>")]
    struct Other;
    let serve = here().await;
    backends(&serve, &["a"]).await;
    let other = Backend::from_fn(|_: Other| async { Ok(()) }).shadows::<Other>();
    serve.create_backend("other", other, BackendConfig::default()).await.unwrap();
    let typed = Backend::from_fn(|_: Who| async { Ok(String::new()) }).shadows::<Who>();
    serve.create_backend("typed", typed, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("plain", Endpoint::new("a")).await.unwrap();
    serve.create_endpoint("routed", Endpoint::new("a").route("/a")).await.unwrap();
    for endpoint in ["plain", "routed"] {
        let error = serve.shadow_traffic(endpoint, "other", 0.5).await.unwrap_err();
        assert_eq!(error.code(), "not_taken", "{endpoint}");
        assert!(error.to_string().contains("Other"), "{error}");
    }
    let http = std::any::type_name::<HttpCall>();
    for refused in [
        serve.shadow_traffic("routed", "typed", 0.5).await,
        serve.set_traffic("routed", [("typed", 1.0)]).await,
    ] {
        assert!(refused.unwrap_err().to_string().contains(http), "behind a route HTTP must be taken");
    }
    serve.shadow_traffic("plain", "typed", 0.5).await.unwrap();
    serve.set_traffic("plain", [("typed", 1.0)]).await.unwrap();
    serve.shutdown().await.unwrap();
}
