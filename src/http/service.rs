//! The service's own routes: what there is, whether it is alive and ready, its metrics.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{ConnectionType, Method, StatusCode},
    web,
};

use crate::{
    actors::controller::Office,
    http::{
        problem::{self, Reader},
        request_id::with_id,
    },
    serve,
};

/// Media type of the Prometheus text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Adds `/-/routes`, `/-/healthz`, `/-/readyz` and `/metrics`.
pub(crate) fn configure(config: &mut web::ServiceConfig, office: &Arc<Office>) {
    add(config, "/-/routes", office, |office, _| list(office));
    add(config, "/-/healthz", office, |_, _| HttpResponse::Ok().body("success"));
    add(config, "/-/readyz", office, readiness);
    add(config, "/metrics", office, |office, _| {
        HttpResponse::Ok().content_type(PROMETHEUS).body(office.metrics_text())
    });
}

/// One route for GET and HEAD; `answer` gets the request's id.
fn add(
    config: &mut web::ServiceConfig,
    path: &str,
    office: &Arc<Office>,
    answer: fn(&Office, &str) -> HttpResponse,
) {
    let office = Arc::clone(office);
    config.service(web::resource(path).to(move |request: HttpRequest| {
        std::future::ready(closing(&office, || {
            with_id(&request, |id| match *request.method() {
                Method::GET | Method::HEAD => answer(&office, id),
                _ => problem::not_allowed(Reader::Any, request.method(), &["GET", "HEAD"])(Some(id)),
            })
        }))
    }));
}

/// `{route: [endpoint, [methods]]}`.
fn list(office: &Office) -> HttpResponse {
    let table = office.routes.load();
    let routes: BTreeMap<_, _> =
        table.iter().map(|(route, e)| (route.as_str(), (e.slot.name.as_str(), &*e.methods))).collect();
    HttpResponse::Ok().json(routes)
}

fn readiness(office: &Office, id: &str) -> HttpResponse {
    match ready(office) {
        Ok(()) => HttpResponse::Ok().body("ready"),
        Err(why) => problem::plain(Reader::Any, StatusCode::SERVICE_UNAVAILABLE, "not_ready", &why, Some(id)),
    }
}

/// Whether every endpoint can be served; otherwise why not.
pub(crate) fn ready(office: &Office) -> Result<(), String> {
    if office.directory.closing() {
        return Err("the service is shutting down".into());
    }
    if office.directory.preparing() {
        return Err("the service is still starting".into());
    }
    serve::ready(office).map_err(|waiting| {
        let names: Vec<_> = waiting.iter().map(|name| name.as_str()).collect();
        format!("no replica is ready behind: {}", names.join(", "))
    })
}

/// While the service shuts down an answer closes its connection. It is looked first: an answer that says ready
/// closes nothing.
pub(crate) fn closing(office: &Office, answer: impl FnOnce() -> HttpResponse) -> HttpResponse {
    let closing = office.directory.closing();
    let mut response = answer();
    if closing {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response
}

/// What a listener of our own says to a path that nothing stands behind.
pub(crate) fn no_route(request: &HttpRequest) -> HttpResponse {
    let detail = format!("no endpoint has the route {}; /-/routes lists them", request.path());
    with_id(request, |id| problem::plain(Reader::Any, StatusCode::NOT_FOUND, "no_route", &detail, Some(id)))
}
