//! `Item`: a value of a configuration, read as the type that is wanted, or noted as a mistake.

use std::{num::NonZeroUsize, time::Duration};

use super::{
    fields::Fields,
    node::{Entry, Node, Value, join, place},
    problems::Problems,
};
use crate::error::{Problem, ServeError};

/// A node with the path that leads to it.
#[derive(Clone, Debug)]
pub(crate) struct Item<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
    pub(super) problems: &'a Problems,
}

impl<'a> Item<'a> {
    pub(crate) fn root(node: &'a Node, problems: &'a Problems) -> Self {
        Self { node, path: String::new(), problems }
    }

    /// Where it is.
    pub(crate) fn place(&self) -> String {
        place(&self.path, self.node.mark)
    }

    /// Notes a mistake here.
    pub(crate) fn problem(&self, what: impl Into<String>) {
        self.problems.push(Problem { place: self.place(), what: what.into() });
    }

    pub(crate) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// A map, to be taken apart.
    pub(crate) fn fields(self) -> Option<Fields<'a>> {
        let Value::Map(map) = &self.node.value else { return self.wrong("a map") };
        Some(Fields::new(map, self.node.mark, self.path, self.problems))
    }

    /// A map whose keys are names.
    pub(crate) fn entries(self) -> Option<Vec<(&'a str, Item<'a>)>> {
        let Value::Map(map) = &self.node.value else { return self.wrong("a map") };
        let item = |entry: &'a Entry| {
            let path = join(&self.path, &entry.key);
            (entry.key.as_str(), Item { node: &entry.node, path, problems: self.problems })
        };
        Some(map.iter().map(item).collect())
    }

    /// A list.
    pub(crate) fn items(self) -> Option<Vec<Item<'a>>> {
        let Value::List(list) = &self.node.value else { return self.wrong("a list") };
        let item =
            |(index, node)| Item { node, path: format!("{}[{index}]", self.path), problems: self.problems };
        Some(list.iter().enumerate().map(item).collect())
    }

    /// Text that is not empty.
    pub(crate) fn text(self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) if !text.is_empty() => Some(text),
            Value::Number(_) | Value::Bool(_) => {
                self.wrong("text; put it in quotes if that is what is meant")
            }
            _ => self.wrong("text that is not empty"),
        }
    }

    /// Text that `parse` takes.
    pub(crate) fn parsed<T>(self, parse: impl FnOnce(&'a str) -> Result<T, ServeError>) -> Option<T> {
        let here = self.clone();
        match parse(self.text()?) {
            Ok(value) => Some(value),
            Err(ServeError::Invalid { why, .. }) => here.refuse(why),
            Err(other) => here.refuse(other.to_string()),
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        if let Value::Text(text) = &self.node.value
            && let Some((_, value)) = words.iter().find(|(word, _)| word == text)
        {
            return Some(*value);
        }
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.wrong(&allowed.join(" or "))
    }

    pub(crate) fn bool(self) -> Option<bool> {
        match self.node.value {
            Value::Bool(value) => Some(value),
            _ => self.wrong("true or false"),
        }
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn whole<T: TryFrom<i64>>(self, min: i64, max: i64) -> Option<T> {
        let value = match &self.node.value {
            Value::Number(number) => number.whole.filter(|whole| (min..=max).contains(whole)),
            _ => None,
        };
        match value.and_then(|whole| T::try_from(whole).ok()) {
            Some(value) => Some(value),
            None => self.wrong(&format!("a whole number from {min} to {max}")),
        }
    }

    /// A whole number from 1 to `max`.
    pub(crate) fn positive(self, max: usize) -> Option<NonZeroUsize> {
        self.whole(1, i64::try_from(max).unwrap_or(i64::MAX)).and_then(NonZeroUsize::new)
    }

    /// A finite number.
    pub(crate) fn number(self) -> Option<f64> {
        match &self.node.value {
            Value::Number(number) if number.float.is_finite() => Some(number.float),
            _ => self.wrong("a finite number"),
        }
    }

    /// A time in seconds from 0 to `max`; nanoseconds count.
    pub(crate) fn seconds(self, max: Duration) -> Option<Duration> {
        let given = match &self.node.value {
            Value::Number(number) => {
                Duration::try_from_secs_f64(number.float).ok().filter(|given| *given <= max)
            }
            _ => None,
        };
        given.or_else(|| self.wrong(&format!("a number of seconds from 0 to {}", max.as_secs_f64())))
    }

    /// A time in seconds, more than 0 and at most `max`.
    pub(crate) fn timeout(self, max: Duration) -> Option<Duration> {
        let given = match &self.node.value {
            Value::Number(number) => Duration::try_from_secs_f64(number.float).ok(),
            _ => None,
        };
        let given = given.filter(|given| !given.is_zero() && *given <= max);
        given.or_else(|| {
            self.wrong(&format!("a number of seconds, more than 0 and at most {}", max.as_secs_f64()))
        })
    }

    /// Notes that it is none of what is allowed.
    fn wrong<T>(&self, allowed: &str) -> Option<T> {
        self.refuse(format!("{} was given; allowed: {allowed}", self.node.describe()))
    }

    /// Notes a mistake here and gives nothing.
    pub(crate) fn refuse<T>(&self, what: impl Into<String>) -> Option<T> {
        self.problem(what);
        None
    }
}
