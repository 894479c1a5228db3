//! What became of the copies that one shadow rule made.

use serde::Serialize;

use crate::metrics::spread::Spread;

/// What became of the copies of one endpoint's requests at one backend; each is counted once, when it ends.
#[derive(Debug, Default)]
pub(crate) struct ShadowCounts {
    /// Answered.
    pub(crate) answered: Spread,
    /// Answered with an error, or not at all.
    pub(crate) failed: Spread,
    /// Never begun: the backend was full, or had no replica.
    pub(crate) dropped: Spread,
    /// Never made: the backend does not take the message, or it cannot be copied.
    pub(crate) uncovered: Spread,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShadowCopies {
    /// Copies that were answered.
    pub answered: u64,
    /// Copies that were answered with an error, or lost without an answer.
    pub failed: u64,
    /// Copies that never began, because the backend was full or had no replica.
    pub dropped: u64,
    /// Requests of a type that the backend does not take, or that cannot be copied.
    pub uncovered: u64,
}

impl ShadowCounts {
    pub(crate) fn read(&self) -> ShadowCopies {
        ShadowCopies {
            answered: self.answered.total(),
            failed: self.failed.total(),
            dropped: self.dropped.total(),
            uncovered: self.uncovered.total(),
        }
    }
}

impl ShadowCopies {
    /// Each count with the name that it has as an outcome.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 4] {
        let Self { answered, failed, dropped, uncovered } = *self;
        [("answered", answered), ("failed", failed), ("dropped", dropped), ("uncovered", uncovered)]
    }
}
