//! Resources of a running Serve: what fits is made, what does not is refused and changes nothing, what goes is given back.

mod exact;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use actix_web::ResponseError;
use futures_util::{FutureExt, future::BoxFuture};
use greenroom::{
    Amount, Backend, BackendConfig, BackendUpdate, Capacity, Endpoint, FnBackend, Resources, RestartPolicy,
    Serve, ServeError, ServeOptions, testing::Stage,
};

use crate::support::{Barrier, MEANT, quiet_panics, until};

/// Waits in the barrier, or panics.
#[derive(actix::Message)]
#[rtype(result = "Result<(), ServeError>")]
enum Do {
    Wait,
    Panic,
}

/// A Serve on this thread with so many CPUs.
async fn cpus(cpus: f64) -> Serve {
    let capacity = Capacity::default().num_cpus(cpus).custom("license", 1.0);
    Serve::start(ServeOptions::default().current_thread().capacity(capacity)).await.unwrap()
}

/// What a function of this module answers.
type Done = BoxFuture<'static, Result<(), ServeError>>;

fn waiting(
    barrier: &Barrier,
) -> Backend<FnBackend<Do, impl Fn(Do) -> Done + Clone + Send + Sync + Unpin + use<> + 'static>> {
    let barrier = barrier.clone();
    Backend::from_fn(move |_: Do| -> Done { Box::pin(barrier.pass().map(Ok)) })
}

fn config(replicas: u32, cpus: f64) -> BackendConfig {
    BackendConfig::default().num_replicas(replicas).resources(Resources::default().num_cpus(cpus))
}

async fn create(serve: &Serve, name: &str, config: BackendConfig) -> Result<(), ServeError> {
    serve.create_backend(name, waiting(&Barrier::new()), config).await
}

fn scaled(replicas: u32) -> BackendUpdate {
    BackendUpdate::default().num_replicas(replicas)
}

fn free(serve: &Serve) -> f64 {
    serve.status().capacity.free.num_cpus.map_or(f64::INFINITY, Amount::as_f64)
}

