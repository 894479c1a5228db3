//! `Check`: collects the values of one set of options that are out of their limits.

use std::time::Duration;

use serde::Serializer;

use crate::error::{Problem, ServeError};

/// The most that each option may be.
pub mod limits {
    use std::time::Duration;

    /// Most replicas of one backend.
    pub const NUM_REPLICAS_MAX: u32 = 10_000;
    /// Most requests in one batch.
    pub const BATCH_SIZE_MAX: usize = 65_536;
    /// Longest time a request may wait for company.
    pub const BATCH_WAIT_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
    /// Most calls that one replica runs at once.
    pub const CONCURRENT_QUERIES_MAX: usize = 1_000_000;
    /// Most calls that wait for one backend.
    pub const QUEUED_QUERIES_MAX: usize = 10_000_000;
    /// Longest of every timeout but the batch wait.
    pub const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);
    /// Most threads of one replica.
    pub const NUM_THREADS_MAX: usize = 1024;
    /// Most restarts within a window.
    pub const MAX_RESTARTS_MAX: u32 = 10_000;
    /// Longest wait before a restart.
    pub const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(3600);
}

/// Mistakes found so far; the place of each is the option's key.
#[derive(Debug, Default)]
pub(crate) struct Check {
    problems: Vec<Problem>,
}

impl Check {
    /// Notes a mistake.
    pub(crate) fn problem(&mut self, key: &str, what: impl Into<String>) {
        self.problems.push(Problem { place: key.into(), what: what.into() });
    }

    /// A count may be anything up to `max`.
    pub(crate) fn at_most(&mut self, key: &str, given: usize, max: usize) {
        if given > max {
            self.problem(key, format!("{given} was given; at most {max} is allowed"));
        }
    }

    /// A wait may be nothing, or anything up to `max`.
    pub(crate) fn wait(&mut self, key: &str, given: Duration, max: Duration) {
        if given > max {
            let (given, max) = (given.as_secs_f64(), max.as_secs_f64());
            self.problem(key, format!("{given} s was given; allowed: 0 to {max} s"));
        }
    }

    /// A timeout has to be more than nothing, and at most `max`.
    pub(crate) fn timeout(&mut self, key: &str, given: Duration, max: Duration) {
        if given.is_zero() || given > max {
            let (given, max) = (given.as_secs_f64(), max.as_secs_f64());
            self.problem(key, format!("{given} s was given; allowed: more than 0 and at most {max} s"));
        }
    }

    /// Every mistake.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

/// `value`, or an error with all problems when there are any.
pub(crate) fn unless<T>(problems: Vec<Problem>, value: T) -> Result<T, ServeError> {
    if problems.is_empty() { Ok(value) } else { Err(ServeError::InvalidConfig(problems)) }
}

/// Writes a duration as a number of seconds.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Writes a duration as a number of seconds, or null.
pub(crate) fn seconds_or_null<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => seconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}
