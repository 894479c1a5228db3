//! Metrics as they are scraped: names, labels, and what is counted where.

use actix::{Actor, Handler, Message};
use greenroom::{Backend, BackendConfig, Batch, Endpoint, Listen, ReplicaContext, ServeError};
use serde::Deserialize;

use super::{lab, prometheus::Scrape};
use crate::wire::{ask, get, listening, post};

#[actix_web::test]
async fn both_listeners_tell_the_same_under_the_final_names() {
    let (serve, address) = lab().await;
    let admin = serve.listen_admin(Listen::default()).await.unwrap();
    for _ in 0..3 {
        get(address, "/lab?a=1").await;
    }
    ask(address, "POST", "/lab", &["x-serve-call-method: refuse"], "null").await;
    ask(address, "POST", "/lab", &["x-serve-call-method: panic"], "null").await;
    serve.handle::<super::Add>("lab").unwrap().call(super::Add { a: 1, b: 1 }).await.unwrap();
    for at in [address, admin] {
        let answer = get(at, "/metrics").await;
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let scrape = Scrape::read(answer.text());
        let (backend, replica) = (("backend", "lab"), ("replica", "0"));
        let of_backend = |name: &str| scrape.value(name, &[backend]);
        let of_replica = |name: &str| scrape.value(name, &[backend, replica]);
        assert_eq!(of_backend("serve_backend_request_counter_total"), 6.0);
        assert_eq!(of_backend("serve_backend_error_counter_total"), 2.0);
        assert_eq!(of_backend("serve_overload_refused_total"), 0.0);
        assert_eq!(of_replica("serve_replica_restarts_total"), 1.0);
        assert_eq!(of_replica("serve_backend_replica_starts_total"), 2.0);
        assert_eq!(of_replica("serve_backend_queuing_latency_ms_count"), 6.0);
        assert_eq!(of_replica("serve_backend_processing_latency_ms_count"), 6.0);
        assert_eq!(of_replica("serve_replica_queued_queries"), 0.0);
        assert_eq!(of_replica("serve_replica_processing_queries"), 0.0);
        let routed = [("endpoint", "lab"), backend];
        assert_eq!(scrape.value("serve_num_router_requests_total", &routed), 6.0);
        let http = |method, code| {
            let labels = [("route", "/lab"), ("method", method), ("status_code", code)];
            scrape.value("serve_num_http_requests_total", &labels)
        };
        assert_eq!((http("GET", "200"), http("POST", "422"), http("POST", "500")), (3.0, 1.0, 1.0));
        assert_eq!(scrape.value("serve_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
        let bounds = scrape.series["serve_backend_processing_latency_ms_bucket"].keys();
        let mut bounds: Vec<f64> = bounds.filter_map(|labels| labels["le"].parse().ok()).collect();
        bounds.retain(|bound| bound.is_finite());
        bounds.sort_by(f64::total_cmp);
        let want = [0.05, 0.1, 0.25, 0.5, 1., 2., 5., 10., 20., 50., 100., 200., 500., 1000., 2000., 5000.];
        assert_eq!(bounds, want);
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn labels_stay_few_whatever_is_asked_for() {
    let (serve, address) = lab().await;
    serve.create_endpoint("p", Endpoint::new("lab").route("/p/{a}")).await.unwrap();
    for i in 0..20 {
        get(address, &format!("/none/{i}")).await;
        get(address, &format!("/p/{i}")).await;
        ask(address, &format!("ODD{i}"), &format!("/none/{i}"), &[], "").await;
        ask(address, &format!("ODD{i}"), "/lab", &[], "").await;
    }
    let scrape = Scrape::read(get(address, "/metrics").await.text());
    let http = |route, method, code| {
        let labels = [("route", route), ("method", method), ("status_code", code)];
        scrape.value("serve_num_http_requests_total", &labels)
    };
    assert_eq!(http("unmatched", "GET", "404"), 20.0);
    assert_eq!(http("unmatched", "OTHER", "404"), 20.0);
    assert_eq!(http("/p/{a}", "GET", "200"), 20.0);
    assert_eq!(http("/lab", "OTHER", "405"), 20.0);
    assert_eq!(scrape.series["serve_num_http_requests_total"].len(), 4);
    serve.shutdown().await.unwrap();
}

/// Counts what it is told to.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<u64, ServeError>")]
struct Count {
    n: u64,
}

struct Counter;

impl Actor for Counter {
    type Context = ReplicaContext<Self>;
    fn started(&mut self, _: &mut Self::Context) {
        metrics::gauge!("user_ready").set(1.0);
    }
}

impl Handler<Count> for Counter {
    type Result = actix::ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, Count { n }: Count, _: &mut Self::Context) -> Self::Result {
        metrics::counter!("user_items_total", "kind" => "sync").increment(n);
        Box::pin(async move {
            tokio::task::yield_now().await;
            metrics::counter!("user_items_total", "kind" => "async").increment(n);
            metrics::counter!("user_forged_total", "backend" => "other").increment(1);
            metrics::histogram!("user_size").record(n as f64);
            Ok(n)
        })
    }
}

#[actix_web::test]
async fn metrics_that_a_backend_makes_carry_its_labels_and_stay_within_their_serve() {
    let (serve, address) = listening(1).await;
    let (other, elsewhere) = listening(1).await;
    let backend = || Backend::new(|_| Ok(Counter)).json::<Count>();
    serve.create_backend("mine", backend(), BackendConfig::default()).await.unwrap();
    serve.create_endpoint("mine", Endpoint::new("mine").route("/count").methods(["POST"])).await.unwrap();
    assert_eq!(post(address, "/count", r#"{"n":5}"#).await.text(), "5");
    assert_eq!(post(address, "/count", r#"{"n":6}"#).await.text(), "6");
    let scrape = Scrape::read(get(address, "/metrics").await.text());
    let (backend, replica) = (("backend", "mine"), ("replica", "0"));
    for kind in ["sync", "async"] {
        assert_eq!(scrape.value("user_items_total", &[backend, replica, ("kind", kind)]), 11.0);
    }
    assert_eq!(scrape.value("user_ready", &[backend, replica]), 1.0);
    assert_eq!(scrape.value("user_size_count", &[backend, replica]), 2.0);
    assert_eq!(scrape.value("user_forged_total", &[backend, replica]), 2.0, "ours cannot be forged");
    assert!(!get(elsewhere, "/metrics").await.text().contains("user_"));
    other.shutdown().await.unwrap();
    serve.shutdown().await.unwrap();
}

/// Makes metrics whose names clash: with ours, and with each other.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<(), ServeError>")]
struct Clash {}

struct Clasher;

impl Actor for Clasher {
    type Context = ReplicaContext<Self>;
}

impl Handler<Clash> for Clasher {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, _: Clash, _: &mut Self::Context) -> Self::Result {
        metrics::describe_counter!("serve_batch_size", "Not ours.");
        metrics::counter!("serve_batch_size").increment(1);
        metrics::gauge!("serve.build.info").set(1.0);
        metrics::histogram!("serve_backend_request_counter_total").record(1.0);
        metrics::counter!("depth").increment(1);
        metrics::gauge!("depth").set(2.0);
        metrics::histogram!("depth").record(3.0);
        metrics::gauge!("depth_histogram_sum").set(4.0);
        Ok(())
    }
}

#[actix_web::test]
async fn a_family_is_there_once_whatever_backends_call_their_metrics() {
    let (serve, address) = listening(1).await;
    for name in ["one", "two"] {
        let backend = Backend::new(|_| Ok(Clasher)).json::<Clash>();
        serve.create_backend(name, backend, BackendConfig::default()).await.unwrap();
        serve.create_endpoint(name, Endpoint::new(name).route(format!("/{name}"))).await.unwrap();
        for _ in 0..2 {
            assert_eq!(get(address, &format!("/{name}")).await.status, 200);
        }
    }
    // The reader refuses a family that is there twice.
    let scrape = Scrape::read(get(address, "/metrics").await.text());
    for name in ["one", "two"] {
        let of = |metric| scrape.value(metric, &[("backend", name), ("replica", "0")]);
        assert_eq!((of("user_serve_batch_size"), of("user_serve_build_info")), (2.0, 1.0));
        assert_eq!(of("user_serve_backend_request_counter_total_count"), 2.0);
        assert_eq!((of("depth"), of("depth_gauge"), of("depth_histogram_count")), (2.0, 2.0, 2.0));
        assert_eq!(of("depth_histogram_sum_gauge"), 4.0);
        assert_eq!(scrape.value("serve_backend_request_counter_total", &[("backend", name)]), 2.0);
    }
    serve.shutdown().await.unwrap();
}

/// Doubles many at once.
struct Many;

impl Actor for Many {
    type Context = ReplicaContext<Self>;
}

impl Handler<Batch<Count>> for Many {
    type Result = Result<Vec<Result<u64, ServeError>>, ServeError>;
    fn handle(&mut self, batch: Batch<Count>, _: &mut Self::Context) -> Self::Result {
        Ok(batch.into_iter().map(|Count { n }| Ok(2 * n)).collect())
    }
}

#[actix_web::test]
async fn a_batch_counts_each_of_its_requests_and_itself_once() {
    let (serve, address) = listening(1).await;
    let config =
        BackendConfig::default().max_batch_size(4).batch_wait_timeout(std::time::Duration::from_millis(500));
    let backend = Backend::new(|_| Ok(Many)).json_batched::<Count>();
    serve.create_backend("many", backend, config).await.unwrap();
    serve.create_endpoint("many", Endpoint::new("many").route("/many")).await.unwrap();
    let asks = (0..4).map(|n| async move { get(address, &format!("/many?n={n}")).await.text().to_owned() });
    let answers = futures_util::future::join_all(asks).await;
    assert_eq!(answers, ["0", "2", "4", "6"]);
    let scrape = Scrape::read(get(address, "/metrics").await.text());
    let labels = [("backend", "many"), ("replica", "0")];
    assert_eq!(scrape.value("serve_backend_request_counter_total", &labels[..1]), 4.0);
    assert_eq!(scrape.value("serve_batch_size_count", &labels), 1.0);
    assert_eq!(scrape.value("serve_batch_size_sum", &labels), 4.0);
    assert_eq!(scrape.value("serve_replica_processing_queries", &labels), 0.0);
    serve.shutdown().await.unwrap();
}
