//! Takeover as an embedding program sees it: who accepts when, who is told, what is refused.

mod changes;
mod limits;

use std::{
    io::Write,
    net::SocketAddr,
    os::unix::net::UnixListener,
    path::PathBuf,
    time::{Duration, Instant},
};

use greenroom::{Backend, BackendConfig, BackendUpdate, Endpoint, Listen, Placement, Serve, ServeError};

use crate::{support::uncounted, wire::Client};

#[derive(actix::Message, serde::Deserialize)]
#[rtype(result = "Result<String, ServeError>")]
struct Who {}

/// A path for the Unix socket of one test.
struct At(PathBuf);

impl At {
    fn new(test: &str) -> Self {
        Self(std::env::temp_dir().join(format!("greenroom-{}-{test}.sock", std::process::id())))
    }

    async fn start(&self) -> Result<Serve, ServeError> {
        Serve::start(uncounted().lent_threads().takeover(&self.0)).await
    }

    /// One that is ready as soon as it says so.
    async fn prepared(&self, name: &'static str) -> (Serve, SocketAddr) {
        self.serving(self.start().await.unwrap(), name).await
    }

    /// Makes what is served.
    async fn serving(&self, serve: Serve, name: &'static str) -> (Serve, SocketAddr) {
        let address = serve.listen(Listen::default().threads(1.try_into().unwrap())).await.unwrap();
        let backend = Backend::from_fn(move |_: Who| async move { Ok(name.to_owned()) }).json::<Who>();
        let config = BackendConfig::default().placement(Placement::Worker);
        serve.create_backend("who", backend, config).await.unwrap();
        serve.create_endpoint("who", Endpoint::new("who").route("/who")).await.unwrap();
        (serve, address)
    }

    async fn running(&self, name: &'static str) -> (Serve, SocketAddr) {
        let (serve, address) = self.prepared(name).await;
        serve.announce_ready();
        let path = self.0.clone();
        crate::support::until("it offers its sockets", move || path.exists()).await;
        (serve, address)
    }
}

