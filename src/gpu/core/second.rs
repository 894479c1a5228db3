//! The second that goes by: how much of it slices have had, so that a long one counts in each second that it covered.

use std::time::Duration;

/// Of the device's clock, whole seconds from its opening.
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The second that is not over.
#[derive(Debug, Default)]
pub(super) struct Second {
    number: u64,
    /// What slices of all leases have had of it. Never more than has gone by.
    used: Duration,
    /// What the slice at the head of the device ran before it, which was charged then.
    charged: Duration,
}

/// What is known when a second is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over {
    /// Whether it is the one that was counted last: after a gap nothing but `running` is known of it.
    pub(super) counted: bool,
    /// What the slice that runs had of it.
    pub(super) running: Duration,
}

impl Second {
    fn begin(&self) -> Duration {
        Duration::from_secs(self.number)
    }

    /// Begins the present second, if another one was before; `since`: when the slice that runs began to.
    pub(super) fn roll(&mut self, now: Duration, since: Option<Duration>) -> Option<Over> {
        let gone = now.as_secs().saturating_sub(self.number);
        if gone == 0 {
            return None;
        }
        let counted = gone == 1;
        let used = if counted { self.used } else { Duration::ZERO };
        *self = Self { number: now.as_secs(), ..Self::default() };
        let ran = since.map_or(Duration::ZERO, |since| self.begin().saturating_sub(since));
        self.charged = ran;
        Some(Over { counted, running: ran.min(SECOND.saturating_sub(used)) })
    }

    /// The slice at the head has ended and took so long: what of it is this second's.
    pub(super) fn ended(&mut self, took: Duration, now: Duration) -> Duration {
        let room = now.saturating_sub(self.begin()).saturating_sub(self.used);
        let own = took.saturating_sub(std::mem::take(&mut self.charged)).min(room);
        self.used += own;
        own
    }

    /// The slice at the head comes to nothing.
    pub(super) fn forget(&mut self) {
        self.charged = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn over(counted: bool, running: u64) -> Option<Over> {
        Some(Over { counted, running: ms(running) })
    }

    #[test]
    fn a_slice_longer_than_a_second_counts_in_each_second_that_it_covered() {
        let mut second = Second::default();
        let since = Some(ms(400));
        assert_eq!(second.roll(ms(900), since), None);
        assert_eq!(second.roll(ms(1_000), since), over(true, 600));
        assert_eq!(second.roll(ms(2_003), since), over(true, 1_000));
        assert_eq!(second.roll(ms(3_001), since), over(true, 1_000));
        assert_eq!(second.ended(ms(2_850), ms(3_250)), ms(250));
        // The next has only what is left of it.
        assert_eq!(second.ended(ms(900), ms(3_900)), ms(650));
        assert_eq!(second.roll(ms(4_000), Some(ms(3_900))), over(true, 100));
    }

    #[test]
    fn nobody_is_charged_for_more_than_a_second_has() {
        let mut second = Second::default();
        assert_eq!(second.ended(ms(4_000), ms(700)), ms(700));
        assert_eq!(second.ended(ms(4_000), ms(800)), ms(100));
        assert_eq!(second.roll(ms(1_000), Some(ms(500))), over(true, 200));
        // It ran for less than was seen.
        assert_eq!(second.ended(ms(100), ms(1_200)), Duration::ZERO);
    }

    #[test]
    fn after_a_gap_only_what_runs_is_told() {
        let mut second = Second::default();
        assert_eq!(second.ended(ms(500), ms(700)), ms(500));
        assert_eq!(second.roll(ms(5_500), Some(ms(700))), over(false, 1_000));
        second.forget();
        assert_eq!(second.ended(ms(300), ms(5_900)), ms(300));
        assert_eq!(second.roll(ms(8_000), None), over(false, 0));
    }
}
