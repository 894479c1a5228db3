//! Elements of a tensor from JSON: flat or nested row-major arrays, straight into a typed vector.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use crate::tensor::{Datatype, TensorData, elements_of};

/// Elements for which room is made before any was read; a claimed shape must not reserve memory.
const ROOM_MAX: usize = 4096;

/// Characters of a misplaced string that an error shows.
const SHOWN_CHARS_MAX: usize = 40;

/// Which tensor an error is about.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// "input" or "output".
    pub kind: &'static str,
    /// Its place in the list.
    pub index: usize,
    /// Its name, where it is known by now.
    pub name: Option<&'a str>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "{} `{name}`", self.kind),
            None => write!(f, "{}s[{}]", self.kind, self.index),
        }
    }
}

/// Reads the `data` of a tensor whose datatype and shape are known.
pub(super) struct DataSeed<'a> {
    pub place: Place<'a>,
    pub datatype: Datatype,
    pub shape: &'a [usize],
}

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = TensorData;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<TensorData, D::Error> {
        match self.datatype {
            Datatype::Bool => self.read(json).map(TensorData::Bool),
            Datatype::Uint8 => self.read(json).map(TensorData::Uint8),
            Datatype::Uint16 => self.read(json).map(TensorData::Uint16),
            Datatype::Uint32 => self.read(json).map(TensorData::Uint32),
            Datatype::Uint64 => self.read(json).map(TensorData::Uint64),
            Datatype::Int8 => self.read(json).map(TensorData::Int8),
            Datatype::Int16 => self.read(json).map(TensorData::Int16),
            Datatype::Int32 => self.read(json).map(TensorData::Int32),
            Datatype::Int64 => self.read(json).map(TensorData::Int64),
            Datatype::Fp32 => self.read(json).map(TensorData::Fp32),
            Datatype::Fp64 => self.read(json).map(TensorData::Fp64),
            Datatype::Bytes => self.read(json).map(TensorData::Bytes),
            Datatype::Fp16 => Err(D::Error::custom(format_args!(
                "{}: FP16 has no form in JSON; send it as binary tensor data, or as FP32",
                self.place
            ))),
        }
    }
}

impl DataSeed<'_> {
    fn read<'de, D: Deserializer<'de>, T: Element>(self, json: D) -> Result<Vec<T>, D::Error> {
        let elements =
            elements_of(self.shape).map_err(|why| D::Error::custom(format_args!("{}: {why}", self.place)))?;
        let mut out = Vec::with_capacity(elements.min(ROOM_MAX));
        Level { seed: &self, elements, out: &mut out, depth: 0 }.deserialize(json)?;
        if out.len() != elements {
            return Err(D::Error::custom(format_args!(
                "{}: shape {:?} holds {elements} elements, `data` has {}",
                self.place,
                self.shape,
                out.len()
            )));
        }
        Ok(out)
    }
}

/// What one JSON value was.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Element,
    Array,
}

/// Reads one JSON value: at depth 0 the whole `data`, further down an array of an axis or an element.
struct Level<'a, T> {
    seed: &'a DataSeed<'a>,
    elements: usize,
    out: &'a mut Vec<T>,
    depth: usize,
}

impl<'de, T: Element> DeserializeSeed<'de> for Level<'_, T> {
    type Value = Kind;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Kind, D::Error> {
        json.deserialize_any(self)
    }
}

impl<T: Element> Level<'_, T> {
    fn push<E: Error>(self, element: Option<T>, given: impl fmt::Display) -> Result<Kind, E> {
        let Self { seed: DataSeed { place, datatype, shape }, elements, out, depth } = self;
        if depth == 0 {
            return Err(E::custom(format_args!("{place}: `data` is {given}; it must be an array")));
        }
        let Some(element) = element else {
            return Err(E::custom(format_args!(
                "{place}: element {} of `data` is {given}; {datatype} takes {}",
                out.len(),
                T::TAKES
            )));
        };
        if out.len() == elements {
            return Err(E::custom(format_args!(
                "{place}: shape {shape:?} holds {elements} elements, `data` has more"
            )));
        }
        out.push(element);
        Ok(Kind::Element)
    }

    /// Nested arrays must follow the shape; a flat one may have any.
    fn check_axis<E: Error>(&self, len: usize, children: Option<Kind>) -> Result<(), E> {
        let DataSeed { place, shape, .. } = self.seed;
        if self.depth == 0 && children != Some(Kind::Array) {
            return Ok(());
        }
        let innermost = self.depth + 1 == shape.len();
        let fits = shape.get(self.depth) == Some(&len)
            && (children.is_none() || innermost == (children == Some(Kind::Element)));
        if fits {
            return Ok(());
        }
        Err(E::custom(format_args!(
            "{place}: an array of {len} at depth {} of `data` does not fit shape {shape:?}; \
             nested arrays follow the shape, or all elements stand in one flat array",
            self.depth
        )))
    }
}

