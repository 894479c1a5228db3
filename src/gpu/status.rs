//! What a device and its leases did: for metrics, the dashboard and the benches.

use std::time::Duration;

use super::{capacity::Free, device::DeviceFacts};
use crate::resources::Fraction;

/// A device at one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeviceStatus {
    /// What it is.
    pub facts: DeviceFacts,
    /// How often it was opened.
    pub epoch: u64,
    /// Share and memory that no lease has.
    pub free: Free,
    /// How long it is scheduled already.
    pub uptime: Duration,
    /// Device time of all slices.
    pub busy: Duration,
    /// Whether the slice at its head has run for longer than any should.
    pub suspect: bool,
    /// How often it was lost.
    pub lost: u64,
    /// How often of these because a job did not end.
    pub watchdog: u64,
    /// How long it took last to open it again.
    pub recovery: Option<Duration>,
    /// Devices that were lost and are not gone yet: each has a thread, and perhaps a job that runs on.
    pub abandoned: usize,
    /// Bytes that leases hold, by our count.
    pub leased_bytes: u64,
    /// Bytes in buffers by the device's own count, without what it holds for itself; `None` where it does not count.
    /// More than `leased_bytes` while something that was just dropped is still in use.
    pub counted_bytes: Option<u64>,
    /// Each lease, in the order in which they came.
    pub leases: Vec<LeaseStatus>,
}

/// A lease at one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LeaseStatus {
    /// Its number on this device.
    pub id: u64,
    /// The share it was promised.
    pub share: Fraction,
    /// The most memory it may hold.
    pub quota_bytes: u64,
    /// The memory it holds.
    pub used_bytes: u64,
    /// The most it ever held.
    pub peak_bytes: u64,
    /// Device time it has had.
    pub device_time: Duration,
    /// Device time that it had in the last whole second.
    pub last_second: Duration,
    /// Jobs that ended, well or not.
    pub jobs: u64,
    /// How many of them came to nothing: they failed, or their callers had left.
    pub jobs_failed: u64,
    /// Slices that ended.
    pub slices: u64,
    /// How long its jobs waited for their first slice, all together.
    pub queue_wait: Duration,
    /// Jobs that wait or run.
    pub outstanding: usize,
}
