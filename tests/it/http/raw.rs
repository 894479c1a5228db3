//! Raw requests and raw answers: own status, own headers, own bodies.

use std::net::SocketAddr;

use actix_web::http::{
    StatusCode,
    header::{HeaderName, HeaderValue},
};
use greenroom::{Backend, BackendConfig, Endpoint, HttpAnswer, HttpCall, Serve, ServeError};

use crate::wire::{Client, ask, listening};

fn answer(call: HttpCall) -> Result<HttpAnswer, ServeError> {
    let name = HeaderName::from_static;
    let value = HeaderValue::from_static;
    match call.param("what").unwrap_or("") {
        "echo" => {
            let mut names: Vec<_> = call.headers.keys().map(|key| key.as_str()).collect();
            names.sort_unstable();
            let seen = format!("{} {} {}", call.method, call.uri, names.join(","));
            let echo = HttpAnswer::ok("application/octet-stream", call.body);
            Ok(echo.header(name("x-seen"), HeaderValue::try_from(seen).unwrap()))
        }
        "teapot" => Ok(HttpAnswer::ok("text/plain", "short and stout").status(StatusCode::IM_A_TEAPOT)),
        "redirect" => Ok(HttpAnswer::ok("text/plain", "")
            .status(StatusCode::FOUND)
            .header(name("location"), value("/elsewhere"))),
        "cookies" => Ok(HttpAnswer::ok("text/plain", "")
            .header(name("set-cookie"), value("a=1"))
            .header(name("set-cookie"), value("b=2"))),
        "lie" => Ok(HttpAnswer::ok("text/plain", "four")
            .header(name("content-length"), value("400"))
            .header(name("transfer-encoding"), value("chunked"))
            .header(name("x-request-id"), value("forged"))),
        "nothing" => Ok(HttpAnswer::ok("text/plain", "dropped").status(StatusCode::NO_CONTENT)),
        _ => Err(ServeError::backend(409, "what", "no such thing")),
    }
}

/// Answers from the request itself.
struct Raw;

impl actix::Actor for Raw {
    type Context = greenroom::ReplicaContext<Self>;
}

impl actix::Handler<HttpCall> for Raw {
    type Result = Result<HttpAnswer, ServeError>;
    fn handle(&mut self, call: HttpCall, _: &mut Self::Context) -> Self::Result {
        answer(call)
    }
}

async fn raw() -> (Serve, SocketAddr) {
    let (serve, address) = listening(1).await;
    serve.create_backend("raw", Backend::new(|_| Ok(Raw)).raw(), BackendConfig::default()).await.unwrap();
    let endpoint = Endpoint::new("raw").route("/raw/{what}").methods(["GET", "POST"]);
    serve.create_endpoint("raw", endpoint).await.unwrap();
    (serve, address)
}

#[actix_web::test]
async fn a_raw_backend_sees_method_uri_all_headers_and_the_bytes() {
    let (serve, address) = raw().await;
    let mut client = Client::connect(address).await;
    let body: Vec<u8> = (0..=255).collect();
    client.request("POST", "/raw/echo?q=1&r=%20", &["x-own: 1", "accept: */*"], &body).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, &answer.body), (200, &body));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let seen = answer.header("x-seen").unwrap();
    assert_eq!(seen, "POST /raw/echo?q=1&r=%20 accept,content-length,host,x-own");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_raw_answer_has_its_own_status_and_headers() {
    let (serve, address) = raw().await;
    let teapot = ask(address, "GET", "/raw/teapot", &[], "").await;
    assert_eq!((teapot.status, teapot.text()), (418, "short and stout"));
    assert_eq!(teapot.header("content-type"), Some("text/plain"));
    let redirect = ask(address, "GET", "/raw/redirect", &[], "").await;
    assert_eq!((redirect.status, redirect.header("location")), (302, Some("/elsewhere")));
    let cookies = ask(address, "GET", "/raw/cookies", &[], "").await;
    let set = cookies.headers.iter().filter(|(key, _)| key == "set-cookie");
    assert_eq!(set.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["a=1", "b=2"]);
    let own = ask(address, "GET", "/raw/other", &[], "").await;
    assert_eq!((own.status, own.code().as_str()), (409, "what"));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_raw_answer_cannot_break_the_connection_s_framing_or_forge_its_request_id() {
    let (serve, address) = raw().await;
    let mut client = Client::connect(address).await;
    client.request("GET", "/raw/lie", &["x-request-id: real"], "").await;
    let answer = client.answer().await;
    assert_eq!((answer.header("content-length"), answer.text()), (Some("4"), "four"));
    assert_eq!(answer.header("x-request-id"), Some("real"));
    client.request("GET", "/raw/nothing", &[], "").await;
    let nothing = client.answer().await;
    assert_eq!((nothing.status, nothing.body.len()), (204, 0));
    client.request("HEAD", "/raw/teapot", &[], "").await;
    let head = client.try_answer(true).await.unwrap();
    assert_eq!((head.status, head.header("content-length")), (418, Some("15")));
    client.request("GET", "/raw/teapot", &[], "").await;
    assert_eq!(client.answer().await.text(), "short and stout", "and the connection goes on");
    serve.shutdown().await.unwrap();
}
