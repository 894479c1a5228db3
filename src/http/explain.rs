//! Which way a request went, told in headers of its answer when it asks.

use actix_web::{
    HttpResponse,
    http::header::{HeaderMap, HeaderName, HeaderValue},
};

use crate::{
    error::ServeError,
    http::{
        exchange::Failure,
        problem::{self, Reader},
    },
    meta::{Explain, Explanation},
};

/// Header by which a request asks which way it goes: any value but `0` and `false`.
pub const EXPLAIN_HEADER: &str = "x-serve-explain";

/// As a name, so that a look-up need not parse it.
static EXPLAIN: HeaderName = HeaderName::from_static(EXPLAIN_HEADER);

/// Whether the answer shall tell; then here is where it is written down.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Explain> {
    let value = headers.get(&EXPLAIN)?.as_bytes();
    let no = value == b"0" || value.eq_ignore_ascii_case(b"false");
    (!no).then(Explain::default)
}

/// A response, or an error that becomes one for `reader`, telling which way the request went if it asked.
pub(crate) fn told(
    answer: Result<HttpResponse, ServeError>,
    explain: Option<Explain>,
    reader: Reader,
) -> Result<HttpResponse, Failure> {
    let told = move |mut response| {
        explain.iter().for_each(|explain| tell(&mut response, explain));
        response
    };
    match answer {
        Ok(response) => Ok(told(response)),
        Err(error) => Err(Box::new(move |id| told(problem::answer_to(reader, &error, id)))),
    }
}

/// Tells in `x-serve-endpoint`, `x-serve-rule`, `x-serve-backend`, `x-serve-replica` and `x-serve-shadows` what is
/// known.
fn tell(response: &mut HttpResponse, explain: &Explain) {
    let Explanation { endpoint, rule, backend, replica, shadows } = explain.read();
    let shadows: Vec<_> = shadows.iter().map(|backend| backend.as_str()).collect();
    let told = [
        ("x-serve-endpoint", endpoint.map(|name| name.to_string())),
        ("x-serve-rule", rule.map(|rule| rule.to_string())),
        ("x-serve-backend", backend.map(|name| name.to_string())),
        ("x-serve-replica", replica.map(|id| id.to_string())),
        ("x-serve-shadows", (!shadows.is_empty()).then(|| shadows.join(", "))),
    ];
    for (name, text) in told {
        if let Some(Ok(value)) = text.map(HeaderValue::try_from) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
}
