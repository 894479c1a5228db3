//! `Compare`: when two answers to one request agree, how much of that is measured, and what is kept.

mod difference;

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::Value;

use crate::error::{Problem, ServeError};

pub(crate) use difference::{Difference, cut, shown};
use difference::{Tolerance, first};

/// Most differing pairs that a rule may keep.
pub const COMPARE_SAMPLE_MAX: usize = 256;

/// Differing pairs that a rule keeps unless it says otherwise.
const SAMPLE: usize = 16;

/// How the answers of a shadow backend are compared with those that callers got; an option of a
/// [`ShadowRule`](super::ShadowRule).
///
/// Answers are compared by value: JSON by its numbers, texts and structure, not by the order of keys or the way
/// that a number is written; tensors by name, datatype, shape and elements, whether they came as JSON, in binary
/// or through a handle, and whatever the answering model is called; other bodies byte by byte. HTTP statuses must
/// be the same; other headers are not looked at. Two failures agree when they have the same code.
///
/// ```
/// use greenroom::{Compare, ShadowRule};
///
/// // A tenth of the requests; of those every fiftieth is asked of the same backend twice, to see how much that
/// // differs from itself.
/// let compare = Compare::within(1e-6, 1e-3).noise_floor(0.02);
/// let rule = ShadowRule::new("next", 0.1)?.compare(compare)?;
/// assert_eq!(rule.compared().unwrap().to_string(), "within 0.000001 + 0.001 * |primary|");
///
/// // Only the label counts.
/// let labels = Compare::by(|primary, shadow| primary["label"] == shadow["label"]);
/// assert!(ShadowRule::new("next", 0.1)?.compare(labels).is_ok());
/// assert!(Compare::within(-1.0, 0.0).check().is_err());
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone)]
#[must_use = "a comparison does nothing until it is given to a shadow rule"]
pub struct Compare {
    method: Method,
    noise_floor: f64,
    sample: usize,
}

type Agree = dyn Fn(&Value, &Value) -> bool + Send + Sync;

#[derive(Clone)]
enum Method {
    Exact,
    Within(Tolerance),
    By(Arc<Agree>),
}

impl Compare {
    /// Answers agree when they are equal. `1` and `1.0` are the same number; NaN equals NaN.
    pub fn exact() -> Self {
        Self::of(Method::Exact)
    }

    /// Numbers agree when they differ by at most `absolute + relative * |primary|`; everything else must be
    /// equal. Integers are subtracted exactly. In tensors NaN equals NaN, and an infinity only itself; plain JSON
    /// has neither, and `null` for both.
    pub fn within(absolute: f64, relative: f64) -> Self {
        Self::of(Method::Within(Tolerance { absolute, relative }))
    }

    /// Answers agree when `agree(primary, shadow)` says so. It is given whole answers: JSON as it is, tensors as
    /// `{"outputs": [{"name", "datatype", "shape", "data"}]}` with NaN and infinities as texts, a body that is
    /// no JSON as a text. Failures and HTTP statuses are compared before, without it.
    ///
    /// It runs on a thread of its own, where it keeps nobody waiting but other comparisons; its panic is counted.
    pub fn by(agree: impl Fn(&Value, &Value) -> bool + Send + Sync + 'static) -> Self {
        Self::of(Method::By(Arc::new(agree)))
    }

    fn of(method: Method) -> Self {
        Self { method, noise_floor: 0.0, sample: SAMPLE }
    }

    /// Of the compared requests this share, 0 to 1, is sent once more to the very backend that served it, and
    /// its two answers are compared under counts of their own: what differs there is no fault of the shadow.
    /// Such a request is detached and dropped like any copy, and is load like any request. Default 0.
    pub fn noise_floor(mut self, share: f64) -> Self {
        self.noise_floor = share;
        self
    }

    /// Keeps the last `pairs` pairs that differed, at most [`COMPARE_SAMPLE_MAX`]; default 16.
    pub fn sample(mut self, pairs: usize) -> Self {
        self.sample = pairs;
        self
    }

    /// Checks all options.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake: a tolerance that is negative or not finite, a noise floor
    /// outside 0 to 1, a sample above [`COMPARE_SAMPLE_MAX`].
    pub fn check(self) -> Result<Self, ServeError> {
        let mut problems = Vec::new();
        let mut mistake =
            |field: &str, what: String| problems.push(Problem { place: format!("compare.{field}"), what });
        if let Method::Within(Tolerance { absolute, relative }) = self.method {
            for (field, given) in [("absolute", absolute), ("relative", relative)] {
                if !given.is_finite() || given < 0.0 {
                    mistake(field, format!("{given} was given; allowed: a finite number from 0"));
                }
            }
        }
        if !(0.0..=1.0).contains(&self.noise_floor) {
            mistake("noise_floor", format!("{} was given; allowed: a number from 0 to 1", self.noise_floor));
        }
        if self.sample > COMPARE_SAMPLE_MAX {
            mistake("sample", format!("{} was given; allowed: 0 to {COMPARE_SAMPLE_MAX}", self.sample));
        }
        if problems.is_empty() { Ok(self) } else { Err(ServeError::InvalidConfig(problems)) }
    }

