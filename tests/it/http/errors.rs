//! What goes wrong behind a route: the backend's own errors, panics, overload, no replica, deadlines.

use std::time::Duration;

use greenroom::{BackendConfig, BackendUpdate};

use super::{lab, waiting};
use crate::wire::{Client, ask, eventually, get, listening};

#[actix_web::test]
async fn the_backend_s_own_error_keeps_its_status_and_code() {
    let (serve, address) = lab().await;
    let answer = ask(address, "POST", "/lab", &["x-serve-call-method: refuse"], "null").await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "not_a_digit"));
    let json = answer.json();
    assert_eq!(json["detail"], "64 pixels are needed");
    assert_eq!(json["title"], "Unprocessable Entity");
    assert_eq!(json["type"], "about:blank");
    assert_eq!(json["request_id"], answer.header("x-request-id").unwrap());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_panic_is_500_without_its_text_and_the_next_request_is_served() {
    let (serve, address) = lab().await;
    let mut client = Client::connect(address).await;
    for _ in 0..3 {
        client.request("POST", "/lab", &["x-serve-call-method: panic"], "null").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "panicked"));
        assert!(!answer.text().contains("secret"), "{}", answer.text());
        client.request("GET", "/lab?a=1", &[], "").await;
        assert_eq!(client.answer().await.text(), "1");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn overload_is_503_at_once_and_says_when_to_come_back() {
    let (serve, address) = listening(1).await;
    let config = BackendConfig::default().max_concurrent_queries(1).max_queued_queries(1);
    let door = waiting(&serve, config).await;
    let (mut first, mut second) = (Client::connect(address).await, Client::connect(address).await);
    first.request("GET", "/wait", &[], "").await;
    second.request("GET", "/wait", &[], "").await;
    let load = || serve.status().backends[0].replicas[0].load;
    eventually("one runs, one waits", || load() == 2).await;
    let answer = get(address, "/wait").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    door.open.add_permits(2);
    assert_eq!(first.answer().await.text(), r#""through""#);
    assert_eq!(second.answer().await.status, 200);
    eventually("all left", || load() == 0).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn without_a_replica_it_is_503_until_somebody_scales_up() {
    let (serve, address) = listening(1).await;
    let door = waiting(&serve, BackendConfig::default().num_replicas(0)).await;
    door.open.add_permits(1);
    let answer = get(address, "/wait").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_replica"));
    serve.update_backend_config("wait", BackendUpdate::default().num_replicas(1)).await.unwrap();
    assert_eq!(get(address, "/wait").await.status, 200);
    serve.update_backend_config("wait", BackendUpdate::default().num_replicas(0)).await.unwrap();
    assert_eq!(get(address, "/wait").await.code(), "no_replica");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn past_the_request_timeout_it_is_504_and_the_handler_is_dropped() {
    let (serve, address) = listening(1).await;
    let config = BackendConfig::default().request_timeout(Duration::from_millis(30));
    let door = waiting(&serve, config).await;
    let answer = get(address, "/wait").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_exceeded"));
    eventually("the handler is gone", || door.inside() == 0).await;
    serve.shutdown().await.unwrap();
}
