//! The loss of a device: who is told what, and how it comes back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::Core;
use crate::gpu::{device::DeviceOps, error::GpuError, shares::Shares};

/// Least time between two attempts to open a device that does not open.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// What became of the device so far.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) count: u64,
    /// How often because a job did not end.
    pub(super) watchdog: u64,
    /// How long the last opening took.
    pub(super) recovery: Option<Duration>,
    /// Why it is closed, and when that was last tried to change.
    closed: Option<(GpuError, Duration)>,
}

impl<D: DeviceOps> Core<D> {
    /// Gives a device up that makes no progress.
    pub(super) fn watch(&mut self, now: Duration) {
        let Some(first) = self.flights.front() else { return };
        if now.saturating_sub(self.progress_at) < self.options.give_up_after {
            return;
        }
        let (lease, after) = (first.lease, self.options.give_up_after);
        // It may have ended just now.
        self.collect(Duration::ZERO, now);
        if self.done.is_empty() {
            let why = format!("a slice did not end within {after:?}");
            self.lost(Some((lease, GpuError::Watchdog { after })), why.into(), now);
        }
    }

    pub(super) fn is_suspect(&self, now: Duration) -> bool {
        !self.flights.is_empty() && now.saturating_sub(self.progress_at) >= self.options.suspect_after
    }

    /// Whether it was lost and does not open.
    pub(super) fn is_shut(&self) -> bool {
        self.losses.closed.is_some()
    }

    pub(super) fn notice_loss(&mut self, now: Duration) {
        if self.is_shut() {
            // Told before; it is gone until it opens.
            return;
        }
        if let Some(why) = self.device.lost() {
            self.lost(None, why, now);
        }
    }

    /// The device is of no use any more, for a reason of our own.
    pub(crate) fn give_up(&mut self, why: Box<str>, now: Duration) {
        self.lost(None, why, now);
    }

    /// Every job fails, everything that was made is void, and the device is opened again.
    fn lost(&mut self, culprit: Option<(u64, GpuError)>, reason: Box<str>, now: Duration) {
        // They ended before.
        self.answer();
        let epoch = self.link.epoch();
        // First of all: whoever is told must find the next epoch.
        self.link.next_epoch();
        self.losses.count += 1;
        self.losses.watchdog += u64::from(culprit.is_some());
        self.link.seen.set_lost(self.losses.count);
        self.done.clear();
        self.flights.clear();
        self.second.forget();
        self.alone = None;
        self.buffers.clear();
        self.kernels.clear();
        self.shares = Shares::new(self.shares.options());
        let error = GpuError::DeviceLost { epoch, reason };
        self.compiling.refuse_all(&error);
        for (lease, mut tenant) in std::mem::take(&mut self.tenants) {
            tenant.used.fail(tenant.jobs.len() as u64);
            tenant.counts.write(&tenant.used);
            tenant.ticket.give_back_if_ended();
            match &culprit {
                Some((guilty, own)) if *guilty == lease => tenant.fail(own, &error),
                _ => tenant.fail(&error, &error),
            }
        }
        self.reopen(now);
    }

    fn reopen(&mut self, now: Duration) {
        let began = Instant::now();
        let panicked = |_| Err(GpuError::NoDevice { why: "the driver panicked while it opened".into() });
        let opened = catch_unwind(AssertUnwindSafe(|| self.device.reopen())).unwrap_or_else(panicked);
        self.losses.closed = opened.err().map(|error| (error, now));
        self.losses.recovery = Some(began.elapsed());
        self.tell(now);
    }

    /// Whether leases can be given; a device that did not open is tried again once in a while.
    pub(super) fn ensure_open(&mut self, now: Duration) -> Result<(), GpuError> {
        if let Some((_, tried)) = &self.losses.closed
            && now >= *tried + REOPEN_EVERY
        {
            self.reopen(now);
        }
        self.losses.closed.as_ref().map_or(Ok(()), |(error, _)| Err(error.clone()))
    }
}
