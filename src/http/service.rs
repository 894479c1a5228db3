//! The service's own routes: what there is, whether it is alive and ready, its metrics.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{HttpResponse, http::StatusCode, web};

use crate::{actors::controller::Office, http::problem, serve};

/// Media type of the Prometheus text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Adds `/-/routes`, `/-/healthz`, `/-/readyz` and `/metrics`.
pub(crate) fn configure(config: &mut web::ServiceConfig, office: &Arc<Office>) {
    let routes = Arc::clone(office);
    config.route("/-/routes", web::get().to(move || std::future::ready(list(&routes))));
    config.route("/-/healthz", web::get().to(|| std::future::ready(HttpResponse::Ok().body("success"))));
    let ready = Arc::clone(office);
    config.route("/-/readyz", web::get().to(move || std::future::ready(readiness(&ready))));
    let metrics = Arc::clone(office);
    config.route(
        "/metrics",
        web::get().to(move || {
            let text = metrics.metrics.render(&metrics.directory.own_restarts());
            std::future::ready(HttpResponse::Ok().content_type(PROMETHEUS).body(text))
        }),
    );
}

/// `{route: [endpoint, [methods]]}`.
fn list(office: &Office) -> HttpResponse {
    let table = office.routes.load();
    let routes: BTreeMap<_, _> =
        table.iter().map(|(route, e)| (route.as_str(), (e.slot.name.as_str(), &*e.methods))).collect();
    HttpResponse::Ok().json(routes)
}

fn readiness(office: &Office) -> HttpResponse {
    match ready(office) {
        Ok(()) => HttpResponse::Ok().body("ready"),
        Err(why) => problem::plain(StatusCode::SERVICE_UNAVAILABLE, "not_ready", &why, None, &[]),
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
