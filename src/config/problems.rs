//! `Problems`: collects the mistakes of one configuration, so that they are told all at once.

use std::cell::{Cell, RefCell};

use super::node::place;
use crate::error::{Problem, ServeError};

/// Most problems told at once; a person fixes no more before the next try.
const PROBLEMS_MAX: usize = 100;

/// Mistakes found so far; the first hundred are kept, the others are counted.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: RefCell<Vec<Problem>>,
    count: Cell<usize>,
}

impl Problems {
    /// Notes a problem.
    pub(crate) fn push(&self, problem: Problem) {
        if self.count.replace(self.count.get() + 1) < PROBLEMS_MAX {
            self.kept.borrow_mut().push(problem);
        }
    }

    /// How many were noted.
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// `value` when nothing was noted; else the error that tells all.
    pub(crate) fn unless<T>(self, value: Option<T>) -> Result<T, ServeError> {
        let mut problems = self.kept.into_inner();
        if problems.is_empty()
            && let Some(value) = value
        {
            return Ok(value);
        }
        debug_assert!(!problems.is_empty(), "whatever gives nothing has to say why");
        let more = self.count.get() - problems.len();
        if more > 0 {
            problems.push(Problem { place: place("", None), what: format!("{more} more problems") });
        }
        Err(ServeError::InvalidConfig(problems))
    }
}
