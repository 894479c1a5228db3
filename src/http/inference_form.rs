//! The HTTP form of an inference request: Open Inference Protocol in, the same out, JSON or binary.

use actix::Handler;
use actix_web::http::header::{HeaderMap, HeaderValue};

use crate::{
    actors::{context::ReplicaContext, execute::Form},
    backend::Backend,
    comparison::answer::{KeepAnswer, Kept},
    error::ServeError,
    http::{exchange::json_length, json},
    http_call::{HttpAnswer, HttpCall, WantedHeaders},
    oip::{HEADER_LENGTH, InferRequest, InferResponse},
    onnx::{Infer, Inferred},
    routing::shadows::Copying,
};

/// An inference request as the body of an HTTP request, decoded and encoded at the replica.
struct Inference;

impl Form for Inference {
    type Outer = HttpCall;
    type Inner = Infer;

    fn open(call: HttpCall) -> Result<Infer, ServeError> {
        let InferRequest { id, inputs, selection } =
            InferRequest::decode(&call.body, json_bytes(&call.headers)?)?;
        Ok(Infer { inputs, selection, id })
    }

    fn close(result: Inferred) -> Result<HttpAnswer, ServeError> {
        let Inferred { model, outputs, selection, id } = result;
        let response =
            InferResponse { model_name: model.as_str().to_owned(), model_version: None, id, outputs };
        let encoded = response.encode(|output| selection.form(output))?;
        Ok(match encoded.header_length {
            None => HttpAnswer::ok("application/json", encoded.body),
            Some(bytes) => HttpAnswer::ok("application/octet-stream", encoded.body)
                .header(json_length(), HeaderValue::from(bytes)),
        })
    }
}

/// Length of the JSON part, where the header tells it.
fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, ServeError> {
    let Some(value) = headers.get(json_length()) else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(ServeError::bad_request(format!("{HEADER_LENGTH} must be a number of bytes"))),
    }
}

impl<A: actix::Actor<Context = ReplicaContext<A>> + Handler<Infer>> Backend<A> {
    /// It takes [`Infer`] through handles and as Open Inference Protocol over HTTP; both can be copied, and
    /// their answers compared.
    pub(crate) fn infers(mut self) -> Self {
        self.wanted_headers = self.wanted_headers.max(WantedHeaders::Inference);
        let answer: KeepAnswer<Inferred> = |inferred| Kept::tensors(&inferred.outputs);
        self.handles::<Infer>()
            .form::<Inference>("infer", json::join)
            .copied(Copying::http())
            .copied(Copying::<Infer> { message: Infer::clone, answer: Some(answer) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_protocols() {
        assert!(json_length().as_str().eq_ignore_ascii_case(HEADER_LENGTH));
        let mut headers = HeaderMap::new();
        assert_eq!(json_bytes(&headers), Ok(None));
        headers.insert(json_length(), HeaderValue::from_static("17"));
        assert_eq!(json_bytes(&headers), Ok(Some(17)));
        for bad in ["-1", "a", "", "99999999999999999999999"] {
            headers.insert(json_length(), HeaderValue::from_str(bad).unwrap());
            let error = json_bytes(&headers).unwrap_err();
            assert!(error.code() == "bad_request" && error.to_string().contains(HEADER_LENGTH), "{error}");
        }
    }
}
