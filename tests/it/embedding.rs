//! A Serve inside other programs: actix-web apps and their scopes, tokio's runtime, plain threads, no HTTP at all.

use std::{num::NonZeroUsize, thread, time::Duration};

use actix::{Actor, Handler, Message};
use actix_web::{App, HttpResponse, HttpServer, test as webtest, web};
use greenroom::{
    Backend, BackendConfig, Endpoint, Handle, Ingress, Listen, ReplicaContext, Serve, ServeError,
    ServeOptions,
};
use serde::Deserialize;

use crate::wire::{ask, block_on, eventually, get};

/// Doubles a number; refuses 13.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<u64, ServeError>")]
struct Double {
    n: u64,
}

/// Tells on which thread it runs.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<String, ServeError>")]
struct Where;

struct Doubler;

impl Actor for Doubler {
    type Context = ReplicaContext<Self>;
}

impl Handler<Double> for Doubler {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Double { n }: Double, _: &mut Self::Context) -> Self::Result {
        if n == 13 { Err(ServeError::backend(422, "unlucky", "not 13")) } else { Ok(2 * n) }
    }
}

impl Handler<Where> for Doubler {
    type Result = Result<String, ServeError>;
    fn handle(&mut self, _: Where, _: &mut Self::Context) -> Self::Result {
        Ok(format!("{:?}", thread::current().id()))
    }
}

#[expect(clippy::disallowed_methods, reason = "the host's own runtime is what is tested")]
fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(future)
}

fn doubler() -> Backend<Doubler> {
    Backend::new(|_| Ok(Doubler)).json::<Double>().json::<Where>()
}

fn one_thread() -> ServeOptions {
    crate::support::uncounted().serving_threads(NonZeroUsize::MIN)
}

