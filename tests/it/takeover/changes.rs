//! Changes and a takeover: those under way end first, and what was acknowledged is known to the new process.

use std::time::Duration;

use actix::{Actor, Handler, ResponseFuture};
use actix_web::rt::spawn;
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, Listen, Placement, Reconfigure, ReplicaContext, Serve,
    ServeError, ServeOptions,
};
use serde_json::json;

use super::{At, Who};
use crate::{
    state::Folder,
    support::{Barrier, uncounted, until},
};

#[derive(serde::Deserialize)]
struct Opening {
    held: bool,
    fails: bool,
}

struct Held(Barrier);

impl Actor for Held {
    type Context = ReplicaContext<Self>;
}

impl Handler<Reconfigure<Opening>> for Held {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, Reconfigure(opening): Reconfigure<Opening>, _: &mut Self::Context) -> Self::Result {
        let pass = opening.held.then(|| self.0.pass());
        Box::pin(async move {
            if let Some(pass) = pass {
                pass.await;
            }
            if opening.fails { Err(ServeError::backend(422, "meant", "it is meant to fail")) } else { Ok(()) }
        })
    }
}

impl Handler<Who> for Held {
    type Result = Result<String, ServeError>;
    fn handle(&mut self, _: Who, _: &mut Self::Context) -> Self::Result {
        Ok(String::new())
    }
}

/// A service with a state directory that can be taken over from.
struct Service {
    at: At,
    folder: Folder,
    barrier: Barrier,
}

impl Service {
    fn new(test: &str) -> Self {
        Self { at: At::new(test), folder: Folder::new(), barrier: Barrier::new() }
    }

    fn options(&self) -> ServeOptions {
        uncounted().lent_threads().takeover(&self.at.0).state(self.folder.state())
    }

    async fn start(&self, options: ServeOptions) -> Result<Serve, ServeError> {
        let serve = Serve::start(options).await?;
        serve.listen(Listen::default().threads(1.try_into().unwrap())).await?;
        let barrier = self.barrier.clone();
        let backend = Backend::new(move |_: &mut ReplicaContext<Held>| Ok(Held(barrier.clone())));
        let config = BackendConfig::default().placement(Placement::Worker).user_config(opening(false, false));
        serve.create_backend("who", backend.handles::<Who>().reconfigure(), config).await?;
        let other = Backend::from_fn(async |_: Who| Ok(String::new()));
        serve.create_backend("other", other, BackendConfig::default().placement(Placement::Worker)).await?;
        Ok(serve)
    }

    async fn running(&self, options: ServeOptions) -> Serve {
        let serve = self.start(options).await.unwrap();
        serve.announce_ready();
        until("it offers its sockets", || self.at.0.exists()).await;
        serve
    }

    fn queue(&self) -> usize {
        self.folder.kept("other").unwrap()["max_queued_queries"].as_u64().unwrap() as usize
    }
}

fn opening(held: bool, fails: bool) -> serde_json::Value {
    json!({"held": held, "fails": fails})
}

fn queue(calls: usize) -> BackendUpdate {
    BackendUpdate::default().max_queued_queries(calls)
}

#[actix_web::test]
async fn whatever_was_acknowledged_is_in_the_new_process() {
    let service = Service::new("acknowledged");
    let mut old = service.running(service.options()).await;
    let mut number = 0;
    for _ in 0..5 {
        let changes = spawn({
            let old = old.clone();
            async move {
                // As fast as they come, until it takes none any more.
                loop {
                    match old.update_backend_config("other", queue(number + 1)).await {
                        Ok(()) => number += 1,
                        Err(refused) => return (number, refused.code().to_owned()),
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let new = service.start(service.options()).await.unwrap();
        let (acknowledged, refused) = changes.await.unwrap();
        assert!(acknowledged > number, "none was made");
        assert_eq!(refused, "being_replaced");
        assert_eq!(new.get_backend_config("other").unwrap().max_queued_queries, acknowledged);
        new.announce_ready();
        old.replaced().await;
        old.shutdown().await.unwrap();
        until("it offers its sockets", || service.at.0.exists()).await;
        (old, number) = (new, acknowledged);
    }
    old.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_change_under_way_ends_before_the_new_process_hears_what_there_is() {
    for fails in [false, true] {
        let service = Service::new(&format!("under-way-{fails}"));
        let old = service.running(service.options()).await;
        let change = spawn({
            let old = old.clone();
            let update = BackendUpdate::default().user_config(opening(true, fails));
            async move { old.update_backend_config("who", update).await }
        });
        until("the change has begun", || service.barrier.inside() == 1).await;
        let mut new = Box::pin(service.start(service.options()));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut new).await;
        assert!(early.is_err(), "it does not wait for the change");
        let refused = old.update_backend_config("other", queue(5)).await.unwrap_err();
        assert_eq!(refused.code(), "being_replaced");
        // The new one's own replica may pass as well.
        service.barrier.release(2);
        let new = new.await.unwrap();
        assert_eq!(change.await.unwrap().is_err(), fails);
        let known = new.get_backend_config("who").unwrap().user_config;
        let told = BackendConfig::default().user_config(opening(!fails, false)).user_config;
        assert_eq!(known, told, "what the caller was told");
        new.announce_ready();
        old.replaced().await;
        old.shutdown().await.unwrap();
        new.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn a_new_process_is_refused_while_a_change_takes_too_long_and_disturbs_nothing() {
    let service = Service::new("too-long");
    let old = service.running(service.options().takeover_timeout(Duration::from_millis(100))).await;
    let change = spawn({
        let old = old.clone();
        let update = BackendUpdate::default().user_config(opening(true, false));
        async move { old.update_backend_config("who", update).await }
    });
    until("the change has begun", || service.barrier.inside() == 1).await;
    let refused = service.start(service.options()).await.unwrap_err().to_string();
    assert!(refused.contains("is being changed"), "{refused}");
    service.barrier.release(1);
    change.await.unwrap().unwrap();
    old.update_backend_config("other", queue(5)).await.unwrap();
    assert_eq!(service.queue(), 5);
    old.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_directory_holds_what_the_running_one_wants_when_the_new_one_gives_up() {
    let service = Service::new("gives-up-changed");
    let old = service.running(service.options()).await;
    old.update_backend_config("other", queue(7)).await.unwrap();
    let new = service.start(service.options()).await.unwrap();
    new.update_backend_config("other", queue(8)).await.unwrap();
    assert_eq!(service.queue(), 8);
    new.shutdown().await.unwrap();
    drop(new);
    until("it is written again", || service.queue() == 7).await;
    old.shutdown().await.unwrap();
}

#[actix_web::test]
async fn two_services_do_not_share_a_directory_by_a_takeover_path() {
    let service = Service::new("shared");
    let old = service.running(service.options()).await;
    let other = Serve::start(service.options()).await.unwrap();
    other.listen_admin(Listen::default()).await.unwrap();
    other.announce_ready();
    other.ending().await;
    let why = other.shutdown().await.unwrap_err().to_string();
    assert!(why.contains("the same state directory"), "{why}");
    drop(other);
    let mut changed = Err(ServeError::BeingReplaced);
    for _ in 0..1000 {
        changed = old.update_backend_config("other", queue(5)).await;
        if changed.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    changed.unwrap();
    old.create_endpoint("who", Endpoint::new("who")).await.unwrap();
    old.shutdown().await.unwrap();
}
