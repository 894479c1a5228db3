//! Raw tensor elements after the JSON part: little-endian, in order; BYTES with a length before each element.

use bytes::Bytes;

use super::header::{Content, TensorHeader};
use crate::{
    error::ServeError,
    tensor::{Datatype, Tensor, TensorData, elements_of},
};

/// Bytes of the length before each element of a BYTES tensor.
const LENGTH_BYTES: usize = 4;

/// Splits a body into its JSON part and what follows it.
pub(super) fn split_body(body: &Bytes, header_length: Option<usize>) -> Result<(Bytes, Bytes), ServeError> {
    match header_length {
        None => Ok((body.clone(), Bytes::new())),
        Some(length) if length <= body.len() => Ok((body.slice(..length), body.slice(length..))),
        Some(length) => Err(ServeError::bad_request(format!(
            "{} says {length} bytes, the body has only {}",
            super::HEADER_LENGTH,
            body.len()
        ))),
    }
}

/// Puts the elements that follow the JSON into the tensors that announce them; `kind` is "input" or "output".
pub(super) fn assemble(
    kind: &str,
    headers: Vec<TensorHeader>,
    mut rest: Bytes,
) -> Result<Vec<Tensor>, ServeError> {
    let mut tensors = Vec::with_capacity(headers.len());
    for mut header in headers {
        let data = match std::mem::replace(&mut header.content, Content::Binary(0)) {
            Content::Read(data) => data,
            Content::Binary(size) if size <= rest.len() => {
                let refuse =
                    |why: String| ServeError::bad_request(format!("{kind} `{}`: {why}", header.name));
                read(header.datatype, &header.shape, rest.split_to(size)).map_err(refuse)?
            }
            Content::Binary(size) => {
                return Err(ServeError::bad_request(format!(
                    "{kind} `{}`: binary_data_size is {size}, only {} bytes follow the JSON part, whose length \
                     the header {} tells",
                    header.name,
                    rest.len(),
                    super::HEADER_LENGTH
                )));
            }
        };
        tensors.push(header.into_tensor(data)?);
    }
    if rest.is_empty() {
        return Ok(tensors);
    }
    Err(ServeError::bad_request(format!(
        "{} bytes follow the last binary {kind}; none are allowed there",
        rest.len()
    )))
}

fn read(datatype: Datatype, shape: &[usize], raw: Bytes) -> Result<TensorData, String> {
    let elements = elements_of(shape)?;
    let Some(size) = datatype.size_bytes() else {
        return read_bytes(elements, raw).map(TensorData::Bytes);
    };
    // No overflow: elements_of allows 2^28 at most.
    if elements * size != raw.len() {
        return Err(format!(
            "{datatype} of shape {shape:?} takes {} bytes, binary_data_size is {}",
            elements * size,
            raw.len()
        ));
    }
    Ok(match datatype {
        Datatype::Bool => TensorData::Bool(read_bools(&raw)?),
        Datatype::Uint8 => TensorData::Uint8(raw.to_vec()),
        Datatype::Int8 => TensorData::Int8(fixed(&raw, i8::from_le_bytes)),
        Datatype::Uint16 => TensorData::Uint16(fixed(&raw, u16::from_le_bytes)),
        Datatype::Int16 => TensorData::Int16(fixed(&raw, i16::from_le_bytes)),
        Datatype::Fp16 => TensorData::Fp16(fixed(&raw, u16::from_le_bytes)),
        Datatype::Uint32 => TensorData::Uint32(fixed(&raw, u32::from_le_bytes)),
        Datatype::Int32 => TensorData::Int32(fixed(&raw, i32::from_le_bytes)),
        Datatype::Fp32 => TensorData::Fp32(fixed(&raw, f32::from_le_bytes)),
        Datatype::Uint64 => TensorData::Uint64(fixed(&raw, u64::from_le_bytes)),
        Datatype::Int64 => TensorData::Int64(fixed(&raw, i64::from_le_bytes)),
        Datatype::Fp64 => TensorData::Fp64(fixed(&raw, f64::from_le_bytes)),
        Datatype::Bytes => return Err("BYTES has no fixed size".into()),
    })
}

fn fixed<const SIZE: usize, T>(raw: &[u8], from: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
    raw.as_chunks::<SIZE>().0.iter().map(|chunk| from(*chunk)).collect()
}

fn read_bools(raw: &[u8]) -> Result<Vec<bool>, String> {
    if let Some((index, byte)) = raw.iter().enumerate().find(|(_, byte)| **byte > 1) {
        return Err(format!("element {index} is byte {byte}; BOOL takes 0 and 1"));
    }
    Ok(raw.iter().map(|byte| *byte == 1).collect())
}

/// Elements share the memory of the body.
fn read_bytes(elements: usize, mut raw: Bytes) -> Result<Vec<Bytes>, String> {
    // Each element takes its length at least; a claimed shape must not reserve more memory than that.
    let mut all = Vec::with_capacity(elements.min(raw.len() / LENGTH_BYTES));
    for index in 0..elements {
        let cut = || format!("the raw data ends inside element {index} of {elements}");
        let (length, _) = raw.split_first_chunk::<LENGTH_BYTES>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
        let mut rest = raw.split_off(LENGTH_BYTES);
        if length > rest.len() {
            return Err(cut());
        }
        all.push(rest.split_to(length));
        raw = rest;
    }
    if raw.is_empty() {
        return Ok(all);
    }
    Err(format!("{} bytes are left over after element {elements}, the last", raw.len()))
}

/// Bytes that `data` takes in binary form.
pub(super) fn size_bytes(data: &TensorData) -> usize {
    match data {
        TensorData::Bytes(values) => values.iter().map(|value| LENGTH_BYTES + value.len()).sum(),
        // Every other datatype has a size.
        other => other.len() * other.datatype().size_bytes().unwrap_or(0),
    }
}

/// Appends `data` in binary form.
///
/// # Errors
/// Tells which element is too long for its length of 32 bits.
pub(super) fn write(data: &TensorData, out: &mut Vec<u8>) -> Result<(), String> {
    macro_rules! little_endian {
        ($values:expr) => {
            out.extend($values.iter().flat_map(|value| value.to_le_bytes()))
        };
    }
    match data {
        TensorData::Bool(values) => out.extend(values.iter().map(|value| u8::from(*value))),
        TensorData::Uint8(values) => out.extend_from_slice(values),
        TensorData::Int8(values) => little_endian!(values),
        TensorData::Uint16(values) | TensorData::Fp16(values) => little_endian!(values),
        TensorData::Int16(values) => little_endian!(values),
        TensorData::Uint32(values) => little_endian!(values),
        TensorData::Int32(values) => little_endian!(values),
        TensorData::Fp32(values) => little_endian!(values),
        TensorData::Uint64(values) => little_endian!(values),
        TensorData::Int64(values) => little_endian!(values),
        TensorData::Fp64(values) => little_endian!(values),
        TensorData::Bytes(values) => {
            for (index, value) in values.iter().enumerate() {
                let length = u32::try_from(value.len()).map_err(|_| {
                    format!("element {index} has {} bytes, more than 4294967295", value.len())
                })?;
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(value);
            }
        }
    }
    Ok(())
}