#[actix_web::test]
async fn two_halves_fit_on_one_cpu_and_a_third_is_refused() {
    let serve = cpus(1.0).await;
    create(&serve, "a", config(1, 0.5)).await.unwrap();
    create(&serve, "b", config(1, 0.5)).await.unwrap();
    assert_eq!(free(&serve), 0.0);
    let refused = create(&serve, "c", config(1, 0.5)).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.status_code().as_u16(), refused.retryable()),
        ("no_resources", 409, false)
    );
    assert_eq!(
        refused.to_string(),
        "backend c does not fit with num_replicas 1: each replica asks for num_cpus 0.5, free: num_cpus 0 of 1, \
         so 0 would fit; set resources.num_cpus to at most 0, or capacity.num_cpus to at least 1.5"
    );
    assert_eq!(serve.status().backends.len(), 2, "nothing is left of it");
    assert!(!serve.metrics().contains("backend=\"c\""), "not even its metrics");
    serve.delete_backend("b", false).await.unwrap();
    create(&serve, "c", config(1, 0.5)).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn ten_replicas_on_two_cpus_are_refused_with_each_cure_and_each_cure_helps() {
    let serve = cpus(2.0).await;
    let refused = create(&serve, "ten", config(10, 1.0)).await.unwrap_err();
    assert!(matches!(refused, ServeError::NoResources { replicas: 10, fit: 2, .. }), "{refused:?}");
    let cures = "set num_replicas to at most 2, or resources.num_cpus to at most 0.2, or capacity.num_cpus to at least 10";
    assert!(refused.to_string().ends_with(cures), "{refused}");
    create(&serve, "ten", config(10, 0.2)).await.unwrap();
    serve.delete_backend("ten", false).await.unwrap();
    create(&serve, "ten", config(2, 1.0)).await.unwrap();
    serve.shutdown().await.unwrap();
    let serve = cpus(10.0).await;
    create(&serve, "ten", config(10, 1.0)).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_scale_up_that_does_not_fit_changes_nothing_and_says_how_many_would() {
    let serve = cpus(3.0).await;
    create(&serve, "a", config(1, 1.0)).await.unwrap();
    create(&serve, "b", config(1, 0.5)).await.unwrap();
    let before = serve.get_backend_config("a");
    let both = scaled(4).max_queued_queries(7);
    let refused = serve.update_backend_config("a", both).await.unwrap_err();
    assert!(matches!(refused, ServeError::NoResources { replicas: 4, fit: 2, .. }), "{refused:?}");
    assert_eq!(serve.get_backend_config("a"), before);
    assert_eq!(free(&serve), 1.5);
    serve.update_backend_config("a", scaled(2)).await.unwrap();
    assert_eq!((free(&serve), serve.status().backends[0].replicas.len()), (0.5, 2));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn custom_resources_are_counted_too_and_unknown_ones_are_not_there() {
    let serve = cpus(9.0).await;
    let licensed =
        |amount| BackendConfig::default().resources(Resources::default().custom("license", amount));
    create(&serve, "a", licensed(0.75)).await.unwrap();
    let refused = create(&serve, "b", licensed(0.5)).await.unwrap_err().to_string();
    assert!(refused.contains("asks for custom.license 0.5, free: custom.license 0.25 of 1,"), "{refused}");
    let unknown = BackendConfig::default().resources(Resources::default().custom("tpu", 1.0));
    let refused = create(&serve, "b", unknown).await.unwrap_err().to_string();
    assert!(refused.contains("asks for custom.tpu 1, free: custom.tpu 0 of 0"), "{refused}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn gpus_are_counted_where_the_capacity_says_how_many() {
    let none = Capacity::default().num_cpus(None).num_gpus(0);
    let serve = Serve::start(ServeOptions::default().current_thread().capacity(none)).await.unwrap();
    let gpu = BackendConfig::default().resources(Resources::default().num_gpus(0.1));
    let refused = create(&serve, "b", gpu).await.unwrap_err().to_string();
    assert!(refused.ends_with("set capacity.num_gpus to at least 1"), "{refused}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_drains_is_given_back_when_it_is_gone_and_a_scale_up_meanwhile_waits_for_it() {
    let (serve, barrier) = (cpus(2.0).await, Barrier::new());
    serve.create_backend("a", waiting(&barrier), config(2, 1.0)).await.unwrap();
    serve.create_endpoint("a", Endpoint::new("a")).await.unwrap();
    let handle = serve.handle::<Do>("a").unwrap();
    let calls: Vec<_> = (0..20).map(|_| handle.call(Do::Wait)).collect();
    until("all are inside", || barrier.inside() == 20).await;
    let down = serve.update_backend_config("a", scaled(1));
    let meanwhile = async {
        let replicas = || serve.status().backends[0].replicas.len();
        until("one drains", || serve.get_backend_config("a").unwrap().num_replicas == 1).await;
        assert_eq!((replicas(), free(&serve)), (2, 0.0), "it is still there");
        let refused = create(&serve, "b", config(1, 1.0)).await;
        assert_eq!(refused.unwrap_err().code(), "no_resources");
        let up = serve.update_backend_config("a", scaled(2));
        let let_go = async {
            until("it is wanted", || serve.get_backend_config("a").unwrap().num_replicas == 2).await;
            assert_eq!(replicas(), 2, "a third has no room");
            barrier.release(20);
        };
        futures_util::future::join(up, let_go).await.0
    };
    let (down, up) = futures_util::future::join(down, meanwhile).await;
    assert_eq!((down, up), (Ok(()), Ok(())));
    for call in calls {
        assert_eq!(call.await, Ok(()));
    }
    assert_eq!((serve.status().backends[0].replicas.len(), free(&serve)), (2, 0.0));
    serve.update_backend_config("a", scaled(1)).await.unwrap();
    create(&serve, "b", config(1, 1.0)).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_a_deleted_backend_has_is_given_back_replica_by_replica_as_they_are_gone() {
    let (serve, barrier) = (cpus(3.0).await, Barrier::new());
    serve.create_backend("a", waiting(&barrier), config(3, 1.0)).await.unwrap();
    serve.create_endpoint("a", Endpoint::new("a")).await.unwrap();
    let call = serve.handle::<Do>("a").unwrap().call(Do::Wait);
    until("it is inside", || barrier.inside() == 1).await;
    serve.delete_endpoint("a").await.unwrap();
    let meanwhile = async {
        until("one is left", || serve.status().backends[0].replicas.len() == 1).await;
        assert_eq!(free(&serve), 2.0, "the one with the call is still there");
        assert_eq!(create(&serve, "b", config(3, 1.0)).await.unwrap_err().code(), "no_resources");
        barrier.release(1);
    };
    let (deleted, ()) = futures_util::future::join(serve.delete_backend("a", false), meanwhile).await;
    assert_eq!((deleted, call.await, free(&serve)), (Ok(()), Ok(()), 3.0));
    create(&serve, "b", config(3, 1.0)).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_replica_that_is_rebuilt_or_replaced_keeps_its_claim_and_one_that_never_was_leaves_none() {
    quiet_panics();
    tokio::time::pause();
    let serve = cpus(1.0).await;
    let works = Arc::new(AtomicBool::new(true));
    let backend = |works: &Arc<AtomicBool>| {
        let works = Arc::clone(works);
        Backend::new(move |_| if works.load(SeqCst) { Ok(Fragile) } else { Err("it does not work".into()) })
            .handles::<Do>()
    };
    let impatient = RestartPolicy { max_restarts: 0, ..RestartPolicy::default() };
    let config = config(1, 1.0).restart(impatient);
    serve.create_backend("a", backend(&works), config.clone()).await.unwrap();
    serve.create_endpoint("a", Endpoint::new("a")).await.unwrap();
    let handle = serve.handle::<Do>("a").unwrap();
    assert_eq!(handle.call(Do::Panic).await.unwrap_err().code(), "panicked");
    assert_eq!(free(&serve), 0.0);
    works.store(false, SeqCst);
    let _ = handle.call(Do::Panic).await;
    until("it is lost", || serve.status().backends[0].replicas.is_empty()).await;
    assert_eq!(free(&serve), 0.0, "its place is kept for the next");
    assert_eq!(create(&serve, "b", config.clone()).await.unwrap_err().code(), "no_resources");
    serve.delete_endpoint("a").await.unwrap();
    serve.delete_backend("a", true).await.unwrap();
    assert_eq!(free(&serve), 1.0);
    let failed = serve.create_backend("a", backend(&works), config).await;
    assert_eq!(failed.unwrap_err().code(), "start_failed");
    assert_eq!(free(&serve), 1.0);
    serve.shutdown().await.unwrap();
}

struct Fragile;

impl actix::Actor for Fragile {
    type Context = greenroom::ReplicaContext<Self>;
}

impl actix::Handler<Do> for Fragile {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, what: Do, _: &mut Self::Context) -> Self::Result {
        assert!(!matches!(what, Do::Panic), "{MEANT}");
        Ok(())
    }
}

#[actix_web::test]
async fn a_scale_up_that_fails_gives_back_what_it_claimed() {
    tokio::time::pause();
    let serve = cpus(3.0).await;
    let backend =
        Backend::new(|ctx| if ctx.replica_id().slot == 0 { Ok(Fragile) } else { Err("only one".into()) });
    let impatient = RestartPolicy { max_restarts: 0, backoff: Duration::ZERO, ..RestartPolicy::default() };
    serve.create_backend("a", backend.handles::<Do>(), config(1, 1.0).restart(impatient)).await.unwrap();
    let failed = serve.update_backend_config("a", scaled(3)).await;
    assert_eq!(failed.unwrap_err().code(), "start_failed");
    until("what was made is gone", || serve.status().backends[0].replicas.len() == 1 && free(&serve) == 2.0)
        .await;
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn cores_are_counted_where_a_serve_has_threads_and_nothing_on_the_caller_s_thread() {
    let stage = Stage::new().await.unwrap();
    assert_eq!(stage.serve().status().capacity.total, Capacity::unlimited());
    create(stage.serve(), "many", config(100, 64.0)).await.unwrap();
    stage.end().await.unwrap();
    for options in [ServeOptions::default(), ServeOptions::default().lent_threads()] {
        let serve = Serve::start(options).await.unwrap();
        assert_eq!(serve.status().capacity.total, Capacity::default());
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(free(&serve), cores as f64);
        let refused = create(&serve, "many", config(cores as u32 + 1, 1.0)).await.unwrap_err();
        assert_eq!(refused.code(), "no_resources");
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn a_capacity_that_cannot_be_is_refused_at_the_start() {
    let wrong = Capacity::default().num_cpus(f64::NAN).num_gpus(65);
    let error = Serve::start(ServeOptions::default().capacity(wrong)).await.unwrap_err();
    let ServeError::InvalidConfig(problems) = error else { panic!("{error:?}") };
    let places: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(places, ["capacity.num_cpus", "capacity.num_gpus"]);
}

/// Asks for the status when it is dropped.
struct Asks(Serve, Arc<AtomicBool>);

impl Drop for Asks {
    fn drop(&mut self) {
        let _ = self.0.status();
        self.1.store(true, SeqCst);
    }
}

#[actix_web::test]
async fn code_that_is_refused_is_dropped_where_it_may_ask_for_the_status() {
    let serve = cpus(1.0).await;
    let given = |dropped: &Arc<AtomicBool>| {
        let asks = Arc::new(Asks(serve.clone(), Arc::clone(dropped)));
        Backend::from_fn(move |_: Do| {
            let _ = &asks;
            std::future::ready(Ok::<_, ServeError>(()))
        })
    };
    create(&serve, "there", config(1, 1.0)).await.unwrap();
    // As a deadlock would keep this thread for ever, another one looks.
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late =
            is_done.recv_timeout(Duration::from_secs(20)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        assert!(!late, "it asks for what is locked");
    });
    for way in 0..4 {
        let dropped = Arc::default();
        let refused = match way {
            0 => serve.create_backend("new", given(&dropped), config(1, 1.0)).await,
            1 => serve.create_backend("there", given(&dropped), config(1, 1.0)).await,
            2 => serve.deploy_backend("new", given(&dropped), config(1, 1.0)).await,
            _ => serve.deploy_backend("there", given(&dropped), config(2, 1.0)).await,
        };
        let expected = if way == 1 { "already_exists" } else { "no_resources" };
        assert_eq!(refused.unwrap_err().code(), expected, "{way}");
        until("it is dropped", || dropped.load(SeqCst)).await;
    }
    done.send(()).unwrap();
    watch.join().unwrap();
    serve.shutdown().await.unwrap();
}
