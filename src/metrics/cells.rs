//! Counters and histograms of one replica: fixed size, written by its own thread only, read by any.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    call::Gate,
    error::{Fault, ServeError},
};

/// Upper bounds of the latency buckets, in microseconds (the metric is in milliseconds).
pub(crate) const BUCKETS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000,
];

/// Upper bounds of the batch size buckets.
pub(crate) const BATCH_BUCKETS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// A count with one writer: a plain load and store, several times cheaper than a locked add.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }
    /// Adds one from any thread; for what is rare.
    pub(crate) fn bump(&self) {
        self.0.fetch_add(1, Relaxed);
    }
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram over `N` buckets and one above them, with one writer.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    buckets: [Count; N],
    above: Count,
    sum: Count,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Count::default()),
            above: Count::default(),
            sum: Count::default(),
        }
    }
}

impl<const N: usize> Histogram<N> {
    #[inline]
    fn observe(&self, bounds: &[u64; N], value: u64, amount: u64) {
        let place = bounds.iter().position(|bound| value <= *bound);
        place.map_or(&self.above, |i| &self.buckets[i]).add(1);
        self.sum.add(amount);
    }

    /// Adds its numbers to `total`.
    pub(crate) fn read_into(&self, total: &mut Reading<N>) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        total.above += self.above.get();
        total.sum += self.sum.get();
    }
}

impl Histogram<16> {
    /// Counts one latency.
    #[inline]
    pub(crate) fn latency(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.observe(&BUCKETS_US, nanos.div_ceil(1000), nanos);
    }
}

impl Histogram<10> {
    /// Counts one batch.
    pub(crate) fn batch(&self, size: usize) {
        self.observe(&BATCH_BUCKETS, size as u64, size as u64);
    }
}

/// Sums read from histograms; buckets are not cumulative.
#[derive(Clone, Debug)]
pub(crate) struct Reading<const N: usize> {
    pub(crate) buckets: [u64; N],
    pub(crate) above: u64,
    pub(crate) sum: u64,
}

impl<const N: usize> Default for Reading<N> {
    fn default() -> Self {
        Self { buckets: [0; N], above: 0, sum: 0 }
    }
}

impl<const N: usize> Reading<N> {
    /// Values counted.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum::<u64>() + self.above
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += bucket;
        }
        self.above += other.above;
        self.sum += other.sum;
    }
}

/// What one replica counts.
#[derive(Debug, Default)]
pub(crate) struct ReplicaCells {
    /// From taken to begun.
    pub(crate) queuing: Histogram<16>,
    /// From begun to answered; its count is the number of requests that were.
    pub(crate) processing: Histogram<16>,
    /// Requests answered with an error.
    pub(crate) errors: Count,
    /// Those of them for which the backend's own code is to blame.
    pub(crate) faults: Count,
    /// Requests that began, and were not answered in the time that the backend itself gives them.
    pub(crate) timeouts: Count,
    /// Runs of the handler in which at least one request was one of those or failed by its code's fault: a batch is
    /// one run.
    pub(crate) failed_runs: Count,
    /// Requests that waited until their deadline and never began.
    pub(crate) expired: Count,
    /// Requests in each batch.
    pub(crate) batches: Histogram<10>,
    /// Rebuilds after a failure.
    pub(crate) restarts: Count,
    /// Every build of the state that succeeded.
    pub(crate) starts: Count,
    /// Calls running now.
    pub(crate) running: AtomicUsize,
    /// Counts those that wait as well.
    pub(crate) gate: OnceLock<Arc<Gate>>,
}

impl ReplicaCells {
    /// `n` more calls run.
    #[inline]
    pub(crate) fn begun(&self, n: usize) {
        self.running.store(self.running.load(Relaxed) + n, Relaxed);
    }

    /// `n` calls have ended.
    #[inline]
    pub(crate) fn ended(&self, n: usize) {
        self.running.store(self.running.load(Relaxed).saturating_sub(n), Relaxed);
    }

    /// Counts the answer to a request for which the handler ran.
    #[inline]
    pub(crate) fn answered(&self, took: Duration, error: Option<&ServeError>) {
        if self.answered_one(took, error) {
            self.failed_runs.add(1);
        }
    }

    /// Counts one answer, which may be one of a batch; true when the backend's own code is to blame for it.
    #[inline]
    pub(crate) fn answered_one(&self, took: Duration, error: Option<&ServeError>) -> bool {
        self.processing.latency(took);
        let Some(error) = error else { return false };
        self.errors.add(1);
        let failed = error.fault() == Fault::Backend;
        if failed {
            self.faults.add(1);
        }
        failed
    }

    /// Counts a request that was not answered in the time that the backend itself gives it.
    pub(crate) fn time_out(&self) {
        self.timeouts.add(1);
        self.failed_runs.add(1);
    }

    /// Answers for which nobody but the backend's own code is responsible, those of them that failed, and in how many
    /// runs of the handler. A request that it did not answer in the backend's own time is one that failed.
    pub(crate) fn own_answers(&self) -> (u64, u64, u64) {
        // In this order, so that what is answered meanwhile is not taken for failed.
        let (runs, timeouts) = (self.failed_runs.get(), self.timeouts.get());
        let (faults, errors) = (self.faults.get(), self.errors.get());
        let mut answered = Reading::default();
        self.processing.read_into(&mut answered);
        let given = answered.count().saturating_sub(errors.saturating_sub(faults));
        (given.saturating_add(timeouts), faults.saturating_add(timeouts), runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_of_the_backends_own_code_speak_for_or_against_it() {
        let cells = ReplicaCells::default();
        let answers = [
            None,
            None,
            Some(ServeError::backend(500, "down", "down")),
            Some(ServeError::Panicked { message: "oh".into() }),
            Some(ServeError::backend(422, "not_a_digit", "a caller's mistake")),
            Some(ServeError::DeadlineExceeded),
        ];
        answers.iter().for_each(|error| cells.answered(Duration::ZERO, error.as_ref()));
        assert_eq!((cells.errors.get(), cells.own_answers()), (4, (4, 2, 2)));
        cells.time_out();
        assert_eq!((cells.errors.get(), cells.own_answers()), (4, (5, 3, 3)));
        assert!((0..9).all(|_| cells.answered_one(Duration::ZERO, Some(&ServeError::NoAnswer))));
        assert_eq!(cells.own_answers(), (14, 12, 3), "who answers a batch counts its run");
    }

    #[test]
    fn a_latency_lands_in_the_first_bucket_that_holds_it() {
        let h = Histogram::<16>::default();
        for micros in [50, 51, 5_000_001] {
            h.latency(Duration::from_micros(micros));
        }
        let mut r = Reading::default();
        h.read_into(&mut r);
        assert_eq!((r.buckets[0], r.buckets[1], r.above, r.count()), (1, 1, 1, 3));
        assert_eq!(r.sum, 5_000_102_000, "the sum is exact, in nanoseconds");
    }
}
