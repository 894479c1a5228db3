//! Leases on the device's thread: given, given back by whoever has them, taken back from who does not answer.

use std::{sync::Arc, time::Duration};

use super::{Core, tenant::Tenant};
use crate::gpu::{
    capacity::refused,
    counts::LeaseCounts,
    device::DeviceOps,
    error::GpuError,
    gpu_device::GpuDevice,
    lease::GpuLease,
    link::{Answer, Of, deliver},
    memory::MemoryAccount,
    shares::SharePolicy,
    ticket::{CapacityTicket, Ended},
};

impl<D: DeviceOps> Core<D> {
    /// A lease on a place that was taken.
    pub(super) fn acquire(
        &mut self,
        policy: SharePolicy,
        ticket: Arc<CapacityTicket>,
        device: GpuDevice,
        now: Duration,
    ) -> Result<GpuLease, GpuError> {
        ticket.check()?;
        self.ensure_open(now)?;
        if let Some(id) = self.tenant_on(&ticket) {
            // Renewed before: a place has one lease, or its share and its memory would be given twice. One that nobody
            // holds is about to go.
            let lease = ticket.lease().filter(|lease| lease.id() == id && !lease.is_lost());
            let free = || refused(ticket.share, ticket.memory_bytes, &[self.capacity.free()]);
            return lease.ok_or_else(free);
        }
        let (id, account) = (self.id(), MemoryAccount::new(ticket.memory_bytes));
        let counts = Arc::<LeaseCounts>::default();
        self.shares.join(id, ticket.share, policy, now);
        self.tenants.insert(id, Tenant::new(Arc::clone(&account), Arc::clone(&counts), Arc::clone(&ticket)));
        let lease = GpuLease::new(id, account, counts, policy, Arc::clone(&ticket), device);
        ticket.set_lease(&lease);
        Ok(lease)
    }

    fn tenant_on(&self, ticket: &CapacityTicket) -> Option<u64> {
        let mut tenants = self.tenants.iter();
        tenants.find(|(_, tenant)| std::ptr::eq(&*tenant.ticket, ticket)).map(|(id, _)| *id)
    }

    /// The lease that a request is of, if it is good.
    pub(super) fn tenant(&mut self, of: &Of) -> Result<&mut Tenant<D::Bound>, GpuError> {
        let current = self.link.epoch();
        if of.epoch != current {
            return Err(GpuError::OtherEpoch { own: of.epoch, current });
        }
        let tenant = self.tenants.get_mut(&of.lease).ok_or(GpuError::Released)?;
        tenant.ticket.check()?;
        if tenant.is_released() { Err(GpuError::Released) } else { Ok(tenant) }
    }

    /// Ends a lease: its jobs that wait fail now, what it has goes when its last slice has ended.
    pub(super) fn release(&mut self, lease: u64, answer: Option<Answer<()>>) {
        let Some(tenant) = self.tenants.get_mut(&lease) else {
            // Gone with an earlier epoch.
            if let Some(answer) = answer {
                deliver(answer, Ok(()));
            }
            return;
        };
        if answer.is_some() {
            // Its clones are of no use either.
            tenant.ticket.end(Ended::Released);
        }
        let why = tenant.ticket.check().err().unwrap_or(GpuError::Released);
        tenant.release(answer);
        self.compiling.refuse(lease, &why);
        self.shares.leave(lease);
        self.forget_if_ended(lease);
    }

    /// Ends a lease for whoever had it, and the place with it.
    pub(super) fn release_for(&mut self, lease: u64, ticket: &CapacityTicket, answer: Answer<()>) {
        if !self.tenants.contains_key(&lease) && self.tenant_on(ticket).is_none() {
            // It went with an earlier epoch, or for its memory, and was not renewed: nothing of it is on the device.
            ticket.end(Ended::Released);
            ticket.give_back_if_ended();
        }
        self.release(lease, Some(answer));
    }

    /// Ends the lease on a place that was taken back, whoever holds it.
    pub(super) fn take_back(&mut self, ticket: &Arc<CapacityTicket>) {
        match self.tenant_on(ticket) {
            Some(lease) => self.release(lease, None),
            // No lease yet, and now there will be none; or one that went with an earlier epoch.
            None => ticket.give_back_if_ended(),
        }
    }

    pub(super) fn forget_if_ended(&mut self, lease: u64) {
        if !self.tenants.get(&lease).is_some_and(Tenant::has_ended) {
            return;
        }
        self.buffers.retain(|_, held| held.lease != lease);
        self.kernels.retain(|_, compiled| compiled.lease != lease);
        if let Some(tenant) = self.tenants.remove(&lease) {
            tenant.counts.write(&tenant.used);
            tenant.ticket.give_back_if_ended();
            tenant.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::gpu::{DeviceOptions, DeviceSource, Fraction, GpuDevice, GpuError, LeaseRequest};

    #[test]
    fn a_lease_released_after_a_loss_gives_its_place_back_though_clones_live_unless_it_was_renewed() {
        let options = DeviceOptions { source: DeviceSource::Noop, ..DeviceOptions::default() };
        let device = GpuDevice::open(options).wait().unwrap();
        let lease = device.lease(LeaseRequest::new(Fraction::ONE)).wait().unwrap();
        device.lose().unwrap();
        device.status().wait().unwrap();
        let renewed = lease.renew().wait().unwrap();
        lease.release().wait().unwrap();
        assert_eq!(device.free().ten_thousandths, 0, "the renewed lease has it");
        renewed.create_buffer(4).wait().unwrap();

        device.lose().unwrap();
        device.status().wait().unwrap();
        let clone = renewed.clone();
        renewed.release().wait().unwrap();
        assert_eq!(device.free(), device.all());
        assert!(!device.is_being_left());
        assert_eq!(clone.renew().wait().unwrap_err(), GpuError::Released);
    }
}
