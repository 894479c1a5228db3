//! Tensors as JSON values that hold all of what they say.

use std::fmt::Write;

use serde_json::{Number, Value, json};

use crate::tensor::{Tensor, TensorData};

/// Bytes of the elements.
pub(super) fn size_bytes(tensor: &Tensor) -> usize {
    match tensor.data() {
        TensorData::Bytes(values) => values.iter().map(|value| value.len()).sum(),
        data => data.len() * data.datatype().size_bytes().unwrap_or(0),
    }
}

/// `{"outputs": [{"name", "datatype", "shape", "data"}]}`, the elements in row-major order.
pub(super) fn value(outputs: &[Tensor]) -> Value {
    let output = |tensor: &Tensor| {
        json!({
            "name": tensor.name(),
            "datatype": tensor.datatype(),
            "shape": tensor.shape(),
            "data": elements(tensor.data()),
        })
    };
    json!({ "outputs": outputs.iter().map(output).collect::<Vec<_>>() })
}

fn elements(data: &TensorData) -> Vec<Value> {
    fn all<T: Copy>(values: &[T], one: impl Fn(T) -> Value) -> Vec<Value> {
        values.iter().map(|value| one(*value)).collect()
    }
    match data {
        TensorData::Bool(values) => all(values, Value::from),
        TensorData::Uint8(values) => all(values, Value::from),
        TensorData::Uint16(values) => all(values, Value::from),
        TensorData::Uint32(values) => all(values, Value::from),
        TensorData::Uint64(values) => all(values, Value::from),
        TensorData::Int8(values) => all(values, Value::from),
        TensorData::Int16(values) => all(values, Value::from),
        TensorData::Int32(values) => all(values, Value::from),
        TensorData::Int64(values) => all(values, Value::from),
        TensorData::Fp16(values) => all(values, |bits| float(half(bits))),
        TensorData::Fp32(values) => all(values, |value| float(value.into())),
        TensorData::Fp64(values) => all(values, float),
        TensorData::Bytes(values) => values.iter().map(|value| bytes(value)).collect(),
    }
}

/// JSON has no NaN and no infinity; they are texts.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

/// The half precision number with these bits.
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => mantissa * 2_f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + mantissa) * 2_f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// Text as text; other bytes so that no text looks like them.
fn bytes(value: &[u8]) -> Value {
    std::str::from_utf8(value).map_or_else(
        |_| {
            let hex = value.iter().fold(String::new(), |mut hex, byte| {
                // Writing to a String cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            json!({ "hex": hex })
        },
        Value::from,
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn halves_are_numbers() {
        let cases = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2_f64.powi(-24)),
            (0x0400, 2_f64.powi(-14)),
            (0x3555, 0.333_251_953_125),
            (0xfc00, f64::NEG_INFINITY),
        ];
        for (bits, number) in cases {
            assert_eq!(half(bits), number, "{bits:#06x}");
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn nothing_is_lost_that_json_cannot_say() {
        let odd = elements(&TensorData::Fp32(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5]));
        assert_eq!(odd, [json!("NaN"), json!("inf"), json!("-inf"), json!(0.5)]);
        let raw = [Bytes::from_static(b"text"), Bytes::from_static(&[0xff, 0x01])];
        assert_eq!(elements(&TensorData::Bytes(raw.to_vec())), [json!("text"), json!({"hex": "ff01"})]);
    }
}
