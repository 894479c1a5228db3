//! Backends and endpoints: made once, listed, deleted, two instances beside each other, one instance shared.

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Batch, ENDPOINT_METHODS, Endpoint, ReplicaContext, ServeError,
    ShadowRule,
};
use serde_json::json;

use super::{Name, ask, create_named, here, named};

#[actix_web::test]
async fn a_second_backend_of_a_name_is_refused() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    let error = serve.create_backend("a", named("other"), BackendConfig::default()).await.unwrap_err();
    assert_eq!(error.code(), "already_exists");
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    assert_eq!(ask(&serve, "e").await, Ok("a"), "the first one is still there");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_second_endpoint_of_a_route_a_name_or_both_is_refused() {
    let serve = here().await;
    create_named(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a").route("/e")).await.unwrap();
    for (name, route) in [("f", "/e"), ("e", "/f"), ("e", "/e")] {
        let endpoint = Endpoint::new("b").route(route);
        let error = serve.create_endpoint(name, endpoint).await.unwrap_err();
        assert_eq!(error.code(), "already_exists", "{name} {route}");
    }
    assert_eq!((serve.list_endpoints().len(), ask(&serve, "e").await), (1, Ok("a")));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn of_ten_equal_creations_at_once_one_is_made_and_nine_are_refused() {
    let serve = here().await;
    let backends = (0..10).map(|_| serve.create_backend("a", named("a"), BackendConfig::default()));
    let backends = futures_util::future::join_all(backends).await;
    let endpoints = (0..10).map(|_| serve.create_endpoint("e", Endpoint::new("a").route("/e")));
    let endpoints = futures_util::future::join_all(endpoints).await;
    for made in [backends, endpoints] {
        let refused: Vec<_> = made.iter().filter_map(|made| made.as_ref().err()).collect();
        assert!(refused.len() == 9 && refused.iter().all(|e| e.code() == "already_exists"), "{refused:?}");
    }
    assert_eq!((serve.list_backends().len(), serve.list_endpoints().len()), (1, 1));
    assert_eq!(serve.status().backends[0].replicas.len(), 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_endpoint_without_a_route_is_called_by_handles_alone() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    serve.create_endpoint("noroute", Endpoint::new("a")).await.unwrap();
    assert_eq!(ask(&serve, "noroute").await, Ok("a"));
    let app = actix_web::App::new().configure(serve.ingress());
    let app = actix_web::test::init_service(app).await;
    let request = actix_web::test::TestRequest::get().uri("/noroute").to_request();
    assert_eq!(actix_web::test::call_service(&app, request).await.status(), 404);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_endpoint_on_a_name_or_route_that_cannot_be_is_refused() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    for endpoint in [
        Endpoint::new(""),
        Endpoint::new("two words"),
        Endpoint::new("a").route("noslash"),
        Endpoint::new("a").methods(["FETCH"]),
        Endpoint::new("a").methods(ENDPOINT_METHODS[..0].iter()),
    ] {
        let error = serve.create_endpoint("e", endpoint).await.unwrap_err();
        assert_eq!(error.code(), "invalid_config");
    }
    let unknown = serve.create_endpoint("e", Endpoint::new("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), "unknown_backend");
    assert!(serve.list_endpoints().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_in_a_policy_is_not_deleted_and_once_it_is_its_name_serves_new_code() {
    let serve = here().await;
    create_named(&serve, &["old", "other"]).await;
    serve.create_endpoint("e", Endpoint::new("old")).await.unwrap();
    for weights in
        [[("old", 1.0), ("other", 0.0)], [("old", 0.5), ("other", 0.5)], [("old", 0.0), ("other", 1.0)]]
    {
        serve.set_traffic("e", weights).await.unwrap();
        assert_eq!(serve.delete_backend("old", false).await.unwrap_err().code(), "in_use");
    }
    serve.set_traffic("e", [("other", 1.0)]).await.unwrap();
    serve.delete_backend("old", false).await.unwrap();
    let error = serve.set_traffic("e", [("old", 1.0)]).await.unwrap_err();
    assert_eq!(error.code(), "unknown_backend", "a deleted backend cannot be used");
    serve.create_backend("old", named("new code"), BackendConfig::default()).await.unwrap();
    serve.set_traffic("e", [("old", 1.0)]).await.unwrap();
    assert_eq!(ask(&serve, "e").await, Ok("new code"));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_in_a_shadow_rule_is_not_deleted_until_the_rule_is_gone() {
    let serve = here().await;
    create_named(&serve, &["a", "next"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    serve.shadow_traffic("e", "next", 0.1).await.unwrap();
    for force in [false, true] {
        assert_eq!(serve.delete_backend("next", force).await.unwrap_err().code(), "in_use");
    }
    serve.shadow_traffic("e", "next", 0.0).await.unwrap();
    serve.delete_backend("next", false).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_deleted_endpoint_frees_its_name_and_route_and_leaves_its_backend() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    for route in [None, Some("/route")] {
        for _ in 0..2 {
            let endpoint = Endpoint::new("a");
            let endpoint = if let Some(route) = route { endpoint.route(route) } else { endpoint };
            serve.create_endpoint("e", endpoint).await.unwrap();
            assert_eq!(ask(&serve, "e").await, Ok("a"));
            serve.delete_endpoint("e").await.unwrap();
        }
    }
    let again = serve.delete_endpoint("e").await.unwrap_err();
    assert_eq!(again.code(), "unknown_endpoint");
    assert_eq!(serve.list_backends().len(), 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn endpoints_are_listed_with_route_methods_traffic_and_shadows() {
    let serve = here().await;
    create_named(&serve, &["a", "b", "next"]).await;
    let endpoint = Endpoint::new("a").route("/api").methods(["get", "POST"]);
    serve.create_endpoint("routed", endpoint).await.unwrap();
    serve
        .create_endpoint("headless", Endpoint::new("b").shadow(ShadowRule::new("next", 0.25).unwrap()))
        .await
        .unwrap();
    serve.set_traffic("routed", [("a", 0.75), ("b", 0.25)]).await.unwrap();
    let listed: Vec<_> = serve
        .list_endpoints()
        .into_iter()
        .map(|e| {
            let shadows: Vec<_> = e.shadow.iter().map(|s| (s.backend.as_str(), s.proportion)).collect();
            json!([e.name.as_str(), e.route, e.methods, e.traffic, shadows])
        })
        .collect();
    let headless = json!(["headless", null, ["GET"], {"b": 1.0}, [["next", 0.25]]]);
    let routed = json!(["routed", "/api", ["GET", "POST"], {"a": 0.75, "b": 0.25}, []]);
    assert_eq!(listed, [headless, routed]);
    for name in ["routed", "headless"] {
        serve.delete_endpoint(name).await.unwrap();
    }
    assert!(serve.list_endpoints().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn backends_are_listed_with_their_options_until_they_are_deleted() {
    let serve = here().await;
    let options =
        [BackendConfig::default().max_concurrent_queries(10), BackendConfig::default().num_replicas(2)];
    for (name, config) in ["a", "b"].into_iter().zip(&options) {
        serve.create_backend(name, named(name), config.clone()).await.unwrap();
    }
    let listed: Vec<_> = serve.list_backends().into_iter().map(|(_, config)| config).collect();
    assert_eq!(listed, options);
    serve.delete_backend("a", false).await.unwrap();
    let left: Vec<_> = serve.list_backends().into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(left, ["b"]);
    serve.shutdown().await.unwrap();
}

/// Doubles alone and in batches.
struct Doubler;

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Double(u64);

impl Actor for Doubler {
    type Context = ReplicaContext<Self>;
}

impl Handler<Batch<Double>> for Doubler {
    type Result = Result<Vec<Result<u64, ServeError>>, ServeError>;
    fn handle(&mut self, batch: Batch<Double>, _: &mut Self::Context) -> Self::Result {
        Ok(batch.into_iter().map(|Double(n)| Ok(2 * n)).collect())
    }
}

#[actix_web::test]
async fn a_changed_batch_size_keeps_the_same_replicas() {
    let serve = here().await;
    let config = BackendConfig::default().max_batch_size(2).num_replicas(3);
    serve.create_backend("b", Backend::new(|_| Ok(Doubler)).batched::<Double>(), config).await.unwrap();
    let ids = || {
        let backends = serve.status().backends;
        backends[0].replicas.iter().map(|replica| replica.id.clone()).collect::<Vec<_>>()
    };
    let before = ids();
    serve.update_backend_config("b", BackendUpdate::default().max_batch_size(5)).await.unwrap();
    assert_eq!((before.len(), ids()), (3, before));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn two_instances_with_the_same_names_do_not_touch_each_other() {
    let (one, two) = (here().await, here().await);
    for (serve, name) in [(&one, "one"), (&two, "two")] {
        serve.create_backend("b", named(name), BackendConfig::default()).await.unwrap();
        serve.create_endpoint("e", Endpoint::new("b").route("/e")).await.unwrap();
        assert_eq!(ask(serve, "e").await, Ok(name));
    }
    one.delete_endpoint("e").await.unwrap();
    one.delete_backend("b", false).await.unwrap();
    assert_eq!(ask(&two, "e").await, Ok("two"));
    one.shutdown().await.unwrap();
    assert_eq!(ask(&two, "e").await, Ok("two"));
    two.shutdown().await.unwrap();
}

#[actix_web::test]
async fn after_a_shutdown_every_call_and_every_change_is_refused() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    let handle = serve.handle::<Name>("e").unwrap();
    serve.shutdown().await.unwrap();
    assert_eq!(handle.call(Name {}).await, Err(ServeError::ShuttingDown));
    let changes = [
        serve.create_backend("b", named("b"), BackendConfig::default()).await,
        serve.create_endpoint("f", Endpoint::new("a")).await,
        serve.set_traffic("e", [("a", 1.0)]).await,
        serve.shadow_traffic("e", "a", 0.5).await,
        serve.update_backend_config("a", BackendUpdate::default().num_replicas(2)).await,
        serve.delete_endpoint("e").await,
        serve.delete_backend("a", true).await,
    ];
    assert_eq!(changes, [const { Err(ServeError::ShuttingDown) }; 7]);
    serve.shutdown().await.expect("a second one changes nothing");
}

/// Makes a backend in the Serve that it lives in, and calls it.
#[derive(Message)]
#[rtype(result = "Result<&'static str, ServeError>")]
struct Make(&'static str);

#[actix_web::test]
async fn two_clients_and_a_backend_share_one_instance() {
    let serve = here().await;
    let (other, inside) = (serve.clone(), serve.clone());
    let maker = Backend::from_fn(move |Make(name)| {
        let serve = inside.clone();
        async move {
            create_named(&serve, &[name]).await;
            serve.create_endpoint(name, Endpoint::new(name)).await?;
            ask(&serve, name).await
        }
    });
    serve.create_backend("maker", maker, BackendConfig::default()).await.unwrap();
    other.create_endpoint("maker", Endpoint::new("maker")).await.unwrap();
    let made = serve.handle::<Make>("maker").unwrap().call(Make("made")).await;
    assert_eq!(made, Ok("made"));
    assert_eq!(ask(&other, "made").await, Ok("made"), "a client finds what the backend made");
    assert_eq!(other.list_backends().len(), 2);
    other.shutdown().await.unwrap();
    assert_eq!(ask(&serve, "made").await, Err(ServeError::ShuttingDown));
}
