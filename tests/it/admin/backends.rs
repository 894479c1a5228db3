//! Backends by themselves: made, changed, scaled, deleted; twice, and badly.

use serde_json::json;

use super::{deployed, did, refused, service};
use crate::wire::get;

#[actix_web::test]
async fn put_makes_a_backend_and_changes_it_and_says_what_it_did() {
    let (serve, _, api) = service().await;
    let at = "/api/serve/backends/a";
    assert_eq!(api.twice("PUT", at, &json!({"registered": "one"})).await, ["create backend a"]);
    let more = json!({"name": "a", "registered": "one", "num_replicas": 2, "max_queued_queries": 7});
    assert_eq!(api.twice("PUT", at, &more).await, ["scale backend a"]);
    let read = api.get(at).await.json();
    assert_eq!((&read["registered"], &read["num_replicas"]), (&json!("one"), &json!(2)));
    assert_eq!(api.put(at, &read).await.json()["changed"], json!([]), "what is read can be written");
    // Absent options have their defaults again.
    let answer = api.put(at, &json!({"registered": "one"})).await;
    assert_eq!(did(&answer), ["scale backend a"]);
    assert_eq!(serve.get_backend_config("a").unwrap().max_queued_queries, 1000);
    let fields: Vec<_> = answer.json()["changed"][0]["why"].as_array().unwrap().clone();
    let told: Vec<_> = fields.iter().map(|why| why["text"].as_str().unwrap()).collect();
    assert_eq!(told, ["max_queued_queries: 7 -> 1000", "num_replicas: 2 -> 1"]);
    assert_eq!(api.twice("PUT", at, &json!({"registered": "two"})).await, ["roll backend a"]);
    assert_eq!(api.get("/api/serve/backends").await.json()["backends"][0]["registered"], "two");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn patch_changes_what_is_given_and_nothing_else() {
    let (serve, _, api) = deployed().await;
    let at = "/api/serve/backends/one";
    assert_eq!(api.twice("PATCH", at, &json!({"num_replicas": 2})).await, ["scale backend one"]);
    assert_eq!(api.twice("PATCH", at, &json!({"request_timeout_s": 5})).await, ["update backend one"]);
    let config = serve.get_backend_config("one").unwrap();
    assert_eq!((config.num_replicas, config.request_timeout.unwrap().as_secs()), (2, 5));
    assert_eq!(api.twice("PATCH", at, &json!({"request_timeout_s": null})).await, ["update backend one"]);
    assert_eq!(api.twice("PATCH", at, &json!({})).await, [""; 0]);
    let answer = api.send("PATCH", "/api/serve/backends/none", &json!({"num_replicas": 2})).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_backend"));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn every_mistake_is_told_with_its_place_and_nothing_is_done() {
    let (serve, _, api) = deployed().await;
    let at = "/api/serve/backends/one";
    let wrong =
        json!({"registered": "one", "num_replicas": -1, "restart": {"max_restarts": "x"}, "colour": 1});
    let (status, code, places) = refused(&api.put(at, &wrong).await);
    assert_eq!((status, code.as_str()), (400, "invalid_config"));
    assert_eq!(places, ["num_replicas", "restart.max_restarts", "colour"]);
    let (_, _, places) = refused(&api.send("PATCH", at, &json!({"num_replicas": "3", "onnx": "x"})).await);
    assert_eq!(places, ["num_replicas", "onnx"]);
    let both = json!({"max_batch_size": 200, "max_concurrent_queries": 100});
    assert_eq!(refused(&api.send("PATCH", at, &both).await).2, ["max_concurrent_queries"]);
    let renamed = api.put(at, &json!({"name": "other", "registered": "one"})).await;
    assert_eq!(refused(&renamed), (400, "invalid_config".into(), vec!["name".into()]));
    let unknown = api.put(at, &json!({"registered": "three"})).await;
    assert_eq!(refused(&unknown).2, ["registered"], "{}", unknown.text());
    let none = api.put(at, &json!({"num_replicas": 2})).await;
    assert!(none.text().contains("one of onnx and registered"), "{}", none.text());
    let config = api.send("PATCH", at, &json!({"user_config": {"x": 1}})).await;
    assert_eq!(
        (config.status, refused(&config).2),
        (400, vec!["user_config".to_owned()]),
        "{}",
        config.text()
    );
    assert_eq!(serve.get_backend_config("one").unwrap(), greenroom::BackendConfig::default());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn delete_takes_a_backend_away_unless_an_endpoint_names_it() {
    let (serve, data, api) = deployed().await;
    let used = api.delete("/api/serve/backends/one").await;
    assert_eq!((used.status, used.code().as_str()), (409, "in_use"));
    assert_eq!(get(data, "/which").await.text(), "1");
    for (path, done) in [
        ("/api/serve/backends/two", vec!["delete backend two"]),
        ("/api/serve/backends/two", vec![]),
        ("/api/serve/backends/two?force=true", vec![]),
        ("/api/serve/backends/none", vec![]),
    ] {
        assert_eq!(did(&api.delete(path).await), done, "{path}");
    }
    assert_eq!(serve.list_backends().len(), 1);
    serve.shutdown().await.unwrap();
}
