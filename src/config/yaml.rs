//! Reads YAML text into nodes, within bounds, whatever the text is.

use std::collections::HashMap;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::node::{DEPTH_MAX, Entry, Mark, NODES_MAX, Node, Number, Value, join, place, shown, too_large};
use crate::error::Problem;

/// Longest text that is read, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 20;

/// What the text says, with the problems that do not hinder reading on, such as a key that is there twice.
///
/// # Errors
/// One problem where reading had to stop: no YAML, too long, too deep, too many values, an alias.
pub(crate) fn read(text: &str) -> Result<(Node, Vec<Problem>), Problem> {
    if text.len() > TEXT_BYTES_MAX {
        let what = format!("the text has {} bytes; at most {TEXT_BYTES_MAX} are read", text.len());
        return Err(Problem { place: place("", None), what });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            let mark = Mark { line: marker.line(), column: marker.col() + 1 };
            let what = format!("this is not valid YAML: {}", error.info());
            Problem { place: place("", Some(mark)), what }
        })?;
        builder.take(event, span)?;
    }
    let node =
        builder.root.ok_or_else(|| Problem { place: place("", None), what: "the text is empty".into() })?;
    Ok((node, builder.problems))
}

/// The tree as far as it was read.
#[derive(Default)]
struct Builder {
    root: Option<Node>,
    /// Lists and maps that are still open, the innermost last.
    open: Vec<Open>,
    nodes: usize,
    problems: Vec<Problem>,
}

