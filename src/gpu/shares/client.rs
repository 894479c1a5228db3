//! One lease as the share policy sees it: virtual time, tokens, what is outstanding, when it is expected back.

use std::{collections::VecDeque, time::Duration};

use super::{SharePolicy, signed};
use crate::resources::{Fraction, WHOLE};

#[derive(Debug)]
pub(super) struct Client {
    pub(super) share: u32,
    bucket: Option<Bucket>,
    /// Device time used, divided by the share: whoever has least is next. Debts stay when it goes idle, credits
    /// do not.
    pub(super) virtual_ns: i128,
    /// Jobs with slices to start, by their arrival. As long as the lease's queue, which is bounded.
    pub(super) ready: VecDeque<u64>,
    outstanding: usize,
    /// Jobs outstanding when the last one came: 1 for a caller that waits for each answer.
    pub(super) backlog: usize,
    /// When it got its last answer, if no job has come since.
    answered: Option<Duration>,
    /// How long it usually takes from an answer to its next job.
    pause: Duration,
    pub(super) last_slice: Duration,
    pub(super) last_start: u64,
    /// Slices on the device.
    pub(super) in_flight: usize,
}

/// Tokens of a hard cap, in ten-thousandths of nanoseconds of device time, so that no refill is rounded. Below 0
/// after a slice that cost more than there was.
#[derive(Debug)]
struct Bucket {
    burst: Duration,
    tokens: i128,
    at: Duration,
}

impl Client {
    pub(super) fn new(share: Fraction, policy: SharePolicy, virtual_ns: i128, now: Duration) -> Self {
        let share = share.ten_thousandths().min(WHOLE);
        let bucket = match policy {
            SharePolicy::WorkConserving => None,
            SharePolicy::HardCap { burst } => {
                // Less than this and a clock's step would decide.
                let burst = burst.max(Duration::from_millis(1));
                Some(Bucket { burst, tokens: tokens(burst, share), at: now })
            }
        };
        Self {
            share,
            bucket,
            virtual_ns,
            ready: VecDeque::new(),
            outstanding: 0,
            backlog: 0,
            answered: None,
            pause: Duration::ZERO,
            last_slice: Duration::ZERO,
            last_start: 0,
            in_flight: 0,
        }
    }

    pub(super) fn arrived(&mut self, arrival: u64, floor: i128, anticipation: Duration, now: Duration) {
        let was_expected = self.expected_until(anticipation).is_some_and(|until| now < until);
        if self.outstanding == 0 && !was_expected {
            self.virtual_ns = self.virtual_ns.max(floor);
        }
        if let Some(answered) = self.answered.take() {
            // A long pause counts for a few short ones, not for all time.
            let pause = now.saturating_sub(answered).min(anticipation.saturating_mul(4));
            self.pause = (self.pause * 3 + pause) / 4;
        }
        self.outstanding += 1;
        self.backlog = self.outstanding;
        self.ready.push_back(arrival);
    }

    pub(super) fn answered(&mut self, now: Duration) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.answered = Some(now);
    }

    /// It used this much of the device, or less than was charged before.
    pub(super) fn charge(&mut self, device_ns: i128) {
        self.delay(device_ns);
        if let Some(bucket) = &mut self.bucket {
            bucket.tokens -= device_ns * i128::from(WHOLE);
        }
    }

    /// Its turn comes later, as if it had used this much of the device.
    pub(super) fn delay(&mut self, device_ns: i128) {
        self.virtual_ns += device_ns * i128::from(WHOLE) / i128::from(self.share);
    }

    /// Until when its next job is worth waiting for: it has just been answered, and usually comes back at once.
    pub(super) fn expected_until(&self, anticipation: Duration) -> Option<Duration> {
        let usually = self.pause <= anticipation && !anticipation.is_zero();
        self.answered.filter(|_| usually).map(|answered| answered.saturating_add(anticipation))
    }

    pub(super) fn is_active(&self, anticipation: Duration, now: Duration) -> bool {
        self.outstanding > 0 || self.expected_until(anticipation).is_some_and(|until| now < until)
    }

    /// Whether it has had nothing to do for so long.
    pub(super) fn is_gone(&self, after: Duration, now: Duration) -> bool {
        self.outstanding == 0
            && self.in_flight == 0
            && self.answered.is_none_or(|answered| now >= answered.saturating_add(after))
    }

    /// It starts nothing any more.
    pub(super) fn leave(&mut self, now: Duration) {
        self.ready.clear();
        if std::mem::take(&mut self.outstanding) > 0 {
            self.wanted_until(now);
        }
    }

    /// It has nothing to do from now on, if it had until now.
    pub(super) fn wanted_until(&mut self, now: Duration) {
        self.answered = self.answered.max(Some(now));
    }

    pub(super) fn last_wanted(&self) -> Option<Duration> {
        self.answered
    }

    /// Whether it has used more than was its due so far, or may have.
    pub(super) fn owes(&mut self, virtual_now: i128, now: Duration) -> bool {
        self.tokens_at(now);
        let is_full = |bucket: &Bucket| bucket.tokens >= tokens(bucket.burst, self.share);
        self.in_flight > 0 || self.virtual_ns > virtual_now || !self.bucket.as_ref().is_none_or(is_full)
    }

    /// Takes over what one owes who left, for a part of its share; at most what was used `most` in advance.
    pub(super) fn take_over(&mut self, from: &mut Self, part: u32, virtual_now: i128, most: Duration) {
        let owed = (from.virtual_ns - virtual_now).clamp(0, signed(most));
        self.virtual_ns += owed * i128::from(part) / i128::from(self.share);
        if let Some(left) = &mut from.bucket {
            let rest = left.tokens * i128::from(from.share - part) / i128::from(from.share);
            if let Some(own) = &mut self.bucket {
                let full = tokens(own.burst, part);
                own.tokens -= full - (left.tokens - rest).clamp(-tokens(most, part), full);
            }
            left.tokens = rest;
        }
        from.share -= part;
    }

    /// When a cap lets its next slice start; `None` for now.
    pub(super) fn tokens_at(&mut self, now: Duration) -> Option<Duration> {
        let bucket = self.bucket.as_mut()?;
        let gained = tokens(now.saturating_sub(bucket.at), self.share);
        bucket.tokens = (bucket.tokens + gained).min(tokens(bucket.burst, self.share));
        bucket.at = now;
        if bucket.tokens > 0 {
            return None;
        }
        let wait = -bucket.tokens / i128::from(self.share) + 1;
        Some(now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
    }
}

/// What a share gains in this time.
fn tokens(time: Duration, share: u32) -> i128 {
    signed(time) * i128::from(share)
}
