//! Two answers that have found each other: whether they agree, and if not, what to show of them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::Value;

use super::{
    Comparison, DifferingPair, SideOfPair,
    answer::{Content, Kept, Told},
    comparer::Held,
};
use crate::{
    guard::{drop_guarded, guarded},
    ids::BackendName,
    meta::RequestId,
    metrics::comparison::{Against, Outcome},
    traffic::{
        Compare,
        compare::{Difference, cut, shown},
    },
};

/// Longest text of a whole answer, in bytes.
const ANSWER_BYTES_MAX: usize = 2048;
/// How much of a body that is no JSON is shown at the place of a difference, in bytes.
const BODY_BYTES_SHOWN: usize = 64;

/// Two answers to one request.
pub(crate) struct Pair {
    pub(super) comparison: Arc<Comparison>,
    pub(super) against: Against,
    pub(super) request_id: RequestId,
    pub(super) served_by: BackendName,
    pub(super) primary: Side,
    pub(super) other: Side,
}

/// One of them, as it was kept.
pub(super) struct Side {
    pub(super) end: End<Kept>,
    /// From sending to the answer.
    pub(super) took: Duration,
    pub(super) held: Held,
}

/// How a request ended.
pub(super) enum End<A> {
    Answered(A),
    Failed {
        code: Box<str>,
        /// The error in words.
        text: String,
    },
}

impl Pair {
    /// Compares, counts, and keeps what differs. Code of the user's runs here.
    pub(super) fn judge(self) {
        let Self { comparison, against, request_id, served_by, primary, other } = self;
        let took = [primary.took, other.took];
        let _held = [primary.held, other.held];
        let (ends, compare) = ((primary.end, other.end), &comparison.compare);
        let judged = guarded(move || {
            let (primary, other) = (ends.0.read()?, ends.1.read()?);
            let difference = difference(compare, &primary, &other);
            Ok(difference.map(|difference| (difference, [primary.text(), other.text()])))
        });
        let outcome = match judged.unwrap_or_else(|panic| Err(panic.into())) {
            Ok(None) => Outcome::Agreed,
            Ok(Some((Difference { path, primary, shadow }, [whole_primary, whole_shadow]))) => {
                let side = |found, answer, took: Duration| SideOfPair {
                    found,
                    answer,
                    latency_ms: took.as_secs_f64() * 1e3,
                };
                let pair = DifferingPair {
                    request_id: request_id.to_string(),
                    served_by,
                    path,
                    primary: side(primary, whole_primary, took[0]),
                    shadow: side(shadow, whole_shadow, took[1]),
                };
                if against == Against::Shadow {
                    comparison.keep(pair);
                }
                Outcome::Differed
            }
            Err(why) => {
                comparison.failed(why);
                Outcome::Failed
            }
        };
        // Last, so that who sees the count sees the pair.
        comparison.count(against, outcome);
        // Perhaps the last one who holds the user's function.
        drop_guarded(comparison);
    }
}

impl End<Kept> {
    fn read(self) -> Result<End<Told>, String> {
        Ok(match self {
            Self::Answered(kept) => End::Answered((kept.read)()?),
            Self::Failed { code, text } => End::Failed { code, text },
        })
    }
}

impl End<Told> {
    fn text(&self) -> String {
        match self {
            Self::Answered(Told { content: Content::Value(value), .. }) => shown(value, ANSWER_BYTES_MAX),
            Self::Answered(Told { content: Content::Bytes(bytes), .. }) => lossy(bytes, ANSWER_BYTES_MAX),
            Self::Failed { text, .. } => cut(text.clone(), ANSWER_BYTES_MAX),
        }
    }

    /// In a word, beside a failure.
    fn failure(&self) -> String {
        match self {
            Self::Answered(_) => "(answered)".into(),
            Self::Failed { code, .. } => code.to_string(),
        }
    }
}

