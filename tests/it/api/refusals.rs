//! Everything that is refused, and that nothing changes by it.

use greenroom::{Backend, BackendConfig, BackendUpdate, Endpoint, Problem};
use serde_json::json;

use super::{Next, Stranger, adder, here, problems};

fn places(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.place.as_str()).collect()
}

#[test]
fn unknown_options_and_values_that_cannot_be_are_told_all_at_once() {
    let wrong = json!({
        "num_replica": 1, "num_replicas": -1, "max_batch_size": 0, "max_queued_queries": 1.5, "placement": "mars",
    });
    let problems = problems(BackendUpdate::from_json(wrong).unwrap_err());
    let mut found = places(&problems);
    found.sort_unstable();
    assert_eq!(found, ["max_batch_size", "max_queued_queries", "num_replica", "num_replicas", "placement"]);
    let text = format!("{problems:?}");
    assert!(text.contains("num_replicas") && text.contains("worker"), "what is allowed is told: {text}");
    for replicas in [json!(-1), json!(1.5), json!("2"), json!(null), json!(1e9), json!(true)] {
        assert!(BackendUpdate::from_json(json!({ "num_replicas": replicas })).is_err(), "{replicas}");
    }
    assert!(BackendUpdate::from_json(json!({ "num_replicas": 0 })).is_ok());
}

#[actix_web::test]
async fn an_update_that_is_refused_changes_nothing() {
    let serve = here().await;
    let config = BackendConfig::default().max_concurrent_queries(4);
    serve.create_backend("add", adder().0.batched::<Next>(), config.clone()).await.unwrap();
    let wrong = BackendUpdate::default().num_replicas(3).max_batch_size(8).max_queued_queries(usize::MAX);
    let told = problems(serve.update_backend_config("add", wrong).await.unwrap_err());
    assert_eq!(places(&told), ["max_queued_queries", "max_concurrent_queries"]);
    assert_eq!(serve.get_backend_config("add").unwrap(), config);
    assert_eq!(serve.status().backends[0].replicas.len(), 1);
    for (option, update) in
        [("idempotent", json!({"idempotent": true})), ("user_config", json!({"user_config": 1}))]
    {
        let update = BackendUpdate::from_json(update).unwrap().num_threads(2).num_replicas(2);
        let error = serve.update_backend_config("add", update).await.unwrap_err();
        assert_eq!(error.code(), "invalid");
        assert!(error.to_string().contains(option), "{error}");
        assert_eq!(serve.get_backend_config("add").unwrap(), config);
    }
    let error = serve.update_backend_config("other", BackendUpdate::default()).await.unwrap_err();
    assert_eq!(error.code(), "unknown_backend");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn names_and_routes_are_given_once() {
    let serve = here().await;
    let json = || Backend::from_fn(|Next(n): Next| async move { Ok(n) }).json::<Next>();
    serve.create_backend("add", json(), BackendConfig::default()).await.unwrap();
    let again = serve.create_backend("add", json(), BackendConfig::default()).await.unwrap_err();
    assert_eq!(again.to_string(), "backend add exists already");
    serve.create_endpoint("e", Endpoint::new("add").route("/a/{x}")).await.unwrap();
    let again = serve.create_endpoint("e", Endpoint::new("add").route("/b")).await.unwrap_err();
    assert_eq!(again.to_string(), "endpoint e exists already");
    let again = serve.create_endpoint("f", Endpoint::new("add").route("/a/{y}")).await.unwrap_err();
    assert_eq!(again.to_string(), "route /a/{x} exists already");
    assert_eq!(serve.handle::<Next>("f").unwrap_err().code(), "unknown_endpoint", "nothing is left of it");
    assert_eq!(serve.list_endpoints().len(), 1);
    serve.create_endpoint("f", Endpoint::new("add").route("/b")).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_endpoint_with_mistakes_tells_them_all() {
    let serve = here().await;
    for (route, ok) in [
        ("/a", true),
        ("a", false),
        ("", false),
        ("/a//b", false),
        ("/{", false),
        ("/{a}{b}", false),
        ("/{a}/{a}", false),
        ("/x?y", false),
        ("/{}", false),
    ] {
        let error = serve.create_endpoint("e", Endpoint::new("none").route(route)).await.unwrap_err();
        let code = if ok { "unknown_backend" } else { "invalid_config" };
        assert_eq!(error.code(), code, "{route}: {error}");
    }
    let wrong = Endpoint::new("no name").route("no-slash").methods(["FETCH"]);
    let told = problems(serve.create_endpoint("e", wrong).await.unwrap_err());
    assert_eq!(places(&told), ["backend", "route", "methods"]);
    let error = serve.create_endpoint("bad name", Endpoint::new("none")).await.unwrap_err();
    assert!(error.to_string().contains("bad name"), "{error}");
    assert_eq!(serve.delete_endpoint("e").await.unwrap_err().code(), "unknown_endpoint");
    assert_eq!(serve.delete_backend("none", false).await.unwrap_err().code(), "unknown_backend");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_message_that_a_backend_does_not_take_is_refused_with_both_named() {
    let serve = here().await;
    serve.create_backend("add", adder().0, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("add")).await.unwrap();
    let error = serve.handle::<Stranger>("e").unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code(), "not_taken");
    assert!(text.contains("backend add") && text.contains("Stranger") && text.contains("Next"), "{text}");
    let error = serve.create_endpoint("h", Endpoint::new("add").route("/h")).await.unwrap_err();
    assert_eq!(error.code(), "not_taken");
    assert!(error.to_string().contains("add") && error.to_string().contains("HttpCall"), "{error}");
    assert_eq!(serve.list_endpoints().len(), 1, "without its route it is not made either");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn options_that_the_backend_s_code_cannot_follow_are_refused() {
    let serve = here().await;
    let batch = BackendConfig::default().max_batch_size(4);
    let error = serve.create_backend("a", adder().0, batch.clone()).await.unwrap_err();
    assert!(error.to_string().contains("batched"), "{error}");
    let twice = batch.clone().idempotent(true);
    let error = serve.create_backend("a", adder().0.batched::<Next>(), twice.clone()).await.unwrap_err();
    assert!(error.to_string().contains("retries_batches"), "{error}");
    assert!(serve.list_backends().is_empty());
    serve.create_backend("a", adder().0.batched::<Next>(), batch).await.unwrap();
    serve.create_backend("b", adder().0.batched::<Next>().retries_batches::<Next>(), twice).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn with_one_thread_alone_nothing_listens() {
    let serve = here().await;
    assert_eq!(serve.listen(greenroom::Listen::default()).await.unwrap_err().code(), "internal");
    serve.shutdown().await.unwrap();
}
