//! What the replicas of a backend have of GPUs and did there, by slot and device. Counters go on when a lease is renewed
//! or its replica replaced.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::gpu::{LeaseGauge, LeaseStatus};

/// The leases of one backend.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable(Mutex<BTreeMap<(u32, usize), Row>>);

#[derive(Debug)]
struct Row {
    /// When the slot first had a share of the device.
    since: Instant,
    /// Of the leases that were here before.
    past: Past,
    now: LeaseGauge,
}

/// What only grows.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    device_time: Duration,
    queue_wait: Duration,
    jobs: u64,
    jobs_failed: u64,
    slices: u64,
}

impl Past {
    fn with(self, lease: &LeaseStatus) -> Self {
        Self {
            device_time: self.device_time + lease.device_time,
            queue_wait: self.queue_wait + lease.queue_wait,
            jobs: self.jobs + lease.jobs,
            jobs_failed: self.jobs_failed + lease.jobs_failed,
            slices: self.slices + lease.slices,
        }
    }
}

/// What is known of a slot's share of one device.
pub(crate) struct LeaseReading {
    pub(crate) slot: u32,
    pub(crate) device: usize,
    /// With the counts of the leases before.
    pub(crate) lease: LeaseStatus,
    /// Whether it has the share now.
    pub(crate) live: bool,
    /// Since when the slot has had it, or one before.
    pub(crate) since: Instant,
}

impl LeaseTable {
    /// A replica in this slot has a lease on this device: a new one, or that which it had.
    pub(crate) fn enter(&self, slot: u32, device: usize, now: LeaseGauge) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rows.get(&(slot, device));
        if before.is_some_and(|row| row.now.is_same(&now)) {
            // Of two leases one was lost, and both were renewed.
            return;
        }
        let past = before.map(|row| row.past.with(&row.now.read())).unwrap_or_default();
        let since = before.map_or_else(Instant::now, |row| row.since);
        rows.insert((slot, device), Row { since, past, now });
    }

    /// Each slot's share of each device that it has or had.
    pub(crate) fn read(&self) -> Vec<LeaseReading> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(key, row): (&(u32, usize), &Row)| {
            let lease = row.now.read();
            let Past { device_time, queue_wait, jobs, jobs_failed, slices } = row.past.with(&lease);
            let lease = LeaseStatus { device_time, queue_wait, jobs, jobs_failed, slices, ..lease };
            LeaseReading { slot: key.0, device: key.1, lease, live: row.now.is_live(), since: row.since }
        };
        rows.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{DeviceOptions, DeviceSource, Fraction, GpuDevice, LeaseRequest};

    #[test]
    fn a_lease_that_was_good_when_it_was_renewed_counts_once() {
        let options = DeviceOptions { source: DeviceSource::Noop, ..DeviceOptions::default() };
        let device = GpuDevice::open(options).wait().unwrap();
        let lease = device.lease(LeaseRequest::new(Fraction::ONE)).wait().unwrap();
        let table = LeaseTable::default();
        table.enter(0, 0, lease.gauge());
        let buffer = lease.create_buffer(4).wait().unwrap();
        lease.write(&buffer, 0, vec![1; 4]).wait().unwrap();
        device.status().wait().unwrap();
        let renewed = lease.renew().wait().unwrap();
        table.enter(0, 0, renewed.gauge());
        assert_eq!(table.read()[0].lease.jobs, 1);
        device.lose().unwrap();
        device.status().wait().unwrap();
        table.enter(0, 0, lease.renew().wait().unwrap().gauge());
        assert_eq!(table.read()[0].lease.jobs, 1, "of the lease before");
    }
}
