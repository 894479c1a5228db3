//! Requests that are no good: paths, methods, types, bodies, queries; all told as problems.

use greenroom::Listen;
use serde_json::json;

use super::{Api, refused, service};
use crate::wire::Client;

const JSON: &str = "content-type: application/json";

#[actix_web::test]
async fn a_path_that_is_not_there_is_404_and_tells_where_all_are_described() {
    let (serve, _, api) = service().await;
    for path in
        ["/api", "/api/", "/api/serve", "/api/serve/backend", "/api/serve/backends/a/b", "/api/serve/status/"]
    {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_path"), "{path}");
        assert!(answer.text().contains("/api/openapi.json"));
    }
    assert_eq!(api.get("/other").await.code(), "no_route");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_method_that_is_not_there_is_405_with_those_that_are() {
    let (serve, _, api) = service().await;
    for (method, path, allow) in [
        ("POST", "/api/serve/status", "GET, HEAD"),
        ("DELETE", "/api/serve/config", "GET, HEAD, PUT"),
        ("POST", "/api/serve/backends/a", "GET, HEAD, PUT, PATCH, DELETE"),
        ("PATCH", "/api/serve/endpoints/a", "GET, HEAD, PUT, DELETE"),
        ("GET", "/api/serve/rollback", "POST"),
        ("HEAD", "/api/serve/shutdown", "POST"),
        ("GET", "/api/serve/endpoints/a/shadow/b", "PUT, DELETE"),
    ] {
        let answer = api.ask(method, path, &[JSON], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
        if method != "HEAD" {
            assert_eq!(answer.code(), "method_not_allowed");
        }
    }
    assert_eq!(api.ask("HEAD", "/api/serve/status", &[], "").await.status, 200);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_body_that_is_no_json_or_not_there_is_400_and_one_that_is_too_large_413() {
    let (serve, _, api) = service().await;
    for body in ["{", "{\"backends\": [}", "nothing", "\u{0}"] {
        let answer = api.ask("PUT", "/api/serve/config", &[JSON], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{body:?}");
        assert!(answer.text().contains("line 1 column"), "{}", answer.text());
    }
    let answer = api.ask("PUT", "/api/serve/backends/a", &[JSON], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"));
    let small = Api(serve.listen_admin(Listen::default().max_body_bytes(100)).await.unwrap());
    let large = json!({"backends": [], "x": "y".repeat(200)}).to_string();
    let answer = small.ask("PUT", "/api/serve/config", &[JSON], &large).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    let deep = "[".repeat(100_000);
    let answer = api.ask("PUT", "/api/serve/config", &[JSON], &deep).await;
    assert_eq!(answer.status, 400, "too deep");
    for body in ["[]", "3", "null", "\"a\""] {
        let answer = api.ask("PUT", "/api/serve/backends/a", &[JSON], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_config"), "{body}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_query_that_is_not_understood_is_refused_with_every_mistake() {
    let (serve, _, api) = service().await;
    let query = "/api/serve/config?dry_run=maybe&timeout_s=-1&colour=red";
    let answer = api.put(query, &json!({})).await;
    let places = ["query.dry_run", "query.timeout_s", "query.colour"].map(str::to_owned).to_vec();
    assert_eq!(refused(&answer), (400, "invalid_config".into(), places));
    for path in ["/api/serve/status?a=1", "/api/serve/backends?force=true", "/api/openapi.json?a"] {
        assert_eq!(api.get(path).await.code(), "invalid_config", "{path}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_name_that_cannot_be_one_is_refused_and_one_that_nothing_has_is_404() {
    let (serve, _, api) = service().await;
    for path in
        ["/api/serve/backends/a%20b", "/api/serve/endpoints/%2e%2e", "/api/serve/backends/%F0%9F%98%80"]
    {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid"), "{path}");
    }
    assert_eq!(api.get("/api/serve/backends/none").await.code(), "unknown_backend");
    assert_eq!(api.get("/api/serve/endpoints/none").await.code(), "unknown_endpoint");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn every_answer_has_the_id_that_was_sent_or_a_new_one() {
    let (serve, _, api) = service().await;
    let answer = api.ask("GET", "/api/serve/backends/none", &["x-request-id: seven"], "").await;
    assert_eq!(answer.header("x-request-id"), Some("seven"));
    assert_eq!(answer.json()["request_id"], "seven");
    assert!(!api.get("/api/serve/status").await.header("x-request-id").unwrap().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn one_connection_takes_many_requests_refused_ones_too() {
    let (serve, _, api) = service().await;
    let mut client = Client::connect(api.0).await;
    for (line, status) in [
        ("GET /api/serve/status HTTP/1.1\r\nhost: localhost\r\n\r\n", 200),
        ("PUT /api/serve/status HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        ("PUT /api/serve/config HTTP/1.1\r\nhost: localhost\r\n\r\n", 415),
        ("GET /api/serve/status HTTP/1.1\r\nhost: elsewhere\r\n\r\n", 403),
        ("GET /api/none HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
        ("GET /api/serve/config HTTP/1.1\r\nhost: localhost\r\n\r\n", 200),
    ] {
        client.send(line).await;
        assert_eq!(client.answer().await.status, status, "{line}");
    }
    serve.shutdown().await.unwrap();
}
