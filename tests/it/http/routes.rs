//! Routes and methods: exact, with parameters, 404, 405, HEAD.

use greenroom::{Backend, BackendConfig, CALL_METHOD_HEADER, Endpoint};

use super::{Lab, lab};
use crate::wire::{Client, ask, get, post};

#[actix_web::test]
async fn an_exact_route_takes_a_query_with_get_and_a_body_with_post() {
    let (serve, address) = lab().await;
    let answer = get(address, "/lab?a=40&b=2").await;
    assert_eq!((answer.status, answer.text()), (200, "42"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer = post(address, "/lab?a=1", r#"{"a":40,"b":2}"#).await;
    assert_eq!((answer.status, answer.text()), (200, "42"), "with POST the query is not read");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_parameter_of_the_route_joins_query_and_body_and_is_percent_decoded() {
    let (serve, address) = lab().await;
    let methods = ["GET", "POST"];
    serve.create_endpoint("a", Endpoint::new("lab").route("/add/{a}").methods(methods)).await.unwrap();
    assert_eq!(get(address, "/add/40?b=2").await.text(), "42");
    assert_eq!(post(address, "/add/40", r#"{"b":2}"#).await.text(), "42");
    assert_eq!(get(address, "/add/4x").await.code(), "bad_request");
    assert_eq!(get(address, "/add/").await.status, 404, "a parameter is never empty");
    assert_eq!(get(address, "/add/1/2").await.status, 404);

    serve.create_endpoint("e", Endpoint::new("lab").route("/echo/{text}")).await.unwrap();
    let mut client = Client::connect(address).await;
    client.request("GET", "/echo/a%20b%2Fc", &["x-serve-call-method: echo"], "").await;
    assert_eq!(client.answer().await.text(), r#""a b/c""#);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_exact_route_comes_before_one_with_a_parameter() {
    let (serve, address) = lab().await;
    serve.create_endpoint("any", Endpoint::new("lab").route("/{a}")).await.unwrap();
    assert_eq!(get(address, "/7?b=1").await.text(), "8");
    assert_eq!(get(address, "/lab?a=1").await.text(), "1", "not {{a}} = lab");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_method_that_is_not_allowed_gets_405_and_the_ones_that_are() {
    let (serve, address) = lab().await;
    for method in ["PUT", "DELETE", "OPTIONS", "PURGE"] {
        let answer = ask(address, method, "/lab", &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"), "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST"), "{method}");
    }
    serve.create_endpoint("p", Endpoint::new("lab").route("/post").methods(["POST"])).await.unwrap();
    assert_eq!(get(address, "/post").await.header("allow"), Some("POST"));
    assert_eq!(ask(address, "HEAD", "/post", &[], "").await.status, 405, "HEAD comes only with GET");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_endpoint_with_get_answers_head_with_the_same_headers_and_no_body() {
    let (serve, address) = lab().await;
    let mut client = Client::connect(address).await;
    client.request("HEAD", "/lab?a=123", &[], "").await;
    let head = client.try_answer(true).await.unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("3")));
    client.request("GET", "/lab?a=7", &[], "").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "7"), "no byte of a body lay between");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_header_names_which_of_several_messages_is_meant() {
    let (serve, address) = lab().await;
    let header = format!("{CALL_METHOD_HEADER}: echo");
    let answer = ask(address, "POST", "/lab", &[&header], r#"{"text":"hi"}"#).await;
    assert_eq!(answer.text(), r#""hi""#);
    let answer = ask(address, "GET", "/lab?x=0.5", &["X-SERVE-CALL-METHOD: same"], "").await;
    assert_eq!(answer.text(), "0.5");
    let answer = ask(address, "GET", "/lab", &["X-SERVE-CALL-METHOD: nonsense"], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("nonsense") && detail.contains("add, same, echo"), "{detail}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_call_method_is_also_checked_when_the_backend_has_one_message() {
    let (serve, address) = lab().await;
    let one = Backend::new(|_| Ok(Lab)).json::<super::Add>();
    serve.create_backend("one", one, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("one", Endpoint::new("one").route("/one")).await.unwrap();
    assert_eq!(ask(address, "GET", "/one?a=1", &["x-serve-call-method: add"], "").await.text(), "1");
    assert_eq!(ask(address, "GET", "/one?a=1", &["x-serve-call-method: ad"], "").await.status, 400);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_unknown_route_is_404_and_routes_come_and_go_while_it_listens() {
    let (serve, address) = lab().await;
    let answer = get(address, "/nowhere").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "no_route"));
    serve.create_endpoint("now", Endpoint::new("lab").route("/nowhere")).await.unwrap();
    assert_eq!(get(address, "/nowhere?a=1").await.status, 200);
    serve.delete_endpoint("now").await.unwrap();
    assert_eq!(get(address, "/nowhere?a=1").await.status, 404);
    serve.shutdown().await.unwrap();
}
