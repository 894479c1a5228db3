//! `Window`: how much a counter grew in about the last minute, from samples taken now and then.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// What a window covers at most.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// How often a counter should be sampled.
pub(crate) const SAMPLE_PERIOD: Duration = Duration::from_secs(5);

/// How much a counter grew lately.
#[derive(Debug, Default)]
pub(crate) struct Window(VecDeque<(Instant, u64)>);

impl Window {
    /// The counter stands at `total` now.
    pub(crate) fn sample(&mut self, now: Instant, total: u64) {
        self.0.push_back((now, total));
        // One that is as old as the window stays, to measure from.
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// How much it grew until it stands at `total` now, and over how long: the last minute, or since the first
    /// sample.
    pub(crate) fn growth(&self, now: Instant, total: u64) -> (u64, Duration) {
        let old_enough = |(at, _): &&(Instant, u64)| now.duration_since(*at) >= WINDOW;
        let from = self.0.iter().rev().find(old_enough).or_else(|| self.0.front());
        from.map_or((0, Duration::ZERO), |(at, then)| (total.saturating_sub(*then), now.duration_since(*at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_minute_counts() {
        let start = Instant::now();
        let mut window = Window::default();
        let mut total = 0;
        let at = |i: u32| start + SAMPLE_PERIOD * i;
        for i in 0..100 {
            window.sample(at(i), total);
            total += if i < 50 { 1000 } else { 10 };
        }
        let (growth, over) = window.growth(at(100), total);
        assert_eq!((growth, over), (120, WINDOW), "twelve periods of ten");
        assert!(window.0.len() <= 14, "{} samples are kept", window.0.len());
    }

    #[test]
    fn a_young_counter_is_measured_since_its_first_sample() {
        let start = Instant::now();
        let mut window = Window::default();
        assert_eq!(window.growth(start, 7), (0, Duration::ZERO));
        window.sample(start, 0);
        let later = start + Duration::from_secs(2);
        assert_eq!(window.growth(later, 7), (7, Duration::from_secs(2)));
    }
}
