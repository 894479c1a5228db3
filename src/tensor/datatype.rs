//! The element types of the Open Inference Protocol, their names and sizes.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::error::ServeError;

/// Type of a tensor's elements.
///
/// ```
/// use greenroom::Datatype;
/// assert_eq!("FP32".parse::<Datatype>()?, Datatype::Fp32);
/// assert_eq!((Datatype::Fp32.name(), Datatype::Fp32.size_bytes()), ("FP32", Some(4)));
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datatype {
    /// `BOOL`: one byte, 0 or 1.
    Bool,
    /// `UINT8`.
    Uint8,
    /// `UINT16`.
    Uint16,
    /// `UINT32`.
    Uint32,
    /// `UINT64`.
    Uint64,
    /// `INT8`.
    Int8,
    /// `INT16`.
    Int16,
    /// `INT32`.
    Int32,
    /// `INT64`.
    Int64,
    /// `FP16`: IEEE 754 half precision.
    Fp16,
    /// `FP32`: IEEE 754 single precision.
    Fp32,
    /// `FP64`: IEEE 754 double precision.
    Fp64,
    /// `BYTES`: any number of bytes an element; text is UTF-8.
    Bytes,
}

impl Datatype {
    /// Every datatype there is.
    pub const ALL: [Self; 13] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// Its name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes of one element; none for [`Datatype::Bytes`], whose elements differ in length.
    pub const fn size_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Datatype {
    type Err = ServeError;

    fn from_str(name: &str) -> Result<Self, ServeError> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name).ok_or_else(|| {
            let allowed = Self::ALL.map(Self::name).join(", ");
            let shown: String = name.chars().take(40).collect();
            ServeError::bad_request(format!("datatype {shown:?} does not exist; allowed: {allowed}"))
        })
    }
}

impl Serialize for Datatype {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_and_no_other() {
        for datatype in Datatype::ALL {
            assert_eq!(datatype.name().parse(), Ok(datatype));
        }
        let error = "float32".parse::<Datatype>().unwrap_err().to_string();
        assert!(error.contains("float32") && error.contains("FP32"), "{error}");
    }
}
