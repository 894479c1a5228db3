//! What came of comparing the answers of a shadow backend with those that callers got.

use serde::Serialize;

use crate::metrics::cells::Count;

/// With what the answer of the backend that served a request is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// The answer of the shadow backend.
    Shadow,
    /// Another answer of the very backend that served it.
    Itself,
}

/// What came of one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Agreed,
    Differed,
    Failed,
    Skipped,
    Unpaired,
}

/// The comparisons of one rule; each is counted once, when it ends.
#[derive(Debug, Default)]
pub(crate) struct ComparisonCounts {
    shadow: Cells,
    itself: Cells,
}

#[derive(Debug, Default)]
struct Cells {
    agreed: Count,
    differed: Count,
    failed: Count,
    skipped: Count,
    unpaired: Count,
}

impl ComparisonCounts {
    pub(crate) fn add(&self, against: Against, outcome: Outcome) {
        let cells = match against {
            Against::Shadow => &self.shadow,
            Against::Itself => &self.itself,
        };
        let cell = match outcome {
            Outcome::Agreed => &cells.agreed,
            Outcome::Differed => &cells.differed,
            Outcome::Failed => &cells.failed,
            Outcome::Skipped => &cells.skipped,
            Outcome::Unpaired => &cells.unpaired,
        };
        cell.bump();
    }

    /// The counts at one moment: against the shadow, and against itself.
    pub(crate) fn read(&self) -> (Comparisons, Comparisons) {
        (self.shadow.read(), self.itself.read())
    }
}

impl Cells {
    fn read(&self) -> Comparisons {
        Comparisons {
            agreed: self.agreed.get(),
            differed: self.differed.get(),
            failed: self.failed.get(),
            skipped: self.skipped.get(),
            unpaired: self.unpaired.get(),
        }
    }
}

/// What came of comparisons, counted up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparisons {
    /// Both answers agreed.
    pub agreed: u64,
    /// They differed.
    pub differed: u64,
    /// They could not be compared: code of the user's panicked, or an answer has no JSON form.
    pub failed: u64,
    /// They were not compared: an answer was larger than 1 MiB or of a type that is not known to be comparable, or
    /// too much was waiting to be compared.
    pub skipped: u64,
    /// There were not two answers: the copy was dropped or lost, a replica was stopped under it, or the caller left
    /// before it had its own.
    pub unpaired: u64,
}

impl Comparisons {
    /// The share of compared pairs that agreed, 0 to 1; none while nothing has been compared.
    pub fn agreement(&self) -> Option<f64> {
        let compared = self.agreed + self.differed;
        (compared > 0).then(|| self.agreed as f64 / compared as f64)
    }

    /// Each count with the name that it has as an outcome.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 5] {
        let Self { agreed, differed, failed, skipped, unpaired } = *self;
        [
            ("agreed", agreed),
            ("differed", differed),
            ("failed", failed),
            ("skipped", skipped),
            ("unpaired", unpaired),
        ]
    }
}