/// A list or a map that has not ended yet.
struct Open {
    mark: Option<Mark>,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// Where each key is among the entries.
        seen: HashMap<String, usize>,
        /// The key whose value comes next.
        key: Option<(String, Option<Mark>)>,
    },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let mark = Some(Mark { line: span.start.line(), column: span.start.col() + 1 });
        match event {
            Event::Scalar(text, style, _, tag) => self.scalar(&text, style, tag.as_deref(), mark),
            Event::SequenceStart(_, tag) => self.open(Kind::List(Vec::new()), tag.as_deref(), mark),
            Event::MappingStart(_, tag) => {
                let kind = Kind::Map { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.open(kind, tag.as_deref(), mark)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { mark, kind }) = self.open.pop() else { return Ok(()) };
                let value = match kind {
                    Kind::List(items) => Value::List(items),
                    Kind::Map { entries, .. } => Value::Map(entries),
                };
                self.put(Node { value, mark }, None);
                Ok(())
            }
            Event::Alias(_) => {
                Err(self.problem(mark, "aliases (*name) are not supported; write the value out"))
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(self.problem(mark, "a second document starts here; one text holds one configuration"))
            }
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        mark: Option<Mark>,
    ) -> Result<(), Problem> {
        self.count(mark)?;
        let owned = tag.cloned().map(std::borrow::Cow::Owned);
        let known = tag.is_none_or(Tag::is_yaml_core_schema);
        let scalar =
            Scalar::parse_from_cow_and_metadata(text.into(), style, owned.as_ref()).filter(|_| known);
        let value = match scalar {
            Some(Scalar::Null) => Value::Null,
            Some(Scalar::Boolean(value)) => Value::Bool(value),
            Some(Scalar::Integer(whole)) => {
                Value::Number(Number { text: text.into(), whole: Some(whole), float: whole as f64 })
            }
            Some(Scalar::FloatingPoint(float)) => {
                Value::Number(Number { text: text.into(), whole: None, float: float.into_inner() })
            }
            Some(Scalar::String(text)) => Value::Text(text.into_owned()),
            None => {
                let tag = tag.map_or_else(String::new, |tag| shown(&tag.to_string()));
                let what = format!("the tag {tag} is not known or does not fit {:?}", shown(text));
                let problem = self.problem(mark, &what);
                self.problems.push(problem);
                Value::Text(text.into())
            }
        };
        self.put(Node { value, mark }, Some(text));
        Ok(())
    }

    fn open(&mut self, kind: Kind, tag: Option<&Tag>, mark: Option<Mark>) -> Result<(), Problem> {
        self.count(mark)?;
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            let problem = self.problem(mark, &format!("the tag {} is not known", shown(&tag.to_string())));
            self.problems.push(problem);
        }
        if self.awaits_key() {
            let problem = self.problem(mark, "a key must be text, not a list or a map");
            self.problems.push(problem);
        }
        self.open.push(Open { mark, kind });
        Ok(())
    }

    /// Puts a finished node where it belongs; `text` is the text of a scalar, which may be a key.
    fn put(&mut self, node: Node, text: Option<&str>) {
        let mark = node.mark;
        let Some(Open { kind, .. }) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match kind {
            Kind::List(items) => items.push(node),
            Kind::Map { entries, seen, key } => match (key.take(), text) {
                // A list or a map is no key, which was noted when it began.
                (None, text) => *key = Some((text.unwrap_or("?").into(), mark)),
                (Some((text, key_mark)), _) => match seen.get(&text) {
                    None => {
                        seen.insert(text.clone(), entries.len());
                        entries.push(Entry { key: text, key_mark, node });
                    }
                    Some(&first) => {
                        let first = entries[first].key_mark.map_or(0, |mark| mark.line);
                        let place = place(&join(&self.path(), &text), key_mark);
                        let what = format!("the key is there twice, first on line {first}");
                        self.problems.push(Problem { place, what });
                    }
                },
            },
        }
    }

    /// One more value; as many and as deep as is allowed.
    fn count(&mut self, mark: Option<Mark>) -> Result<(), Problem> {
        let depth = self.open.len();
        self.nodes += usize::from(!self.awaits_key());
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(too_large(&self.path(), mark, depth));
        }
        Ok(())
    }

    /// Whether what comes next is a key.
    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: Kind::Map { key: None, .. }, .. }))
    }

    fn problem(&self, mark: Option<Mark>, what: &str) -> Problem {
        Problem { place: place(&self.path(), mark), what: what.into() }
    }

    /// The path of what is being read.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match &open.kind {
            Kind::List(items) => format!("{path}[{}]", items.len()),
            Kind::Map { key: Some((key, _)), .. } => join(&path, key),
            Kind::Map { key: None, .. } => path,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text of the one problem that stops the reading.
    fn stopped(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_read_is_one_problem_with_its_place() {
        let many = format!("[{}1]", "1,".repeat(NODES_MAX));
        let cases = [
            ("a: [1,\nb: 2", "line 2, column 1: this is not valid YAML"),
            ("a: 1\n\tb: 2", "line 1, column 4: this is not valid YAML"),
            ("a: &x 1\nb: *x", "b (line 2, column 4): aliases (*name) are not supported"),
            ("a: 1\n---\nb: 1", "line 2, column 1: a second document"),
            ("", "configuration: the text is empty"),
            ("# nothing", "configuration: the text is empty"),
            (&"- ".repeat(100), "nested more than 32 levels deep"),
            (&"[".repeat(200), "nested more than 32 levels deep"),
            (&many, "more than 200000 values"),
            (&" ".repeat(TEXT_BYTES_MAX + 1), "at most 4194304 are read"),
        ];
        for (text, problem) in cases {
            let found = stopped(text);
            assert!(found.contains(problem), "{problem}: {found}");
        }
    }

    #[test]
    fn what_can_be_read_past_is_noted_with_its_place() {
        let cases = [
            ("x:\n  a: 1\n  a: 2", "x.a (line 3, column 3): the key is there twice, first on line 2"),
            ("? [a]\n: 1", "line 1, column 3: a key must be text"),
            ("a: !foo 1", "a (line 1, column 4): the tag !foo is not known"),
            ("a: !!int x", "a (line 1, column 4): the tag"),
            ("a: !foo [1]", "the tag !foo is not known"),
        ];
        for (text, problem) in cases {
            let (_, problems) = read(text).unwrap();
            assert!(
                problems.len() == 1 && problems[0].to_string().contains(problem),
                "{problem}: {problems:?}"
            );
        }
    }

    #[test]
    fn it_says_the_same_as_json() {
        let yaml = "\u{feff}b: [1, -2.5, true, ~, '3', yes]\na: {x: 0x10, y: }\n1: text\n";
        let json = serde_json::json!({
            "b": [1, -2.5, true, null, "3", "yes"], "a": {"x": 16, "y": null}, "1": "text",
        });
        let (node, problems) = read(yaml).unwrap();
        assert_eq!((plain(&node), problems), (json, vec![]));
    }

    fn plain(node: &Node) -> serde_json::Value {
        match &node.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.whole.map_or(number.float.into(), Into::into),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(plain).collect(),
            Value::Map(map) => map.iter().map(|entry| (entry.key.clone(), plain(&entry.node))).collect(),
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-a1:,\\[\\]{}&*!|>'\"#%@~?. \t\n\u{e4}]{0,60}") {
            let _ = read(&text);
        }
    }
}
