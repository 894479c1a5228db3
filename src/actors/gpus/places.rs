//! The places on devices that a replica has taken: by its own thread, and taken back by the Controller, as that thread
//! may hang.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::gpu::{CapacityTicket, GpuDevice, GpuError, GpuLease, LeaseRequest};

/// How long a place is asked for again while whoever had it before is still on the way out.
const LEAVING_MAX: Duration = Duration::from_secs(2);
const LEAVING_LOOK: Duration = Duration::from_millis(5);

/// The places of one replica. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    /// The replica is gone: none is to be taken any more.
    over: bool,
    places: Vec<(GpuDevice, Weak<CapacityTicket>)>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease on this device, whose place is claimed: what had it before may not be gone quite yet.
    pub(super) async fn acquire(
        &self,
        device: &GpuDevice,
        request: LeaseRequest,
    ) -> Result<GpuLease, GpuError> {
        let late = Instant::now() + LEAVING_MAX;
        let ticket = loop {
            match self.take(device, &request) {
                // While the last slices of another run it is a matter of time, which whoever asks has bounded.
                Err(GpuError::Unplaceable { .. }) if device.is_being_left() || Instant::now() < late => {
                    sleep(LEAVING_LOOK).await;
                }
                taken => break taken?,
            }
        };
        device.lease_on(ticket, request.policy).await
    }

    fn take(&self, device: &GpuDevice, request: &LeaseRequest) -> Result<Arc<CapacityTicket>, GpuError> {
        let mut taken = self.lock();
        if taken.over {
            return Err(GpuError::Revoked);
        }
        let ticket = device.reserve(request)?;
        ticket.keep();
        // Those of leases that were lost and not renewed.
        taken.places.retain(|(_, ticket)| ticket.strong_count() > 0);
        taken.places.push((device.clone(), Arc::downgrade(&ticket)));
        Ok(ticket)
    }

    fn take_back(&self) {
        let mut taken = self.lock();
        taken.over = true;
        for (device, ticket) in taken.places.drain(..) {
            ticket.upgrade().into_iter().for_each(|ticket| device.take_back(ticket));
        }
    }
}

/// What holds a replica's places for it. With its end they are taken back, whatever the replica's thread does: the
/// jobs of its leases fail, later uses too, and each place is free when the last slice there has ended.
#[derive(Default)]
pub(crate) struct Tenure(Option<Places>);

impl Tenure {
    pub(super) fn new(places: &Places) -> Self {
        Self(Some(places.clone()))
    }

    /// Ends it before it is dropped.
    pub(crate) fn end(&self) {
        self.0.iter().for_each(Places::take_back);
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.end();
    }
}
