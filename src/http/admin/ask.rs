//! `Ask`: a request that has passed the gate, taken apart.

use std::{path::PathBuf, sync::Arc};

use actix_web::{HttpRequest, dev::Payload, http::Method};
use bytes::Bytes;
use serde_json::Value as Json;

use super::{Desk, gate, query::Query};
use crate::{
    error::ServeError,
    http::{body, exchange::Failure, problem},
    ids::{BackendName, EndpointName},
    serve::Serve,
};

/// A request that has passed the gate: who is asked, about what, and what was sent.
pub(super) struct Ask {
    pub(super) serve: Serve,
    pub(super) desk: Arc<Desk>,
    pub(super) query: Query,
    name: String,
    backend: String,
    body: Option<Json>,
}

impl Ask {
    /// Takes a request apart; its body is read, and gone then, when its method may have one.
    pub(super) async fn read(
        desk: &Arc<Desk>,
        request: &HttpRequest,
        payload: &mut Option<Payload>,
    ) -> Result<Self, Failure> {
        let headers = request.headers();
        let changes = [Method::PUT, Method::PATCH, Method::POST].contains(request.method());
        let body = if changes {
            // Before the body is read. A POST may have none: then it has no type either.
            let untyped = request.method() == Method::POST && !headers.contains_key("content-type");
            let checked = if untyped { Ok(()) } else { gate::content_type(headers) };
            checked.map_err(gate::Stopped::failure)?;
            let bytes = match payload {
                Some(payload) => body::read(headers, payload, desk.body).await.map_err(failed)?,
                None => Bytes::new(),
            };
            // All of it was read.
            *payload = None;
            if untyped && !bytes.is_empty() {
                gate::content_type(headers).map_err(gate::Stopped::failure)?;
            }
            if bytes.is_empty() { None } else { Some(json(&bytes).map_err(failed)?) }
        } else {
            None
        };
        let serve = desk.serve().ok_or_else(|| failed(ServeError::ShuttingDown))?;
        let part = |key| request.match_info().get(key).unwrap_or_default();
        let decoded = |key| percent_encoding::percent_decode_str(part(key)).decode_utf8_lossy().into_owned();
        let (name, backend) = (decoded("name"), decoded("backend"));
        let query = Query::parse(request.query_string());
        Ok(Self { serve, desk: Arc::clone(desk), query, name, backend, body })
    }

    /// The backend that the path ends with, when what it names is a backend.
    pub(super) fn backend_name(&self) -> Result<BackendName, ServeError> {
        BackendName::new(&self.name)
    }

    /// The endpoint that the path names.
    pub(super) fn endpoint_name(&self) -> Result<EndpointName, ServeError> {
        EndpointName::new(&self.name)
    }

    /// The backend of a shadow rule.
    pub(super) fn shadow_name(&self) -> Result<BackendName, ServeError> {
        BackendName::new(&self.backend)
    }

    /// The body, which has to be there.
    pub(super) fn json(&mut self) -> Result<Json, ServeError> {
        self.body.take().ok_or_else(|| ServeError::bad_request("a JSON body is needed; there is none"))
    }

    /// Refuses a body that says anything.
    pub(super) fn nothing(&mut self) -> Result<(), ServeError> {
        match self.body.take() {
            None => Ok(()),
            Some(Json::Object(map)) if map.is_empty() => Ok(()),
            Some(_) => Err(ServeError::bad_request("no body is needed, or {}")),
        }
    }

    /// The body, if there is one.
    pub(super) fn json_if_any(&mut self) -> Option<Json> {
        self.body.take()
    }
}

/// Relative paths in what is sent start where this process was started.
pub(super) fn base_dir() -> Result<PathBuf, ServeError> {
    let unknown =
        |error| ServeError::Internal(format!("the working directory cannot be told: {error}").into());
    std::env::current_dir().map_err(unknown)
}

fn json(bytes: &[u8]) -> Result<Json, ServeError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ServeError::bad_request(format!("the body is not JSON: {error}")))
}

/// An error of this service as an answer.
pub(super) fn failed(error: ServeError) -> Failure {
    Box::new(move |id| problem::answer(&error, id))
}
