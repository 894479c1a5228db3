//! The clock of the latency metrics: the processor's own counter, several times cheaper to read than the system's.

use std::{sync::LazyLock, time::Duration};

use quanta::Clock;

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);

/// An instant on that clock; only differences mean something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick(u64);

/// Measures the counter's pace now, which takes a moment, rather than at the first request.
pub(crate) fn calibrate() {
    LazyLock::force(&CLOCK);
}

impl Tick {
    /// The present instant.
    #[inline]
    pub(crate) fn now() -> Self {
        Self(CLOCK.raw())
    }

    /// Time from `earlier` to this; zero when a core's counter lags behind another's.
    #[inline]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(CLOCK.delta_as_nanos(earlier.0, self.0.max(earlier.0)))
    }

    /// Time from this until now.
    #[inline]
    pub(crate) fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_as_fast_as_the_system_s_clock() {
        let (tick, instant) = (Tick::now(), std::time::Instant::now());
        while instant.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let ratio = tick.elapsed().as_secs_f64() / instant.elapsed().as_secs_f64();
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }
}