async fn with_double(options: ServeOptions) -> Serve {
    let serve = Serve::start(options).await.unwrap();
    serve.create_backend("double", doubler(), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("double", Endpoint::new("double").route("/double")).await.unwrap();
    serve
}

fn text(text: &'static str) -> actix_web::Route {
    web::to(move || std::future::ready(HttpResponse::Ok().body(text)))
}

/// Status and body of a GET. A macro, since actix-web does not name the type of its requests.
macro_rules! fetch {
    ($app:expr, $path:expr) => {{
        let request = webtest::TestRequest::get().uri($path).to_request();
        let response = webtest::call_service($app, request).await;
        let status = response.status().as_u16();
        (status, String::from_utf8(webtest::read_body(response).await.to_vec()).unwrap())
    }};
}

fn ok(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

#[actix_web::test]
async fn an_app_keeps_its_own_routes_before_and_after_and_its_own_404() {
    let serve = with_double(one_thread()).await;
    let app = App::new()
        .route("/before", text("before"))
        .configure(serve.ingress())
        .route("/after", text("after"))
        .service(web::resource("/shop/{item}").route(text("item")))
        .default_service(web::to(|| std::future::ready(HttpResponse::NotFound().body("the host's"))));
    let app = webtest::init_service(app).await;
    assert_eq!(fetch!(&app, "/double?n=21"), ok("42"));
    assert_eq!(fetch!(&app, "/before"), ok("before"));
    assert_eq!(fetch!(&app, "/after"), ok("after"));
    assert_eq!(fetch!(&app, "/shop/7"), ok("item"));
    for path in ["/nowhere", "/double/", "/doubl", "/-/healthz", "/metrics"] {
        assert_eq!(fetch!(&app, path), (404, "the host's".to_owned()), "{path}");
    }
    // An endpoint that comes later is served at once, one that goes leaves its path to the host.
    serve.create_endpoint("late", Endpoint::new("double").route("/late/{n}")).await.unwrap();
    assert_eq!(fetch!(&app, "/late/4"), ok("8"));
    serve.delete_endpoint("late").await.unwrap();
    assert_eq!(fetch!(&app, "/late/4").0, 404);
    serve.shutdown().await.unwrap();
    let (status, body) = fetch!(&app, "/double?n=1");
    assert!(status == 503 && body.contains("shutting_down"), "{status} {body}");
    assert_eq!(fetch!(&app, "/before"), ok("before"), "the host goes on");
}

#[actix_web::test]
async fn within_a_scope_only_paths_below_it_are_taken() {
    let serve = with_double(one_thread()).await;
    let ingress = serve.ingress_with(Ingress::default().within("/ml").service_routes());
    let scope =
        web::scope("/ml").route("/first", text("first")).configure(ingress).route("/last", text("last"));
    let app = App::new().service(scope).route("/double", text("the host's own"));
    let app = webtest::init_service(app).await;
    assert_eq!(fetch!(&app, "/ml/double?n=21"), ok("42"));
    assert_eq!(fetch!(&app, "/double"), ok("the host's own"));
    assert_eq!(fetch!(&app, "/ml/first"), ok("first"));
    assert_eq!(fetch!(&app, "/ml/last"), ok("last"));
    assert_eq!(fetch!(&app, "/ml/-/healthz"), ok("success"));
    assert!(fetch!(&app, "/ml/metrics").1.starts_with("# HELP"));
    assert_eq!(fetch!(&app, "/ml").0, 404);
    assert_eq!(fetch!(&app, "/mlx/double").0, 404);
    assert_eq!(fetch!(&app, "/-/healthz").0, 404);
    serve.create_endpoint("late", Endpoint::new("double").route("/late")).await.unwrap();
    assert_eq!(fetch!(&app, "/ml/late?n=2"), ok("4"));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_prefix_may_be_written_with_or_without_slashes() {
    let serve = with_double(one_thread()).await;
    for prefix in ["ml", "/ml", "/ml/", "ml/"] {
        let ingress = serve.ingress_with(Ingress::default().within(prefix));
        let app = webtest::init_service(App::new().service(web::scope("/ml").configure(ingress))).await;
        assert_eq!(fetch!(&app, "/ml/double?n=21"), ok("42"), "{prefix}");
    }
    serve.shutdown().await.unwrap();
}

/// A handler of the host's own.
async fn own(handle: web::Data<Handle<Double>>, n: web::Path<u64>) -> Result<String, actix_web::Error> {
    let n = handle.call(Double { n: *n }).await?;
    Ok(format!("it is {n}"))
}

#[actix_web::test]
async fn a_handle_answers_within_a_host_s_handler_and_its_error_becomes_the_answer() {
    let serve = with_double(one_thread()).await;
    let handle = serve.handle::<Double>("double").unwrap();
    let app = App::new().app_data(web::Data::new(handle)).route("/own/{n}", web::get().to(own));
    let app = webtest::init_service(app).await;
    assert_eq!(fetch!(&app, "/own/21"), ok("it is 42"));
    let (status, body) = fetch!(&app, "/own/13");
    assert!(status == 422 && body.contains(r#""code":"unlucky""#), "{status} {body}");
    serve.shutdown().await.unwrap();
    assert_eq!(fetch!(&app, "/own/1").0, 503);
}

#[actix_web::test]
async fn replicas_live_on_the_workers_that_a_host_lends_and_leave_with_them() {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
    let inner = serve.clone();
    let server = HttpServer::new(move || {
        let ingress = inner.ingress_with(Ingress::default().lend_workers());
        let here = || std::future::ready(HttpResponse::Ok().body(format!("{:?}", thread::current().id())));
        App::new().configure(ingress).route("/here", web::to(here))
    });
    let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let stop = server.handle();
    let running = actix_web::rt::spawn(server);
    // It waits for the worker to lend its thread.
    serve.create_backend("double", doubler(), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("double", Endpoint::new("double").route("/double")).await.unwrap();
    assert_eq!(get(address, "/double?n=21").await.text(), "42");
    let of_replica = ask(address, "GET", "/double", &["x-serve-call-method: where"], "").await;
    let of_worker = get(address, "/here").await;
    assert_eq!(of_replica.text(), format!("\"{}\"", of_worker.text()), "no thread was changed");
    let handle = serve.handle::<Double>("double").unwrap();
    assert_eq!(handle.call(Double { n: 4 }).await, Ok(8), "from another thread");
    stop.stop(true).await;
    running.await.unwrap().unwrap();
    let replicas = || serve.status().backends[0].replicas.len();
    eventually("the replica left with its worker", || replicas() == 0).await;
    assert_eq!(handle.call(Double { n: 4 }).await.unwrap_err().code(), "no_replica");
    // Another thread that is lent takes its place.
    serve.lend_current_thread();
    eventually("a replica on this thread", || serve.ready().is_ok()).await;
    assert_eq!(handle.call(Double { n: 4 }).await, Ok(8));
    serve.shutdown().await.unwrap();
}

#[test]
fn under_tokio_s_own_runtime_everything_works() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let serve = with_double(one_thread()).await;
        let handle = serve.handle::<Double>("double").unwrap();
        let calls = (0..100).map(|n| {
            let handle = handle.clone();
            spawn(async move { handle.call(Double { n: 100 + n }).await.unwrap() })
        });
        for (n, call) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
            assert_eq!(call.unwrap(), 200 + 2 * n as u64);
        }
        let late = handle.options().timeout(Duration::from_secs(5)).call(Double { n: 1 }).await;
        assert_eq!(late, Ok(2));
        let own = BackendConfig::default().placement(greenroom::Placement::Dedicated);
        serve.create_backend("own", doubler(), own).await.unwrap();
        let address = serve.listen(Listen::default().threads(NonZeroUsize::MIN)).await.unwrap();
        assert_eq!(get(address, "/double?n=21").await.text(), "42");
        serve.shutdown().await.unwrap();
    });
}

#[test]
fn a_host_s_server_under_tokio_s_own_runtime_lends_its_workers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
        let inner = serve.clone();
        let server = HttpServer::new(move || {
            App::new().configure(inner.ingress_with(Ingress::default().lend_workers()))
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let stop = server.handle();
        let running = spawn(server);
        serve.create_backend("double", doubler(), BackendConfig::default()).await.unwrap();
        serve.create_endpoint("double", Endpoint::new("double").route("/double")).await.unwrap();
        assert_eq!(get(address, "/double?n=21").await.text(), "42");
        serve.shutdown().await.unwrap();
        assert_eq!(get(address, "/double?n=21").await.code(), "shutting_down", "the host's server goes on");
        stop.stop(true).await;
        running.await.unwrap().unwrap();
    });
}

#[test]
fn a_plain_thread_needs_no_runtime_at_all() {
    let serve = block_on(with_double(one_thread()));
    let handle = serve.handle::<Double>("double").unwrap();
    assert_eq!(block_on(handle.call(Double { n: 21 })), Ok(42));
    let timed = handle.options().timeout(Duration::from_secs(5));
    assert_eq!(block_on(timed.call(Double { n: 21 })), Ok(42));
    let blocking = handle.blocking();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let blocking = blocking.clone();
            thread::spawn(move || (0..50).map(|_| blocking.call(Double { n }).unwrap()).sum::<u64>())
        })
        .collect();
    let sums: Vec<u64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(sums, [0, 100, 200, 300]);
    assert_eq!(blocking.call(Double { n: 13 }).unwrap_err().code(), "unlucky");
    block_on(serve.listen(Listen::default().threads(NonZeroUsize::MIN))).unwrap();
    block_on(serve.shutdown()).unwrap();
    assert_eq!(blocking.call(Double { n: 1 }), Err(ServeError::ShuttingDown));
}

