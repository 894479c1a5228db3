//! Which replicas are ejected: they answer their checks, and fail requests that their siblings do not fail.
//!
//! Only answers that say something of the replica are looked at: those that succeeded, and those that failed by the
//! fault of the backend's own code (an error of its own with status 500 and above, a panic, no answer, none within its own
//! `request_timeout`). Mistakes of callers, refusals and the deadlines that callers choose are neither.

/// Answers of one replica below which nothing is said of it.
const ANSWERS_MIN: u64 = 20;

/// Runs of the handler that must have failed: all of a batch fail at once, by one fault.
const FAILED_RUNS_MIN: u64 = 3;

/// Rounds after which answers that were too few to say something are forgotten.
const ROUNDS_MAX: u32 = 6;

/// Most rounds without an ejection after one.
const REST_MAX: u32 = 63;

/// Answers that say something of the replica that gave them, and those of them that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) given: u64,
    pub(crate) failed: u64,
    /// Runs of the handler in which some of those failed; a batch is one run.
    pub(crate) failed_runs: u64,
}

impl Answers {
    fn of<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Self {
        tallies.into_iter().fold(Self::default(), |sum, tally| Self {
            given: sum.given.saturating_add(tally.answers.given),
            failed: sum.failed.saturating_add(tally.answers.failed),
            failed_runs: sum.failed_runs.saturating_add(tally.answers.failed_runs),
        })
    }

    fn enough(self) -> bool {
        self.given >= ANSWERS_MIN
    }

    /// At least half failed.
    fn half_failed(self) -> bool {
        self.failed >= self.given.div_ceil(2)
    }

    /// At least half failed, and not all of them at once.
    fn fails(self) -> bool {
        self.enough() && self.half_failed() && self.failed_runs >= FAILED_RUNS_MIN
    }

    /// Whether there are enough of them to say something.
    fn decided(self) -> bool {
        self.enough() && (self.fails() || !self.half_failed())
    }

    /// Fewer than a tenth failed.
    fn succeeds(self) -> bool {
        self.enough() && self.failed.saturating_mul(10) < self.given
    }

    /// The share that failed, in millionths.
    fn share(self) -> u128 {
        u128::from(self.failed) * 1_000_000 / u128::from(self.given.max(1))
    }
}

/// What one running replica has answered lately.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    /// Its generation.
    pub(crate) replica: u64,
    pub(crate) answers: Answers,
}

/// The answers of one replica since there were last enough of them to say something.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    base: Answers,
    rounds: u32,
}

impl Recent {
    /// The latest, of all that there were so far. It begins anew when they were enough, or old.
    pub(crate) fn look(&mut self, total: Answers) -> Answers {
        let answers = Answers {
            given: total.given.saturating_sub(self.base.given),
            failed: total.failed.saturating_sub(self.base.failed),
            failed_runs: total.failed_runs.saturating_sub(self.base.failed_runs),
        };
        self.rounds += 1;
        if answers.decided() || self.rounds >= ROUNDS_MAX {
            *self = Self { base: total, rounds: 0 };
        }
        answers
    }
}

/// The ejections of one backend. Each makes the next wait for longer, as long as there is somebody to eject: what
/// follows the replacements is no fault of the replicas.
#[derive(Debug, Default)]
pub(crate) struct Ejector {
    in_row: u32,
    rest: u32,
}

impl Ejector {
    /// One round: the replicas to eject now, of those that run; `wanted` is how many there should be.
    pub(crate) fn round(&mut self, wanted: usize, running: &[Tally]) -> Vec<u64> {
        let mut outliers = outliers(running);
        if outliers.is_empty() {
            match self.rest.checked_sub(1) {
                Some(rest) => self.rest = rest,
                None => self.in_row = self.in_row.saturating_sub(1),
            }
            return outliers;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return Vec::new();
        }
        outliers.truncate(room(wanted, running.len()));
        if !outliers.is_empty() {
            self.in_row = (self.in_row + 1).min(6);
            self.rest = ((1 << self.in_row) - 1).min(REST_MAX);
        }
        outliers
    }
}

/// How many may be ejected now: a fifth of the replicas, rounded down, of two or more always one, may be out at once,
/// and one stays.
fn room(wanted: usize, running: usize) -> usize {
    let at_once = (wanted / 5).max(usize::from(wanted >= 2));
    at_once.saturating_sub(wanted.saturating_sub(running)).min(running.saturating_sub(1))
}

