//! A new process that does not become ready in time, that cannot take over, or that ends before it has.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use actix_web::rt::spawn;
use greenroom::{Backend, BackendConfig, Endpoint, Listen, Placement, Serve, ServeError};

use super::{At, Who, who};
use crate::{
    support::{Barrier, uncounted, until},
    wire::Client,
};

const LIMIT: Duration = Duration::from_millis(300);

/// One that waits for a new one no longer than this.
async fn impatient(at: &At) -> (Serve, SocketAddr) {
    let options = uncounted().lent_threads().takeover(&at.0).takeover_timeout(LIMIT);
    let (serve, address) = at.serving(Serve::start(options).await.unwrap(), "old").await;
    serve.announce_ready();
    until("it offers its sockets", || at.0.exists()).await;
    (serve, address)
}

/// It takes changes again, within a limit.
async fn changes(serve: &Serve) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match serve.set_traffic("who", [("who", 1.0)]).await {
            Err(ServeError::BeingReplaced) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            changed => return changed.unwrap(),
        }
    }
}

#[actix_web::test]
async fn one_that_is_ready_too_late_ends_with_an_error_and_never_serves_beside_the_running_one() {
    let at = At::new("late");
    let (old, address) = impatient(&at).await;
    let (new, _) = at.prepared("new").await;
    assert_eq!(old.set_traffic("who", [("who", 1.0)]).await, Err(ServeError::BeingReplaced));
    changes(&old).await;
    new.announce_ready();
    new.ending().await;
    for _ in 0..100 {
        assert_eq!(who(address).await, "\"old\"");
    }
    let why = new.shutdown().await.unwrap_err().to_string();
    assert!(why.contains("cannot take over through") && why.contains("serves on"), "{why}");
    changes(&old).await;
    let (next, _) = at.prepared("next").await;
    next.announce_ready();
    old.replaced().await;
    old.shutdown().await.unwrap();
    assert_eq!(who(address).await, "\"next\"");
    next.shutdown().await.unwrap();
}

#[actix_web::test]
async fn one_that_never_gets_ready_hears_that_nobody_waits_for_it() {
    let at = At::new("never");
    let (old, address) = impatient(&at).await;
    let new = at.start().await.unwrap();
    new.listen(Listen::default().threads(1.try_into().unwrap())).await.unwrap();
    let nobody = Backend::from_fn(async |_: Who| Ok(String::new())).json::<Who>();
    let config = BackendConfig::default().placement(Placement::Worker).num_replicas(0);
    new.create_backend("who", nobody, config).await.unwrap();
    new.create_endpoint("who", Endpoint::new("who").route("/who")).await.unwrap();
    new.announce_ready();
    tokio::time::timeout(Duration::from_secs(10), new.ending()).await.expect("it waits for ever");
    assert!(new.shutdown().await.is_err());
    changes(&old).await;
    assert_eq!(who(address).await, "\"old\"");
    old.shutdown().await.unwrap();
}

#[actix_web::test]
async fn on_the_current_thread_it_is_refused_before_the_running_one_hears_of_it() {
    let at = At::new("current");
    let (old, _) = at.running("old").await;
    let options = uncounted().current_thread().takeover(&at.0);
    let refused = Serve::start(options).await.unwrap_err();
    assert!(refused.code() == "invalid" && refused.to_string().contains("takeover"), "{refused}");
    assert_eq!(old.set_traffic("who", [("who", 1.0)]).await, Ok(()));
    old.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_listener_of_its_own_ends_in_order_while_others_still_wait() {
    let at = At::new("own");
    let old = at.start().await.unwrap();
    old.listen_admin(Listen::default()).await.unwrap();
    old.announce_ready();
    until("it offers its sockets", || at.0.exists()).await;
    let new = at.start().await.unwrap();
    new.listen_admin(Listen::default()).await.unwrap();
    let address = new.listen(Listen::default().threads(1.try_into().unwrap())).await.unwrap();
    let barrier = Barrier::new();
    let backend = {
        let barrier = barrier.clone();
        Backend::from_fn(move |_: Who| {
            let pass = barrier.pass();
            async move {
                pass.await;
                Ok(String::new())
            }
        })
    };
    let config = BackendConfig::default().placement(Placement::Worker);
    new.create_backend("who", backend.json::<Who>(), config).await.unwrap();
    new.create_endpoint("who", Endpoint::new("who").route("/who")).await.unwrap();
    let mut client = Client::connect(address).await;
    client.request("GET", "/who", &[], "").await;
    until("the call runs", || barrier.inside() == 1).await;
    let shutdown = spawn({
        let new = new.clone();
        async move { new.shutdown().await }
    });
    new.ending().await;
    let began = Instant::now();
    barrier.release(2);
    assert_eq!(client.answer().await.text(), "\"\"");
    shutdown.await.unwrap().unwrap();
    assert!(began.elapsed() > Duration::from_millis(80), "its clients may ask once more");
    assert!(client.closed().await);
    old.shutdown().await.unwrap();
}
