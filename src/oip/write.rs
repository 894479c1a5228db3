//! Tensors into a body: the JSON part, then the binary elements.

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::{Form, binary};
use crate::{
    error::ServeError,
    tensor::{Datatype, Tensor, TensorData},
};

/// Bytes of JSON to make room for, beside the elements.
const HEADER_ROOM_BYTES: usize = 256;

/// Bytes of JSON to make room for per element, about what a float takes.
const ELEMENT_ROOM_BYTES: usize = 12;

/// A body to send.
///
/// ```
/// use greenroom::{Tensor, oip::{Form, InferResponse}};
/// let outputs = vec![Tensor::new("label", [2], vec![7_i64, 1])?];
/// let answer = InferResponse { model_name: "digits".into(), outputs, ..Default::default() };
/// assert_eq!(answer.encode(|_| Form::Json)?.header_length, None);
/// let binary = answer.encode(|_| Form::Binary)?;
/// assert_eq!(binary.header_length, Some(binary.body.len() - 2 * 8));
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The body.
    pub body: Bytes,
    /// What the header [`HEADER_LENGTH`](super::HEADER_LENGTH) has to say, in bytes; none: the body is all
    /// JSON and there is no such header.
    pub header_length: Option<usize>,
}

/// Who is to blame where a tensor has no form in JSON.
#[derive(Clone, Copy)]
pub(super) enum Sender {
    Caller,
    Backend,
}

/// Whether an object has anything worth a `parameters` member.
pub(super) fn none<T>(parameters: &Option<T>) -> bool {
    parameters.is_none()
}

/// A tensor as it goes into the JSON part.
#[derive(Serialize)]
pub(super) struct TensorOut<'a> {
    name: &'a str,
    shape: &'a [usize],
    datatype: Datatype,
    #[serde(skip_serializing_if = "none")]
    parameters: Option<SizeOut>,
    #[serde(skip_serializing_if = "none")]
    data: Option<DataOut<'a>>,
}

#[derive(Serialize)]
struct SizeOut {
    binary_data_size: usize,
}

struct DataOut<'a>(&'a TensorData);

impl Serialize for DataOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            // Checked before: all of it is UTF-8.
            TensorData::Bytes(values) => {
                serializer.collect_seq(values.iter().map(|value| String::from_utf8_lossy(value)))
            }
            TensorData::Bool(values) => values.serialize(serializer),
            TensorData::Uint8(values) => values.serialize(serializer),
            TensorData::Uint16(values) | TensorData::Fp16(values) => values.serialize(serializer),
            TensorData::Uint32(values) => values.serialize(serializer),
            TensorData::Uint64(values) => values.serialize(serializer),
            TensorData::Int8(values) => values.serialize(serializer),
            TensorData::Int16(values) => values.serialize(serializer),
            TensorData::Int32(values) => values.serialize(serializer),
            TensorData::Int64(values) => values.serialize(serializer),
            TensorData::Fp32(values) => values.serialize(serializer),
            TensorData::Fp64(values) => values.serialize(serializer),
        }
    }
}

impl<'a> TensorOut<'a> {
    /// `tensor` in `form`, once it is known to have one.
    pub(super) fn new(tensor: &'a Tensor, form: Form, sender: Sender) -> Result<Self, ServeError> {
        let (parameters, data) = match form {
            Form::Json => {
                check_json(tensor, sender)?;
                (None, Some(DataOut(tensor.data())))
            }
            Form::Binary => (Some(SizeOut { binary_data_size: binary::size_bytes(tensor.data()) }), None),
        };
        Ok(Self { name: tensor.name(), shape: tensor.shape(), datatype: tensor.datatype(), parameters, data })
    }
}

/// JSON knows neither NaN nor infinity, FP16 has no agreed form in it, and its strings are UTF-8.
fn check_json(tensor: &Tensor, sender: Sender) -> Result<(), ServeError> {
    let what = match tensor.data() {
        TensorData::Fp16(_) => "FP16 has no form in JSON".to_owned(),
        TensorData::Fp32(values) => match values.iter().position(|value| !value.is_finite()) {
            Some(index) => format!("element {index} is {}, which has no form in JSON", values[index]),
            None => return Ok(()),
        },
        TensorData::Fp64(values) => match values.iter().position(|value| !value.is_finite()) {
            Some(index) => format!("element {index} is {}, which has no form in JSON", values[index]),
            None => return Ok(()),
        },
        TensorData::Bytes(values) => {
            match values.iter().position(|value| std::str::from_utf8(value).is_err()) {
                Some(index) => format!("element {index} is not UTF-8 and has no form in JSON"),
                None => return Ok(()),
            }
        }
        _ => return Ok(()),
    };
    let name = tensor.name();
    Err(match sender {
        Sender::Caller => ServeError::bad_request(format!("input `{name}`: {what}; send it as binary data")),
        Sender::Backend => ServeError::backend(
            500,
            "not_json",
            format!("output `{name}`: {what}; ask for it with parameters.binary_data: true"),
        ),
    })
}

/// The body: `json` as the JSON part, then the elements of the tensors that go as binary.
pub(super) fn encode<'a>(
    json: &impl Serialize,
    tensors: impl Iterator<Item = (&'a Tensor, Form)> + Clone,
) -> Result<Encoded, ServeError> {
    let room = |(tensor, form): (&Tensor, Form)| match form {
        Form::Json => HEADER_ROOM_BYTES + tensor.data().len() * ELEMENT_ROOM_BYTES,
        Form::Binary => HEADER_ROOM_BYTES + binary::size_bytes(tensor.data()),
    };
    let mut body = Vec::with_capacity(HEADER_ROOM_BYTES + tensors.clone().map(room).sum::<usize>());
    let failed = |why: String| ServeError::Internal(format!("tensors could not be encoded: {why}").into());
    serde_json::to_writer(&mut body, json).map_err(|error| failed(error.to_string()))?;
    let json_bytes = body.len();
    let mut header_length = None;
    for (tensor, form) in tensors {
        if form == Form::Binary {
            header_length = Some(json_bytes);
            binary::write(tensor.data(), &mut body).map_err(failed)?;
        }
    }
    Ok(Encoded { body: body.into(), header_length })
}
