//! `Node`: what a configuration text says, before anybody asks what it means; each part knows where it stood.

use std::fmt;

use crate::error::Problem;

/// Deepest nesting of lists and maps that is read.
pub(crate) const DEPTH_MAX: usize = 32;

/// Most values, keys not counted, that one text may hold.
pub(crate) const NODES_MAX: usize = 200_000;

/// Longest piece of the operator's own text that a problem repeats, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// A value with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Where it starts; none when it was not read from a text.
    pub(crate) mark: Option<Mark>,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; no key twice.
    Map(Vec<Entry>),
}

/// A number as it was written, and what it means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Number {
    pub(crate) text: String,
    /// Its value when it was written as a whole number that fits.
    pub(crate) whole: Option<i64>,
    /// Its value; may be infinite or no number at all.
    pub(crate) float: f64,
}

/// One key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_mark: Option<Mark>,
    pub(crate) node: Node,
}

/// A place in a text; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Node {
    /// The tree of a JSON value; places have paths only.
    ///
    /// # Errors
    /// One problem when it is nested too deep or holds too many values.
    pub(crate) fn from_json(json: serde_json::Value) -> Result<Self, Problem> {
        from_json(json, 0, &mut 0, Limits { depth: DEPTH_MAX, nodes: NODES_MAX })
    }

    /// The same for what this house wrote itself, whose limits are those of the file that it stands in.
    pub(crate) fn from_kept_json(json: serde_json::Value) -> Result<Self, Problem> {
        from_json(json, 0, &mut 0, Limits { depth: usize::MAX, nodes: usize::MAX })
    }

    /// What was given, in words: `the number 1.5`, `the text "x"`, `a list`.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => format!("the number {}", shown(&number.text)),
            Value::Text(text) => format!("the text {:?}", shown(text)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The beginning of `text`, short enough for an error.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}

/// `path` with a key of the map that it leads to.
pub(crate) fn join(path: &str, key: &str) -> String {
    let simple = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    match (simple, path.is_empty()) {
        (false, _) => format!("{path}[{:?}]", shown(key)),
        (true, true) => shown(key),
        (true, false) => format!("{path}.{}", shown(key)),
    }
}

/// A path with the mark, as a problem tells it.
pub(crate) fn place(path: &str, mark: Option<Mark>) -> String {
    match (path.is_empty(), mark) {
        (true, None) => "configuration".into(),
        (true, Some(mark)) => mark.to_string(),
        (false, None) => path.into(),
        (false, Some(mark)) => format!("{path} ({mark})"),
    }
}

/// The problem of a tree that is too large.
pub(crate) fn too_large(path: &str, mark: Option<Mark>, depth: usize) -> Problem {
    let what = match depth > DEPTH_MAX {
        true => format!("nested more than {DEPTH_MAX} levels deep"),
        false => format!("more than {NODES_MAX} values"),
    };
    Problem { place: place(path, mark), what }
}

/// How deep and how large a tree may be.
#[derive(Clone, Copy)]
struct Limits {
    depth: usize,
    nodes: usize,
}

fn from_json(
    json: serde_json::Value,
    depth: usize,
    nodes: &mut usize,
    limits: Limits,
) -> Result<Node, Problem> {
    use serde_json::Value as Json;
    *nodes += 1;
    if depth > limits.depth || *nodes > limits.nodes {
        return Err(too_large("", None, depth));
    }
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => Value::Number(Number {
            text: number.to_string(),
            whole: number.as_i64(),
            float: number.as_f64().unwrap_or(f64::NAN),
        }),
        Json::String(text) => Value::Text(text),
        Json::Array(items) => {
            let nodes = items.into_iter().map(|item| from_json(item, depth + 1, nodes, limits));
            Value::List(nodes.collect::<Result<_, _>>()?)
        }
        Json::Object(map) => {
            let entry = |(key, json)| {
                Ok(Entry { key, key_mark: None, node: from_json(json, depth + 1, nodes, limits)? })
            };
            Value::Map(map.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
    };
    Ok(Node { value, mark: None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_that_is_too_deep_or_too_large_is_refused() {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        assert!(Node::from_json(deep).unwrap_err().what.contains("32 levels"));
        let wide = json!(vec![0; NODES_MAX]);
        assert!(Node::from_json(wide).unwrap_err().what.contains("200000 values"));
    }

    #[test]
    fn numbers_keep_their_text_and_whether_they_are_whole() {
        let number = |json| match Node::from_json(json).unwrap().value {
            Value::Number(number) => number,
            other => panic!("{other:?}"),
        };
        assert_eq!(number(json!(-3)), Number { text: "-3".into(), whole: Some(-3), float: -3.0 });
        assert_eq!(number(json!(2.0)), Number { text: "2.0".into(), whole: None, float: 2.0 });
        assert_eq!(number(json!(u64::MAX)).whole, None);
    }

    #[test]
    fn places_name_the_path_and_the_mark_that_there_are() {
        let mark = Some(Mark { line: 2, column: 3 });
        assert_eq!(place(&join("a[0]", "b"), mark), "a[0].b (line 2, column 3)");
        assert_eq!(place(&join("", "a b"), None), "[\"a b\"]");
        assert_eq!((place("", mark), place("", None)), ("line 2, column 3".into(), "configuration".into()));
        assert_eq!(join("", &"x".repeat(1000)).len(), SHOWN_CHARS_MAX + 3);
    }
}
