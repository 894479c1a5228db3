//! What the device's thread tells of its leases, and the steps of a job as slices take them.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Core, tenant::Running};
use crate::gpu::{
    counts::DeviceHealth,
    device::DeviceOps,
    job::Step,
    slices::Slice,
    status::{DeviceStatus, LeaseStatus},
};

impl<D: DeviceOps> Core<D> {
    /// Closes the seconds that have gone by. A slice that runs counts in them up to their end.
    pub(super) fn roll(&mut self, now: Duration) {
        let running = self.flights.front().map(|first| first.lease);
        let Some(over) = self.second.roll(now, running.map(|_| self.progress_at)) else { return };
        for (lease, tenant) in &mut self.tenants {
            let ended = std::mem::take(&mut tenant.used.this_second);
            let ended = if over.counted { ended } else { Duration::ZERO };
            let runs = if running == Some(*lease) { over.running } else { Duration::ZERO };
            tenant.used.last_second = ended + runs;
            tenant.counts.write(&tenant.used);
        }
        self.tell(now);
    }

    /// Writes down how the device is, for whoever does not ask this thread.
    pub(super) fn tell(&self, now: Duration) {
        self.link.seen.set_health(DeviceHealth {
            open: !self.is_shut(),
            suspect: self.is_suspect(now),
            watchdog: self.losses.watchdog,
            recovery: self.losses.recovery,
            abandoned: self.device.abandoned(),
            leased_bytes: self.leased_bytes(),
            counted_bytes: self.device.counted_bytes(),
        });
    }

    fn leased_bytes(&self) -> u64 {
        self.tenants.values().map(|tenant| tenant.account.made()).sum()
    }

    pub(super) fn status(&mut self, now: Duration) -> DeviceStatus {
        self.roll(now);
        let leases = self.tenants.iter().map(|(id, tenant)| LeaseStatus {
            id: *id,
            share: tenant.ticket.share,
            quota_bytes: tenant.account.quota(),
            used_bytes: tenant.account.used(),
            peak_bytes: tenant.account.peak(),
            device_time: tenant.used.device_time,
            last_second: tenant.used.last_second,
            jobs: tenant.used.jobs,
            jobs_failed: tenant.used.failed,
            slices: tenant.used.slices,
            queue_wait: tenant.used.queue_wait,
            outstanding: tenant.jobs.len(),
        });
        DeviceStatus {
            leases: leases.collect(),
            facts: self.device.facts().clone(),
            epoch: self.link.epoch(),
            free: self.capacity.free(),
            uptime: now,
            busy: self.busy,
            suspect: self.is_suspect(now),
            lost: self.losses.count,
            watchdog: self.losses.watchdog,
            recovery: self.losses.recovery,
            abandoned: self.device.abandoned(),
            leased_bytes: self.leased_bytes(),
            counted_bytes: self.device.counted_bytes(),
        }
    }
}

impl<B> Running<B> {
    /// Goes past what a slice takes.
    pub(super) fn advance(&mut self, slice: &Slice) {
        for units in &slice.units {
            self.units += units;
            let all = match &self.steps[self.step] {
                Step::Dispatch { kernel, grid, .. } => {
                    kernel.0.split.map_or(1, |split| grid[split.axis.index()])
                }
                Step::Write { bytes, .. } => super::slicing::units_of(bytes.len() as u64),
                Step::Read { bytes, .. } => super::slicing::units_of(*bytes),
            };
            if self.units >= all {
                (self.step, self.units) = (self.step + 1, 0);
            }
        }
    }

    /// A step's immediates, with the first workgroup of the piece where the kernel looks for it.
    pub(super) fn immediates(&self, step: usize, from: u32) -> SmallVec<[u8; 32]> {
        let Step::Dispatch { kernel, immediates, .. } = &self.steps[step] else { return SmallVec::new() };
        let mut immediates = immediates.clone();
        if let Some(split) = kernel.0.split {
            let at = split.immediate_offset as usize;
            if immediates.len() < at + 4 {
                immediates.resize(at + 4, 0);
            }
            immediates[at..at + 4].copy_from_slice(&from.to_le_bytes());
        }
        immediates
    }
}
