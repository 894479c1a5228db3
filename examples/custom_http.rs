//! A backend that takes the HTTP request itself and answers with its own status, headers and body.
//!
//! `cargo run --example custom_http`, then `curl -i 'http://127.0.0.1:8000/badges/build?status=passing'`.

use actix::{Actor, Handler};
use actix_web::http::{
    Method, StatusCode,
    header::{ALLOW, CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH},
};
use bytes::Bytes;
use greenroom::{
    Backend, BackendConfig, Endpoint, HttpAnswer, HttpCall, Listen, ReplicaContext, Serve, ServeError,
    ServeOptions,
};

/// Draws badges as SVG.
struct Badges;

impl Actor for Badges {
    type Context = ReplicaContext<Self>;
}

impl Handler<HttpCall> for Badges {
    type Result = Result<HttpAnswer, ServeError>;

    fn handle(&mut self, call: HttpCall, _: &mut Self::Context) -> Self::Result {
        if call.method == Method::OPTIONS {
            let nothing = HttpAnswer { status: StatusCode::NO_CONTENT, headers: vec![], body: Bytes::new() };
            return Ok(nothing.header(ALLOW, HeaderValue::from_static("GET, OPTIONS")));
        }
        let label = call.param("label").unwrap_or_default();
        let status = call.query().strip_prefix("status=").ok_or_else(|| {
            // The backend's own error: as problem+json, with this status and code.
            ServeError::backend(422, "no_status", "say ?status=... to be drawn")
        })?;
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !plain(label) || !plain(status) {
            return Err(ServeError::backend(422, "not_plain", "letters, digits and '-' can be drawn"));
        }
        let tag = format!("\"{label}-{status}\"");
        let tag = HeaderValue::try_from(tag).map_err(ServeError::from_user)?;
        let known = call.headers.get(IF_NONE_MATCH) == Some(&tag);
        let answer = if known {
            HttpAnswer { status: StatusCode::NOT_MODIFIED, headers: vec![], body: Bytes::new() }
        } else {
            let svg = format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"160\" height=\"20\">\
                 <text x=\"4\" y=\"14\">{label}: {status}</text></svg>"
            );
            HttpAnswer::ok("image/svg+xml", svg)
        };
        Ok(answer.header(ETAG, tag).header(CACHE_CONTROL, HeaderValue::from_static("max-age=60")))
    }
}

/// Makes the backend and its endpoint.
pub async fn deploy(serve: &Serve) -> Result<(), ServeError> {
    serve.create_backend("badges", Backend::new(|_| Ok(Badges)).raw(), BackendConfig::default()).await?;
    let endpoint = Endpoint::new("badges").route("/badges/{label}").methods(["GET", "OPTIONS"]);
    serve.create_endpoint("badges", endpoint).await
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(ServeOptions::default().lent_threads()).await?;
    let address = serve.listen(Listen::on("127.0.0.1", 8000)).await?;
    deploy(&serve).await?;
    println!("http://{address}/badges/build?status=passing");
    serve.run_until_signal().await
}
