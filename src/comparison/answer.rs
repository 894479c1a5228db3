//! What is kept of an answer until it is compared: as little work as can be while its caller waits, read later.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::tensors;
use crate::{
    http_call::HttpAnswer,
    oip::{HEADER_LENGTH, InferResponse},
    tensor::Tensor,
};

/// What an answer counts for whose size is not known: 4,096 of them may be held at once.
const UNMEASURED_BYTES: usize = 16 << 10;

/// Keeps what is compared of an answer.
pub(crate) type KeepAnswer<R> = fn(&R) -> Kept;

type Read = Box<dyn FnOnce() -> Result<Told, String> + Send>;

/// What is kept of an answer until it is compared.
pub(crate) struct Kept {
    /// What it takes, as far as that is known.
    pub(super) bytes: usize,
    /// May run code of the user's; never where anybody waits for it.
    pub(super) read: Read,
}

/// An answer as it is compared.
pub(super) struct Told {
    /// Of HTTP answers.
    pub(super) status: Option<u16>,
    pub(super) content: Content,
}

/// What an answer says.
pub(super) enum Content {
    Value(Value),
    /// A body that is no JSON.
    Bytes(Bytes),
}

impl Kept {
    /// An HTTP answer: its body is shared, not copied.
    pub(crate) fn http(answer: &HttpAnswer) -> Self {
        let (status, body) = (answer.status.as_u16(), answer.body.clone());
        let json_bytes = answer
            .headers
            .iter()
            .find(|(name, _)| name.as_str().eq_ignore_ascii_case(HEADER_LENGTH))
            .and_then(|(_, value)| value.to_str().ok()?.parse().ok());
        let read = move || Ok(Told { status: Some(status), content: read_body(body, json_bytes) });
        Self { bytes: answer.body.len(), read: Box::new(read) }
    }

    /// What came out of a model.
    #[cfg_attr(not(feature = "onnx"), expect(dead_code, reason = "only models answer with tensors"))]
    pub(crate) fn tensors(outputs: &[Tensor]) -> Self {
        let bytes = outputs.iter().map(tensors::size_bytes).sum();
        // Those that are too large to be compared are not copied either.
        let outputs = if bytes > super::COMPARED_BYTES_MAX { Vec::new() } else { outputs.to_vec() };
        let read = move || Ok(Told { status: None, content: Content::Value(tensors::value(&outputs)) });
        Self { bytes, read: Box::new(read) }
    }

    /// Any answer that has a JSON form.
    pub(crate) fn typed<R: Clone + Serialize + Send + 'static>(answer: &R) -> Self {
        let answer = answer.clone();
        let read = move || match serde_json::to_value(&answer) {
            Ok(value) => Ok(Told { status: None, content: Content::Value(value) }),
            Err(why) => Err(why.to_string()),
        };
        Self { bytes: UNMEASURED_BYTES, read: Box::new(read) }
    }
}

/// An inference response as its tensors, other JSON as it is, anything else as bytes.
fn read_body(body: Bytes, json_bytes: Option<usize>) -> Content {
    let announced = json_bytes.is_some();
    let value = if announced { None } else { serde_json::from_slice::<Value>(&body).ok() };
    if (announced || value.as_ref().is_some_and(has_tensors))
        && let Ok(response) = InferResponse::decode(&body, json_bytes)
    {
        return Content::Value(tensors::value(&response.outputs));
    }
    value.map_or(Content::Bytes(body), Content::Value)
}

/// Whether it is worth to be read as an inference response.
fn has_tensors(value: &Value) -> bool {
    let outputs = value.get("outputs").and_then(Value::as_array);
    outputs.is_some_and(|outputs| outputs.iter().all(|output| output.get("datatype").is_some()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{oip::Form, tensor::TensorData};

    fn read(answer: &HttpAnswer) -> Content {
        (Kept::http(answer).read)().unwrap().content
    }

    fn value(answer: &HttpAnswer) -> Value {
        match read(answer) {
            Content::Value(value) => value,
            Content::Bytes(bytes) => panic!("{bytes:?}"),
        }
    }

    fn response(model_name: &str, data: TensorData) -> InferResponse {
        let outputs = vec![Tensor::new("p", [2, 1], data).unwrap()];
        InferResponse { model_name: model_name.into(), outputs, ..Default::default() }
    }

    #[test]
    fn inference_answers_are_their_tensors_however_they_travel() {
        let expected =
            json!({"outputs": [{"name": "p", "datatype": "FP32", "shape": [2, 1], "data": [0.5, 2.0]}]});
        let response = response("a", vec![0.5_f32, 2.0].into());
        let as_json = response.encode(|_| Form::Json).unwrap();
        assert_eq!(value(&HttpAnswer::ok("application/json", as_json.body)), expected);
        let binary = response.encode(|_| Form::Binary).unwrap();
        let mut answer = HttpAnswer::ok("application/octet-stream", binary.body);
        answer.headers.push((
            actix_web::http::header::HeaderName::from_bytes(HEADER_LENGTH.to_lowercase().as_bytes()).unwrap(),
            binary.header_length.unwrap().into(),
        ));
        assert_eq!(value(&answer), expected);
        let nested = r#"{"model_name": "b", "outputs": [{"name": "p", "datatype": "FP32", "shape": [2, 1],
            "data": [[0.50], [2]]}]}"#;
        assert_eq!(value(&HttpAnswer::ok("application/json", nested)), expected, "written in another way");
    }

    #[test]
    fn what_only_looks_like_an_inference_answer_is_plain_json() {
        let plain = json!({"outputs": [{"datatype": "A4", "data": 1}]});
        assert_eq!(value(&HttpAnswer::ok("application/json", plain.to_string())), plain);
        let text = HttpAnswer::ok("text/plain", "no json");
        assert!(matches!(read(&text), Content::Bytes(bytes) if bytes == "no json"));
    }
}
