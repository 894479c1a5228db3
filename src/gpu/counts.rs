//! What leases and devices did, as their device's thread last wrote it: read by anybody, without asking that thread.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
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
    failed: AtomicU64,
    slices: AtomicU64,
    over_quota: OnceLock<GpuError>,
}

/// What one device did. Written by its own thread alone.
#[derive(Debug, Default)]
pub(crate) struct DeviceCounts {
    busy_ns: AtomicU64,
    lost: AtomicU64,
    /// Written once a second, and when it changes.
    health: Mutex<Option<(Instant, DeviceHealth)>>,
}

/// A device's thread that has written nothing for so long is held up by its driver.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceHealth {
    /// Not while it was lost and does not open again.
    pub(crate) open: bool,
    /// Whether what it runs takes longer than it should.
    pub(crate) suspect: bool,
    /// How often it was given up because a job did not end.
    pub(crate) watchdog: u64,
    /// How long it took last to open it again.
    pub(crate) recovery: Option<Duration>,
    /// Devices that were lost and are not gone yet.
    pub(crate) abandoned: usize,
    /// Bytes that leases hold, by our count.
    pub(crate) leased_bytes: u64,
    /// Bytes in buffers by the device's own count.
    pub(crate) counted_bytes: Option<u64>,
}

impl Default for DeviceHealth {
    /// That of one that was opened just now.
    fn default() -> Self {
        Self {
            open: true,
            suspect: false,
            watchdog: 0,
            recovery: None,
            abandoned: 0,
            leased_bytes: 0,
            counted_bytes: None,
        }
    }
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
        self.failed.store(used.failed, Relaxed);
        self.slices.store(used.slices, Relaxed);
    }

    /// The lease has ended for the memory that it left in use.
    pub(crate) fn set_over_quota(&self, why: GpuError) {
        self.over_quota.get_or_init(|| why);
    }

    pub(crate) fn over_quota(&self) -> Option<&GpuError> {
        self.over_quota.get()
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
            jobs_failed: self.failed.load(Relaxed),
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

    pub(crate) fn set_health(&self, health: DeviceHealth) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), health));
    }

    pub(crate) fn health(&self) -> DeviceHealth {
        let told = *self.health.lock().unwrap_or_else(PoisonError::into_inner);
        told.map_or_else(DeviceHealth::default, |(at, health)| DeviceHealth {
            suspect: health.suspect || at.elapsed() > SILENT_MAX,
            ..health
        })
    }
}
