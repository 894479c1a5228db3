//! The ingress: requests on the live routes of a Serve, inside any actix-web app.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    guard::fn_guard,
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};

use crate::{
    actors::controller::Office,
    error::ServeError,
    handle::Calling,
    http::{problem, service},
    http_call::HttpCall,
    meta::{Meta, RequestId, ShardKey},
    metrics::{registry::HttpKey, spread::Spread},
    routing::routes::RouteEntry,
    serve::Serve,
};

/// Header that names the session or user to be kept on one backend.
pub const SHARD_KEY_HEADER: &str = "x-serve-shard-key";
/// Header that names which of a backend's messages is meant.
pub const CALL_METHOD_HEADER: &str = "x-serve-call-method";
/// Header that carries the request id, both ways.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

// As names, so that a look-up need not parse them.
static SHARD_KEY: HeaderName = HeaderName::from_static(SHARD_KEY_HEADER);
static CALL_METHOD: HeaderName = HeaderName::from_static(CALL_METHOD_HEADER);
static REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Largest body taken unless told otherwise: 16 MiB.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How the routes of a Serve appear in an actix-web app.
#[derive(Clone, Debug)]
#[must_use]
pub struct Ingress {
    prefix: Box<str>,
    body_bytes_max: usize,
    service_routes: bool,
    lend_workers: bool,
}

impl Default for Ingress {
    /// At the root, bodies up to 16 MiB, without `/-/...` and `/metrics`, workers not lent.
    fn default() -> Self {
        Self { prefix: "".into(), body_bytes_max: BODY_BYTES_MAX, service_routes: false, lend_workers: false }
    }
}

impl Ingress {
    /// The routes lie below `prefix`: that of the `web::scope` which it is configured in.
    pub fn within(mut self, prefix: impl AsRef<str>) -> Self {
        self.prefix = prefix.as_ref().trim_end_matches('/').into();
        self
    }

    /// Largest body taken, in bytes.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// Also answers `/-/routes`, `/-/healthz`, `/-/readyz`, `/metrics` and, for ONNX backends, `/v2/...`.
    pub fn service_routes(mut self) -> Self {
        self.service_routes = true;
        self
    }

    /// Each worker thread of the host's server becomes a serving thread, so that requests need not change
    /// threads. Its replicas are withdrawn when it ends.
    pub fn lend_workers(mut self) -> Self {
        self.lend_workers = true;
        self
    }
}

impl Serve {
    /// The routes of this Serve for an actix-web app: `App::new().configure(serve.ingress())`. Endpoints may be
    /// made before or after the app. A request that no route matches goes on to the app's other services.
    pub fn ingress(&self) -> impl FnOnce(&mut web::ServiceConfig) + Clone + use<> {
        self.ingress_with(Ingress::default())
    }

    /// The same with options.
    pub fn ingress_with(&self, ingress: Ingress) -> impl FnOnce(&mut web::ServiceConfig) + Clone + use<> {
        let office = Arc::clone(&self.0.office);
        move |config| {
            if ingress.lend_workers {
                office.threads.lend_current(&office.directory);
            }
            if ingress.service_routes {
                service::configure(config, &office);
            }
            let site = Rc::new(Site {
                office,
                prefix: ingress.prefix,
                body_bytes_max: ingress.body_bytes_max,
                counts: RefCell::default(),
            });
            let guarded = Rc::clone(&site);
            config.service(
                web::scope("")
                    .guard(fn_guard(move |ctx| guarded.takes(ctx.head().uri.path())))
                    .default_service(web::to(move |request: HttpRequest, payload: web::Payload| {
                        let site = Rc::clone(&site);
                        async move { site.answer(request, payload).await }
                    })),
            );
        }
    }
}

/// The ingress on one worker thread.
struct Site {
    office: Arc<Office>,
    prefix: Box<str>,
    body_bytes_max: usize,
    counts: RefCell<Counts>,
}

/// Counters by route, method and status, so that the registry's lock is taken once for each.
#[derive(Default)]
struct Counts(HashMap<(usize, Method, u16), (Arc<str>, Arc<Spread>)>);

/// Counters remembered on one thread; routes that come and go must not pile up.
const COUNTS_MAX: usize = 4096;

