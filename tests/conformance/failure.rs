//! Failures: of the Controller while things change, of replicas, of all of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{Actor, Handler};
use greenroom::{Backend, BackendConfig, BackendUpdate, Endpoint, ReplicaContext, RestartPolicy, ServeError};

use super::{Name, Pass, ask, create_named, here, named};
use crate::{
    support::{MEANT, metric, quiet_panics, until},
    wire::{get, listening},
};

#[actix_web::test]
async fn around_every_change_the_controller_may_crash_and_nothing_is_lost() {
    quiet_panics();
    let serve = here().await;
    create_named(&serve, &["a"]).await;
    serve.create_endpoint("e", Endpoint::new("a").route("/e")).await.unwrap();
    let handle = serve.handle::<Name>("e").unwrap();
    for name in ["b", "c", "d"] {
        serve.crash_controller().await;
        assert!(handle.call(Name {}).await.is_ok(), "served without it");
        create_named(&serve, &[name]).await;
        serve.crash_controller().await;
        serve.set_traffic("e", [(name, 1.0)]).await.unwrap();
        serve.crash_controller().await;
        assert_eq!(handle.call(Name {}).await, Ok(name));
        serve.shadow_traffic("e", "a", 1.0).await.unwrap();
        serve.crash_controller().await;
        let mut endpoints = serve.list_endpoints().into_iter();
        let endpoint = endpoints.find(|endpoint| endpoint.name.as_str() == "e").unwrap();
        assert_eq!((endpoint.traffic.len(), endpoint.shadow.len()), (1, 1));
        serve.create_endpoint(name, Endpoint::new(name)).await.unwrap();
        serve.crash_controller().await;
        assert_eq!(ask(&serve, name).await, Ok(name));
    }
    assert_eq!(serve.list_backends().len(), 4);
    assert_eq!(metric(&serve, "serve_actor_restarts_total", "actor=\"controller\""), 15);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_crash_in_the_middle_of_a_change_of_replicas_does_not_keep_it_from_its_end() {
    quiet_panics();
    let serve = here().await;
    serve.create_backend("a", named("a"), BackendConfig::default()).await.unwrap();
    for replicas in [5, 2, 0, 3] {
        let update = BackendUpdate::default().num_replicas(replicas);
        let (updated, ()) = tokio::join!(serve.update_backend_config("a", update), serve.crash_controller());
        updated.unwrap();
        assert_eq!(serve.status().backends[0].replicas.len(), replicas as usize);
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn over_http_the_new_traffic_is_followed_after_a_crash_of_the_controller() {
    quiet_panics();
    let (serve, address) = listening(1).await;
    create_named(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a").route("/e")).await.unwrap();
    for name in ["b", "a", "b"] {
        serve.crash_controller().await;
        serve.set_traffic("e", [(name, 1.0)]).await.unwrap();
        assert_eq!(get(address, "/e").await.json(), name);
    }
    serve.shutdown().await.unwrap();
}

/// Counts its calls; panics at 0. Those made after the second are not made at all while `broken`.
struct Fragile(u64);

impl Actor for Fragile {
    type Context = ReplicaContext<Self>;
}

impl Handler<Pass> for Fragile {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Pass(n): Pass, _: &mut Self::Context) -> Self::Result {
        assert!(n > 0, "{MEANT}");
        self.0 += 1;
        Ok(self.0)
    }
}

#[actix_web::test]
async fn a_lone_replica_that_panics_is_there_again_with_a_fresh_state() {
    quiet_panics();
    let serve = here().await;
    let backend = Backend::new(|_| Ok(Fragile(0))).handles::<Pass>();
    serve.create_backend("b", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle::<Pass>("e").unwrap();
    assert_eq!((handle.call(Pass(1)).await, handle.call(Pass(1)).await), (Ok(1), Ok(2)));
    assert_eq!(handle.call(Pass(0)).await.unwrap_err().code(), "panicked");
    assert_eq!(handle.call(Pass(1)).await, Ok(1), "counted from the start");
    assert_eq!(metric(&serve, "serve_replica_restarts_total", "backend=\"b\",replica=\"0\""), 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_replica_that_cannot_come_back_leaves_the_other_one_serving() {
    quiet_panics();
    tokio::time::pause();
    let serve = here().await;
    let made = Arc::<AtomicU64>::default();
    let count = Arc::clone(&made);
    let backend = Backend::new(move |_| match count.fetch_add(1, SeqCst) {
        0 | 1 => Ok(Fragile(0)),
        _ => Err("it does not come back".into()),
    });
    let restart =
        RestartPolicy { backoff: Duration::from_secs(60), max_restarts: 1000, ..Default::default() };
    let config = BackendConfig::default().num_replicas(2).restart(restart);
    serve.create_backend("b", backend.handles::<Pass>(), config).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle::<Pass>("e").unwrap();
    assert_eq!(handle.call(Pass(0)).await.unwrap_err().code(), "panicked");
    until("its restart has failed", || made.load(SeqCst) == 3).await;
    for n in 1..=50 {
        assert_eq!(handle.call(Pass(1)).await, Ok(n), "all by the same replica");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_whose_constructor_always_fails_is_told_and_leaves_nothing() {
    tokio::time::pause();
    let serve = here().await;
    let backend = Backend::new(|_| Err::<Fragile, _>("no such model".into())).handles::<Pass>();
    let config = BackendConfig::default().num_replicas(2);
    let error = serve.create_backend("b", backend, config).await.unwrap_err();
    assert_eq!(error.code(), "start_failed");
    assert!(error.to_string().contains("no such model"), "{error}");
    assert!(serve.list_backends().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_constructor_that_fails_now_and_then_gets_all_its_replicas_in_the_end() {
    tokio::time::pause();
    let serve = here().await;
    let tries = AtomicU64::new(0);
    let backend = Backend::new(move |_| match tries.fetch_add(1, SeqCst) % 2 {
        0 => Err("not this time".into()),
        _ => Ok(Fragile(0)),
    });
    let config = BackendConfig::default().num_replicas(2);
    serve.create_backend("b", backend.handles::<Pass>(), config).await.unwrap();
    assert_eq!(serve.status().backends[0].replicas.len(), 2);
    serve.shutdown().await.unwrap();
}
