//! Request ids over HTTP: taken over from the caller or made, and told in every answer.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{HeaderMap, HeaderName, HeaderValue},
};

use crate::{error::ServeError, meta::RequestId};

/// Header that carries the request id, both ways.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// As a name, so that a look-up need not parse it.
static REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);

/// The id that the caller sent, or a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> Result<RequestId, ServeError> {
    match headers.get(&REQUEST_ID) {
        None => Ok(RequestId::generate()),
        Some(value) => RequestId::given(value.to_str().unwrap_or("")),
    }
}

/// Tells the id in the answer; one that a backend has set gives way.
pub(crate) fn tell(response: &mut HttpResponse, id: String) {
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID.clone(), value);
    }
}

/// Answers a request that goes to no backend: an id that cannot be one is replaced rather than refused.
pub(crate) fn with_id(request: &HttpRequest, answer: impl FnOnce(&str) -> HttpResponse) -> HttpResponse {
    let id = request_id(request.headers()).unwrap_or_else(|_| RequestId::generate()).to_string();
    let mut response = answer(&id);
    tell(&mut response, id);
    response
}