impl<'de, T: Element> Visitor<'de> for Level<'_, T> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DataSeed { place, datatype, .. } = self.seed;
        write!(f, "an array of {} as `data` of {place}, of datatype {datatype}", T::TAKES)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let DataSeed { place, shape, .. } = self.seed;
        if self.depth > shape.len() {
            return Err(A::Error::custom(format_args!(
                "{place}: `data` is nested deeper than the axes of shape {shape:?}"
            )));
        }
        let (mut len, mut kind) = (0_usize, None);
        loop {
            let child = Level { out: &mut *self.out, depth: self.depth + 1, ..self };
            let Some(read) = list.next_element_seed(child)? else { break };
            if *kind.get_or_insert(read) != read {
                return Err(A::Error::custom(format_args!("{place}: `data` mixes elements and arrays")));
            }
            len += 1;
        }
        self.check_axis(len, kind)?;
        Ok(Kind::Array)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Kind, E> {
        self.push(T::from_float(value), format_args!("{value:?}"))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Kind, E> {
        self.push(T::from_integer(value.into()), value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Kind, E> {
        self.push(T::from_integer(value.into()), value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Kind, E> {
        self.push(T::from_bool(value), value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Kind, E> {
        let end = value.char_indices().nth(SHOWN_CHARS_MAX).map_or(value.len(), |(end, _)| end);
        self.push(T::from_text(value), format_args!("{:?}", &value[..end]))
    }

    fn visit_unit<E: Error>(self) -> Result<Kind, E> {
        self.push(None, "null")
    }
}

/// What can be an element in JSON; none where the value is not one.
trait Element: Sized {
    /// What it may be, for people.
    const TAKES: &'static str;

    fn from_float(_: f64) -> Option<Self> {
        None
    }
    fn from_integer(_: i128) -> Option<Self> {
        None
    }
    fn from_bool(_: bool) -> Option<Self> {
        None
    }
    fn from_text(_: &str) -> Option<Self> {
        None
    }
}

impl Element for bool {
    const TAKES: &'static str = "true and false";

    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Element for Bytes {
    const TAKES: &'static str = "strings";

    fn from_text(value: &str) -> Option<Self> {
        Some(Bytes::copy_from_slice(value.as_bytes()))
    }
}

impl Element for f64 {
    const TAKES: &'static str = "numbers";

    fn from_float(value: f64) -> Option<Self> {
        Some(value)
    }
    fn from_integer(value: i128) -> Option<Self> {
        Some(value as f64)
    }
}

impl Element for f32 {
    const TAKES: &'static str = "numbers from -3.4028235e38 to 3.4028235e38";

    fn from_float(value: f64) -> Option<Self> {
        Some(value as f32).filter(|single| single.is_finite())
    }
    fn from_integer(value: i128) -> Option<Self> {
        Some(value as f32)
    }
}

macro_rules! integers {
    ($($integer:ty => $takes:literal),* $(,)?) => {$(
        impl Element for $integer {
            const TAKES: &'static str = $takes;

            fn from_integer(value: i128) -> Option<Self> {
                value.try_into().ok()
            }
        }
    )*};
}
integers!(
    u8 => "integers from 0 to 255",
    u16 => "integers from 0 to 65535",
    u32 => "integers from 0 to 4294967295",
    u64 => "integers from 0 to 18446744073709551615",
    i8 => "integers from -128 to 127",
    i16 => "integers from -32768 to 32767",
    i32 => "integers from -2147483648 to 2147483647",
    i64 => "integers from -9223372036854775808 to 9223372036854775807",
);
