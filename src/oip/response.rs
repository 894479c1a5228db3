//! The answer to a request to infer: into bytes and from bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeSeed};

use super::{
    Encoded, Form,
    binary::{assemble, split_body},
    header::{TensorHeader, TensorsSeed},
    write::{self, Sender, TensorOut, none},
};
use crate::{error::ServeError, tensor::Tensor};

/// The answer to a request to infer.
///
/// ```
/// use greenroom::{Tensor, oip::{Form, InferResponse}};
/// let outputs = vec![Tensor::new("label", [1], vec![7_i64])?];
/// let answer = InferResponse { model_name: "digits".into(), outputs, ..Default::default() };
/// let sent = answer.encode(|_output| Form::Json)?;
/// assert_eq!(InferResponse::decode(&sent.body, sent.header_length)?, answer);
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferResponse {
    /// The model that answers.
    pub model_name: String,
    /// Its version.
    pub model_version: Option<String>,
    /// The caller's name for the request.
    pub id: Option<String>,
    /// What came out of the model.
    pub outputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct ResponseIn {
    model_name: String,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(deserialize_with = "outputs")]
    outputs: Vec<TensorHeader>,
}

fn outputs<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Vec<TensorHeader>, D::Error> {
    TensorsSeed("output").deserialize(json)
}

impl InferResponse {
    /// Encodes it; `form` tells for each output, by its name, how it goes
    /// (see [`OutputSelection::form`](super::OutputSelection::form)).
    ///
    /// # Errors
    /// A backend's error (`not_json`) for an output that was not asked for as binary and has no form in
    /// JSON: FP16, NaN, infinities, bytes that are not UTF-8.
    pub fn encode(&self, form: impl Fn(&str) -> Form) -> Result<Encoded, ServeError> {
        let form_of = |tensor: &Tensor| form(tensor.name());
        let outputs =
            self.outputs.iter().map(|tensor| TensorOut::new(tensor, form_of(tensor), Sender::Backend));
        let json = ResponseOut {
            model_name: &self.model_name,
            model_version: self.model_version.as_deref(),
            id: self.id.as_deref(),
            outputs: outputs.collect::<Result<_, _>>()?,
        };
        write::encode(&json, self.outputs.iter().map(|tensor| (tensor, form_of(tensor))))
    }

    /// Decodes a body; `header_length` as in [`InferRequest::decode`](super::InferRequest::decode).
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] that names the output and what is wrong with it.
    pub fn decode(body: &Bytes, header_length: Option<usize>) -> Result<Self, ServeError> {
        let (json, rest) = split_body(body, header_length)?;
        let read: ResponseIn = serde_json::from_slice(&json)
            .map_err(|error| ServeError::bad_request(format!("this is no inference response: {error}")))?;
        Ok(Self {
            model_name: read.model_name,
            model_version: read.model_version,
            id: read.id,
            outputs: assemble("output", read.outputs, rest)?,
        })
    }
}

#[derive(Serialize)]
struct ResponseOut<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "none")]
    model_version: Option<&'a str>,
    #[serde(skip_serializing_if = "none")]
    id: Option<&'a str>,
    outputs: Vec<TensorOut<'a>>,
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
