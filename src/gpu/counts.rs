//! What leases and devices did, as their device's thread last wrote it: read by anybody, without asking that thread.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{core::Used, error::GpuError, memory::MemoryAccount, status::LeaseStatus};
use crate::resources::Fraction;

/// What one lease has had. Written by its device's thread alone.
#[derive(Debug, Default)]
pub(crate) struct LeaseCounts {
    device_ns: AtomicU64,
    last_second_ns: AtomicU64,
    queue_wait_ns: AtomicU64,
    jobs: AtomicU64,
    slices: AtomicU64,
    revoked: OnceLock<GpuError>,
}

/// What one device did. Written by its own thread alone.
#[derive(Debug, Default)]
pub(crate) struct DeviceCounts {
    busy_ns: AtomicU64,
    lost: AtomicU64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl LeaseCounts {
    pub(crate) fn write(&self, used: &Used) {
        self.device_ns.store(nanos(used.device_time), Relaxed);
        self.last_second_ns.store(nanos(used.last_second), Relaxed);
        self.queue_wait_ns.store(nanos(used.queue_wait), Relaxed);
        self.jobs.store(used.jobs, Relaxed);
        self.slices.store(used.slices, Relaxed);
    }

    /// The lease is ended, for this reason.
    pub(crate) fn revoke(&self, why: GpuError) {
        self.revoked.get_or_init(|| why);
    }

    pub(crate) fn revoked(&self) -> Option<&GpuError> {
        self.revoked.get()
    }

    pub(crate) fn read(&self, id: u64, share: Fraction, account: &MemoryAccount) -> LeaseStatus {
        let time = |ns: &AtomicU64| Duration::from_nanos(ns.load(Relaxed));
        LeaseStatus {
            id,
            share,
            quota_bytes: account.quota(),
            used_bytes: account.used(),
            peak_bytes: account.peak(),
            device_time: time(&self.device_ns),
            last_second: time(&self.last_second_ns),
            jobs: self.jobs.load(Relaxed),
            slices: self.slices.load(Relaxed),
            queue_wait: time(&self.queue_wait_ns),
            outstanding: 0,
        }
    }
}

impl DeviceCounts {
    pub(crate) fn set_busy(&self, busy: Duration) {
        self.busy_ns.store(nanos(busy), Relaxed);
    }

    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Relaxed))
    }

    pub(crate) fn set_lost(&self, times: u64) {
        self.lost.store(times, Relaxed);
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}
