//! Backends that do not start: errors, panics, no thread, no end; and shared parts that are made once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Endpoint, ReplicaContext, RestartPolicy, Serve, ServeError,
};

use super::{Adder, Next, adder, here};

fn impatient() -> BackendConfig {
    let restart = RestartPolicy { max_restarts: 1, backoff: Duration::from_millis(1), ..Default::default() };
    BackendConfig::default().restart(restart)
}

fn failing(why: &'static str) -> Backend<Adder> {
    Backend::new(move |_| match why.strip_prefix("panic: ") {
        Some(text) => panic!("{text}"),
        None => Err(why.into()),
    })
    .handles::<Next>()
}

#[actix_web::test]
async fn a_factory_that_fails_is_told_with_its_reason_and_leaves_nothing() {
    let serve = here().await;
    for (why, told) in [("no such file", "no such file"), ("panic: out of luck", "panicked: out of luck")] {
        let config = impatient().num_replicas(3);
        let error = serve.create_backend("add", failing(why), config).await.unwrap_err();
        assert_eq!(error.code(), "start_failed");
        assert_eq!(error.to_string(), format!("a replica of add did not start: {told}"));
        assert!(serve.list_backends().is_empty() && !serve.metrics().contains("\"add\""));
        let refused = serve.create_endpoint("add", Endpoint::new("add")).await.unwrap_err();
        assert_eq!(refused.code(), "unknown_backend");
    }
    serve.create_backend("add", adder().0, BackendConfig::default()).await.expect("the name is free again");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_factory_that_fails_once_is_tried_again() {
    let serve = here().await;
    let tries = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&tries);
    let backend = Backend::new(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Err("not yet".into()),
        _ => Ok(Adder(Arc::new(AtomicUsize::new(1)))),
    });
    serve.create_backend("add", backend.handles::<Next>(), impatient()).await.unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    assert_eq!(serve.status().backends[0].last_error.as_deref(), Some("not yet"));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_that_is_never_ready_is_given_up_after_its_startup_timeout() {
    tokio::time::pause();
    let serve = here().await;
    let restart = RestartPolicy { max_restarts: 1000, backoff: Duration::from_secs(5), ..Default::default() };
    let config = BackendConfig::default().restart(restart).startup_timeout(Duration::from_secs(60));
    let began = tokio::time::Instant::now();
    let error = serve.create_backend("add", failing("still away"), config).await.unwrap_err();
    let took = began.elapsed().as_secs();
    assert!((60..=61).contains(&took), "{took}");
    let text = error.to_string();
    assert!(text.contains("within 60 s") && text.contains("still away"), "{text}");
    assert!(serve.list_backends().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn without_a_thread_to_live_on_a_backend_is_given_up_too() {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
    let config = BackendConfig::default().num_replicas(10).startup_timeout(Duration::from_millis(50));
    let error = serve.create_backend("add", adder().0, config).await.unwrap_err();
    assert!(error.to_string().contains("no serving thread"), "{error}");
    assert!(serve.list_backends().is_empty());
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn an_update_whose_replicas_do_not_start_keeps_the_old_options_and_replicas() {
    let serve = here().await;
    let made = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&made);
    let backend = Backend::new(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Ok(Adder(Arc::new(AtomicUsize::new(1)))),
        _ => Err("only two licences".into()),
    });
    let config = impatient().num_replicas(2);
    serve.create_backend("add", backend.handles::<Next>(), config.clone()).await.unwrap();
    serve.create_endpoint("add", Endpoint::new("add")).await.unwrap();
    let update = BackendUpdate::default().num_replicas(5).max_queued_queries(3);
    let error = serve.update_backend_config("add", update).await.unwrap_err();
    assert!(error.to_string().contains("only two licences"), "{error}");
    assert_eq!(serve.get_backend_config("add").unwrap(), config);
    let handle = serve.handle::<Next>("add").unwrap();
    assert_eq!(handle.call(Next(1)).await, Ok(2));
    while serve.status().backends[0].replicas.len() > 2 {
        tokio::task::yield_now().await;
    }
    assert!(serve.ready().is_ok());
    serve.shutdown().await.unwrap();
}

/// Panics.
#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Crash;

struct Heavy(Arc<String>);

impl Actor for Heavy {
    type Context = ReplicaContext<Self>;
}

impl Handler<Crash> for Heavy {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, _: Crash, _: &mut Self::Context) -> Self::Result {
        panic!("out");
    }
}

impl Handler<Next> for Heavy {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, _: Next, _: &mut Self::Context) -> Self::Result {
        Ok(self.0.len() as u64)
    }
}

#[actix_web::test]
async fn a_shared_part_is_made_once_for_all_replicas_rebuilds_and_later_ones() {
    let serve =
        Serve::start(crate::support::uncounted().serving_threads(4.try_into().unwrap())).await.unwrap();
    let (prepared, made) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (p, m) = (Arc::clone(&prepared), Arc::clone(&made));
    let prepare = move || match p.fetch_add(1, Ordering::SeqCst) {
        0 => Err("the first try fails".into()),
        _ => Ok("heavy".to_owned()),
    };
    let make = move |part: &Arc<String>, _: &mut ReplicaContext<Heavy>| {
        m.fetch_add(1, Ordering::SeqCst);
        Ok(Heavy(Arc::clone(part)))
    };
    let backend = Backend::with_shared(prepare, make).handles::<Next>().handles::<Crash>();
    serve.create_backend("heavy", backend, impatient().num_replicas(4)).await.unwrap();
    serve.create_endpoint("heavy", Endpoint::new("heavy")).await.unwrap();
    assert_eq!(prepared.load(Ordering::SeqCst), 2, "a failure is not kept");
    let crash = serve.handle::<Crash>("heavy").unwrap();
    for _ in 0..20 {
        assert_eq!(crash.call(Crash).await.unwrap_err().code(), "panicked");
    }
    for n in [0, 6] {
        serve.update_backend_config("heavy", BackendUpdate::default().num_replicas(n)).await.unwrap();
    }
    assert_eq!(serve.handle::<Next>("heavy").unwrap().call(Next(1)).await, Ok(5));
    assert_eq!(prepared.load(Ordering::SeqCst), 2);
    assert!(made.load(Ordering::SeqCst) >= 4 + 20 + 6);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn news_of_replicas_that_are_gone_are_not_taken_for_those_of_new_ones() {
    tokio::time::pause();
    let serve = here().await;
    let hangs = || Backend::from_fn(|_: Next| std::future::pending::<Result<u64, ServeError>>());
    for _ in 0..2 {
        serve.create_backend("again", hangs(), BackendConfig::default()).await.unwrap();
        serve.create_endpoint("again", Endpoint::new("again")).await.unwrap();
        let call = serve.handle::<Next>("again").unwrap().call(Next(1));
        serve.delete_endpoint("again").await.unwrap();
        serve.delete_backend("again", true).await.unwrap();
        assert!(call.await.is_err());
    }
    serve.create_backend("again", hangs(), BackendConfig::default()).await.unwrap();
    let replica = || serve.status().backends[0].replicas[0].id.clone();
    let first = replica();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(replica(), first, "a forced end is looked after for a while");
    assert_eq!(serve.status().backends[0].last_error, None);
    serve.shutdown().await.unwrap();
}
