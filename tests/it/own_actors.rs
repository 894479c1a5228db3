//! The runtime's own actors: their crashes lose nothing that was acknowledged and no call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::Message;
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, Request, Route, Serve, ServeError, ServeOptions,
};

use crate::{
    frail::{ActFuture, Atomic, Brittle, Do, Future, Sync, Watch, WithBrittle},
    support::{Barrier, metric, quiet_panics, until},
};

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Double(u64);

async fn add(serve: &Serve, name: &str) {
    let backend = Backend::from_fn(|Double(n): Double| async move { Ok(2 * n) });
    serve.create_backend(name, backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint(name, Endpoint::new(name)).await.unwrap();
}

#[actix_web::test]
async fn twenty_crashes_of_the_controller_lose_nothing_acknowledged_and_no_call() {
    quiet_panics();
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(2.try_into().unwrap())).await.unwrap();
    add(&serve, "steady").await;
    let stop = Arc::new(AtomicBool::new(false));
    let caller = actix_web::rt::spawn({
        let (stop, handle) = (Arc::clone(&stop), serve.handle::<Double>("steady").unwrap());
        async move {
            let mut calls = 0;
            while !stop.load(SeqCst) {
                assert_eq!(handle.call(Double(calls)).await, Ok(2 * calls));
                calls += 1;
                tokio::task::yield_now().await;
            }
            calls
        }
    });
    for i in 0..20 {
        let name = format!("b{i}");
        // The crash overtakes the replicas that it starts.
        let (_, ()) = tokio::join!(add(&serve, &name), serve.crash_controller());
        let update = BackendUpdate::default().num_replicas(i % 3 + 1);
        let (updated, ()) =
            tokio::join!(serve.update_backend_config("steady", update), serve.crash_controller());
        updated.unwrap();
        if i % 4 == 0 {
            serve.delete_endpoint(&name).await.unwrap();
            let (deleted, ()) = tokio::join!(serve.delete_backend(&name, false), serve.crash_controller());
            deleted.unwrap();
        }
    }
    stop.store(true, SeqCst);
    assert!(caller.await.unwrap() > 0);
    let names: Vec<_> = serve.list_backends().into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names.len(), 1 + 15);
    for i in (0..20).filter(|i| i % 4 != 0) {
        let handle = serve.handle::<Double>(format!("b{i}")).unwrap();
        assert_eq!(handle.call(Double(i)).await, Ok(2 * i));
    }
    assert_eq!(serve.get_backend_config("steady").unwrap().num_replicas, 2);
    assert_eq!(metric(&serve, "serve_actor_restarts_total", "actor=\"controller\""), 45);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_crash_during_a_drain_forgets_neither_the_drain_nor_its_end() {
    quiet_panics();
    let serve = Serve::start(ServeOptions::default().current_thread()).await.unwrap();
    let barrier = Barrier::new();
    let held = barrier.clone();
    let backend = Backend::from_fn(move |_: Double| {
        let pass = held.pass();
        async move {
            pass.await;
            Ok(0)
        }
    });
    let config = BackendConfig::default().graceful_shutdown_timeout(Duration::from_millis(50));
    serve.create_backend("held", backend, config).await.unwrap();
    serve.create_endpoint("held", Endpoint::new("held")).await.unwrap();
    let call = serve.handle::<Double>("held").unwrap().call(Double(1));
    until("it runs", || barrier.inside() == 1).await;
    let update = BackendUpdate::default().num_replicas(0);
    let crash = async {
        until("it drains", || serve.ready().is_err()).await;
        serve.crash_controller().await;
    };
    let (updated, ()) = tokio::join!(serve.update_backend_config("held", update), crash);
    updated.unwrap();
    assert_eq!(call.await, Err(ServeError::Stopped), "forced at its time-out");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_that_never_gets_ready_times_out_although_the_controller_crashed_meanwhile() {
    quiet_panics();
    let serve = Serve::start(ServeOptions::default().current_thread()).await.unwrap();
    let watch = Watch::new();
    watch.fail_factory.store(usize::MAX, SeqCst);
    let patient = greenroom::RestartPolicy { max_restarts: 10_000, ..Default::default() };
    let config = BackendConfig::default().startup_timeout(Duration::from_millis(50)).restart(patient);
    let crash = async {
        until("it starts", || !serve.status().backends.is_empty()).await;
        serve.crash_controller().await;
    };
    let (created, ()) = tokio::join!(serve.create_backend("frail", watch.backend(), config), crash);
    let error = created.unwrap_err();
    assert!(
        matches!(&error, ServeError::StartFailed { why, .. } if why.contains("not ready within")),
        "{error}"
    );
    assert!(serve.list_backends().is_empty(), "nothing of it is left");
    serve.shutdown().await.unwrap();
}

async fn routed<M: Request>(serve: &Serve, endpoint: &str, msg: M) -> M::Result {
    let route = Route { endpoint: endpoint.try_into().unwrap(), msg };
    serve.router().unwrap().send(route).await.unwrap()
}

#[actix_web::test]
async fn the_router_takes_messages_of_every_kind_and_answers_refusals() {
    quiet_panics();
    for options in [
        ServeOptions::default().current_thread(),
        crate::support::uncounted().serving_threads(2.try_into().unwrap()),
    ] {
        let (serve, watch) = (Serve::start(options).await.unwrap(), Watch::new());
        serve.create_backend("frail", watch.backend(), BackendConfig::default()).await.unwrap();
        serve.create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
        assert_eq!(routed(&serve, "frail", Sync(Do::Answer)).await, Ok(1));
        assert_eq!(routed(&serve, "frail", Future(Do::Yield)).await, Ok(2));
        assert_eq!(routed(&serve, "frail", ActFuture(Do::Yield)).await, Ok(3));
        assert_eq!(routed(&serve, "frail", Atomic(Do::Yield)).await, Ok(4));
        assert!(matches!(routed(&serve, "frail", Sync(Do::Panic)).await, Err(ServeError::Panicked { .. })));
        assert!(matches!(routed(&serve, "frail", Double(1)).await, Err(ServeError::NotTaken { .. })));
        assert!(matches!(routed(&serve, "none", Double(1)).await, Err(ServeError::UnknownEndpoint(_))));
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn a_router_that_panics_answers_first_and_is_restarted_and_counted() {
    quiet_panics();
    let (serve, watch) =
        (Serve::start(ServeOptions::default().current_thread()).await.unwrap(), Watch::new());
    serve.create_backend("frail", watch.backend(), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("frail", Endpoint::new("frail")).await.unwrap();
    // It drops what it cannot deliver, and this message panics when dropped.
    for endpoint in ["none", "none"] {
        let refused = routed(&serve, endpoint, WithBrittle(Do::Answer, Brittle)).await;
        assert!(matches!(refused, Err(ServeError::UnknownEndpoint(_))));
    }
    until("two restarts", || metric(&serve, "serve_actor_restarts_total", "actor=\"router\"") == 2).await;
    assert_eq!(routed(&serve, "frail", Sync(Do::Answer)).await, Ok(1));
    serve.shutdown().await.unwrap();
}
