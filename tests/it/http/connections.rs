//! Connections: keep-alive, pipelining, callers that leave, callers that stall.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use greenroom::BackendConfig;

use super::{lab, waiting};
use crate::wire::{Client, eventually, get, listening};

/// Callers that leave, in so many rounds.
const CALLERS: usize = 10_000;
const ROUNDS: usize = 50;

#[actix_web::test]
async fn one_connection_serves_many_requests() {
    let (serve, address) = lab().await;
    let mut client = Client::connect(address).await;
    for a in 0..50 {
        client.request("GET", &format!("/lab?a={a}"), &[], "").await;
        let answer = client.answer().await;
        assert_eq!((answer.text(), answer.header("connection")), (a.to_string().as_str(), None));
    }
    client.request("GET", "/lab?a=1", &["connection: close"], "").await;
    assert_eq!(client.answer().await.text(), "1");
    assert!(client.closed().await, "as it asked");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_refusal_does_not_cost_the_connection_unless_it_says_so() {
    let (serve, address) = lab().await;
    let mut client = Client::connect(address).await;
    for (method, path, body, status) in
        [("POST", "/lab", "{", 400), ("PUT", "/lab", "", 405), ("GET", "/nowhere", "", 404)]
    {
        client.request(method, path, &[], body).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (status, None), "{method} {path}");
    }
    client.request("PUT", "/lab", &[], "never read").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (405, Some("close")));
    assert!(client.closed().await, "a body that nobody read lies in the way");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn pipelined_requests_are_answered_in_order() {
    let (serve, address) = lab().await;
    let mut client = Client::connect(address).await;
    let mut bytes = String::new();
    for a in 0..10 {
        bytes += &format!("GET /lab?a={a} HTTP/1.1\r\nhost: t\r\n\r\n");
        bytes += "POST /lab HTTP/1.1\r\nhost: t\r\ncontent-length: 7\r\n\r\n{\"a\":5}";
        bytes += "GET /nowhere HTTP/1.1\r\nhost: t\r\n\r\n";
    }
    client.send(bytes).await;
    for a in 0..10 {
        assert_eq!(client.answer().await.text(), a.to_string());
        assert_eq!(client.answer().await.text(), "5");
        assert_eq!(client.answer().await.status, 404);
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_caller_that_leaves_ends_its_handler() {
    let (serve, address) = listening(1).await;
    let door = waiting(&serve, BackendConfig::default()).await;
    let mut client = Client::connect(address).await;
    client.request("GET", "/wait", &[], "").await;
    eventually("it began", || door.inside() == 1).await;
    drop(client);
    eventually("it was dropped", || door.inside() == 0).await;
    eventually("nothing is counted", || serve.status().backends[0].replicas[0].load == 0).await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn ten_thousand_callers_that_leave_leave_nothing_behind() {
    let (serve, address) = listening(2).await;
    let config = BackendConfig::default().num_replicas(2).max_concurrent_queries(50).max_queued_queries(900);
    let door = waiting(&serve, config).await;
    let load = || serve.status().backends[0].replicas.iter().map(|r| r.load).sum::<usize>();
    // In rounds, as each side of a connection is an open file of this process.
    for _ in 0..ROUNDS {
        let connect = (0..CALLERS / ROUNDS).map(|_| async {
            let mut client = Client::connect(address).await;
            client.request("GET", "/wait", &[], "").await;
            client
        });
        let clients: Vec<_> = stream::iter(connect).buffer_unordered(100).collect().await;
        eventually("all have come", || load() == CALLERS / ROUNDS && door.inside() == 100).await;
        drop(clients);
        let left = Instant::now();
        eventually("every handler was dropped", || door.inside() == 0).await;
        eventually("every place was given back", || load() == 0).await;
        let took = left.elapsed();
        assert!(took < Duration::from_secs(1), "it took {took:?}");
    }
    let metrics = serve.metrics();
    for gauge in ["serve_replica_queued_queries", "serve_replica_processing_queries"] {
        let mut rows = metrics.lines().filter(|line| line.starts_with(gauge));
        assert!(rows.all(|row| row.ends_with(" 0")), "{metrics}");
    }
    door.open.add_permits(1);
    assert_eq!(get(address, "/wait").await.status, 200);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_caller_that_stalls_within_its_body_holds_no_place() {
    let (serve, address) = listening(1).await;
    let config = BackendConfig::default().max_concurrent_queries(1).max_queued_queries(0);
    let door = waiting(&serve, config).await;
    let mut stalled = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(address).await;
        client.send("GET /wait HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n{").await;
        stalled.push(client);
    }
    door.open.add_permits(1);
    assert_eq!(get(address, "/wait").await.status, 200, "one place, five that stall");
    door.open.add_permits(5);
    for client in &mut stalled {
        client.send("}").await;
        assert_eq!(client.answer().await.status, 200, "late, not lost");
    }
    serve.shutdown().await.unwrap();
}
