//! `HttpCall`: an HTTP request as the message that backends behind a route take.

mod shard_keys;

use std::sync::Arc;

use actix_web::http::{
    Method, StatusCode, Uri,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;

use crate::error::ServeError;

pub use shard_keys::{SHARD_KEY_HEADER, ShardKeys};

/// HTTP methods an endpoint may answer to.
pub const ENDPOINT_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// An HTTP request, its body read. Backends made with [`Backend::raw`](crate::Backend::raw) handle it as it is;
/// those made with [`Backend::json`](crate::Backend::json) get their message decoded from it.
#[derive(Clone, Debug)]
pub struct HttpCall {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub uri: Uri,
    /// Values of the route's `{param}` segments, percent-decoded, in the order of the pattern.
    pub params: Vec<(Arc<str>, String)>,
    /// The headers that a backend of the endpoint asks for: all for `raw`, otherwise at most the length of
    /// the JSON part for models.
    pub headers: HeaderMap,
    /// Which of the backend's messages is meant: the header `X-SERVE-CALL-METHOD`.
    pub call_method: Option<Box<str>>,
    /// The body, whole.
    pub body: Bytes,
}

impl HttpCall {
    /// A request made in process: for tests, and for calls from one backend to another's HTTP form.
    ///
    /// # Panics
    /// Never for a path that is a valid URI; another one becomes `/`.
    pub fn new(method: Method, path: &str, body: impl Into<Bytes>) -> Self {
        Self {
            method,
            uri: path.parse().unwrap_or_default(),
            params: Vec::new(),
            headers: HeaderMap::new(),
            call_method: None,
            body: body.into(),
        }
    }

    /// The value of a route parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| &**key == name).map(|(_, value)| value.as_str())
    }

    /// The query string, without `?`.
    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or("")
    }
}

/// Which headers a backend wants in its [`HttpCall`]s; copying all costs more than the rest of the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WantedHeaders {
    /// None.
    #[default]
    None,
    /// The one that tells where binary tensors begin.
    #[cfg_attr(not(feature = "onnx"), expect(dead_code, reason = "only models ask for it"))]
    Inference,
    /// All of them.
    All,
}

/// The answer to an [`HttpCall`]: status, headers, body.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// The status.
    pub status: StatusCode,
    /// Headers beside those of the server.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl HttpAnswer {
    /// 200 with a body and its content type.
    pub fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: vec![(actix_web::http::header::CONTENT_TYPE, HeaderValue::from_static(content_type))],
            body: body.into(),
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl actix::Message for HttpCall {
    type Result = Result<HttpAnswer, ServeError>;
}
