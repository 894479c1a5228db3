//! `Item` and `Fields`: take a tree apart by type, and note every mistake instead of stopping at the first.

use std::{cell::RefCell, num::NonZeroUsize, time::Duration};

use super::node::{Entry, Mark, Node, Value, join, place, shown};
use crate::error::{Problem, ServeError};

/// Most problems told at once; a person fixes no more before the next try.
pub(crate) const PROBLEMS_MAX: usize = 100;

/// Mistakes found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems(RefCell<Vec<Problem>>);

/// A node with the path that leads to it.
#[derive(Clone, Debug)]
pub(crate) struct Item<'a> {
    node: &'a Node,
    path: String,
    problems: &'a Problems,
}

/// A map whose keys are taken one by one; what is left at the end is unknown.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    map: &'a [Entry],
    mark: Option<Mark>,
    path: String,
    problems: &'a Problems,
    /// Keys asked for, which are the ones that are allowed.
    allowed: Vec<&'static str>,
    /// Keys that are refused in other words than an unknown one.
    refused: Vec<&'static str>,
}

impl Problems {
    /// Notes a problem.
    pub(crate) fn push(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    /// How many were noted.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// `value` when nothing was noted; else the error that tells all, or the first hundred.
    pub(crate) fn unless<T>(self, value: Option<T>) -> Result<T, ServeError> {
        let mut problems = self.0.into_inner();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => {
                if let Some(more) = problems.len().checked_sub(PROBLEMS_MAX).filter(|more| *more > 0) {
                    problems.truncate(PROBLEMS_MAX);
                    problems.push(Problem { place: place("", None), what: format!("{more} more problems") });
                }
                Err(ServeError::InvalidConfig(problems))
            }
        }
    }
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

    /// A map, to be taken apart.
    pub(crate) fn fields(self) -> Option<Fields<'a>> {
        let Value::Map(map) = &self.node.value else { return self.wrong("a map") };
        let (mark, path, problems) = (self.node.mark, self.path, self.problems);
        Some(Fields { map, mark, path, problems, allowed: Vec::new(), refused: Vec::new() })
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

impl<'a> Fields<'a> {
    /// What was found wrong so far, anywhere.
    pub(crate) fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// Notes a mistake of the map as a whole.
    pub(crate) fn problem(&self, what: impl Into<String>) {
        self.problems.push(Problem { place: place(&self.path, self.mark), what: what.into() });
    }

    /// The value under `key`, which is allowed from now on; none when it is absent.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.allowed.push(key);
        self.entry(key).map(|(_, item)| item)
    }

    /// The value under `key`, read by `read`; none when it is absent or wrong.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<T> {
        read(self.get(key)?)
    }

    /// As [`read`](Self::read), where null is allowed too: none when absent or wrong, `Some(None)` when null.
    pub(crate) fn nullable<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        let item = self.get(key)?;
        if item.is_null() { Some(None) } else { read(item).map(Some) }
    }

    /// As [`read`](Self::read), where an absent key is a mistake.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(item) => read(item),
            None => {
                self.problem(format!("{key} is missing"));
                None
            }
        }
    }

    /// Refuses `key`, if it is there, in words of its own; whether it is there.
    pub(crate) fn refuse(&mut self, key: &'static str, what: &str) -> bool {
        self.refused.push(key);
        let entry = self.entry(key);
        if let Some((mark, item)) = &entry {
            self.problems.push(Problem { place: place(&item.path, *mark), what: what.into() });
        }
        entry.is_some()
    }

    /// The place of the value under a path of keys with dots, as far as it is there.
    pub(crate) fn place_of(&self, keys: &str) -> String {
        let (mut map, mut path, mut mark) = (self.map, self.path.clone(), self.mark);
        for key in keys.split('.') {
            path = join(&path, key);
            let entry = map.iter().find(|entry| entry.key == key);
            mark = entry.map_or(mark, |entry| entry.node.mark);
            map = match entry.map(|entry| &entry.node.value) {
                Some(Value::Map(inner)) => inner,
                _ => &[],
            };
        }
        place(&path, mark)
    }

    /// Notes every key that nobody asked for.
    pub(crate) fn finish(self) {
        let known = |key: &str| self.allowed.contains(&key) || self.refused.contains(&key);
        for entry in self.map.iter().filter(|entry| !known(&entry.key)) {
            let near = |allowed: &&&str| strsim::osa_distance(allowed, &entry.key) <= 1 + allowed.len() / 5;
            let near =
                match self.allowed.iter().filter(near).min_by_key(|a| strsim::osa_distance(a, &entry.key)) {
                    Some(near) => format!("; did you mean {near}?"),
                    None => ";".into(),
                };
            let what = format!("unknown key{near} allowed: {}", self.allowed.join(", "));
            self.problems
                .push(Problem { place: place(&join(&self.path, &shown(&entry.key)), entry.key_mark), what });
        }
    }

    fn entry(&self, key: &str) -> Option<(Option<Mark>, Item<'a>)> {
        let entry = self.map.iter().find(|entry| entry.key == key)?;
        let item = Item { node: &entry.node, path: join(&self.path, key), problems: self.problems };
        Some((entry.key_mark, item))
    }
}
