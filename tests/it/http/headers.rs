//! Request ids, traces and shard keys.

use super::lab;
use crate::wire::{ask, get};

fn look(json: &serde_json::Value, field: &str) -> String {
    json[field].as_str().unwrap_or("none").to_owned()
}

#[actix_web::test]
async fn a_request_id_is_taken_over_or_made_and_told_both_ways() {
    let (serve, address) = lab().await;
    let answer =
        ask(address, "GET", "/lab", &["x-serve-call-method: look", "X-Request-Id: mine-1"], "").await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert_eq!(look(&answer.json(), "id"), "mine-1");
    let answer = ask(address, "GET", "/lab", &["x-serve-call-method: look"], "").await;
    let made = answer.header("x-request-id").unwrap().to_owned();
    assert_eq!(look(&answer.json(), "id"), made);
    assert_eq!(made.len(), 32);
    assert_ne!(get(address, "/lab?a=1").await.header("x-request-id"), Some(made.as_str()));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn every_answer_has_a_request_id() {
    let (serve, address) = lab().await;
    let admin = serve.listen_admin(greenroom::Listen::default()).await.unwrap();
    let paths = ["/nowhere", "/-/healthz", "/-/readyz", "/-/routes", "/metrics", "/lab?a=1", "/lab?a=x"];
    for at in [address, admin] {
        for path in paths {
            let answer = ask(at, "GET", path, &["x-request-id: mine-2"], "").await;
            assert_eq!(answer.header("x-request-id"), Some("mine-2"), "{path}");
            assert_eq!(get(at, path).await.header("x-request-id").map(str::len), Some(32), "{path}");
        }
        for (method, path) in [("PUT", "/lab"), ("POST", "/-/healthz"), ("PURGE", "/metrics"), ("HEAD", "/x")]
        {
            let answer = ask(at, method, path, &["x-request-id: mine-3"], "").await;
            assert_eq!(answer.header("x-request-id"), Some("mine-3"), "{method} {path}");
        }
    }
    let answer = ask(address, "GET", "/nowhere", &["x-request-id: mine-4"], "").await;
    assert_eq!(answer.json()["request_id"], "mine-4");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_request_id_that_cannot_be_one_is_refused_with_one_of_ours() {
    let (serve, address) = lab().await;
    for bad in ["", "two words", &"x".repeat(129)] {
        let header = format!("x-request-id: {bad}");
        let answer = ask(address, "GET", "/lab?a=1", &[&header], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{bad:?}");
        assert_eq!(answer.header("x-request-id").map(str::len), Some(32), "{bad:?}");
        assert_eq!(get(address, "/nowhere").await.status, 404);
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn trace_and_shard_key_are_handed_on() {
    let (serve, address) = lab().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers =
        ["x-serve-call-method: look", &format!("traceparent: {trace}"), "X-SERVE-SHARD-KEY: user 7"];
    let answer = ask(address, "GET", "/lab", &headers, "").await;
    assert_eq!(look(&answer.json(), "trace"), trace);
    assert_eq!(look(&answer.json(), "key"), "user 7");
    let long = format!("traceparent: {}", "0".repeat(1000));
    let answer = ask(address, "GET", "/lab", &["x-serve-call-method: look", &long], "").await;
    assert_eq!(look(&answer.json(), "trace"), "none", "one that is too long is not carried along");
    serve.shutdown().await.unwrap();
}
