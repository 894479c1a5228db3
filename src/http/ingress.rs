//! The ingress: requests on the live routes of a Serve, inside any actix-web app.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    dev::{
        AppService, HttpServiceFactory, Payload, ResourceDef, ServiceRequest, ServiceResponse, fn_service,
    },
    guard::{GuardContext, fn_guard},
    web,
};

use crate::{
    actors::controller::Office,
    error::ServeError,
    handle::Calling,
    http::{
        body::{self, BodyLimits},
        exchange::{self, Exit, Failure, identified},
        explain, inference,
        problem::{self, Reader},
        service,
    },
    http_call::{ShardKeys, WantedHeaders},
    meta::RequestId,
    route::is_reserved,
    routing::routes::RouteEntry,
    serve::Serve,
};

/// Header that names which of a backend's messages is meant.
pub const CALL_METHOD_HEADER: &str = "x-serve-call-method";

/// How the routes of a Serve appear in an actix-web app.
#[derive(Clone, Debug)]
#[must_use]
pub struct Ingress {
    prefix: Box<str>,
    body: BodyLimits,
    service_routes: bool,
    lend_workers: bool,
    shard_keys: ShardKeys,
    explains: bool,
}

impl Default for Ingress {
    /// At the root, bodies up to 16 MiB that stall for 30 s at most, without `/-/...` and `/metrics`, workers
    /// not lent; shard keys in `X-SERVE-SHARD-KEY` alone; requests that ask are told which way they went.
    fn default() -> Self {
        Self {
            prefix: "".into(),
            body: BodyLimits::default(),
            service_routes: false,
            lend_workers: false,
            shard_keys: ShardKeys::default(),
            explains: true,
        }
    }
}

impl Ingress {
    /// The routes lie below `prefix`: that of the `web::scope` which it is configured in.
    pub fn within(mut self, prefix: impl AsRef<str>) -> Self {
        let prefix = prefix.as_ref().trim_matches('/');
        self.prefix = if prefix.is_empty() { "".into() } else { format!("/{prefix}").into() };
        self
    }

    /// Largest body taken, in bytes.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.body.bytes = bytes;
        self
    }

    /// Longest time without a byte of a body that is not whole yet; then the request is answered with 408, code
    /// `body_timeout`, and its connection closes. A body that is there at once costs no timer.
    pub fn body_timeout(mut self, idle: Duration) -> Self {
        self.body.idle = idle;
        self
    }

    /// Also answers `/-/routes`, `/-/healthz`, `/-/readyz`, `/metrics` and, for ONNX backends, `/v2/...`.
    pub fn service_routes(mut self) -> Self {
        self.service_routes = true;
        self
    }

    /// What is taken of a body.
    pub(crate) fn body_limits(&self) -> BodyLimits {
        self.body
    }

    /// Where requests carry their shard key.
    pub fn shard_keys(mut self, keys: ShardKeys) -> Self {
        self.shard_keys = keys;
        self
    }

    /// Requests with the header `X-Serve-Explain` are not told which backend and replica served them.
    pub fn without_explanations(mut self) -> Self {
        self.explains = false;
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
    ///
    /// Give the host's server `HttpServer::h1_allow_half_closed(false)`, as [`Serve::listen`] does: otherwise
    /// actix-web does not notice that a caller has left, and its handler runs to its end.
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
            let site = Rc::new(Site {
                exit: Exit::new(Arc::clone(&office)),
                office: Arc::clone(&office),
                prefix: ingress.prefix,
                body: ingress.body,
                leaves_reserved: ingress.service_routes,
                shard_keys: ingress.shard_keys,
                explains: ingress.explains,
            });
            // First: the app tries its services in order, and those below are matched by slower means.
            config.service(Mounted(site));
            if ingress.service_routes {
                service::configure(config, &office);
                inference::configure(config, &office, ingress.body, ingress.explains);
            }
        }
    }
}

