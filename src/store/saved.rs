//! `Saved`: all that a Serve was told, as it is kept.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    config::{BackendDecl, EndpointDecl, ServeConfig},
    ids::{BackendName, EndpointName},
};

/// Most configurations that the history holds; the oldest go first.
pub const HISTORY_MAX: usize = 20;

/// All that a Serve was told, as it is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Saved {
    /// What was deployed last as a whole: a file, or the body of a `PUT config`.
    pub(crate) declared: Option<ServeConfig>,
    /// What the file of `greenroom run FILE` said when it was last deployed; `declared` may be something else since.
    pub(crate) file: Option<ServeConfig>,
    /// What is wanted now, changes by hand included.
    pub(crate) desired: ServeConfig,
    /// What a program gave, one by one, when it made a backend or an endpoint.
    pub(crate) given: Given,
    /// What was applied as a whole, oldest first.
    pub(crate) history: Vec<Applied>,
}

/// What a program gave when it made something. When it gives the same again after a restart, changes by hand of it
/// hold; when it gives something else, that holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Given {
    pub(crate) backends: BTreeMap<BackendName, BackendDecl>,
    pub(crate) endpoints: BTreeMap<EndpointName, EndpointDecl>,
}

/// A configuration that was applied as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Applied {
    /// Its number; each is higher than the one before.
    pub id: u64,
    /// When it was applied, in seconds since 1970.
    pub at: f64,
    /// What it came by: `deploy`, `rollback to 3`, `file`.
    pub by: String,
    /// The configuration.
    pub config: ServeConfig,
}

impl Saved {
    /// This is what is wanted of a backend from now on.
    pub(crate) fn put_backend(&mut self, decl: BackendDecl) {
        let backends = &mut self.desired.backends;
        match backends.iter_mut().find(|known| known.name == decl.name) {
            Some(known) => *known = decl,
            None => backends.push(decl),
        }
    }

    /// A backend is wanted no longer.
    pub(crate) fn remove_backend(&mut self, name: &BackendName) {
        self.desired.backends.retain(|known| known.name != *name);
        self.given.backends.remove(name);
    }

    /// This is what is wanted of an endpoint from now on.
    pub(crate) fn put_endpoint(&mut self, decl: EndpointDecl) {
        let endpoints = &mut self.desired.endpoints;
        match endpoints.iter_mut().find(|known| known.name == decl.name) {
            Some(known) => *known = decl,
            None => endpoints.push(decl),
        }
    }

    /// An endpoint is wanted no longer.
    pub(crate) fn remove_endpoint(&mut self, name: &EndpointName) {
        self.desired.endpoints.retain(|known| known.name != *name);
        self.given.endpoints.remove(name);
    }

    /// Adds to the history; the oldest beyond [`HISTORY_MAX`] goes. The number of the new entry.
    pub(crate) fn applied(&mut self, at: f64, by: String, config: ServeConfig) -> u64 {
        let id = self.history.last().map_or(1, |last| last.id + 1);
        self.history.push(Applied { id, at, by, config });
        let beyond = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..beyond);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_keeps_the_last_twenty_and_numbers_go_on() {
        let mut saved = Saved::default();
        for n in 1..=25 {
            assert_eq!(saved.applied(0.5, "deploy".into(), ServeConfig::default()), n);
        }
        let ids: Vec<_> = saved.history.iter().map(|applied| applied.id).collect();
        assert_eq!(ids, (6..=25).collect::<Vec<_>>());
    }
}