/// Those that fail while all others together succeed, the worst first.
fn outliers(running: &[Tally]) -> Vec<u64> {
    let (mut bad, others): (Vec<&Tally>, Vec<&Tally>) =
        running.iter().partition(|tally| tally.answers.fails());
    if !Answers::of(others).succeeds() {
        return Vec::new();
    }
    bad.sort_by_key(|tally| (std::cmp::Reverse(tally.answers.share()), tally.replica));
    bad.into_iter().map(|tally| tally.replica).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tallies(answers: &[(u64, u64)]) -> Vec<Tally> {
        let tally = |(i, &(given, failed)): (usize, &(u64, u64))| Tally {
            replica: i as u64,
            answers: Answers { given, failed, failed_runs: failed },
        };
        answers.iter().enumerate().map(tally).collect()
    }

    #[test]
    fn who_fails_half_of_twenty_while_the_others_fail_less_than_a_tenth_is_an_outlier() {
        for (answers, expected) in [
            (&[(20, 10), (100, 9)][..], &[0][..]),
            (&[(20, 9), (100, 0)], &[]),
            (&[(19, 19), (100, 0)], &[]),
            (&[(20, 20), (100, 10)], &[]),
            (&[(20, 20), (19, 0)], &[]),
            (&[(20, 20), (10, 0), (10, 0)], &[0]),
            (&[(40, 20), (20, 20), (20, 0), (50, 40)], &[1, 3, 0]),
            (&[(20, 20)], &[]),
            (&[(20, 20), (20, 20)], &[]),
            (&[], &[]),
        ] {
            assert_eq!(outliers(&tallies(answers)), expected, "{answers:?}");
        }
    }

    #[test]
    fn a_fifth_may_be_out_at_once_and_of_two_one() {
        for (wanted, running, may) in [
            (1, 1, 0),
            (2, 2, 1),
            (2, 1, 0),
            (3, 3, 1),
            (3, 2, 0),
            (9, 9, 1),
            (10, 10, 2),
            (10, 9, 1),
            (10, 8, 0),
            (15, 15, 3),
            (1, 2, 0),
            (2, 3, 1),
            (0, 0, 0),
        ] {
            assert_eq!(room(wanted, running), may, "{running} of {wanted}");
        }
    }

    #[test]
    fn what_comes_back_after_each_ejection_is_ejected_ever_more_seldom() {
        let mut ejector = Ejector::default();
        let bad = tallies(&[(20, 20), (20, 0)]);
        let rounds: Vec<_> = (0..40).filter(|_| !ejector.round(2, &bad).is_empty()).collect();
        assert_eq!(rounds, [0, 2, 6, 14, 30]);
        for _ in 0..100 {
            assert!(ejector.round(2, &tallies(&[(20, 0), (20, 0)])).is_empty());
        }
        assert_eq!(ejector.round(2, &bad), [0], "long ago is forgotten");
    }

    #[test]
    fn few_answers_are_gathered_over_rounds_and_then_forgotten() {
        let mut recent = Recent::default();
        let total = |given| Answers { given, failed: given, failed_runs: given };
        assert_eq!(recent.look(total(8)), total(8));
        assert_eq!(recent.look(total(16)), total(16));
        assert_eq!(recent.look(total(24)), total(24));
        assert_eq!(recent.look(total(25)), total(1), "anew after what was enough");
        for given in 26..=30 {
            assert_eq!(recent.look(total(given)), total(given - 24));
        }
        assert_eq!(recent.look(total(31)), total(1), "and after six rounds");
    }

    #[test]
    fn batches_that_fail_are_gathered_until_there_are_three_of_them() {
        let mut recent = Recent::default();
        let total = |runs| Answers { given: 32 * runs, failed: 32 * runs, failed_runs: runs };
        let looks = [1, 2, 3, 4, 4].map(|runs| recent.look(total(runs)));
        assert_eq!(looks.map(Answers::fails), [false, false, true, false, false]);
        let fine = Answers { given: 32, ..Answers::default() };
        for answers in looks {
            let tally = |replica, answers| Tally { replica, answers };
            let out = outliers(&[tally(1, answers), tally(2, fine)]);
            assert_eq!(!out.is_empty(), answers.fails(), "{answers:?}");
        }
    }

    proptest! {
        #[test]
        fn never_are_more_out_than_may_be_nor_the_last_ejected(
            answers in proptest::collection::vec((0_u64..60, 0_u64..60), 0..40),
            missing in 0_usize..10,
        ) {
            let answers: Vec<_> = answers.into_iter().map(|(given, failed)| (given, failed.min(given))).collect();
            let running = tallies(&answers);
            let wanted = running.len() + missing;
            let out = Ejector::default().round(wanted, &running);
            prop_assert!(out.len() <= running.len().saturating_sub(1));
            prop_assert!(out.is_empty() || out.len() + missing <= (wanted / 5).max(1));
            for replica in &out {
                let (given, failed) = answers[*replica as usize];
                prop_assert!(given >= 20 && 2 * failed >= given);
            }
            let all_fail = answers.iter().all(|(given, failed)| 10 * failed >= *given);
            prop_assert!(!all_fail || out.is_empty(), "a bad model");
        }

        #[test]
        fn callers_whose_requests_all_succeed_eject_nobody(
            given in proptest::collection::vec(0_u64..1000, 0..40),
        ) {
            let answers: Vec<_> = given.into_iter().map(|given| (given, 0)).collect();
            prop_assert!(Ejector::default().round(answers.len(), &tallies(&answers)).is_empty());
        }

        #[test]
        fn one_that_fails_among_others_that_do_not_is_ejected(
            others in proptest::collection::vec(20_u64..1000, 1..40),
            place in any::<prop::sample::Index>(),
        ) {
            let mut answers: Vec<_> = others.into_iter().map(|given| (given, 0)).collect();
            let place = place.index(answers.len() + 1);
            answers.insert(place, (20, 20));
            prop_assert_eq!(Ejector::default().round(answers.len(), &tallies(&answers)), vec![place as u64]);
        }
    }
}
