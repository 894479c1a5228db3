//! The dashboard: a page at `/` of the admin address that shows what `GET /api/serve/status` tells, as it changes.
//!
//! It is a page, a script, a style sheet and an icon, all within the binary, and asks for nothing else. What it may do
//! is said in its headers: run its own script, ask its own origin. It changes nothing.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::Method, web};

use super::{
    admin::gate,
    problem::{self, Reader},
    request_id::with_id,
    service::closing,
};
use crate::actors::controller::Office;

/// One file, as it is served.
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

static FILES: [File; 4] = [
    File { path: "/", kind: "text/html; charset=utf-8", text: include_str!("dashboard/page.html") },
    File {
        path: "/dashboard.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("dashboard/dashboard.js"),
    },
    File {
        path: "/dashboard.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("dashboard/dashboard.css"),
    },
    File { path: "/dashboard.svg", kind: "image/svg+xml", text: include_str!("dashboard/icon.svg") },
];

/// What every answer tells the browser: nothing from elsewhere, nothing in line, in no other page's frame; and no copy
/// of a page that another version of the server may have by now.
const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// Adds the page and what belongs to it.
pub(super) fn configure(config: &mut web::ServiceConfig, office: &Arc<Office>) {
    for file in &FILES {
        let office = Arc::clone(office);
        config.service(web::resource(file.path).to(move |request: HttpRequest| {
            std::future::ready(closing(&office, || with_id(&request, |id| answer(file, &request, id))))
        }));
    }
}

/// The file, for those who may ask for the admin API.
fn answer(file: &File, request: &HttpRequest, id: &str) -> HttpResponse {
    if let Err(stopped) = gate::check(request.method(), request.uri(), request.headers()) {
        return stopped.failure()(Some(id));
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return problem::not_allowed(Reader::Any, request.method(), &["GET", "HEAD"])(Some(id));
    }
    let mut response = HttpResponse::Ok();
    for header in HEADERS {
        response.insert_header(header);
    }
    response.content_type(file.kind).body(file.text)
}
