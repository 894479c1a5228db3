//! A request to infer: from bytes and into bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeSeed};

use super::{
    Encoded, Form, OutputSelection,
    binary::{assemble, split_body},
    header::{TensorHeader, TensorsSeed},
    parameters::RequestParameters,
    selection::OutputIn,
    write::{self, Sender, TensorOut, none},
};
use crate::{error::ServeError, tensor::Tensor};

/// A request to infer.
///
/// ```
/// use bytes::Bytes;
/// use greenroom::oip::InferRequest;
/// let body = Bytes::from_static(
///     br#"{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]}]}"#,
/// );
/// let request = InferRequest::decode(&body, None)?;
/// assert_eq!(request.inputs[0].shape(), [2, 2]);
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// The caller's name for it, repeated in the answer.
    pub id: Option<String>,
    /// What goes into the model.
    pub inputs: Vec<Tensor>,
    /// What is asked for.
    pub selection: OutputSelection,
}

#[derive(Deserialize)]
struct RequestIn {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<RequestParameters>,
    #[serde(deserialize_with = "inputs")]
    inputs: Vec<TensorHeader>,
    #[serde(default)]
    outputs: Option<Vec<OutputIn>>,
}

fn inputs<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Vec<TensorHeader>, D::Error> {
    TensorsSeed("input").deserialize(json)
}

impl InferRequest {
    /// Decodes a body; `header_length` is what the header [`HEADER_LENGTH`](super::HEADER_LENGTH) says, in
    /// bytes, if it is there. Parameters that mean nothing here are accepted and left.
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] that names the input, what was given and what is allowed.
    pub fn decode(body: &Bytes, header_length: Option<usize>) -> Result<Self, ServeError> {
        let (json, rest) = split_body(body, header_length)?;
        let read: RequestIn = serde_json::from_slice(&json)
            .map_err(|error| ServeError::bad_request(format!("this is no inference request: {error}")))?;
        let binary = read.parameters.unwrap_or_default().binary_data_output;
        let selection = OutputSelection::from_wire(read.outputs.unwrap_or_default(), binary)?;
        Ok(Self { id: read.id, inputs: assemble("input", read.inputs, rest)?, selection })
    }

    /// Encodes it, with every input in `form`.
    ///
    /// # Errors
    /// [`ServeError::BadRequest`] for an input that has no form in JSON: FP16, NaN, infinities, bytes that
    /// are not UTF-8.
    pub fn encode(&self, form: Form) -> Result<Encoded, ServeError> {
        let inputs = self.inputs.iter().map(|tensor| TensorOut::new(tensor, form, Sender::Caller));
        let outputs = self.selection.outputs.iter().map(|asked| OutputOut {
            name: &asked.name,
            parameters: asked.form.map(|form| BinaryData { binary_data: form == Form::Binary }),
        });
        let json = RequestOut {
            id: self.id.as_deref(),
            parameters: BinaryDataOutput { binary_data_output: self.selection.default == Form::Binary },
            inputs: inputs.collect::<Result<_, _>>()?,
            outputs: outputs.collect(),
        };
        write::encode(&json, self.inputs.iter().map(|tensor| (tensor, form)))
    }
}

#[derive(Serialize)]
struct RequestOut<'a> {
    #[serde(skip_serializing_if = "none")]
    id: Option<&'a str>,
    parameters: BinaryDataOutput,
    inputs: Vec<TensorOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<OutputOut<'a>>,
}

#[derive(Serialize)]
struct BinaryDataOutput {
    binary_data_output: bool,
}

#[derive(Serialize)]
struct OutputOut<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "none")]
    parameters: Option<BinaryData>,
}

#[derive(Serialize)]
struct BinaryData {
    binary_data: bool,
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