impl Drop for At {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn who(address: SocketAddr) -> String {
    let mut client = Client::connect(address).await;
    client.request("GET", "/who", &[], "").await;
    client.answer().await.text().to_owned()
}

#[actix_web::test]
async fn the_running_one_alone_answers_until_the_new_one_is_ready_and_then_that_one_alone() {
    let at = At::new("alone");
    let (old, address) = at.running("old").await;
    let (new, same) = at.prepared("new").await;
    assert_eq!(address, same);
    let replaced = actix_web::rt::spawn({
        let old = old.clone();
        async move { old.replaced().await }
    });
    for _ in 0..100 {
        assert_eq!(who(address).await, "\"old\"");
    }
    assert!(!replaced.is_finished());
    new.announce_ready();
    replaced.await.unwrap();
    old.shutdown().await.unwrap();
    for _ in 0..100 {
        assert_eq!(who(address).await, "\"new\"");
    }
    new.shutdown().await.unwrap();
    assert!(!at.0.exists());
}

#[actix_web::test]
async fn a_connection_without_a_request_is_left_open_for_its_next_one() {
    let at = At::new("idle");
    let (old, address) = at.running("old").await;
    let mut idle = Client::connect(address).await;
    idle.request("GET", "/who", &[], "").await;
    assert_eq!(idle.answer().await.header("connection"), None);
    let (new, _) = at.prepared("new").await;
    new.announce_ready();
    old.replaced().await;
    let began = Instant::now();
    let shutdown = actix_web::rt::spawn(async move { old.shutdown().await });
    // Longer than an end without a successor takes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!shutdown.is_finished());
    idle.request("GET", "/who", &[], "").await;
    let answer = idle.answer().await;
    assert_eq!((answer.text(), answer.header("connection")), ("\"old\"", Some("close")));
    shutdown.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "nobody is left to wait for");
    assert_eq!(who(address).await, "\"new\"");
    new.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_new_one_that_ends_before_it_is_ready_changes_nothing() {
    let at = At::new("gives-up");
    let (old, address) = at.running("old").await;
    for orderly in [true, false] {
        let (new, _) = at.prepared("new").await;
        if orderly {
            new.shutdown().await.unwrap();
        }
        drop(new);
        assert_eq!(who(address).await, "\"old\"");
        let change = || old.set_traffic("who", [("who", 1.0)]);
        let until = Instant::now() + Duration::from_secs(10);
        while change().await == Err(ServeError::BeingReplaced) && Instant::now() < until {
            tokio::task::yield_now().await;
        }
        assert_eq!(change().await, Ok(()), "it changes again");
    }
    old.shutdown().await.unwrap();
}

#[actix_web::test]
async fn one_at_a_time_takes_over() {
    let at = At::new("one");
    let (old, address) = at.running("old").await;
    let (first, _) = at.prepared("first").await;
    let change = || old.set_traffic("who", [("who", 1.0)]);
    assert_eq!(change().await, Err(ServeError::BeingReplaced), "the new one would not know of it");
    let refused = at.start().await.unwrap_err().to_string();
    assert!(refused.contains("another process is already taking over"), "{refused}");
    first.announce_ready();
    old.replaced().await;
    old.shutdown().await.unwrap();
    assert_eq!(who(address).await, "\"first\"");
    first.shutdown().await.unwrap();
}

#[actix_web::test]
async fn another_service_behind_the_same_path_is_left_alone() {
    let at = At::new("other");
    let (running, address) = at.running("running").await;
    let other = at.start().await.unwrap();
    other.listen_admin(Listen::default()).await.unwrap();
    other.announce_ready();
    other.shutdown().await.unwrap();
    assert_eq!(who(address).await, "\"running\"");
    assert!(
        tokio::time::timeout(Duration::from_millis(50), running.replaced()).await.is_err(),
        "it was told to end"
    );
    running.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_does_not_speak_of_a_takeover_is_refused() {
    let at = At::new("speaks");
    let listener = UnixListener::bind(&at.0).unwrap();
    let named = r#"{"version":2,"pid":7,"items":[{"role":"http","name":"127.0.0.1:0"}]}"#;
    for (said, why) in [
        (String::new(), "it ended before it said anything"),
        ("SSH-2.0\n".into(), "it is not understood"),
        (r#"{"version":3,"pid":7,"items":[]}"#.to_owned() + "\n", "process 7 hands over in version 3"),
        (named.to_owned() + "\n", "0 descriptors came for 1 names"),
        ("x".repeat(100_000), "it ended before it said anything"),
    ] {
        let listener = listener.try_clone().unwrap();
        // It may be refused before all of it was said.
        let says = std::thread::spawn(move || drop(listener.accept().unwrap().0.write_all(said.as_bytes())));
        let refused = at.start().await.unwrap_err().to_string();
        assert!(refused.contains("cannot take over through") && refused.contains(why), "{refused}");
        says.join().unwrap();
    }
}

#[actix_web::test]
async fn without_the_option_nobody_takes_over() {
    let serve = Serve::start(uncounted().lent_threads()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), serve.replaced()).await.is_err());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_new_one_goes_on_with_the_state_directory_and_the_old_one_changes_nothing_more() {
    let (at, folder) = (At::new("state"), crate::state::Folder::new());
    let queue = |calls| BackendUpdate::default().max_queued_queries(calls);
    let start = async || {
        let serve =
            Serve::start(uncounted().lent_threads().takeover(&at.0).state(folder.state())).await.unwrap();
        serve.listen(Listen::default().threads(1.try_into().unwrap())).await.unwrap();
        let backend = Backend::from_fn(async |_: Who| Ok(String::new())).json::<Who>();
        let config = BackendConfig::default().placement(Placement::Worker);
        serve.create_backend("who", backend, config).await.unwrap();
        serve
    };
    let old = start().await;
    old.announce_ready();
    crate::support::until("it offers its sockets", || at.0.exists()).await;
    old.update_backend_config("who", queue(7)).await.unwrap();
    let new = start().await;
    assert_eq!(new.get_backend_config("who").unwrap().max_queued_queries, 7);
    let refused = old.update_backend_config("who", queue(8)).await.unwrap_err();
    assert_eq!(refused.code(), "being_replaced");
    new.announce_ready();
    old.replaced().await;
    old.shutdown().await.unwrap();
    new.update_backend_config("who", queue(9)).await.unwrap();
    let third = Serve::start(uncounted().state(folder.state())).await.unwrap_err();
    assert_eq!(third.code(), "state_in_use", "the lock was never free");
    new.shutdown().await.unwrap();
    let last = Serve::start(uncounted().state(folder.state())).await.unwrap();
    assert_eq!(last.get_backend_config("who").unwrap().max_queued_queries, 9);
    last.shutdown().await.unwrap();
}
