//! Options: defaults, what is refused, what an update changes.

use std::{path::Path, time::Duration};

use greenroom::{
    BackendConfig, BackendUpdate, Capacity, Location, Resources, Serve, ServeConfig, ServeError, ServeOptions,
};
use serde_json::{Value, json};

use super::{create_named, here, named};

/// Where the problems of a refusal are.
fn places(refused: Result<impl std::fmt::Debug, ServeError>) -> Vec<String> {
    match refused.unwrap_err() {
        ServeError::InvalidConfig(problems) => problems.into_iter().map(|problem| problem.place).collect(),
        other => panic!("another error: {other:?}"),
    }
}

#[test]
fn the_options_of_a_backend_have_their_defaults() {
    let options = serde_json::to_value(BackendConfig::default()).unwrap();
    for (option, default) in [
        ("num_replicas", json!(1)),
        ("max_batch_size", Value::Null),
        ("batch_wait_timeout_s", json!(0.0)),
        ("max_concurrent_queries", json!(100)),
        ("max_queued_queries", json!(1000)),
        ("request_timeout_s", Value::Null),
        ("graceful_shutdown_timeout_s", json!(20.0)),
        ("startup_timeout_s", json!(60.0)),
        ("health_check_period_s", json!(10.0)),
        ("health_check_timeout_s", json!(30.0)),
        ("idempotent", json!(false)),
    ] {
        assert_eq!(options[option], default, "{option}");
    }
}

#[test]
fn values_that_cannot_be_and_unknown_options_are_refused() {
    for (option, values) in [
        ("num_replicas", [json!(-1), json!("two"), json!(1.5)]),
        ("max_batch_size", [json!(0), json!(-1), json!("many")]),
        ("batch_wait_timeout_s", [json!(-0.1), json!("soon"), json!([])]),
        ("max_concurrent_queries", [json!(0), json!(-1), Value::Null]),
        ("graceful_shutdown_timeout_s", [json!(-1), json!("late"), json!({})]),
        ("no_such_option", [json!(1), json!("x"), json!(true)]),
    ] {
        for value in values {
            assert_eq!(places(BackendUpdate::from_json(json!({ option: value }))), [option], "{value}");
        }
    }
    assert!(BackendUpdate::from_json(json!({"num_replicas": 0})).is_ok());
    assert!(BackendConfig::default().max_batch_size(0).check().is_err());
    assert_eq!(places(BackendConfig::default().max_batch_size(101).check()), ["max_concurrent_queries"]);
}

#[actix_web::test]
async fn an_update_changes_what_it_gives_and_nothing_else() {
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    let update = BackendUpdate::from_json(json!({"num_replicas": 2, "max_concurrent_queries": 7})).unwrap();
    serve.update_backend_config("a", update).await.unwrap();
    let timeout = Duration::from_secs(3);
    serve
        .update_backend_config("a", BackendUpdate::default().graceful_shutdown_timeout(timeout))
        .await
        .unwrap();
    let want =
        BackendConfig::default().num_replicas(2).max_concurrent_queries(7).graceful_shutdown_timeout(timeout);
    assert_eq!(serve.get_backend_config("a"), Ok(want));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_update_of_an_unknown_backend_and_its_options_are_refused() {
    let serve = here().await;
    let update = serve.update_backend_config("nobody", BackendUpdate::default().num_replicas(2)).await;
    assert_eq!(update.unwrap_err().code(), "unknown_backend");
    assert_eq!(serve.get_backend_config("nobody").unwrap_err().code(), "unknown_backend");
    serve.shutdown().await.unwrap();
}

#[test]
fn the_options_of_http_have_their_defaults_and_unknown_ones_are_refused() {
    let read = |http: Value| ServeConfig::from_json(json!({ "http": http }), Path::new("/"));
    let http = read(json!({})).unwrap().http;
    assert_eq!((http.host.as_str(), http.port, http.location), ("127.0.0.1", 8000, Location::HeadOnly));
    for (name, location) in [
        ("HeadOnly", Location::HeadOnly),
        ("EveryNode", Location::EveryNode),
        ("NoServer", Location::NoServer),
    ] {
        assert_eq!(read(json!({"location": name})).unwrap().http.location, location);
    }
    for (http, place) in [
        (json!({"location": "Nowhere"}), "http.location"),
        (json!({"port": "eighty"}), "http.port"),
        (json!({"no_such_option": 1}), "http.no_such_option"),
    ] {
        assert_eq!(places(read(http)), [place]);
    }
}

#[actix_web::test]
async fn replicas_that_can_never_fit_are_refused_and_none_is_made() {
    let capacity = Capacity::default().num_cpus(4.0);
    let serve = Serve::start(ServeOptions::default().current_thread().capacity(capacity)).await.unwrap();
    for (resources, cure) in [
        (
            Resources::default().custom("MagicMLResource", 100.0),
            "capacity.custom.MagicMLResource to at least 100",
        ),
        (Resources::default().num_cpus(5.0), "capacity.num_cpus to at least 5"),
    ] {
        let config = BackendConfig::default().resources(resources);
        let error = serve.create_backend("a", named("a"), config).await.unwrap_err();
        assert!(error.code() == "no_resources" && error.to_string().ends_with(cure), "{error}");
    }
    assert!(serve.status().backends.is_empty());
    create_named(&serve, &["a"]).await;
    let more = serve.update_backend_config("a", BackendUpdate::default().num_replicas(5)).await;
    assert!(matches!(more, Err(ServeError::NoResources { replicas: 5, fit: 4, .. })), "{more:?}");
    assert_eq!(serve.status().backends[0].replicas.len(), 1);
    serve.shutdown().await.unwrap();
}

#[test]
fn resources_that_cannot_be_are_refused() {
    for (key, values) in [
        ("num_cpus", [json!("1"), json!(-1), json!([])]),
        ("num_gpus", [json!("1"), json!(-1), json!(1.5)]),
        ("memory_bytes", [json!("1"), json!(-1), json!(0.5)]),
        ("custom", [json!("1"), json!(1), json!([])]),
    ] {
        for value in values {
            let update = BackendUpdate::from_json(json!({ "resources": { key: value } }));
            assert_eq!(places(update), [format!("resources.{key}")], "{value}");
        }
    }
    assert_eq!(places(BackendUpdate::from_json(json!({ "resources": "1" }))), ["resources"]);
}
