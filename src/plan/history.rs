//! `History`: the configurations that were applied as a whole, and the one that was declared last.

use serde::Serialize;

use crate::config::ServeConfig;

/// How many applied configurations are kept.
pub const HISTORY_MAX: usize = 20;

/// A configuration that was applied as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Applied {
    /// Which one it was; the first has 1, a later one a larger number.
    pub id: u64,
    /// When, in seconds since 1970.
    pub at: f64,
    /// What applied it: `deploy`, `rollback to 3`, the name of a file.
    pub by: String,
    /// The whole of it.
    pub config: ServeConfig,
}

/// The last configurations that were applied, oldest first, and what was declared last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    /// What was last deployed as a whole; changes by hand leave it.
    pub(crate) declared: Option<ServeConfig>,
    pub(crate) applied: Vec<Applied>,
}

impl History {
    /// `config` is what is declared now; its id. The same as the last time is not a new entry.
    pub(crate) fn apply(&mut self, config: ServeConfig, by: &str, at: f64) -> u64 {
        self.declared = Some(config.clone());
        if let Some(last) = self.applied.last().filter(|last| last.config == config) {
            return last.id;
        }
        let id = self.applied.last().map_or(1, |last| last.id + 1);
        self.applied.push(Applied { id, at, by: by.into(), config });
        let over = self.applied.len().saturating_sub(HISTORY_MAX);
        self.applied.drain(..over);
        id
    }

    /// The entry of this id; none given: the one before the last.
    pub(crate) fn find(&self, id: Option<u64>) -> Option<&Applied> {
        match id {
            Some(id) => self.applied.iter().find(|applied| applied.id == id),
            None => self.applied.iter().rev().nth(1),
        }
    }
}
