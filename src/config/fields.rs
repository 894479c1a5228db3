//! `Fields`: a map of a configuration, taken apart key by key; what is left over is unknown.

use super::{
    item::Item,
    node::{Entry, Mark, Value, join, place},
    problems::Problems,
};
use crate::error::Problem;

/// Longest unknown key that is compared with the known ones, in bytes; each is shorter than half of it.
const COMPARED_BYTES_MAX: usize = 80;

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

impl<'a> Fields<'a> {
    pub(super) fn new(map: &'a [Entry], mark: Option<Mark>, path: String, problems: &'a Problems) -> Self {
        Self { map, mark, path, problems, allowed: Vec::new(), refused: Vec::new() }
    }

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
            let meant = match self.near(&entry.key) {
                Some(near) => format!("did you mean {near}? "),
                None => String::new(),
            };
            let what = format!("unknown key; {meant}allowed: {}", self.allowed.join(", "));
            self.problems.push(Problem { place: place(&join(&self.path, &entry.key), entry.key_mark), what });
        }
    }

    /// The allowed key that was probably meant.
    fn near(&self, key: &str) -> Option<&'static str> {
        if key.len() > COMPARED_BYTES_MAX {
            return None;
        }
        let distances = self.allowed.iter().map(|allowed| (strsim::osa_distance(allowed, key), *allowed));
        distances.filter(|(distance, allowed)| *distance <= 1 + allowed.len() / 5).min().map(|(_, near)| near)
    }

    fn entry(&self, key: &str) -> Option<(Option<Mark>, Item<'a>)> {
        let entry = self.map.iter().find(|entry| entry.key == key)?;
        let item = Item { node: &entry.node, path: join(&self.path, key), problems: self.problems };
        Some((entry.key_mark, item))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::node::Node;

    /// What is told about `key` where `http` and `backends` are allowed.
    fn told(key: &str) -> String {
        let node = Node::from_json(json!({ key: 1 })).unwrap();
        let problems = Problems::default();
        let mut fields = Item::root(&node, &problems).fields().unwrap();
        assert!(fields.get("http").is_none() && fields.get("backends").is_none());
        fields.finish();
        problems.unless(Some(())).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_told_with_what_is_allowed_and_what_was_meant() {
        assert_eq!(told("backend"), "backend: unknown key; did you mean backends? allowed: http, backends");
        assert_eq!(told("htpt"), "htpt: unknown key; did you mean http? allowed: http, backends");
        assert_eq!(told("autoscaling"), "autoscaling: unknown key; allowed: http, backends");
        assert!(told(&"x".repeat(1_000_000)).ends_with("...: unknown key; allowed: http, backends"));
    }
}
