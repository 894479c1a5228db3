//! What is known of the health of one replica: the check that is under way, and how many failed in a row.

use std::time::Duration;

use tokio::time::Instant;

/// Failed checks in a row that make a replica unhealthy.
pub(crate) const FAILURES_MAX: u32 = 3;

/// The checks of one replica.
#[derive(Debug, Default)]
pub(crate) struct Record {
    failures: u32,
    /// Its number, and since when it is waited for.
    asked: Option<(u64, Instant)>,
    /// Checks asked for so far.
    checks: u64,
}

/// What a check that has ended says of its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Healthy,
    /// So many checks in a row have failed; not yet enough.
    Failing(u32),
    Unhealthy,
}

impl Record {
    /// Asks for a check; none while one is under way.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<u64> {
        if self.asked.is_some() {
            return None;
        }
        self.checks += 1;
        self.asked = Some((self.checks, now));
        Some(self.checks)
    }

    /// The check of this number has ended. None: it has failed already, as it was not waited for so long.
    pub(crate) fn answered(&mut self, check: u64, well: bool) -> Option<Standing> {
        let known = self.asked.is_some_and(|(asked, _)| asked == check);
        if known {
            self.asked = None;
        }
        if well {
            // Late or not: it is well now.
            self.failures = 0;
            return Some(Standing::Healthy);
        }
        known.then(|| self.failed())
    }

    /// Gives up the check under way when it has taken longer than `limit`, which is a failure.
    pub(crate) fn overdue(&mut self, now: Instant, limit: Duration) -> Option<Standing> {
        self.ends_at(limit).filter(|at| *at <= now)?;
        self.asked = None;
        Some(self.failed())
    }

    /// When the check under way, if any, is given up.
    pub(crate) fn ends_at(&self, limit: Duration) -> Option<Instant> {
        self.asked.map(|(_, since)| since + limit)
    }

    /// The check under way is waited for from now on only: until now the replica could not make it.
    pub(crate) fn excuse(&mut self, now: Instant) {
        if let Some((_, since)) = &mut self.asked {
            *since = now;
        }
    }

    /// Checks in a row that have failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    fn failed(&mut self) -> Standing {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_MAX { Standing::Failing(self.failures) } else { Standing::Unhealthy }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn the_third_failure_in_a_row_is_one_too_many_and_a_good_answer_begins_anew() {
        use Standing::{Failing, Healthy, Unhealthy};
        let (mut record, now) = (Record::default(), Instant::now());
        let mut check = |well| {
            let number = record.ask(now).unwrap();
            record.answered(number, well)
        };
        let seen = [false, false, true, false, false, false].map(|well| check(well).unwrap());
        assert_eq!(seen, [Failing(1), Failing(2), Healthy, Failing(1), Failing(2), Unhealthy]);
    }

    #[test]
    fn one_check_is_under_way_at_most_and_fails_when_its_time_is_over() {
        let (mut record, begun) = (Record::default(), Instant::now());
        assert_eq!((record.ask(begun), record.ask(begun)), (Some(1), None));
        assert_eq!(record.ends_at(LIMIT), Some(begun + LIMIT));
        assert_eq!(record.overdue(begun + LIMIT - Duration::from_nanos(1), LIMIT), None);
        assert_eq!(record.overdue(begun + LIMIT, LIMIT), Some(Standing::Failing(1)));
        assert_eq!(record.overdue(begun + LIMIT, LIMIT), None, "once");
        assert_eq!(record.ask(begun + LIMIT), Some(2));
        assert_eq!(record.answered(1, false), None, "it has failed already");
        assert_eq!(record.answered(1, true), Some(Standing::Healthy), "late, but well");
        assert_eq!(record.ends_at(LIMIT), Some(begun + LIMIT + LIMIT), "the second is waited for still");
    }

    #[test]
    fn time_that_is_excused_does_not_count() {
        let (mut record, begun) = (Record::default(), Instant::now());
        assert_eq!(record.ask(begun), Some(1));
        record.excuse(begun + LIMIT);
        assert_eq!(record.overdue(begun + LIMIT, LIMIT), None);
        assert_eq!(record.overdue(begun + LIMIT + LIMIT, LIMIT), Some(Standing::Failing(1)));
    }

    proptest! {
        #[test]
        fn a_replica_is_unhealthy_exactly_after_three_failures_in_a_row(
            outcomes in proptest::collection::vec(any::<bool>(), 0..40),
        ) {
            let (mut record, now) = (Record::default(), Instant::now());
            let mut in_row = 0;
            for well in outcomes {
                in_row = if well { 0 } else { in_row + 1 };
                let number = record.ask(now).unwrap();
                let unhealthy = record.answered(number, well) == Some(Standing::Unhealthy);
                prop_assert_eq!(unhealthy, in_row >= 3);
                prop_assert_eq!(record.failures(), in_row);
            }
        }
    }
}
