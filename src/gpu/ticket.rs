//! A place on a device, share and memory together: taken before its lease is had, and given back once, in truth.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{
    capacity::Capacity,
    error::GpuError,
    lease::{GpuLease, WeakLease},
};
use crate::resources::Fraction;

/// How a place came to its end although somebody may have its lease still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Whoever had the lease released it.
    Released,
    /// It was taken back from whoever had the lease.
    Revoked,
}

/// A share and memory of a device that are taken: given back with the last who has it, or when it has ended and nothing
/// of its lease is on the device any more, whoever has it then.
#[derive(Debug)]
pub(crate) struct CapacityTicket {
    capacity: Arc<Capacity>,
    pub(crate) share: Fraction,
    pub(crate) memory_bytes: u64,
    ended: OnceLock<Ended>,
    given_back: AtomicBool,
    /// Whether it comes back with a replica, and not before.
    kept: AtomicBool,
    /// The lease that has it now. A place has one at a time, however often it is renewed.
    lease: Mutex<Option<WeakLease>>,
}

impl CapacityTicket {
    /// Of what was taken from `capacity`.
    pub(super) fn new(capacity: &Arc<Capacity>, share: Fraction, memory_bytes: u64) -> Self {
        let (ended, given_back, lease) = (OnceLock::new(), AtomicBool::new(false), Mutex::default());
        let (capacity, kept) = (Arc::clone(capacity), AtomicBool::new(false));
        Self { capacity, share, memory_bytes, ended, given_back, kept, lease }
    }

    /// From now on whoever has a lease on it cannot release it: it is a replica's, which is counted as having it.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }

    /// Whether it comes back with a replica, and not before.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// Whether it is good still.
    ///
    /// # Errors
    /// How it ended.
    pub(crate) fn check(&self) -> Result<(), GpuError> {
        match self.ended.get() {
            None => Ok(()),
            Some(Ended::Released) => Err(GpuError::Released),
            Some(Ended::Revoked) => Err(GpuError::Revoked),
        }
    }

    /// Nobody can use it from now on; it is free when [`give_back_if_ended`](Self::give_back_if_ended) says so.
    pub(crate) fn end(&self, how: Ended) {
        // Counted before it is seen: whoever gives it back takes it off the count.
        self.capacity.leaves();
        if self.ended.set(how).is_err() {
            self.capacity.left();
        }
    }

    /// For who knows that nothing of its lease is on the device.
    pub(crate) fn give_back_if_ended(&self) {
        if self.ended.get().is_some() {
            self.give_back();
        }
    }

    fn give_back(&self) {
        if self.given_back.swap(true, Ordering::AcqRel) {
            return;
        }
        self.capacity.give(self.share, self.memory_bytes);
        if self.ended.get().is_some() {
            self.capacity.left();
        }
    }

    /// The lease that has it, if anybody holds that.
    pub(crate) fn lease(&self) -> Option<GpuLease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(WeakLease::upgrade)
    }

    pub(crate) fn set_lease(&self, lease: &GpuLease) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease.downgrade());
    }
}

impl Drop for CapacityTicket {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::gpu::{
        DeviceOptions, DeviceSource, GpuDevice, Job, KernelSpec, LeaseRequest, SharePolicy, SimulatedDevice,
    };

    const ALL: u32 = crate::resources::WHOLE;

    /// A device whose kernels take so long a workgroup, and the place that is all of it.
    fn whole(workgroup: Duration) -> (GpuDevice, Arc<CapacityTicket>) {
        let spec = SimulatedDevice { workgroup, memory_bytes: 1 << 20, ..Default::default() };
        let source = DeviceSource::Simulated(spec);
        let suspect_after = Duration::from_millis(1);
        let options = DeviceOptions { source, suspect_after, ..Default::default() };
        let device = GpuDevice::open(options).wait().unwrap();
        let ticket = device.reserve(&LeaseRequest::new(Fraction::ONE)).unwrap();
        assert_eq!(device.free().ten_thousandths, 0);
        (device, ticket)
    }

    fn lease(device: &GpuDevice, ticket: &Arc<CapacityTicket>) -> Result<GpuLease, GpuError> {
        device.lease_on(Arc::clone(ticket), SharePolicy::default()).wait()
    }

    #[test]
    fn a_place_taken_back_is_free_when_its_last_slice_has_ended_whoever_holds_the_lease() {
        let (device, ticket) = whole(Duration::from_millis(300));
        let lease = lease(&device, &ticket).unwrap();
        let (buffer, kernel) = (
            lease.create_buffer(1 << 16).wait().unwrap(),
            lease.create_kernel(KernelSpec::new("")).wait().unwrap(),
        );
        let job = || lease.submit(Job::new().dispatch(&kernel, &[&buffer], [1, 1, 1]));
        // From now on it is known what one takes, and they run one at a time.
        job().wait().unwrap();
        let (runs, waits) = (job(), job());
        while !device.status().wait().unwrap().suspect {
            thread::yield_now();
        }
        device.take_back(ticket);
        assert_eq!(waits.wait().unwrap_err(), GpuError::Revoked);
        assert!(device.is_being_left());
        assert_eq!((device.free().ten_thousandths, lease.memory_used_bytes()), (0, 1 << 16));
        assert_eq!(lease.create_buffer(4).wait().unwrap_err(), GpuError::Revoked);
        runs.wait().unwrap();
        device.status().wait().unwrap();
        assert!(!device.is_being_left());
        assert_eq!((device.free().ten_thousandths, lease.memory_used_bytes()), (ALL, 0));
        assert!(device.status().wait().unwrap().leases.is_empty());
        for refused in [lease.renew().wait().map(drop), lease.write(&buffer, 0, vec![0; 4]).wait().map(drop)]
        {
            assert_eq!(refused.unwrap_err(), GpuError::Revoked);
        }
        drop((buffer, kernel, lease));
        device.status().wait().unwrap();
        assert_eq!(device.free().ten_thousandths, ALL, "given back once");
    }

    #[test]
    fn a_place_taken_back_before_its_lease_is_had_gives_none() {
        let (device, ticket) = whole(Duration::ZERO);
        device.take_back(Arc::clone(&ticket));
        assert_eq!(lease(&device, &ticket).unwrap_err(), GpuError::Revoked);
        assert_eq!(device.free().ten_thousandths, ALL);
        assert!(!device.is_being_left());
    }

    #[test]
    fn a_place_taken_back_after_a_loss_is_not_renewed() {
        let (device, ticket) = whole(Duration::ZERO);
        let lease = lease(&device, &ticket).unwrap();
        device.lose().unwrap();
        device.status().wait().unwrap();
        device.take_back(ticket);
        assert_eq!(lease.renew().wait().unwrap_err(), GpuError::Revoked);
        let until = Instant::now() + Duration::from_secs(10);
        while device.free().ten_thousandths != ALL && Instant::now() < until {
            thread::yield_now();
        }
        assert_eq!(device.free().ten_thousandths, ALL);
    }
}
