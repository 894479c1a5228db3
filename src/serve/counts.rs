//! What a Serve says of a backend in numbers: what it was asked and how long that took, and its replicas by state.

use serde::Serialize;

use crate::{
    actors::{fleet::ReplicaEntry, reconcile::ReplicaState},
    metrics::{
        cells::{BUCKETS_US, Reading},
        registry::BackendTotals,
    },
};

/// Whether a status has a row for each replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// It has.
    Each,
    /// They are only counted, for those who look every second while there are thousands.
    Counted,
}

/// What a backend has done since it was made, and what it has to do. All but the calls that run or wait now only grow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendCounts {
    /// Requests answered, or ended at their deadline; as the metric `serve_backend_request_counter_total`.
    pub requests: u64,
    /// Those of them that ended with an error.
    pub errors: u64,
    /// Calls refused because it admits no more.
    pub refused: u64,
    /// Restarts of its replicas after a failure.
    pub restarts: u64,
    /// Replicas replaced because they failed requests that their siblings did not.
    pub ejections: u64,
    /// Calls that are handled now.
    pub running: usize,
    /// Calls that wait now, at a replica or for the next one.
    pub queued: usize,
    /// Time from taken by a replica to begun.
    pub queuing: Latencies,
    /// Time from begun to answered.
    pub processing: Latencies,
}

/// How long something took, by buckets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latencies {
    /// The upper bound of each bucket but the last, in milliseconds.
    pub le_ms: [f64; 16],
    /// How many fell into each bucket; the last one is for all that took longer.
    pub counts: [u64; 17],
    /// The sum of all, in milliseconds.
    pub sum_ms: f64,
}

/// Replicas by where they are in their lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplicaCounts {
    /// Their state is being made.
    pub starting: usize,
    /// They take calls.
    pub running: usize,
    /// They finish what they have.
    pub draining: usize,
}

impl BackendCounts {
    /// With the calls that wait for the next replica, which are at none.
    pub(super) fn new(totals: &BackendTotals, waiting: usize) -> Self {
        Self {
            requests: totals.requests(),
            errors: totals.errors(),
            refused: totals.refused,
            restarts: totals.sums.restarts,
            ejections: totals.ejections,
            running: totals.sums.running,
            queued: totals.sums.queued + waiting,
            queuing: Latencies::new(&totals.sums.queuing),
            processing: Latencies::new(&totals.sums.processing),
        }
    }
}

impl Latencies {
    fn new(reading: &Reading<16>) -> Self {
        let count = |i: usize| reading.buckets.get(i).copied().unwrap_or(reading.above);
        Self {
            le_ms: BUCKETS_US.map(|micros| micros as f64 / 1e3),
            counts: std::array::from_fn(count),
            sum_ms: reading.sum as f64 / 1e6,
        }
    }
}

impl ReplicaCounts {
    pub(super) fn of(replicas: &[ReplicaEntry]) -> Self {
        let mut counts = Self::default();
        for replica in replicas {
            *match replica.state {
                ReplicaState::Starting => &mut counts.starting,
                ReplicaState::Running => &mut counts.running,
                ReplicaState::Draining => &mut counts.draining,
            } += 1;
        }
        counts
    }
}
