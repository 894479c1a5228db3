//! The admin API, `/api/serve`: what there is and how it is, and changes of it, each answered with what it did.

mod answer;
mod ask;
mod backends;
mod config;
mod endpoints;
pub(super) mod gate;
mod history;
mod openapi;
mod query;
mod server;
mod shutdown;
mod status;
mod traffic;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
};

use actix_web::{
    HttpRequest, HttpResponse,
    dev::Payload,
    http::{ConnectionType, Method, StatusCode},
    web,
};

use self::{
    Handler::{AtOnce, InTime},
    answer::{Answered, Outcome},
    ask::Ask,
};
use crate::{
    http::{
        body::{BodyLimits, left_unread},
        exchange::Failure,
        problem::{self, Reader},
        request_id::{request_id, tell},
    },
    meta::RequestId,
    serve::{Inner, Serve},
};

/// What every request of the admin API is answered from. It does not keep its Serve alive: whoever owns that does.
pub(super) struct Desk {
    serve: Weak<Inner>,
    body: BodyLimits,
    /// What came of the deploy or rollback that ended last.
    last: Mutex<Option<Outcome>>,
}

impl Desk {
    fn serve(&self) -> Option<Serve> {
        self.serve.upgrade().map(Serve)
    }
}

type Answering = Pin<Box<dyn Future<Output = Answered>>>;

/// How a request is answered.
enum Handler {
    /// From what is there.
    AtOnce(fn(Ask) -> Answered),
    /// When a change has come to its end.
    InTime(fn(Ask) -> Answering),
}

/// One path with what it answers to.
struct Resource {
    path: &'static str,
    methods: &'static [(&'static str, Handler)],
}

/// Every path of the admin API; `openapi.json` describes the same, which a test holds.
static RESOURCES: [Resource; 14] = [
    Resource { path: "/api/openapi.json", methods: &[("GET", AtOnce(openapi::document))] },
    Resource { path: "/api/serve/status", methods: &[("GET", AtOnce(status::status))] },
    Resource { path: "/api/serve/progress", methods: &[("GET", AtOnce(status::progress))] },
    Resource {
        path: "/api/serve/config",
        methods: &[("GET", AtOnce(config::get)), ("PUT", InTime(|ask| Box::pin(config::put(ask))))],
    },
    Resource { path: "/api/serve/history", methods: &[("GET", AtOnce(history::get))] },
    Resource {
        path: "/api/serve/rollback",
        methods: &[("POST", InTime(|ask| Box::pin(history::rollback(ask))))],
    },
    Resource { path: "/api/serve/shutdown", methods: &[("POST", AtOnce(shutdown::post))] },
    Resource { path: "/api/serve/backends", methods: &[("GET", AtOnce(backends::list))] },
    Resource {
        path: "/api/serve/backends/{name}",
        methods: &[
            ("GET", AtOnce(backends::get)),
            ("PUT", InTime(|ask| Box::pin(backends::put(ask)))),
            ("PATCH", InTime(|ask| Box::pin(backends::patch(ask)))),
            ("DELETE", InTime(|ask| Box::pin(backends::delete(ask)))),
        ],
    },
    Resource { path: "/api/serve/backends/{name}/replicas", methods: &[("GET", AtOnce(status::replicas))] },
    Resource { path: "/api/serve/endpoints", methods: &[("GET", AtOnce(endpoints::list))] },
    Resource {
        path: "/api/serve/endpoints/{name}",
        methods: &[
            ("GET", AtOnce(endpoints::get)),
            ("PUT", InTime(|ask| Box::pin(endpoints::put(ask)))),
            ("DELETE", InTime(|ask| Box::pin(endpoints::delete(ask)))),
        ],
    },
    Resource {
        path: "/api/serve/endpoints/{name}/traffic",
        methods: &[("PUT", InTime(|ask| Box::pin(traffic::put(ask))))],
    },
    Resource {
        path: "/api/serve/endpoints/{name}/shadow/{backend}",
        methods: &[
            ("PUT", InTime(|ask| Box::pin(traffic::put_shadow(ask)))),
            ("DELETE", InTime(|ask| Box::pin(traffic::delete_shadow(ask)))),
        ],
    },
];

/// Adds `/api/...`; what is below it and not there is 404.
pub(crate) fn configure(config: &mut web::ServiceConfig, serve: &Weak<Inner>, body: BodyLimits) {
    let desk = Arc::new(Desk { serve: Weak::clone(serve), body, last: Mutex::default() });
    for resource in &RESOURCES {
        let desk = Arc::clone(&desk);
        config.service(web::resource(resource.path).to(
            move |request: HttpRequest, payload: web::Payload| {
                let desk = Arc::clone(&desk);
                async move { answer(&desk, Some(resource), &request, payload.into_inner()).await }
            },
        ));
    }
    config.service(web::resource("/api{below:(/.*)?}").to(
        move |request: HttpRequest, payload: web::Payload| {
            let desk = Arc::clone(&desk);
            async move { answer(&desk, None, &request, payload.into_inner()).await }
        },
    ));
}

/// The answer to a request, under its id; one that cannot be an id is replaced.
async fn answer(
    desk: &Arc<Desk>,
    resource: Option<&'static Resource>,
    request: &HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let id = request_id(request.headers()).unwrap_or_else(|_| RequestId::generate()).to_string();
    let mut payload = Some(payload);
    let answered = consider(desk, resource, request, &mut payload).await;
    let answered = answered.map_err(|failure| match payload {
        Some(unread) => left_unread(failure, unread),
        None => failure,
    });
    let mut response = answered.unwrap_or_else(|failure| failure(Some(&id)));
    tell(&mut response, id);
    if desk.serve().is_none_or(|serve| serve.0.office.directory.closing()) {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response
}

async fn consider(
    desk: &Arc<Desk>,
    resource: Option<&'static Resource>,
    request: &HttpRequest,
    payload: &mut Option<Payload>,
) -> Result<HttpResponse, Failure> {
    gate::check(request.method(), request.uri(), request.headers()).map_err(gate::Stopped::failure)?;
    let Some(resource) = resource else { return Err(unknown(request.path())) };
    let method = match *request.method() {
        Method::HEAD => "GET",
        ref method => method.as_str(),
    };
    let Some((_, handler)) = resource.methods.iter().find(|(known, _)| *known == method) else {
        return Err(problem::not_allowed(Reader::Any, request.method(), &resource.allowed()));
    };
    let ask = Ask::read(desk, request, payload).await?;
    let answered = match handler {
        AtOnce(answer) => answer(ask),
        // A task of its own: whoever leaves before it is answered does not leave a change half made.
        InTime(answer) => actix_web::rt::spawn(answer(ask)).await.unwrap_or_else(|_| Err(stopped())),
    };
    answered.map_err(ask::failed)
}

/// What is told when the task of an answer ended without one: its thread ends, or it panicked.
fn stopped() -> crate::error::ServeError {
    crate::error::ServeError::Internal("the answer was not finished; look at the status".into())
}

fn unknown(path: &str) -> Failure {
    let detail = format!("there is no {path:?} here; /api/openapi.json describes all that there is");
    Box::new(move |id| problem::plain(Reader::Any, StatusCode::NOT_FOUND, "unknown_path", &detail, id))
}

impl Resource {
    /// The methods, GET with HEAD.
    fn allowed(&self) -> Vec<&'static str> {
        let head = |method: &'static str| std::iter::once(method).chain((method == "GET").then_some("HEAD"));
        self.methods.iter().flat_map(|(method, _)| head(method)).collect()
    }
}
