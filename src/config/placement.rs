//! `Placement`: on which threads a backend's replicas run.

use serde::Serialize;

/// On which threads the replicas of a backend run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// On the serving threads, beside other replicas: for async work and handlers that take microseconds.
    ///
    /// A handler that computes for milliseconds here holds up everything else on its thread.
    Worker,
    /// On a thread of its own for each replica: for handlers that compute. Costs a thread a replica.
    Dedicated,
}

impl Placement {
    /// Every placement with its word in a file.
    pub(crate) const WORDS: [(&'static str, Self); 2] =
        [("worker", Self::Worker), ("dedicated", Self::Dedicated)];
}
