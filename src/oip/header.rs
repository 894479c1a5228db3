//! One tensor of the JSON part, with its elements still in JSON, already read, or announced as binary.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    TENSORS_MAX,
    json::{DataSeed, Place},
    parameters::TensorParameters,
};
use crate::{
    error::ServeError,
    tensor::{Datatype, Tensor, TensorData},
};

/// A tensor as the JSON tells it.
pub(super) struct TensorHeader {
    pub name: String,
    pub shape: Vec<usize>,
    pub datatype: Datatype,
    pub content: Content,
}

/// Where its elements are.
pub(super) enum Content {
    /// They were in the JSON.
    Read(TensorData),
    /// They follow the JSON, in so many bytes.
    Binary(usize),
}

impl TensorHeader {
    /// The tensor, with `data` where its elements were not in the JSON.
    pub(super) fn into_tensor(self, data: TensorData) -> Result<Tensor, ServeError> {
        Tensor::new(self.name, self.shape, data)
    }
}

/// Reads a list of at most [`TENSORS_MAX`] tensors; `.0` is "input" or "output".
pub(super) struct TensorsSeed(pub &'static str);

impl<'de> DeserializeSeed<'de> for TensorsSeed {
    type Value = Vec<TensorHeader>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for TensorsSeed {
    type Value = Vec<TensorHeader>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {TENSORS_MAX} {}s", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut tensors: Vec<TensorHeader> = Vec::new();
        let kind = self.0;
        while let Some(tensor) = list.next_element_seed(TensorSeed { kind, index: tensors.len() })? {
            if tensors.len() == TENSORS_MAX {
                return Err(A::Error::custom(format_args!(
                    "more than {TENSORS_MAX} {kind}s are not allowed"
                )));
            }
            if tensors.iter().any(|earlier| earlier.name == tensor.name) {
                return Err(A::Error::custom(format_args!("{kind} `{}` is given twice", tensor.name)));
            }
            tensors.push(tensor);
        }
        Ok(tensors)
    }
}

/// Reads one tensor of the list.
struct TensorSeed {
    kind: &'static str,
    index: usize,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Name,
    Shape,
    Datatype,
    Parameters,
    Data,
    #[serde(other)]
    Other,
}

/// `data` as far as it could be read when it came: without datatype and shape it has to wait.
enum Data<'de> {
    Read(TensorData),
    Waiting(&'de RawValue),
}

impl<'de> DeserializeSeed<'de> for TensorSeed {
    type Value = TensorHeader;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<TensorHeader, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TensorSeed {
    type Value = TensorHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s[{}] as an object with name, shape, datatype and data", self.kind, self.index)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TensorHeader, A::Error> {
        let mut name: Option<String> = None;
        let mut shape: Option<Vec<usize>> = None;
        let mut datatype: Option<Datatype> = None;
        let mut parameters: Option<TensorParameters> = None;
        let mut data: Option<Data<'de>> = None;
        let TensorSeed { kind, index } = self;
        while let Some(field) = map.next_key()? {
            let place = Place { kind, index, name: name.as_deref() };
            match field {
                Field::Name if name.is_none() => name = Some(map.next_value()?),
                Field::Shape if shape.is_none() => {
                    let given = map.next_value::<&RawValue>()?;
                    shape = Some(read_shape(given, place)?);
                }
                Field::Datatype if datatype.is_none() => {
                    let given: Cow<'_, str> = map.next_value()?;
                    let parsed = given.parse();
                    datatype = Some(parsed.map_err(|e: ServeError| A::Error::custom(told(place, &e)))?);
                }
                Field::Parameters if parameters.is_none() => parameters = map.next_value()?,
                Field::Data if data.is_none() => {
                    data = Some(match (datatype, &shape) {
                        (Some(datatype), Some(shape)) => {
                            Data::Read(map.next_value_seed(DataSeed { place, datatype, shape })?)
                        }
                        _ => Data::Waiting(map.next_value()?),
                    });
                }
                Field::Other => drop(map.next_value::<serde::de::IgnoredAny>()?),
                _ => return Err(A::Error::custom(format_args!("{place}: a field is given twice"))),
            }
        }
        let missing = |what: &str| {
            let place = Place { kind, index, name: None };
            A::Error::custom(format_args!("{place}: field `{what}` is missing"))
        };
        let name = name.ok_or_else(|| missing("name"))?;
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let datatype = datatype.ok_or_else(|| missing("datatype"))?;
        let place = Place { kind, index, name: Some(&name) };
        let parameters = parameters.unwrap_or_default();
        if parameters.shared_memory_region.is_some() {
            return Err(A::Error::custom(format_args!(
                "{place}: shared memory is not supported; send the data"
            )));
        }
        let content = match (data, parameters.binary_data_size) {
            (Some(Data::Read(data)), None) => Content::Read(data),
            (Some(Data::Waiting(json)), None) => {
                let seed = DataSeed { place, datatype, shape: &shape };
                Content::Read(seed.deserialize(json).map_err(A::Error::custom)?)
            }
            (None, Some(bytes)) => Content::Binary(bytes),
            (None, None) => {
                let why = "it has neither `data` nor `parameters.binary_data_size`; one of them is needed";
                return Err(A::Error::custom(format_args!("{place}: {why}")));
            }
            (Some(_), Some(_)) => {
                let why = "it has `data` and `parameters.binary_data_size`; only one of them is allowed";
                return Err(A::Error::custom(format_args!("{place}: {why}")));
            }
        };
        Ok(TensorHeader { name, shape, datatype, content })
    }
}

fn read_shape<E: Error>(given: &RawValue, place: Place<'_>) -> Result<Vec<usize>, E> {
    serde_json::from_str(given.get()).map_err(|_| {
        let text: String = given.get().chars().take(100).collect();
        E::custom(format_args!("{place}: shape {text} is not a list of integers, each 0 or more"))
    })
}

/// The detail of an error of ours, after the tensor that it is about.
fn told(place: Place<'_>, error: &ServeError) -> String {
    match error {
        ServeError::BadRequest { detail } => format!("{place}: {detail}"),
        other => format!("{place}: {other}"),
    }
}
