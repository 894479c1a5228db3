//! The elements of a tensor, typed.

use bytes::Bytes;

use super::Datatype;

/// Elements in row-major order, of one datatype.
///
/// Any `Vec` of a matching type converts into it; FP16 has no type in Rust and is made by hand.
///
/// ```
/// use greenroom::{Datatype, TensorData};
/// let data = TensorData::from(vec![1_i64, 2, 3]);
/// assert_eq!((data.datatype(), data.len()), (Datatype::Int64, 3));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// BOOL.
    Bool(Vec<bool>),
    /// UINT8.
    Uint8(Vec<u8>),
    /// UINT16.
    Uint16(Vec<u16>),
    /// UINT32.
    Uint32(Vec<u32>),
    /// UINT64.
    Uint64(Vec<u64>),
    /// INT8.
    Int8(Vec<i8>),
    /// INT16.
    Int16(Vec<i16>),
    /// INT32.
    Int32(Vec<i32>),
    /// INT64.
    Int64(Vec<i64>),
    /// FP16, as the bits of each number.
    Fp16(Vec<u16>),
    /// FP32.
    Fp32(Vec<f32>),
    /// FP64.
    Fp64(Vec<f64>),
    /// BYTES, each element on its own.
    Bytes(Vec<Bytes>),
}

/// Evaluates an expression over the typed vector inside a `TensorData`, whichever it is.
macro_rules! each {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            TensorData::Bool($values) => $body,
            TensorData::Uint8($values) => $body,
            TensorData::Uint16($values) => $body,
            TensorData::Uint32($values) => $body,
            TensorData::Uint64($values) => $body,
            TensorData::Int8($values) => $body,
            TensorData::Int16($values) => $body,
            TensorData::Int32($values) => $body,
            TensorData::Int64($values) => $body,
            TensorData::Fp16($values) => $body,
            TensorData::Fp32($values) => $body,
            TensorData::Fp64($values) => $body,
            TensorData::Bytes($values) => $body,
        }
    };
}

impl TensorData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each!(self, values => values.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type of the elements.
    pub fn datatype(&self) -> Datatype {
        match self {
            Self::Bool(_) => Datatype::Bool,
            Self::Uint8(_) => Datatype::Uint8,
            Self::Uint16(_) => Datatype::Uint16,
            Self::Uint32(_) => Datatype::Uint32,
            Self::Uint64(_) => Datatype::Uint64,
            Self::Int8(_) => Datatype::Int8,
            Self::Int16(_) => Datatype::Int16,
            Self::Int32(_) => Datatype::Int32,
            Self::Int64(_) => Datatype::Int64,
            Self::Fp16(_) => Datatype::Fp16,
            Self::Fp32(_) => Datatype::Fp32,
            Self::Fp64(_) => Datatype::Fp64,
            Self::Bytes(_) => Datatype::Bytes,
        }
    }

    /// Makes room for `additional` elements more.
    pub(super) fn reserve(&mut self, additional: usize) {
        each!(self, values => values.reserve_exact(additional));
    }

    /// Appends the elements of `other`; false, and nothing done, where its datatype differs.
    #[must_use]
    pub(super) fn append(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Bool(to), Self::Bool(from)) => to.extend(from),
            (Self::Uint8(to), Self::Uint8(from)) => to.extend(from),
            (Self::Uint16(to), Self::Uint16(from)) => to.extend(from),
            (Self::Uint32(to), Self::Uint32(from)) => to.extend(from),
            (Self::Uint64(to), Self::Uint64(from)) => to.extend(from),
            (Self::Int8(to), Self::Int8(from)) => to.extend(from),
            (Self::Int16(to), Self::Int16(from)) => to.extend(from),
            (Self::Int32(to), Self::Int32(from)) => to.extend(from),
            (Self::Int64(to), Self::Int64(from)) => to.extend(from),
            (Self::Fp16(to), Self::Fp16(from)) => to.extend(from),
            (Self::Fp32(to), Self::Fp32(from)) => to.extend(from),
            (Self::Fp64(to), Self::Fp64(from)) => to.extend(from),
            (Self::Bytes(to), Self::Bytes(from)) => to.extend(from),
            _ => return false,
        }
        true
    }

    /// A copy of the elements of `range`, which must lie inside.
    pub(super) fn part(&self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::Bool(values) => Self::Bool(values[range].to_vec()),
            Self::Uint8(values) => Self::Uint8(values[range].to_vec()),
            Self::Uint16(values) => Self::Uint16(values[range].to_vec()),
            Self::Uint32(values) => Self::Uint32(values[range].to_vec()),
            Self::Uint64(values) => Self::Uint64(values[range].to_vec()),
            Self::Int8(values) => Self::Int8(values[range].to_vec()),
            Self::Int16(values) => Self::Int16(values[range].to_vec()),
            Self::Int32(values) => Self::Int32(values[range].to_vec()),
            Self::Int64(values) => Self::Int64(values[range].to_vec()),
            Self::Fp16(values) => Self::Fp16(values[range].to_vec()),
            Self::Fp32(values) => Self::Fp32(values[range].to_vec()),
            Self::Fp64(values) => Self::Fp64(values[range].to_vec()),
            Self::Bytes(values) => Self::Bytes(values[range].to_vec()),
        }
    }
}

macro_rules! from_vec {
    ($($element:ty => $variant:ident),*) => {$(
        impl From<Vec<$element>> for TensorData {
            fn from(values: Vec<$element>) -> Self {
                Self::$variant(values)
            }
        }
    )*};
}
from_vec!(bool => Bool, u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64, i8 => Int8, i16 => Int16,
    i32 => Int32, i64 => Int64, f32 => Fp32, f64 => Fp64, Bytes => Bytes);
