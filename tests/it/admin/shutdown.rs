//! The end that is asked for: answered first, in order, in a program that embeds a Serve as in one of its own.

use greenroom::{Listen, ServeOptions};
use serde_json::json;

use super::{Api, deployed, refused};
use crate::wire::get;

#[actix_web::test]
async fn it_is_answered_and_then_that_serve_ends_and_no_other() {
    let (serve, data, api) = deployed().await;
    let (other, other_data, other_api) = deployed().await;
    for wrong in [json!({"force": true}), json!(3)] {
        let answer = api.send("POST", "/api/serve/shutdown", &wrong).await;
        assert_eq!(refused(&answer), (400, "bad_request".into(), vec![]));
    }
    assert_eq!(get(data, "/which").await.text(), "1");
    let answer = api.ask("POST", "/api/serve/shutdown", &[], "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"changed": [{"action": "shutdown", "subject": "service"}]}));
    // The program that embeds it hears of it, and its own shutdown waits for the same end.
    serve.ending().await;
    serve.shutdown().await.unwrap();
    assert!(std::net::TcpStream::connect(data).is_err(), "it listens no more");
    assert_eq!(serve.delete_endpoint("which").await.unwrap_err().code(), "shutting_down");
    assert_eq!(get(other_data, "/which").await.text(), "1");
    assert_eq!(other_api.get("/api/serve/status").await.status, 200);
    other.shutdown().await.unwrap();
}

#[actix_web::test]
async fn asked_again_meanwhile_it_changes_nothing() {
    let (serve, _, api) = deployed().await;
    let mut client = crate::wire::Client::connect(api.0).await;
    let ask = "POST /api/serve/shutdown HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // Both before the first can have come to its end.
    client.send(format!("{ask}{ask}")).await;
    assert_eq!(client.answer().await.json()["changed"][0]["action"], "shutdown");
    if let Some(second) = client.try_answer(false).await {
        assert_eq!(second.json(), json!({"changed": []}));
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_listener_does_not_keep_a_serve_alive_that_its_program_has_dropped() {
    let serve = greenroom::Serve::start(ServeOptions::default().lent_threads()).await.unwrap();
    let api = Api(serve.listen_admin(Listen::default()).await.unwrap());
    assert_eq!(api.get("/api/serve/status").await.status, 200);
    drop(serve);
    crate::support::until("the listener is closed", || std::net::TcpStream::connect(api.0).is_err()).await;
}
