//! Where two values first differ: its path, and what stood there on both sides.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use serde_json::{Number, Value};

/// Longest text of what stood at one place, in bytes.
const FOUND_BYTES_MAX: usize = 256;

/// By how much numbers may differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tolerance {
    pub(crate) absolute: f64,
    /// Of what the primary said.
    pub(crate) relative: f64,
}

impl Tolerance {
    pub(super) const NONE: Self = Self { absolute: 0.0, relative: 0.0 };

    fn agree(self, primary: &Number, shadow: &Number) -> bool {
        let number = |n: &Number| n.as_f64().unwrap_or(f64::NAN);
        let (p, s) = (number(primary), number(shadow));
        let allowed = self.absolute + self.relative * p.abs();
        match (whole(primary), whole(shadow)) {
            // Above 2^53 floats would take neighbours for equal.
            (Some(p), Some(s)) => p == s || (p - s).unsigned_abs() as f64 <= allowed,
            _ => p == s || (p - s).abs() <= allowed,
        }
    }
}

/// A number without a fraction, exactly; none where there is one, or where it is beyond all integers of 64 bits.
fn whole(number: &Number) -> Option<i128> {
    let float = || number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 1e20).map(|n| n as i128);
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)).or_else(float)
}

/// The first place where two values differ.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    /// Such as `outputs[0].data[3]`; `$` is the whole.
    pub(crate) path: String,
    /// What stood there in the primary's answer, as JSON, cut where it is long.
    pub(crate) primary: String,
    /// What stood there in the shadow's.
    pub(crate) shadow: String,
}

impl Difference {
    /// All of both.
    pub(super) fn whole(primary: &Value, shadow: &Value) -> Self {
        at(&[], Some(primary), Some(shadow))
    }
}

/// One step of a path.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// The first difference, in the order of the primary's answer; objects are read by the order of their keys.
pub(super) fn first(primary: &Value, shadow: &Value, tolerance: Tolerance) -> Option<Difference> {
    look(&mut Vec::new(), primary, shadow, tolerance)
}

fn look<'a>(
    path: &mut Vec<Step<'a>>,
    primary: &'a Value,
    shadow: &'a Value,
    tolerance: Tolerance,
) -> Option<Difference> {
    let mut below = |step, primary: Option<&'a Value>, shadow: Option<&'a Value>| {
        path.push(step);
        let found = match (primary, shadow) {
            (Some(primary), Some(shadow)) => look(path, primary, shadow, tolerance),
            _ => Some(at(path, primary, shadow)),
        };
        path.pop();
        found
    };
    match (primary, shadow) {
        (Value::Number(p), Value::Number(s)) if tolerance.agree(p, s) => None,
        (Value::Array(p), Value::Array(s)) => {
            (0..p.len().max(s.len())).find_map(|i| below(Step::Index(i), p.get(i), s.get(i)))
        }
        (Value::Object(p), Value::Object(s)) => {
            let shared = p.iter().find_map(|(key, value)| below(Step::Key(key), Some(value), s.get(key)));
            shared.or_else(|| {
                let (key, more) = s.iter().find(|(key, _)| !p.contains_key(*key))?;
                below(Step::Key(key), None, Some(more))
            })
        }
        (primary, shadow) if primary == shadow => None,
        _ => Some(at(path, Some(primary), Some(shadow))),
    }
}

fn at(path: &[Step<'_>], primary: Option<&Value>, shadow: Option<&Value>) -> Difference {
    let text = |value: Option<&Value>| value.map_or_else(|| "(absent)".into(), |v| shown(v, FOUND_BYTES_MAX));
    Difference { path: written(path), primary: text(primary), shadow: text(shadow) }
}

fn written(path: &[Step<'_>]) -> String {
    let mut out = String::new();
    for step in path {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Index(i) => write!(out, "[{i}]"),
            Step::Key(key) if plain(key) && out.is_empty() => write!(out, "{key}"),
            Step::Key(key) if plain(key) => write!(out, ".{key}"),
            Step::Key(key) => write!(out, "[{key:?}]"),
        };
    }
    if out.is_empty() { "$".into() } else { cut(out, FOUND_BYTES_MAX) }
}

fn plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The value as JSON, cut after `bytes_max` bytes; no more than that is ever written.
pub(crate) fn shown(value: &Value, bytes_max: usize) -> String {
    /// Takes so many bytes and one more character, and then refuses.
    struct Room(Vec<u8>, usize);
    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let free = (self.1 + 4).saturating_sub(self.0.len()).min(bytes.len());
            self.0.extend_from_slice(&bytes[..free]);
            if free == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(free) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut room = Room(Vec::new(), bytes_max);
    let _ = serde_json::to_writer(&mut room, value);
    cut(String::from_utf8_lossy(&room.0).into_owned(), bytes_max)
}

/// The text, cut after at most `bytes_max` bytes; that it was cut is seen.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

#[cfg(test)]
#[path = "difference_tests.rs"]
mod tests;
