//! The state directory: what a new Serve goes on with, and which options hold.

mod bad;
#[cfg(feature = "onnx")]
mod binary;
mod given;
mod killed;
mod measured;
mod mended;
mod undone;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::Duration,
};

use actix_web::{App, test};
use greenroom::{
    Backend, BackendConfig, BackendState, BackendUpdate, Compare, Endpoint, ReplicaContext, Serve,
    ServeError, ServeOptions, ShadowRule,
};
use serde_json::{Value, json};

use crate::support::{quiet_panics, until};

/// A folder of its own for one test, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("greenroom-state-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// A Serve on this thread that goes on with what the folder holds.
    pub async fn serve(&self) -> Serve {
        Serve::start(ServeOptions::default().current_thread().state(self.state())).await.unwrap()
    }

    /// What `state.json` holds.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.state().join("state.json")).unwrap()).unwrap()
    }

    /// What is kept of a backend.
    pub fn kept(&self, backend: &str) -> Option<Value> {
        let desired = &self.json()["desired"]["backends"];
        desired.as_array().unwrap().iter().find(|kept| kept["name"] == backend).cloned()
    }

    /// From now on nothing more can be written there.
    pub fn obstruct(&self) {
        std::fs::create_dir(self.state().join("state.json.new")).unwrap();
    }

    pub fn clear(&self) {
        std::fs::remove_dir(self.state().join("state.json.new")).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(actix::Message, Clone, serde::Deserialize)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Ask {}

/// Answers a number.
pub struct Number(u64);

impl actix::Actor for Number {
    type Context = ReplicaContext<Self>;
}
impl actix::Handler<Ask> for Number {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Ask {}: Ask, _: &mut Self::Context) -> Self::Result {
        Ok(self.0)
    }
}

/// A backend that answers a number.
pub fn number(n: u64) -> Backend<Number> {
    frail(n, &Arc::default())
}

/// The same, whose replicas do not start while `fails`.
pub fn frail(n: u64, fails: &Arc<AtomicBool>) -> Backend<Number> {
    let fails = Arc::clone(fails);
    let factory = move |_: &mut ReplicaContext<Number>| match fails.load(SeqCst) {
        true => Err(ServeError::invalid("number", "it does not start").into()),
        false => Ok(Number(n)),
    };
    Backend::new(factory).json::<Ask>().handles::<Ask>().shadows::<Ask>()
}

fn config() -> BackendConfig {
    BackendConfig::default()
}

async fn ask(serve: &Serve, endpoint: &str) -> Result<u64, ServeError> {
    serve.handle::<Ask>(endpoint)?.call(Ask {}).await
}

