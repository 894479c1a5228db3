//! Metrics: their names, and what counts as what.

use actix::{Actor, Handler, Message};
use actix_web::{App, test};
use greenroom::{Backend, BackendConfig, Batch, Endpoint, Ingress, ReplicaContext, ServeError};
use serde::Deserialize;

use super::here;
use crate::{
    support::{MEANT, metric, quiet_panics},
    wire::{get, listening},
};

/// Succeeds, fails or panics.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<(), ServeError>")]
struct Do {
    what: String,
}

struct Doer;

impl Actor for Doer {
    type Context = ReplicaContext<Self>;
}

impl Handler<Do> for Doer {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Do { what }: Do, _: &mut Self::Context) -> Self::Result {
        match what.as_str() {
            "succeed" => Ok(()),
            "fail" => Err(ServeError::backend(500, "failed", "it failed")),
            _ => panic!("{MEANT}"),
        }
    }
}

impl Handler<Batch<Do>> for Doer {
    type Result = Result<Vec<Result<(), ServeError>>, ServeError>;
    fn handle(&mut self, batch: Batch<Do>, ctx: &mut Self::Context) -> Self::Result {
        Ok(batch.into_iter().map(|one| self.handle(one, ctx)).collect())
    }
}

#[actix_web::test]
async fn the_metrics_of_ray_serve_are_there_under_their_names() {
    let serve = here().await;
    let backend = Backend::new(|_| Ok(Doer)).json::<Do>();
    serve.create_backend("b", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b").route("/do")).await.unwrap();
    let app = App::new().configure(serve.ingress_with(Ingress::default().service_routes()));
    let app = test::init_service(app).await;
    let request = test::TestRequest::get().uri("/do?what=succeed").to_request();
    assert_eq!(test::call_service(&app, request).await.status(), 200);
    let request = test::TestRequest::get().uri("/metrics").to_request();
    let text = String::from_utf8(test::call_and_read_body(&app, request).await.to_vec()).unwrap();
    let replica = "backend=\"b\",replica=\"0\"";
    for (name, labels) in [
        ("serve_backend_request_counter_total", "backend=\"b\""),
        ("serve_backend_error_counter_total", "backend=\"b\""),
        ("serve_backend_replica_starts_total", replica),
        ("serve_replica_restarts_total", replica),
        ("serve_backend_queuing_latency_ms_count", replica),
        ("serve_backend_processing_latency_ms_count", replica),
        ("serve_backend_processing_latency_ms_sum", replica),
        ("serve_replica_queued_queries", replica),
        ("serve_backend_waiting_queries", "backend=\"b\""),
        ("serve_replica_processing_queries", replica),
        ("serve_num_http_requests_total", "route=\"/do\",method=\"GET\",status_code=\"200\""),
        ("serve_num_router_requests_total", "endpoint=\"e\",backend=\"b\""),
    ] {
        assert!(text.contains(&format!("\n{name}{{{labels}}} ")), "{name}{{{labels}}} in\n{text}");
    }
    for bound in ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1000", "2000", "5000", "+Inf"] {
        assert!(text.contains(&format!("latency_ms_bucket{{{replica},le=\"{bound}\"}} ")), "{bound}");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_fails_or_panics_is_counted_as_an_error_of_its_backend() {
    quiet_panics();
    let serve = here().await;
    let backend = Backend::new(|_| Ok(Doer)).handles::<Do>();
    serve.create_backend("b", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle::<Do>("e").unwrap();
    for what in ["succeed", "fail", "fail", "panic", "succeed"] {
        let _ = handle.call(Do { what: what.into() }).await;
    }
    let of_backend = |name| metric(&serve, name, "backend=\"b\"");
    assert_eq!(of_backend("serve_backend_request_counter_total"), 5);
    assert_eq!(of_backend("serve_backend_error_counter_total"), 3);
    let of_replica = |name| metric(&serve, name, "backend=\"b\",replica=\"0\"");
    assert_eq!(of_replica("serve_replica_restarts_total"), 1, "the panic");
    assert_eq!(of_replica("serve_backend_replica_starts_total"), 2);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_batch_counts_as_many_requests_as_it_holds() {
    let serve = here().await;
    let backend = Backend::new(|_| Ok(Doer)).batched::<Do>();
    let config =
        BackendConfig::default().max_batch_size(4).batch_wait_timeout(std::time::Duration::from_secs(9));
    serve.create_backend("b", backend, config).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle::<Do>("e").unwrap();
    let calls = ["succeed", "fail", "succeed", "succeed"].map(|what| handle.call(Do { what: what.into() }));
    let failed = futures_util::future::join_all(calls).await.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(failed, 1);
    assert_eq!(metric(&serve, "serve_backend_request_counter_total", "backend=\"b\""), 4);
    assert_eq!(metric(&serve, "serve_backend_error_counter_total", "backend=\"b\""), 1);
    assert_eq!(metric(&serve, "serve_batch_size_count", "backend=\"b\",replica=\"0\""), 1);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn http_requests_are_counted_by_route_and_status_and_those_without_a_route_under_one_label() {
    let (serve, address) = listening(1).await;
    let backend = Backend::new(|_| Ok(Doer)).json::<Do>();
    serve.create_backend("b", backend, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("e", Endpoint::new("b").route("/do/{what}")).await.unwrap();
    for path in ["/do/succeed", "/do/fail", "/do/fail", "/fake", "/other/fake"] {
        get(address, path).await;
    }
    let count = |route, status| {
        let labels = format!("route=\"{route}\",method=\"GET\",status_code=\"{status}\"");
        metric(&serve, "serve_num_http_requests_total", &labels)
    };
    assert_eq!([count("/do/{what}", 200), count("/do/{what}", 500), count("unmatched", 404)], [1, 2, 2]);
    serve.shutdown().await.unwrap();
}