impl Site {
    fn path<'a>(&self, path: &'a str) -> Option<&'a str> {
        let below = path.strip_prefix(&*self.prefix)?;
        if below.starts_with('/') { Some(below) } else { None }
    }

    fn takes(&self, path: &str) -> bool {
        self.path(path).is_some_and(|path| self.office.routes.load().find(path).is_some())
    }

    async fn answer(&self, request: HttpRequest, payload: web::Payload) -> HttpResponse {
        let found = {
            let table = self.office.routes.load();
            self.path(request.path()).and_then(|path| table.find(path)).map(|(entry, params)| {
                (entry.clone(), params.iter().map(|(k, v)| (Arc::from(k), decoded(v))).collect::<Vec<_>>())
            })
        };
        // The route went away between guard and here.
        let Some((entry, params)) = found else {
            return problem::plain(
                StatusCode::NOT_FOUND,
                "no_route",
                "no endpoint has this route",
                None,
                &[],
            );
        };
        let mut response = match request_id(request.headers()) {
            Err(error) => problem::answer(&error, None),
            Ok(id) => {
                let text = id.to_string();
                let mut response = match self.serve(&entry, params, &request, payload, id).await {
                    Ok(response) => response,
                    Err(response) => response(Some(&text)),
                };
                if let Ok(value) = HeaderValue::try_from(text) {
                    response.headers_mut().insert(REQUEST_ID.clone(), value);
                }
                response
            }
        };
        if self.office.directory.closing() {
            response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
        }
        self.count(&entry, request.method(), response.status());
        response
    }

    /// The answer, or what makes it once the request id is known.
    async fn serve(
        &self,
        entry: &RouteEntry,
        params: Vec<(Arc<str>, String)>,
        request: &HttpRequest,
        payload: web::Payload,
        id: RequestId,
    ) -> Result<HttpResponse, Box<dyn FnOnce(Option<&str>) -> HttpResponse>> {
        let failed = |error: ServeError| -> Box<dyn FnOnce(Option<&str>) -> HttpResponse> {
            Box::new(move |id| problem::answer(&error, id))
        };
        if !entry.methods.iter().any(|method| *method == request.method().as_str()) {
            let allow = entry.methods.join(", ");
            let detail = format!("{} is not allowed here; allowed: {allow}", request.method());
            return Err(Box::new(move |id| {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let mut response = problem::plain(status, "method_not_allowed", &detail, id, &[]);
                if let Ok(allow) = HeaderValue::try_from(allow) {
                    response.headers_mut().insert(header::ALLOW, allow);
                }
                response
            }));
        }
        let body = read_body(request.headers(), payload, self.body_bytes_max).await.map_err(failed)?;
        let headers = request.headers();
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let call = HttpCall {
            method: request.method().clone(),
            uri: request.uri().clone(),
            params,
            headers: if entry.wants_headers { headers.clone() } else { HeaderMap::new() },
            call_method: text(&CALL_METHOD).map(Into::into),
            body,
        };
        let meta = Meta {
            request_id: id,
            deadline: None,
            trace: text(&TRACEPARENT).filter(|t| t.len() <= crate::meta::ID_BYTES_MAX).map(Into::into),
            shard_key: text(&SHARD_KEY).map(ShardKey::new),
        };
        let answer =
            Calling::new(entry.slot.call(call, meta), &self.office.directory).await.map_err(failed)?;
        let mut response = HttpResponse::build(answer.status);
        for header in answer.headers {
            response.append_header(header);
        }
        Ok(response.body(answer.body))
    }

    fn count(&self, entry: &RouteEntry, method: &Method, status: StatusCode) {
        let mut counts = self.counts.borrow_mut();
        let key = (Arc::as_ptr(&entry.label).cast::<u8>().addr(), method.clone(), status.as_u16());
        if let Some((_, count)) = counts.0.get(&key) {
            return count.add();
        }
        if counts.0.len() >= COUNTS_MAX {
            counts.0.clear();
        }
        let count = self.office.metrics.registry.http(HttpKey::new(&entry.label, method, status));
        count.add();
        // The label is kept with the counter: its address is the key.
        counts.0.insert(key, (Arc::clone(&entry.label), count));
    }
}

fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn request_id(headers: &HeaderMap) -> Result<RequestId, ServeError> {
    match headers.get(&REQUEST_ID) {
        None => Ok(RequestId::generate()),
        Some(value) => RequestId::given(value.to_str().unwrap_or("")),
    }
}

/// The whole body, or a refusal as soon as it is known to be too large.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    payload: web::Payload,
    limit_bytes: usize,
) -> Result<Bytes, ServeError> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > limit_bytes) {
        return Err(ServeError::TooLarge { limit_bytes });
    }
    collect(payload, declared, limit_bytes).await
}

async fn collect<E: std::fmt::Display>(
    mut chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    declared: Option<usize>,
    limit_bytes: usize,
) -> Result<Bytes, ServeError> {
    let broken = |e: E| ServeError::bad_request(format!("the body could not be read: {e}"));
    // Most bodies come in one piece, which is then not copied.
    let Some(first) = chunks.next().await else { return Ok(Bytes::new()) };
    let first = first.map_err(broken)?;
    if first.len() > limit_bytes {
        return Err(ServeError::TooLarge { limit_bytes });
    }
    if declared == Some(first.len()) {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(declared.unwrap_or(2 * first.len()));
    whole.extend_from_slice(&first);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(broken)?;
        if whole.len() + chunk.len() > limit_bytes {
            return Err(ServeError::TooLarge { limit_bytes });
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}
