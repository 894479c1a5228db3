//! Shadow comparison at work: two answers to one request are brought together off its path, compared on a thread
//! of its own, counted, and kept where they differ.

pub(crate) mod answer;
pub(crate) mod comparer;
mod judge;
pub(crate) mod pairing;
mod report;
mod tensors;

pub use report::{ComparisonReport, DifferingPair, SideOfPair};

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    comparison::comparer::Comparer,
    metrics::comparison::{Against, ComparisonCounts, Outcome},
    traffic::{Compare, compare::cut},
};

/// Largest answer that is compared, in bytes; a larger one is skipped. Answers of handles that are no tensors
/// are not measured.
pub(crate) const COMPARED_BYTES_MAX: usize = 1 << 20;

/// Most bytes of answers that wait to be compared or for their other half, in one Serve.
pub(crate) const HELD_BYTES_MAX: usize = 64 << 20;

/// Longest text of why a comparison failed, in bytes.
const FAILURE_BYTES_MAX: usize = 1024;

/// The comparisons of one shadow rule since it was set.
pub(crate) struct Comparison {
    pub(crate) compare: Compare,
    comparer: Arc<Comparer>,
    counts: ComparisonCounts,
    /// The metrics', which go on from rule to rule.
    total: Arc<ComparisonCounts>,
    /// The last pairs that differed, the newest last.
    sample: Mutex<VecDeque<DifferingPair>>,
    last_failure: Mutex<Option<String>>,
}

impl Comparison {
    pub(crate) fn new(compare: Compare, comparer: &Arc<Comparer>, total: Arc<ComparisonCounts>) -> Self {
        Self {
            compare,
            comparer: Arc::clone(comparer),
            counts: ComparisonCounts::default(),
            total,
            sample: Mutex::default(),
            last_failure: Mutex::default(),
        }
    }

    /// Counts the end of one comparison.
    pub(crate) fn count(&self, against: Against, outcome: Outcome) {
        self.counts.add(against, outcome);
        self.total.add(against, outcome);
    }

    /// Why a comparison failed.
    fn failed(&self, why: String) {
        let why = cut(why, FAILURE_BYTES_MAX);
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    fn keep(&self, pair: DifferingPair) {
        let mut sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        sample.push_back(pair);
        while sample.len() > self.compare.sample_size() {
            sample.pop_front();
        }
    }
}
