//! The Open Inference Protocol's own routes: `/v2/...`, where a model is a backend by its name.

use std::{rc::Rc, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde_json::json;

use crate::{
    actors::controller::Office,
    error::ServeError,
    handle::Calling,
    http::{
        body::{self, BodyLimits},
        exchange::{self, Exit, Failure, identified},
        explain,
        problem::{self, Reader},
        service,
    },
    http_call::{HttpCall, ShardKeys},
    meta::RequestId,
    metrics::route_counts::RouteCounts,
    oip::{ModelMetadata, ServerMetadata},
    routing::backend_routes::BackendRoutes,
};

/// Characters of a name from a path that an error repeats.
const SHOWN_CHARS_MAX: usize = 128;

/// What a request asks for.
#[derive(Clone, Copy)]
enum Ask {
    Server,
    Live,
    Ready,
    Model,
    ModelReady,
    Infer,
}

const ROUTES: [(&str, Ask); 9] = [
    ("/v2", Ask::Server),
    ("/v2/health/live", Ask::Live),
    ("/v2/health/ready", Ask::Ready),
    ("/v2/models/{model}", Ask::Model),
    ("/v2/models/{model}/ready", Ask::ModelReady),
    ("/v2/models/{model}/infer", Ask::Infer),
    ("/v2/models/{model}/versions/{version}", Ask::Model),
    ("/v2/models/{model}/versions/{version}/ready", Ask::ModelReady),
    ("/v2/models/{model}/versions/{version}/infer", Ask::Infer),
];

/// Adds the `/v2` routes.
pub(crate) fn configure(
    config: &mut web::ServiceConfig,
    office: &Arc<Office>,
    body: BodyLimits,
    explains: bool,
) {
    let exit = Exit::new(Arc::clone(office));
    let site = Rc::new(Site { office: Arc::clone(office), exit, explains, body });
    for (path, ask) in ROUTES {
        let (site, counts) = (Rc::clone(&site), Rc::new(RouteCounts::new(path)));
        let handler = move |request: HttpRequest, payload: web::Payload| {
            let (site, counts) = (Rc::clone(&site), Rc::clone(&counts));
            async move {
                let _underway = site.exit.underway();
                let response =
                    identified(request.headers(), failed, |id| site.answer(ask, &request, payload, id)).await;
                site.exit.pass(&counts, request.method(), response)
            }
        };
        config.route(path, web::to(handler));
    }
}

/// The routes on one worker thread.
struct Site {
    office: Arc<Office>,
    exit: Exit,
    explains: bool,
    body: BodyLimits,
}

impl Site {
    async fn answer(
        &self,
        ask: Ask,
        request: &HttpRequest,
        payload: web::Payload,
        id: RequestId,
    ) -> Result<HttpResponse, Failure> {
        let allowed: &[&str] = if matches!(ask, Ask::Infer) { &["POST"] } else { &["GET", "HEAD"] };
        if !allowed.contains(&request.method().as_str()) {
            return Err(problem::not_allowed(Reader::Inference, request.method(), allowed));
        }
        match ask {
            Ask::Server => Ok(HttpResponse::Ok().json(ServerMetadata::default())),
            Ask::Live => Ok(HttpResponse::Ok().json(json!({"live": true}))),
            Ask::Ready => self.ready().map(|()| HttpResponse::Ok().json(json!({"ready": true}))),
            Ask::Model => {
                let (_, metadata) = self.model(request)?;
                Ok(HttpResponse::Ok().json(metadata))
            }
            Ask::ModelReady => {
                let (model, metadata) = self.model(request)?;
                is_ready(&model).map_err(unready)?;
                Ok(HttpResponse::Ok().json(json!({"name": metadata.name, "ready": true})))
            }
            Ask::Infer => self.infer(request, payload, id).await,
        }
    }

    fn ready(&self) -> Result<(), Failure> {
        service::ready(&self.office).map_err(unready)?;
        self.office.models.all().iter().try_for_each(|model| is_ready(model)).map_err(unready)
    }

    /// The backend that the path names, and what is known of its model.
    fn model(&self, request: &HttpRequest) -> Result<(Arc<BackendRoutes>, ModelMetadata), Failure> {
        let name = part(request, "model").unwrap_or_default();
        let model = self
            .office
            .models
            .find(&name)
            .ok_or_else(|| not_found(format!("there is no model {:?}", shown(&name))))?;
        let loaded = model.model().and_then(|metadata| metadata.get().cloned());
        let Some(loaded) = loaded else {
            return Err(unready(format!("the model {} has not been loaded yet", model.name)));
        };
        let metadata = ModelMetadata { name: model.name.as_str().to_owned(), ..loaded };
        match part(request, "version") {
            Some(version) if !metadata.versions.contains(&version) => {
                Err(not_found(format!("the model {} has no version {:?}", model.name, shown(&version))))
            }
            _ => Ok((model, metadata)),
        }
    }

    async fn infer(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        id: RequestId,
    ) -> Result<HttpResponse, Failure> {
        // First, as a body left unread costs the caller its connection.
        let body = match body::read(request.headers(), &mut payload, self.body).await {
            Ok(body) => body,
            Err(error) => return Err(body::left_unread(failed(error), payload)),
        };
        let (model, _) = self.model(request)?;
        let port = model.port_of::<HttpCall>().map_err(failed)?;
        let call = exchange::call(request, Vec::new(), model.wanted_headers, body);
        let mut meta = exchange::meta(request.headers(), id, &ShardKeys::default());
        let explain = if self.explains { explain::asked(request.headers()) } else { None };
        meta.explain.clone_from(&explain);
        let answer = Calling::new(port.call(call, meta), &self.office.directory).await;
        explain::told(answer.map(exchange::response), explain, Reader::Inference)
    }
}

/// A part of the path, percent-decoded.
fn part(request: &HttpRequest, name: &str) -> Option<String> {
    let part = request.match_info().get(name)?;
    Some(percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned())
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS_MAX).collect()
}

/// Whether some replica takes calls; otherwise why not.
fn is_ready(model: &BackendRoutes) -> Result<(), String> {
    match model.port_of::<HttpCall>() {
        Ok(port) if port.concurrency() > 0 => Ok(()),
        Ok(_) => Err(format!("the model {} has no replica that is ready", model.name)),
        Err(error) => Err(error.to_string()),
    }
}

fn failed(error: ServeError) -> Failure {
    Box::new(move |id| problem::answer_to(Reader::Inference, &error, id))
}

fn not_found(detail: String) -> Failure {
    refused(StatusCode::NOT_FOUND, "unknown_model", detail)
}

fn unready(detail: String) -> Failure {
    refused(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail)
}

fn refused(status: StatusCode, code: &'static str, detail: String) -> Failure {
    Box::new(move |id| problem::plain(Reader::Inference, status, code, &detail, id))
}