    /// The share of compared requests that are asked twice of the backend that served them.
    pub fn noise_floor_share(&self) -> f64 {
        self.noise_floor
    }

    /// How many differing pairs are kept.
    pub fn sample_size(&self) -> usize {
        self.sample
    }

    /// Where the answers differ; nothing when they agree. Panics when a function of the user's does.
    pub(crate) fn difference(&self, primary: &Value, shadow: &Value) -> Option<Difference> {
        match &self.method {
            Method::Exact => first(primary, shadow, Tolerance::NONE),
            Method::Within(tolerance) => first(primary, shadow, *tolerance),
            Method::By(agree) if agree(primary, shadow) => None,
            // The function does not say where; the first place that is not equal is most likely it.
            Method::By(_) => Some(
                first(primary, shadow, Tolerance::NONE).unwrap_or_else(|| Difference::whole(primary, shadow)),
            ),
        }
    }

    /// Whether a function decides, which may look at anything.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.method, Method::By(_))
    }
}

/// Two that are made of one function agree when they are clones of each other.
impl PartialEq for Compare {
    fn eq(&self, other: &Self) -> bool {
        let method = match (&self.method, &other.method) {
            (Method::Exact, Method::Exact) => true,
            (Method::Within(a), Method::Within(b)) => a == b,
            (Method::By(a), Method::By(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        method && self.noise_floor == other.noise_floor && self.sample == other.sample
    }
}

/// How answers are compared, in words.
impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.method {
            Method::Exact => f.write_str("exact"),
            Method::Within(Tolerance { absolute, relative }) => {
                write!(f, "within {absolute} + {relative} * |primary|")
            }
            Method::By(_) => f.write_str("a function"),
        }
    }
}

impl fmt::Debug for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compare({self}, noise_floor {}, sample {})", self.noise_floor, self.sample)
    }
}

/// In the form of a file; a function has none.
impl Serialize for Compare {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Compare", 4)?;
        match &self.method {
            Method::Exact => {}
            Method::Within(Tolerance { absolute, relative }) => {
                out.serialize_field("absolute", absolute)?;
                out.serialize_field("relative", relative)?;
            }
            Method::By(_) => out.serialize_field("by", "a function")?,
        }
        out.serialize_field("noise_floor", &self.noise_floor)?;
        out.serialize_field("sample", &self.sample)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_bad_option_is_told_at_once() {
        let error = Compare::within(-0.5, f64::NAN).noise_floor(1.5).sample(257).check().unwrap_err();
        let ServeError::InvalidConfig(problems) = error else { panic!("{error}") };
        let places: Vec<_> = problems.iter().map(|p| p.place.as_str()).collect();
        assert_eq!(places, ["compare.absolute", "compare.relative", "compare.noise_floor", "compare.sample"]);
        assert!(Compare::exact().noise_floor(f64::NAN).check().is_err());
        assert!(Compare::within(0.0, 0.0).noise_floor(1.0).sample(256).check().is_ok());
    }

    #[test]
    fn a_function_decides_and_the_first_unequal_place_is_told() {
        let same_label = Compare::by(|a, b| a["label"] == b["label"]);
        assert!(
            same_label.difference(&json!({"label": 1, "p": 0.5}), &json!({"label": 1, "p": 0.6})).is_none()
        );
        let told = same_label.difference(&json!({"label": 1}), &json!({"label": 2})).unwrap();
        assert_eq!((&*told.path, &*told.primary, &*told.shadow), ("label", "1", "2"));
        let never = Compare::by(|_, _| false).difference(&json!([1]), &json!([1])).unwrap();
        assert_eq!((&*never.path, &*never.primary), ("$", "[1]"), "equal, and yet the function says no");
    }

    #[test]
    fn two_are_the_same_by_their_options_and_by_the_very_function() {
        let by = Compare::by(|_, _| true);
        assert!(by == by.clone() && by != Compare::by(|_, _| true) && by != by.clone().sample(3));
        assert!(
            Compare::within(1.0, 0.0) != Compare::within(0.0, 1.0) && Compare::exact() == Compare::exact()
        );
    }
}