fn lossy(bytes: &[u8], bytes_max: usize) -> String {
    let part = &bytes[..bytes.len().min(bytes_max + 4)];
    cut(String::from_utf8_lossy(part).into_owned(), bytes_max)
}

fn difference(compare: &Compare, primary: &End<Told>, other: &End<Told>) -> Option<Difference> {
    let (primary, other) = match (primary, other) {
        (End::Failed { code: a, .. }, End::Failed { code: b, .. }) if a == b => return None,
        (End::Answered(primary), End::Answered(other)) => (primary, other),
        _ => {
            let path = "(error)".into();
            return Some(Difference { path, primary: primary.failure(), shadow: other.failure() });
        }
    };
    if primary.status != other.status {
        let text = |told: &Told| told.status.map_or_else(String::new, |status| status.to_string());
        return Some(Difference { path: "(status)".into(), primary: text(primary), shadow: text(other) });
    }
    match (&primary.content, &other.content) {
        (Content::Bytes(primary), Content::Bytes(other)) if !compare.asks() => bytes(primary, other),
        (Content::Value(primary), Content::Value(other)) => compare.difference(primary, other),
        (primary, other) => compare.difference(&value(primary), &value(other)),
    }
}

/// A body that is no JSON as a text.
fn value(content: &Content) -> Value {
    match content {
        Content::Value(value) => value.clone(),
        Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
    }
}

/// Where two bodies first differ.
fn bytes(primary: &Bytes, other: &Bytes) -> Option<Difference> {
    if primary == other {
        return None;
    }
    let shared = primary.iter().zip(other).take_while(|(a, b)| a == b).count();
    let text = |bytes: &Bytes| lossy(&bytes[shared..], BODY_BYTES_SHOWN);
    Some(Difference { path: format!("(body)[{shared}]"), primary: text(primary), shadow: text(other) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, content: Content) -> End<Told> {
        End::Answered(Told { status: Some(status), content })
    }

    fn failed(code: &str) -> End<Told> {
        End::Failed { code: code.into(), text: format!("{code} happened") }
    }

    fn text(body: &'static str) -> Content {
        Content::Bytes(Bytes::from_static(body.as_bytes()))
    }

    fn place(compare: &Compare, primary: &End<Told>, other: &End<Told>) -> Option<(String, String, String)> {
        difference(compare, primary, other).map(|d| (d.path, d.primary, d.shadow))
    }

    #[test]
    fn failures_and_statuses_come_before_what_is_said() {
        let never = Compare::by(|_, _| panic!("it must not be asked"));
        let said = || Content::Value(json!(1));
        assert_eq!(place(&never, &failed("a"), &failed("a")), None);
        let of = |path: &str, a: &str, b: &str| Some((path.to_owned(), a.to_owned(), b.to_owned()));
        assert_eq!(place(&never, &failed("a"), &failed("b")), of("(error)", "a", "b"));
        assert_eq!(place(&never, &told(200, said()), &failed("b")), of("(error)", "(answered)", "b"));
        assert_eq!(place(&never, &told(200, said()), &told(201, said())), of("(status)", "200", "201"));
    }

    #[test]
    fn bodies_that_are_no_json_are_compared_byte_by_byte() {
        let exact = Compare::exact();
        let answer = |body| told(200, text(body));
        assert_eq!(place(&exact, &answer("hello"), &answer("hello")), None);
        let differ = place(&exact, &answer("hello world"), &answer("hello")).unwrap();
        assert_eq!(differ, ("(body)[5]".into(), " world".into(), String::new()));
        let mixed = place(&exact, &answer("x"), &told(200, Content::Value(json!({"a": 1})))).unwrap();
        assert_eq!(mixed, ("$".into(), "\"x\"".into(), "{\"a\":1}".into()));
        let asked = Compare::by(|a, b| a == "hello" && b == "HELLO");
        assert_eq!(place(&asked, &answer("hello"), &answer("HELLO")), None);
    }
}