/// The ingress as one service of an app: whatever path its guard knows, below the scope that it is in.
struct Mounted(Rc<Site>);

impl HttpServiceFactory for Mounted {
    fn register(self, config: &mut AppService) {
        let Self(site) = self;
        let guarded = Rc::clone(&site);
        let guard = fn_guard(move |ctx: &GuardContext<'_>| guarded.takes(ctx.head().uri.path()));
        let answer = fn_service(move |request: ServiceRequest| {
            let (request, payload) = request.into_parts();
            let site = Rc::clone(&site);
            async move {
                let response = site.answer(&request, payload).await;
                Ok::<_, actix_web::Error>(ServiceResponse::new(request, response))
            }
        });
        config.register_service(ResourceDef::root_prefix(""), Some(vec![Box::new(guard)]), answer, None);
    }
}

/// The ingress on one worker thread.
struct Site {
    office: Arc<Office>,
    prefix: Box<str>,
    body: BodyLimits,
    /// Paths of the service's own routes go on to those, whatever pattern an endpoint has.
    leaves_reserved: bool,
    shard_keys: ShardKeys,
    explains: bool,
    exit: Exit,
}

impl Site {
    fn path<'a>(&self, path: &'a str) -> Option<&'a str> {
        let below = path.strip_prefix(&*self.prefix)?;
        if below.starts_with('/') { Some(below) } else { None }
    }

    fn takes(&self, path: &str) -> bool {
        self.path(path).is_some_and(|path| {
            !(self.leaves_reserved && is_reserved(path)) && self.office.routes.load().find(path).is_some()
        })
    }

    async fn answer(&self, request: &HttpRequest, payload: Payload) -> HttpResponse {
        let _underway = self.exit.underway();
        let found = {
            let table = self.office.routes.load();
            self.path(request.path()).and_then(|path| table.find(path)).map(|(entry, params)| {
                (
                    Arc::clone(entry),
                    params.iter().map(|(k, v)| (Arc::from(k), decoded(v))).collect::<Vec<_>>(),
                )
            })
        };
        // The route went away between guard and here.
        let Some((entry, params)) = found else {
            return service::no_route(request);
        };
        let response =
            identified(request.headers(), failed, |id| self.serve(&entry, params, request, payload, id));
        self.exit.pass(&entry.counts, request.method(), response.await)
    }

    /// The answer, or what makes it once the request id is known.
    async fn serve(
        &self,
        entry: &RouteEntry,
        params: Vec<(Arc<str>, String)>,
        request: &HttpRequest,
        mut payload: Payload,
        id: RequestId,
    ) -> Result<HttpResponse, Failure> {
        if !entry.allows(request.method().as_str()) {
            return Err(problem::not_allowed(Reader::Any, request.method(), &entry.allowed()));
        }
        let body = match body::read(request.headers(), &mut payload, self.body).await {
            Ok(body) => body,
            Err(error) => return Err(body::left_unread(failed(error), payload)),
        };
        let mut meta = exchange::meta(request.headers(), id, &self.shard_keys);
        let explain = if self.explains { explain::asked(request.headers()) } else { None };
        meta.explain.clone_from(&explain);
        let directory = &self.office.directory;
        let answer = {
            // One meaning for both: the headers that are copied and where the call goes.
            let meaning = entry.slot.meaning();
            let wanted = meaning.as_ref().map_or(WantedHeaders::None, |state| state.wanted_headers());
            let call = exchange::call(request, params, wanted, body);
            Calling::new(entry.slot.call_as(meaning, call, meta), directory)
        };
        let answer = answer.await.map_err(|error| match error {
            // Its replicas have gone because everything goes.
            ServeError::NoReplica { .. } if directory.closing() => ServeError::ShuttingDown,
            error => error,
        });
        explain::told(answer.map(exchange::response), explain, Reader::Any)
    }
}

fn failed(error: ServeError) -> Failure {
    Box::new(move |id| problem::answer(&error, id))
}

fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}