#[actix_web::test]
async fn a_blocking_handle_refuses_wherever_a_runtime_runs() {
    let serve = with_double(one_thread()).await;
    let blocking = serve.handle::<Double>("double").unwrap().blocking();
    let refused = blocking.call(Double { n: 1 }).unwrap_err();
    assert_eq!(refused.code(), "would_deadlock");
    assert!(refused.to_string().contains("await"), "{refused}");
    // A thread of `spawn_blocking` belongs to a runtime too; there its handle may block instead.
    let inner = blocking.clone();
    let there = tokio::task::spawn_blocking(move || {
        let refused = inner.call(Double { n: 1 }).unwrap_err();
        (
            refused.code().to_owned(),
            tokio::runtime::Handle::current().block_on(inner.handle().call(Double { n: 4 })),
        )
    });
    assert_eq!(there.await.unwrap(), ("would_deadlock".to_owned(), Ok(8)));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn two_in_one_process_share_nothing_but_the_process() {
    let (one, two) = (with_double(one_thread()).await, with_double(one_thread()).await);
    for _ in 0..3 {
        one.handle::<Double>("double").unwrap().call(Double { n: 1 }).await.unwrap();
    }
    let count = |serve: &Serve| {
        let text = serve.metrics();
        let row = text.lines().find(|row| row.starts_with("serve_backend_request_counter_total{")).unwrap();
        row.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((count(&one), count(&two)), (3, 0));
    let app = App::new()
        .service(web::scope("/one").configure(one.ingress_with(Ingress::default().within("/one"))))
        .service(web::scope("/two").configure(two.ingress_with(Ingress::default().within("/two"))));
    let app = webtest::init_service(app).await;
    assert_eq!(fetch!(&app, "/one/double?n=2"), ok("4"));
    assert_eq!(fetch!(&app, "/two/double?n=2"), ok("4"));
    assert_eq!((count(&one), count(&two)), (4, 1));
    one.shutdown().await.unwrap();
    assert_eq!(fetch!(&app, "/one/double?n=2").0, 503);
    assert_eq!(fetch!(&app, "/two/double?n=2"), ok("4"), "the other goes on");
    two.shutdown().await.unwrap();
}
