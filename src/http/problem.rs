//! The one place where an error becomes an HTTP answer: `application/problem+json`, RFC 9457.

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        ConnectionType, Method, StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::{Serialize, Serializer};

use crate::{
    error::{GpuFailure, ServeError},
    http::exchange::Failure,
};

/// Media type of every error.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    problems: &'a [crate::error::Problem],
    /// The detail again, for clients of the Open Inference Protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn number<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

/// Who reads an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Whoever called.
    Any,
    /// A client of the Open Inference Protocol, which looks for the field `error`.
    Inference,
}

/// The HTTP status of an error.
pub(crate) fn status(error: &ServeError) -> StatusCode {
    match error {
        ServeError::BadRequest { .. }
        | ServeError::Invalid { .. }
        | ServeError::InvalidConfig(_)
        | ServeError::NotTaken { .. }
        | ServeError::NotCopied { .. }
        | ServeError::NotCompared { .. }
        | ServeError::OwnShadow { .. } => StatusCode::BAD_REQUEST,
        ServeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ServeError::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
        ServeError::UnknownBackend(_) | ServeError::UnknownEndpoint(_) => StatusCode::NOT_FOUND,
        // What was asked for was not done, and asking again as it is changes nothing of that.
        ServeError::AlreadyExists { .. }
        | ServeError::InUse { .. }
        | ServeError::NoResources { .. }
        | ServeError::StartFailed { .. }
        | ServeError::ReconfigureFailed { .. }
        | ServeError::RolloutFailed { .. }
        | ServeError::DeployInProgress
        | ServeError::DeployFailed { .. } => StatusCode::CONFLICT,
        ServeError::Overloaded { .. }
        | ServeError::NoReplica { .. }
        | ServeError::ShuttingDown
        | ServeError::BeingReplaced => StatusCode::SERVICE_UNAVAILABLE,
        ServeError::StateNotSaved { .. } => StatusCode::INSUFFICIENT_STORAGE,
        ServeError::Gpu { .. } if error.retryable() => StatusCode::SERVICE_UNAVAILABLE,
        ServeError::DeadlineExceeded | ServeError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        ServeError::Backend { status, .. } => {
            StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What a caller is told: the text of a panic stays in the log.
fn detail(error: &ServeError) -> String {
    match error {
        ServeError::Panicked { .. } => "the handler panicked".into(),
        ServeError::BatchPanicked { .. } => "the handler panicked on the batch that held this request".into(),
        other => other.to_string(),
    }
}

/// An error as an HTTP answer.
pub(crate) fn answer(error: &ServeError, request_id: Option<&str>) -> HttpResponse {
    answer_to(Reader::Any, error, request_id)
}

/// An error as an HTTP answer to `reader`.
pub(crate) fn answer_to(reader: Reader, error: &ServeError, request_id: Option<&str>) -> HttpResponse {
    let single;
    let problems = match error {
        ServeError::InvalidConfig(problems) => problems.as_slice(),
        ServeError::Invalid { what, why } => {
            single = [crate::error::Problem { place: what.to_string(), what: why.to_string() }];
            &single
        }
        _ => &[],
    };
    let detail = detail(error);
    let problem = Problem::new(reader, status(error), error.code(), &detail, request_id);
    let mut response = Problem { problems, ..problem }.answer();
    match error {
        ServeError::Overloaded { .. } | ServeError::Gpu { failure: GpuFailure::Overloaded, .. } => {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // What still comes of the body would be taken for the next request.
        ServeError::BodyTimeout { .. } => response.head_mut().set_connection_type(ConnectionType::Close),
        _ => {}
    }
    response
}

/// A problem that is not a [`ServeError`]: one of HTTP itself.
pub(crate) fn plain(
    reader: Reader,
    status: StatusCode,
    code: &str,
    detail: &str,
    request_id: Option<&str>,
) -> HttpResponse {
    Problem::new(reader, status, code, detail, request_id).answer()
}

/// 405, once the request id is known.
pub(crate) fn not_allowed(reader: Reader, method: &Method, allowed: &[&str]) -> Failure {
    let allow = allowed.join(", ");
    let detail = format!("{method} is not allowed here; allowed: {allow}");
    Box::new(move |id| {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut response = plain(reader, status, "method_not_allowed", &detail, id);
        if let Ok(allow) = HeaderValue::try_from(allow) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    })
}

impl<'a> Problem<'a> {
    /// The document for `reader`, without a list of problems.
    fn new(
        reader: Reader,
        status: StatusCode,
        code: &'a str,
        detail: &'a str,
        request_id: Option<&'a str>,
    ) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        let error = (reader == Reader::Inference).then_some(detail);
        Self { kind: "about:blank", title, status, code, detail, request_id, problems: &[], error }
    }

    fn answer(&self) -> HttpResponse {
        // A struct of strings and numbers always has a JSON form.
        let body = serde_json::to_vec(self).unwrap_or_default();
        HttpResponse::build(self.status).content_type(PROBLEM_JSON).body(body)
    }
}

/// So that `handle.call(msg).await?` works in a host's own handlers.
impl ResponseError for ServeError {
    fn status_code(&self) -> StatusCode {
        status(self)
    }

    fn error_response(&self) -> HttpResponse {
        answer(self, None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_in_the_way_of_a_deploy_is_a_conflict_and_one_that_takes_too_long_a_time_out() {
        let failed = ServeError::DeployFailed {
            step: "create backend a".into(),
            cause: Box::new(ServeError::invalid("a", "b")),
            left: None,
        };
        for (error, code) in [(ServeError::DeployInProgress, "deploy_in_progress"), (failed, "deploy_failed")]
        {
            assert_eq!((status(&error), error.code()), (StatusCode::CONFLICT, code));
        }
        let late = ServeError::TimedOut { what: "the deploy".into(), after: Duration::from_secs(1) };
        assert_eq!(status(&late), StatusCode::GATEWAY_TIMEOUT);
    }

    #[test]
    fn a_backend_s_own_status_is_kept_and_a_panic_s_text_is_not_told() {
        assert_eq!(status(&ServeError::backend(422, "a", "b")), StatusCode::UNPROCESSABLE_ENTITY);
        let panicked = ServeError::Panicked { message: "secret".into() };
        assert_eq!(detail(&panicked), "the handler panicked");
    }
}
