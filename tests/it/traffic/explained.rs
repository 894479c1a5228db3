//! An answer tells which rule, backend and replica served it, when it is asked to.

use greenroom::{Backend, BackendConfig, Endpoint, Listen, RoutingRule, Serve};

use super::{Who, backends, here};
use crate::{
    support::metric,
    wire::{ask, listening},
};

#[actix_web::test]
async fn a_call_tells_its_rule_backend_replica_and_copies() {
    let serve = here().await;
    backends(&serve, &["a", "b", "c"]).await;
    serve.create_endpoint("one", Endpoint::new("a")).await.unwrap();
    let handle = serve.handle::<Who>("one").unwrap();
    let (answer, why) = handle.call_explained(Who {}).await;
    assert_eq!((answer.unwrap(), why.rule), ("a".into(), Some(RoutingRule::Only)));
    assert_eq!(why.endpoint.unwrap().as_str(), "one");
    assert!(why.shadows.is_empty());
    let replica = why.replica.unwrap();
    assert_eq!((replica.backend.as_str(), replica.slot), ("a", 0));
    serve.set_traffic("one", [("a", 0.25), ("b", 0.75)]).await.unwrap();
    serve.shadow_traffic("one", "c", 1.0).await.unwrap();
    for _ in 0..20 {
        let (answer, why) = handle.call_explained(Who {}).await;
        let (backend, weight) = if answer.unwrap() == "a" { ("a", 0.25) } else { ("b", 0.75) };
        assert_eq!(why.backend.unwrap().as_str(), backend);
        assert_eq!(why.rule, Some(RoutingRule::Weight(weight)));
        assert_eq!(why.shadows[0].as_str(), "c");
    }
    let (_, why) = handle.options().shard_key("k").call_explained(Who {}).await;
    assert!(matches!(why.rule, Some(RoutingRule::ShardKey(_))), "{why:?}");
    serve.delete_endpoint("one").await.unwrap();
    let (answer, why) = handle.call_explained(Who {}).await;
    assert_eq!((answer.unwrap_err().code(), why.backend), ("unknown_endpoint", None));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_refused_call_went_nowhere_and_is_not_counted() {
    let serve = here().await;
    backends(&serve, &["shadow"]).await;
    let held = Backend::from_fn(|_: Who| std::future::pending());
    let config = BackendConfig::default().max_concurrent_queries(1).max_queued_queries(0);
    serve.create_backend("full", held, config).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("full")).await.unwrap();
    serve.shadow_traffic("e", "shadow", 1.0).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap();
    let taken = handle.call(Who {});
    let (answer, why) = handle.call_explained(Who {}).await;
    assert_eq!(answer.unwrap_err().code(), "overloaded");
    assert_eq!((why.backend.unwrap().as_str(), why.replica, why.shadows.len()), ("full", None, 0));
    let labels = "endpoint=\"e\",backend=\"full\"";
    assert_eq!(metric(&serve, "serve_num_router_requests_total", labels), 1);
    drop(taken);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn over_http_it_is_told_in_headers_to_those_who_ask() {
    let (serve, address) = listening(1).await;
    backends(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a").route("/who")).await.unwrap();
    serve.shadow_traffic("e", "b", 1.0).await.unwrap();
    let told = ["endpoint", "rule", "backend", "replica", "shadows"].map(|part| format!("x-serve-{part}"));
    let answer = ask(address, "GET", "/who", &["X-Serve-Explain: 1"], "").await;
    let values = told.each_ref().map(|name| answer.header(name).unwrap());
    assert_eq!((values[0], values[1], values[2], values[4]), ("e", "only", "a", "b"));
    assert!(values[3].starts_with("a#0"), "{values:?}");
    for headers in [&[][..], &["X-Serve-Explain: 0"], &["X-Serve-Explain: False"]] {
        let answer = ask(address, "GET", "/who", headers, "").await;
        assert!(told.iter().all(|name| answer.header(name).is_none()), "{answer:?}");
    }
    let refused = ask(address, "GET", "/who?x=%ff%zz", &["X-Serve-Explain: 1"], "").await;
    assert_eq!(
        (refused.header("x-serve-backend"), refused.header("x-request-id").is_some()),
        (Some("a"), true)
    );
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_server_can_keep_it_to_itself() {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
    let address = serve.listen(Listen::default().without_explanations()).await.unwrap();
    backends(&serve, &["a"]).await;
    serve.create_endpoint("e", Endpoint::new("a").route("/who")).await.unwrap();
    let answer = ask(address, "GET", "/who", &["X-Serve-Explain: 1"], "").await;
    assert_eq!((answer.status, answer.header("x-serve-backend")), (200, None));
    serve.shutdown().await.unwrap();
}