/// Two backends, one route to the first, and changes by hand of all of it.
async fn changed_by_hand(folder: &Folder) {
    let serve = folder.serve().await;
    for (name, n) in [("a", 1), ("b", 2), ("gone", 3)] {
        serve.create_backend(name, number(n), config()).await.unwrap();
    }
    serve.create_endpoint("e", Endpoint::new("a").route("/e")).await.unwrap();
    serve.create_endpoint("gone", Endpoint::new("gone")).await.unwrap();
    serve.update_backend_config("a", BackendUpdate::default().num_replicas(2)).await.unwrap();
    serve.set_traffic("e", [("b", 1.0)]).await.unwrap();
    serve.shadow_traffic("e", "a", 0.5).await.unwrap();
    serve.delete_endpoint("gone").await.unwrap();
    serve.delete_backend("gone", false).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_was_wanted_last_is_there_again_and_answers_as_its_code_comes() {
    let folder = Folder::new();
    changed_by_hand(&folder).await;
    let serve = folder.serve().await;
    assert!(serve.restored());
    let status = serve.status();
    let names: Vec<_> = status.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(status.backends.iter().all(|backend| backend.replicas.is_empty()));
    assert!(status.backends.iter().all(|backend| backend.state == BackendState::AwaitingCode));
    assert!(status.backends[0].reason.as_ref().unwrap().contains("awaits its code"));
    assert_eq!(serve.get_backend_config("a").unwrap().num_replicas, 2);
    assert_eq!(serve.list_backends().len(), 2);
    let [endpoint] = &status.endpoints[..] else { panic!("{:?}", status.endpoints) };
    assert_eq!(endpoint.route.as_deref(), Some("/e"));
    assert_eq!(serde_json::to_value(&endpoint.traffic).unwrap(), json!({"b": 1.0}));
    assert_eq!((endpoint.shadow[0].backend.as_str(), endpoint.shadow[0].proportion), ("a", 0.5));
    assert_eq!(serve.ready().unwrap_err()[0].as_str(), "e");

    // There, and not ready: neither 404 nor a type that it does not take.
    let app = test::init_service(App::new().configure(serve.ingress())).await;
    let get = async || {
        let answer = test::call_service(&app, test::TestRequest::get().uri("/e").to_request()).await;
        (answer.status().as_u16(), test::read_body(answer).await)
    };
    let (code, body) = get().await;
    assert!(code == 503 && String::from_utf8_lossy(&body).contains("awaits its code"), "{code} {body:?}");
    let handle = serve.handle::<Ask>("e").unwrap();
    assert_eq!(handle.call(Ask {}).await.unwrap_err().code(), "no_replica");

    serve.create_backend("b", number(2), config()).await.unwrap();
    assert_eq!((handle.call(Ask {}).await, get().await.0), (Ok(2), 200));
    assert_eq!(serve.ready(), Ok(()));
    // Made, or changed into what it is to be: both give the code.
    serve.deploy_backend("a", number(1), config()).await.unwrap();
    assert_eq!(serve.status().backends[0].replicas.len(), 2, "as it was changed by hand");
    serve.create_endpoint("e", Endpoint::new("a").route("/e")).await.unwrap();
    assert_eq!(ask(&serve, "e").await, Ok(2), "traffic as it was changed by hand");
    for again in [
        serve.create_endpoint("e", Endpoint::new("a").route("/e")).await,
        serve.create_backend("a", number(1), config()).await,
    ] {
        assert_eq!(again.unwrap_err().code(), "already_exists");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn when_the_program_gives_something_else_that_holds() {
    let folder = Folder::new();
    changed_by_hand(&folder).await;
    let serve = folder.serve().await;
    serve.create_backend("a", number(1), config().max_queued_queries(7)).await.unwrap();
    serve.create_backend("b", number(2), config()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("a").route("/other")).await.unwrap();
    assert_eq!(ask(&serve, "e").await, Ok(1));
    assert_eq!(serve.get_backend_config("a").unwrap(), config().max_queued_queries(7));
    let app = test::init_service(App::new().configure(serve.ingress())).await;
    for (uri, code) in [("/e", 404), ("/other", 200)] {
        let answer = test::call_service(&app, test::TestRequest::get().uri(uri).to_request()).await;
        assert_eq!(answer.status().as_u16(), code, "{uri}");
    }
    serve.shutdown().await.unwrap();

    // From now on that is what the program gave.
    let serve = folder.serve().await;
    serve.update_backend_config("a", BackendUpdate::default().num_replicas(3)).await.unwrap();
    serve.create_backend("a", number(1), config().max_queued_queries(7)).await.unwrap();
    assert_eq!(serve.status().backends[0].replicas.len(), 3, "a change while it awaited its code holds, too");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_awaits_its_code_can_be_changed_and_deleted() {
    let folder = Folder::new();
    changed_by_hand(&folder).await;
    let serve = folder.serve().await;
    assert_eq!(serve.delete_backend("b", false).await.unwrap_err().code(), "in_use");
    serve.set_traffic("e", [("a", 0.25), ("b", 0.75)]).await.unwrap();
    serve.shadow_traffic("e", "a", 0.0).await.unwrap();
    serve.set_traffic("e", [("a", 1.0)]).await.unwrap();
    serve.delete_backend("b", false).await.unwrap();
    assert_eq!(serve.delete_backend("b", false).await.unwrap_err().code(), "unknown_backend");
    let wrong = BackendUpdate::default().num_replicas(20_000);
    assert_eq!(serve.update_backend_config("a", wrong).await.unwrap_err().code(), "invalid_config");
    serve.shutdown().await.unwrap();

    let serve = folder.serve().await;
    let status = serve.status();
    assert_eq!((status.backends.len(), status.endpoints[0].shadow.len()), (1, 0));
    assert_eq!(serde_json::to_value(&status.endpoints[0].traffic).unwrap(), json!({"a": 1.0}));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_restored_backend_that_does_not_start_stays_and_is_tried_again() {
    let folder = Folder::new();
    changed_by_hand(&folder).await;
    let serve = folder.serve().await;
    let fails = Arc::new(AtomicBool::new(true));
    tokio::time::pause();
    let failed = serve.create_backend("b", frail(2, &fails), config()).await.unwrap_err();
    assert_eq!(failed.code(), "start_failed");
    assert!(folder.kept("b").is_some(), "nothing that was acknowledged is lost");
    assert_eq!(ask(&serve, "e").await.unwrap_err().code(), "no_replica");
    fails.store(false, SeqCst);
    until("a replica of b", || serve.ready().is_ok()).await;
    assert_eq!(ask(&serve, "e").await, Ok(2));
    tokio::time::resume();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn functions_that_compare_come_back_with_the_program_that_has_them() {
    let folder = Folder::new();
    let rule = || ShadowRule::new("b", 1.0).unwrap().compare(Compare::by(|_, _| true)).unwrap();
    for restored in [false, true] {
        let serve = folder.serve().await;
        serve.create_backend("a", number(1), config()).await.unwrap();
        serve.create_backend("b", number(2), config()).await.unwrap();
        if restored {
            assert!(serve.status().endpoints[0].shadow[0].compare.is_none());
        }
        serve.create_endpoint("e", Endpoint::new("a").route("/e").shadow(rule())).await.unwrap();
        assert!(serve.status().endpoints[0].shadow[0].compare.is_some(), "restored: {restored}");
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn twenty_crashes_of_the_controller_between_changes_lose_nothing() {
    quiet_panics();
    let folder = Folder::new();
    let serve = folder.serve().await;
    serve.create_backend("a", number(1), config()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    for i in 0..20_u32 {
        let name = format!("b{i}");
        serve.create_backend(&name, number(2), config()).await.unwrap();
        serve.crash_controller().await;
        let weight = f64::from(i) / 20.0;
        serve.set_traffic("e", [("a", weight), (name.as_str(), 1.0 - weight)]).await.unwrap();
        serve.crash_controller().await;
        let update = BackendUpdate::default().num_replicas(i % 3 + 1).max_queued_queries(i as usize);
        let (updated, ()) = tokio::join!(serve.update_backend_config("a", update), serve.crash_controller());
        updated.unwrap();
        let kept = folder.kept("a").unwrap();
        assert_eq!((&kept["num_replicas"], &kept["max_queued_queries"]), (&json!(i % 3 + 1), &json!(i)));
    }
    let (backends, traffic) = (serve.list_backends(), serve.status().endpoints[0].traffic.clone());
    serve.shutdown().await.unwrap();
    let serve = folder.serve().await;
    assert_eq!((backends.len(), serve.list_backends()), (21, backends));
    assert_eq!(serve.status().endpoints[0].traffic, traffic);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_serve_that_has_ended_has_let_go_of_its_directory() {
    let folder = Folder::new();
    let (first, options) = (folder.serve().await, ServeOptions::default().current_thread());
    let second = Serve::start(options.clone().state(folder.state())).await;
    let told = second.unwrap_err().to_string();
    assert!(told.contains(&format!("in use by process {}", std::process::id())), "{told}");
    first.shutdown().await.unwrap();
    folder.serve().await.shutdown().await.unwrap();
    // Also one that is dropped without a shutdown.
    drop(folder.serve().await);
    let free = || Serve::start(options.clone().state(folder.state()));
    for _ in 0..100 {
        if let Ok(serve) = free().await {
            return serve.shutdown().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it was never free");
}
