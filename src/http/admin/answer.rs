//! Answers: documents, and what a change did.

use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::HttpResponse;
use serde::Serialize;

use crate::{
    error::{Problem, ServeError},
    plan::PlanStep,
    serve::Deployed,
};

/// What a handler makes of a request.
pub(super) type Answered = Result<HttpResponse, ServeError>;

/// What a change did; nothing when all was so already.
#[derive(Serialize)]
struct Changed<'a> {
    changed: &'a [PlanStep],
}

/// What was deployed, and as which entry of the history.
#[derive(Serialize)]
struct Applied<'a> {
    changed: &'a [PlanStep],
    id: u64,
}

/// What a deploy or rollback will do, and by which number it is told how that goes.
#[derive(Serialize)]
struct Begun<'a> {
    changed: &'a [PlanStep],
    number: u64,
}

/// What came of a deploy or rollback, for those who did not wait for it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    /// Which deploy it was, as it was told when it began.
    number: u64,
    /// When it ended, in seconds since 1970.
    at: f64,
    by: String,
    /// Its entry in the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    changed: Vec<PlanStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Mishap>,
}

/// Why it failed, as in a problem document.
#[derive(Clone, Debug, Serialize)]
struct Mishap {
    code: String,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

impl Outcome {
    pub(super) fn new(number: u64, by: String, result: &Result<Deployed, ServeError>) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let (id, changed, error) = match result {
            Ok(Deployed { plan, id }) => (Some(*id), plan.steps.clone(), None),
            Err(error) => {
                let problems = match error {
                    ServeError::InvalidConfig(problems) => problems.clone(),
                    _ => Vec::new(),
                };
                let mishap = Mishap { code: error.code().into(), detail: error.to_string(), problems };
                (None, Vec::new(), Some(mishap))
            }
        };
        Self { number, at, by, id, changed, error }
    }
}

/// A document, as JSON.
pub(super) fn document(of: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().json(of)
}

/// What a change of one thing did.
pub(super) fn changed(steps: &[PlanStep]) -> HttpResponse {
    document(&Changed { changed: steps })
}

/// What a deploy or rollback did.
pub(super) fn applied(Deployed { plan, id }: &Deployed) -> HttpResponse {
    document(&Applied { changed: &plan.steps, id: *id })
}

/// What is being done from now on.
pub(super) fn accepted(number: u64, steps: &[PlanStep]) -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header(("location", "/api/serve/progress"))
        .json(Begun { changed: steps, number })
}
