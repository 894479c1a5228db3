//! A service that lets everybody in and answers nobody.

use std::net::TcpListener;

use super::*;

/// One for a service that lets everybody in and never answers; as long as the listener is there.
pub(crate) fn unanswered() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, Client::with_limit(&address, Duration::from_millis(20)).unwrap())
}

#[test]
fn a_service_that_never_answers_is_not_waited_for_for_ever() {
    let (_listener, client) = unanswered();
    let body = serde_json::json!({});
    for asked in [
        client.get("/"),
        client.change("PUT", "/", &body),
        client.long_change("POST", "/", &body, Some(Duration::from_millis(1))),
        client.delete("/", Duration::ZERO),
    ] {
        let Err(Failed::Other(why)) = asked else { panic!("an answer") };
        assert!(why.contains("in time"), "{why}");
    }
}
