//! The examples that are about HTTP do what they say, over sockets or inside an actix-web app.

#![allow(dead_code, reason = "the examples' own `main`s are not called here")]

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use actix_web::{App, dev::ServiceResponse, test};
use greenroom::{Listen, Serve, ServeError, testing::Stage};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

#[path = "../../examples/bench_server.rs"]
mod bench_server;
#[path = "../../examples/custom_http.rs"]
mod custom_http;
#[path = "../../examples/quickstart.rs"]
mod quickstart;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// One request over a connection of its own: the status and the body.
async fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(LIMIT, exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn parsed((status, body): (u16, String)) -> (u16, Value) {
    (status, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")))
}

#[actix_web::test]
async fn the_quickstart_doubles_over_http_and_tells_what_it_cannot_double() -> Result<(), ServeError> {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await?;
    let address = serve.listen(Listen::default().threads(NonZeroUsize::MIN)).await?;
    quickstart::deploy(&serve).await?;
    assert_eq!(http(address, "GET", "/double?n=21", "").await, (200, "42".into()));
    let (status, problem) = parsed(http(address, "GET", &format!("/double?n={}", u64::MAX), "").await);
    assert_eq!((status, &problem["code"]), (422, &json!("too_large")));
    serve.shutdown().await
}

fn header<'a, B>(response: &'a ServiceResponse<B>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[actix_web::test]
async fn a_raw_backend_sets_status_headers_and_body_from_the_whole_request() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    custom_http::deploy(stage.serve()).await?;
    let app = test::init_service(App::new().configure(stage.serve().ingress())).await;
    let get = |path: &str| test::TestRequest::get().uri(path);

    let badge = test::call_service(&app, get("/badges/build?status=passing").to_request()).await;
    assert_eq!(badge.status(), 200);
    let tag = header(&badge, "etag").to_owned();
    assert_eq!((header(&badge, "content-type"), &*tag), ("image/svg+xml", "\"build-passing\""));
    let svg = test::read_body(badge).await;
    assert!(svg.starts_with(b"<svg") && svg.ends_with(b"build: passing</text></svg>"), "{svg:?}");

    let known = get("/badges/build?status=passing").insert_header(("if-none-match", tag)).to_request();
    let known = test::call_service(&app, known).await;
    assert_eq!((known.status().as_u16(), header(&known, "cache-control")), (304, "max-age=60"));
    assert!(test::read_body(known).await.is_empty());

    let options = test::TestRequest::with_uri("/badges/x").method(actix_web::http::Method::OPTIONS);
    let options = test::call_service(&app, options.to_request()).await;
    assert_eq!((options.status().as_u16(), header(&options, "allow")), (204, "GET, OPTIONS"));

    for (path, code) in [("/badges/build", "no_status"), ("/badges/a%3Cb?status=c", "not_plain")] {
        let problem = test::call_service(&app, get(path).to_request()).await;
        let kind = header(&problem, "content-type");
        assert_eq!((problem.status().as_u16(), kind), (422, "application/problem+json"));
        let problem: Value = test::read_body_json(problem).await;
        assert_eq!(problem["code"], code);
    }
    stage.end().await
}

/// A network of two pixels and three labels, whose label is told by `max(p0, p1, 0.5)` after division by 16.
fn small_network() -> PathBuf {
    let network = json!({"w": [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]],
                         "b": [[0.0, 0.0], [0.0, 0.0, 0.5]]});
    let path = std::env::temp_dir().join(format!("greenroom-examples-{}.json", std::process::id()));
    std::fs::write(&path, network.to_string()).unwrap();
    path
}

#[actix_web::test]
async fn the_bench_server_answers_its_contract() -> Result<(), ServeError> {
    let path = small_network();
    let options = bench_server::Options {
        port: 0,
        workload: None,
        replicas: 2,
        http_workers: NonZeroUsize::MIN,
        model_file: Some(path.clone()),
    };
    let started = bench_server::start(&options).await;
    std::fs::remove_file(path).unwrap();
    let (serve, address) = started?;
    let echoed = json!({"id": 42, "name": "benchmark", "tags": ["a", "b"], "value": 3.25});
    let large = json!({"data": "x".repeat(1 << 20)});
    let cases = [
        ("/echo", echoed.clone(), echoed),
        ("/echo", large.clone(), large),
        ("/batch", json!({"x": 3.0}), json!({"y": 6.0})),
        ("/compose", json!({"x": 3.0}), json!({"y": 8.0})),
        ("/sleep", json!({"x": 3.0}), json!({"y": 3.0})),
        ("/digits", json!({"x": [16.0, 4.0]}), json!({"label": 0})),
        ("/digits", json!({"x": [4.0, 12.0]}), json!({"label": 1})),
        ("/digits", json!({"x": [4.0, 4.0]}), json!({"label": 2})),
    ];
    for (path, body, expected) in cases {
        let answer = parsed(http(address, "POST", path, &body.to_string()).await);
        assert!(answer == (200, expected), "{path} {:.200}", answer.1.to_string());
    }
    let (status, problem) = parsed(http(address, "POST", "/digits", r#"{"x": [1]}"#).await);
    assert_eq!((status, &problem["code"]), (422, &json!("not_an_image")));
    serve.shutdown().await
}

#[actix_web::test]
async fn the_bench_server_makes_only_the_workload_that_is_asked_for() -> Result<(), ServeError> {
    let options = bench_server::Options {
        port: 0,
        workload: Some("sleep".into()),
        replicas: 4,
        http_workers: NonZeroUsize::MIN,
        model_file: None,
    };
    let (serve, _) = bench_server::start(&options).await?;
    let made: Vec<_> = serve
        .list_backends()
        .into_iter()
        .map(|(name, config)| (name.to_string(), config.num_replicas))
        .collect();
    assert_eq!(made, [("sleep".to_owned(), 4)]);
    serve.shutdown().await
}
