//! When a batch leaves: a pure decision over what waits and what runs.

use std::time::{Duration, Instant};

/// How batches are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchPolicy {
    /// Requests in a batch at most.
    pub(crate) size_max: usize,
    /// Longest that the first request of a batch waits for company.
    pub(crate) wait: Duration,
    /// Requests that may run at once, in all batches together.
    pub(crate) running_max: usize,
}

/// What waits and what runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchState {
    /// Requests that wait.
    pub(crate) queued: usize,
    /// When the first of them came.
    pub(crate) oldest: Option<Instant>,
    /// Requests in batches that run.
    pub(crate) running: usize,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send a batch of this many.
    Leave(usize),
    /// Wait for company until then.
    Until(Instant),
    /// Wait until a batch ends or a request comes.
    Hold,
}

impl BatchPolicy {
    /// A full batch leaves as soon as it may run beside the others. A part of one leaves when its first request
    /// has waited long enough; without a wait, when nothing runs, so that company gathers while the replica
    /// is busy.
    pub(crate) fn decide(&self, state: BatchState, now: Instant) -> Decision {
        let Some(oldest) = state.oldest else { return Decision::Hold };
        let size = state.queued.min(self.size_max);
        let fits = state.running == 0 || state.running + size <= self.running_max;
        if !fits {
            return Decision::Hold;
        }
        if size == self.size_max {
            return Decision::Leave(size);
        }
        if self.wait.is_zero() {
            return if state.running == 0 { Decision::Leave(size) } else { Decision::Hold };
        }
        let leaves = oldest + self.wait;
        if now >= leaves { Decision::Leave(size) } else { Decision::Until(leaves) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: BatchPolicy = BatchPolicy { size_max: 4, wait: Duration::from_millis(2), running_max: 8 };

    fn state(queued: usize, oldest: Option<Instant>, running: usize) -> BatchState {
        BatchState { queued, oldest, running }
    }

    #[test]
    fn a_full_batch_leaves_at_once_and_no_larger_one() {
        let now = Instant::now();
        assert_eq!(POLICY.decide(state(4, Some(now), 0), now), Decision::Leave(4));
        assert_eq!(POLICY.decide(state(9, Some(now), 4), now), Decision::Leave(4));
    }

    #[test]
    fn a_part_waits_from_its_first_request_on() {
        let now = Instant::now();
        let due = now + POLICY.wait;
        assert_eq!(POLICY.decide(state(1, Some(now), 0), now), Decision::Until(due));
        assert_eq!(POLICY.decide(state(3, Some(now), 0), due), Decision::Leave(3));
    }

    #[test]
    fn batches_overlap_up_to_the_limit_of_running_requests() {
        let now = Instant::now();
        assert_eq!(POLICY.decide(state(4, Some(now), 5), now), Decision::Hold);
        assert_eq!(POLICY.decide(state(3, Some(now), 5), now + POLICY.wait), Decision::Leave(3));
    }

    #[test]
    fn without_a_wait_company_gathers_while_the_replica_is_busy() {
        let now = Instant::now();
        let policy = BatchPolicy { wait: Duration::ZERO, ..POLICY };
        assert_eq!(policy.decide(state(1, Some(now), 0), now), Decision::Leave(1));
        assert_eq!(policy.decide(state(1, Some(now), 1), now), Decision::Hold);
        assert_eq!(policy.decide(state(4, Some(now), 1), now), Decision::Leave(4));
    }

    #[test]
    fn nothing_queued_is_nothing_to_do() {
        assert_eq!(POLICY.decide(state(0, None, 3), Instant::now()), Decision::Hold);
    }

    #[test]
    fn an_oversized_batch_still_runs_when_nothing_else_does() {
        let now = Instant::now();
        let policy = BatchPolicy { running_max: 2, ..POLICY };
        assert_eq!(policy.decide(state(4, Some(now), 0), now), Decision::Leave(4));
    }

    proptest! {
        #[test]
        fn whatever_waits_leaves_or_has_a_time_or_waits_for_what_runs(
            size_max in 1_usize..64,
            wait_us in prop_oneof![Just(0_u64), 1..10_000_u64],
            spare in 0_usize..64,
            queued in 1_usize..200,
            running in 0_usize..200,
            age_us in 0_u64..20_000,
        ) {
            let policy = BatchPolicy {
                size_max,
                wait: Duration::from_micros(wait_us),
                running_max: size_max + spare,
            };
            let oldest = Instant::now();
            let now = oldest + Duration::from_micros(age_us);
            match policy.decide(state(queued, Some(oldest), running), now) {
                Decision::Leave(size) => {
                    prop_assert!(size >= 1 && size <= size_max.min(queued));
                    prop_assert!(running == 0 || running + size <= policy.running_max);
                    prop_assert!(size == size_max || age_us >= wait_us);
                }
                Decision::Until(at) => {
                    prop_assert!(at > now && at == oldest + policy.wait && queued < size_max);
                    // Nothing changed but the time: then it leaves.
                    let then = policy.decide(state(queued, Some(oldest), running), at);
                    prop_assert_eq!(then, Decision::Leave(queued));
                }
                // Never for ever: something runs, whose end is a reason to look again.
                Decision::Hold => prop_assert!(running > 0),
            }
        }
    }
}
