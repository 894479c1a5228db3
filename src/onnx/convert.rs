//! Tensors into tract's and back; each copies the elements once.

use tract_onnx::prelude::{Datum, DatumType, TValue, Tensor as TractTensor, TractResult, f16};
use tract_onnx::tract_core::internal::anyhow;

use crate::tensor::{Datatype, TensorData};

/// Our name for a type of tract's; none where we have no such elements.
pub(super) fn datatype(datum: DatumType) -> Option<Datatype> {
    Some(match datum {
        DatumType::Bool => Datatype::Bool,
        DatumType::U8 => Datatype::Uint8,
        DatumType::U16 => Datatype::Uint16,
        DatumType::U32 => Datatype::Uint32,
        DatumType::U64 => Datatype::Uint64,
        DatumType::I8 => Datatype::Int8,
        DatumType::I16 => Datatype::Int16,
        DatumType::I32 => Datatype::Int32,
        // tract's own integers for shapes, which ONNX says are INT64.
        DatumType::I64 | DatumType::TDim => Datatype::Int64,
        DatumType::F16 => Datatype::Fp16,
        DatumType::F32 => Datatype::Fp32,
        DatumType::F64 => Datatype::Fp64,
        _ => return None,
    })
}

/// A tensor for tract.
pub(super) fn to_tract(shape: &[usize], data: &TensorData) -> TractResult<TValue> {
    let tensor = match data {
        TensorData::Bool(values) => TractTensor::from_shape(shape, values),
        TensorData::Uint8(values) => TractTensor::from_shape(shape, values),
        TensorData::Uint16(values) => TractTensor::from_shape(shape, values),
        TensorData::Uint32(values) => TractTensor::from_shape(shape, values),
        TensorData::Uint64(values) => TractTensor::from_shape(shape, values),
        TensorData::Int8(values) => TractTensor::from_shape(shape, values),
        TensorData::Int16(values) => TractTensor::from_shape(shape, values),
        TensorData::Int32(values) => TractTensor::from_shape(shape, values),
        TensorData::Int64(values) => TractTensor::from_shape(shape, values),
        TensorData::Fp16(values) => {
            let values: Vec<f16> = values.iter().map(|bits| f16::from_bits(*bits)).collect();
            TractTensor::from_shape(shape, &values)
        }
        TensorData::Fp32(values) => TractTensor::from_shape(shape, values),
        TensorData::Fp64(values) => TractTensor::from_shape(shape, values),
        TensorData::Bytes(_) => Err(anyhow!("BYTES has no tensor in tract")),
    };
    tensor.map(TValue::from)
}

/// The elements of a tensor of tract's.
pub(super) fn from_tract(tensor: &TractTensor) -> TractResult<TensorData> {
    Ok(match tensor.datum_type() {
        DatumType::Bool => TensorData::Bool(elements(tensor)?),
        DatumType::U8 => TensorData::Uint8(elements(tensor)?),
        DatumType::U16 => TensorData::Uint16(elements(tensor)?),
        DatumType::U32 => TensorData::Uint32(elements(tensor)?),
        DatumType::U64 => TensorData::Uint64(elements(tensor)?),
        DatumType::I8 => TensorData::Int8(elements(tensor)?),
        DatumType::I16 => TensorData::Int16(elements(tensor)?),
        DatumType::I32 => TensorData::Int32(elements(tensor)?),
        DatumType::I64 => TensorData::Int64(elements(tensor)?),
        DatumType::TDim => TensorData::Int64(elements(&*tensor.cast_to::<i64>()?)?),
        DatumType::F16 => {
            TensorData::Fp16(elements::<f16>(tensor)?.iter().map(|half| half.to_bits()).collect())
        }
        DatumType::F32 => TensorData::Fp32(elements(tensor)?),
        DatumType::F64 => TensorData::Fp64(elements(tensor)?),
        other => return Err(anyhow!("elements of type {other:?} are not supported")),
    })
}

fn elements<T: Datum + Copy>(tensor: &TractTensor) -> TractResult<Vec<T>> {
    Ok(tensor.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
}
