//! Bodies: limits, sizes, encodings, what does not decode.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use greenroom::{Endpoint, Listen};

use super::lab;
use crate::wire::{Answer, Client, ask, get, post};

async fn echo(address: std::net::SocketAddr, text: &str) -> Answer {
    let body = format!(r#"{{"text":"{text}"}}"#);
    ask(address, "POST", "/lab", &["x-serve-call-method: echo"], &body).await
}

#[actix_web::test]
async fn bodies_of_640_kib_and_of_several_mib_come_back_whole() {
    let (serve, address) = lab().await;
    for bytes in [640 << 10, 1 << 20, 5 << 20] {
        let text: String = ('a'..='z').cycle().take(bytes).collect();
        let answer = echo(address, &text).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text() == format!("\"{text}\""), "{bytes} bytes came back changed");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_body_over_the_limit_is_refused_when_declared_and_when_chunked() {
    let (serve, _) = lab().await;
    let listen = Listen::default().threads(NonZeroUsize::MIN).max_body_bytes(100);
    let address = serve.listen(listen).await.unwrap();
    let fits = format!(r#"{{"text":"{}"}}"#, "x".repeat(100 - 11));
    let answer = ask(address, "POST", "/lab", &["x-serve-call-method: echo"], &fits).await;
    assert_eq!((fits.len(), answer.status), (100, 200), "the limit itself is allowed");

    let mut client = Client::connect(address).await;
    client.send("POST /lab HTTP/1.1\r\nhost: t\r\ncontent-length: 101\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "before a byte of it was sent");
    assert!(answer.json()["detail"].as_str().unwrap().contains("100 bytes"));

    let mut client = Client::connect(address).await;
    client.send("POST /lab HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..3 {
        client.send(format!("28\r\n{}\r\n", "x".repeat(40))).await;
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.closed().await, "the rest of it is not read");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_chunked_body_is_put_together() {
    let (serve, address) = lab().await;
    let mut client = Client::connect(address).await;
    client.send("POST /lab HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.send("5\r\n{\"a\":\r\n").await;
    client.send("3\r\n40,\r\n6\r\n\"b\":2}\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "42");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_body_that_does_not_decode_is_400_and_says_where() {
    let (serve, address) = lab().await;
    let cases = [
        (r#"{"a":1"#, "line 1 column 6"),
        (r#"{"b":1}"#, "missing field `a`"),
        (r#"{"a":"x"}"#, "expected i64"),
        (r#"{"a":1.5}"#, "expected i64"),
        (r#"{"a":NaN}"#, "line 1 column 6"),
        (r#"{"a":99999999999999999999}"#, "expected i64"),
        ("\u{0}", "line 1 column 1"),
        ("[]", "invalid length"),
        ("", "the body is empty"),
        (r#"{"a":1} x"#, "trailing"),
    ];
    for (body, says) in cases {
        let answer = post(address, "/lab", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{body:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(says), "{body:?}: {detail}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(post(address, "/lab", &deep).await.code(), "bad_request", "no stack overflows");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_number_that_is_none_is_refused_in_a_body() {
    let (serve, address) = lab().await;
    for number in ["NaN", "Infinity", "-Infinity", "1e999", "nan"] {
        let body = format!(r#"{{"x":{number}}}"#);
        let answer = ask(address, "POST", "/lab", &["x-serve-call-method: same"], &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{number}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_query_that_does_not_decode_is_400() {
    let (serve, address) = lab().await;
    for query in ["", "?", "?b=1", "?a=x", "?a=1&a=2", "?a=%FF"] {
        let answer = get(address, &format!("/lab{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{query}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_body_that_breaks_off_reaches_no_handler() {
    let (serve, address) = lab().await;
    let mut client = Client::connect(address).await;
    client.send("POST /lab HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{\"a\":1}").await;
    drop(client);
    let mut client = Client::connect(address).await;
    client.send("POST /lab HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let counted = serve.metrics();
    assert!(counted.contains("serve_backend_request_counter_total{backend=\"lab\"} 0"), "{counted}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_body_that_stalls_is_answered_with_408_and_its_connection_closes() {
    let (serve, _) = lab().await;
    let idle = Duration::from_millis(200);
    let address =
        serve.listen(Listen::default().threads(NonZeroUsize::MIN).body_timeout(idle)).await.unwrap();
    for (path, rest) in [
        ("/lab", "content-length: 9\r\n\r\n{\"a\""),
        ("/lab", "content-length: 9\r\n\r\n"),
        ("/lab", "transfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n"),
        ("/v2/models/none/infer", "content-length: 9\r\n\r\n{"),
    ] {
        let (mut client, begun) = (Client::connect(address).await, Instant::now());
        client.send(format!("POST {path} HTTP/1.1\r\nhost: t\r\n{rest}")).await;
        let answer = client.answer().await;
        assert!(begun.elapsed() >= idle, "{rest:?}: too early");
        assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"), "{rest:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{rest:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("0.2 s"), "{answer:?}");
        assert!(client.closed().await, "{rest:?}");
    }
    assert_eq!(post(address, "/lab", r#"{"a":1}"#).await.status, 200);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_empty_body_and_query_make_a_message_without_fields() {
    let (serve, address) = lab().await;
    serve
        .create_endpoint("d", Endpoint::new("lab").route("/d").methods(["GET", "POST", "DELETE"]))
        .await
        .unwrap();
    for method in ["GET", "POST", "DELETE"] {
        let answer = ask(address, method, "/d", &["x-serve-call-method: look"], "").await;
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
    }
    serve.shutdown().await.unwrap();
}
