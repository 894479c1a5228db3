//! Several devices as one: where a lease is put, and whole devices for who asks for them.

use super::{
    capacity::{Free, place, refused},
    error::GpuError,
    gpu_device::GpuDevice,
    lease::{GpuLease, LeaseRequest},
};
use crate::resources::Fraction;

/// The devices of this process. Clones have the same devices. Each device counts what it gives away itself, so that
/// several may ask at once.
#[derive(Clone, Debug, Default)]
pub struct GpuManager {
    devices: Vec<GpuDevice>,
}

impl GpuManager {
    /// These devices, all of them for leases.
    pub fn new(devices: Vec<GpuDevice>) -> Self {
        Self { devices }
    }

    /// Its devices, in the order in which they were given.
    pub fn devices(&self) -> &[GpuDevice] {
        &self.devices
    }

    /// What each device has left.
    pub fn free(&self) -> Vec<Free> {
        self.devices.iter().map(GpuDevice::free).collect()
    }

    /// Leases for a request: one on the device where it fits best, or one on each of as many devices as it asks for.
    ///
    /// # Errors
    /// [`GpuError::Unplaceable`] with what is left, and nothing is taken; [`GpuError::NoDevice`] when those it fits on
    /// were lost and do not open.
    pub async fn acquire(&self, request: LeaseRequest) -> Result<Vec<GpuLease>, GpuError> {
        let count = request.share.whole_devices().unwrap_or(1);
        let each = LeaseRequest { share: request.share.min(Fraction::ONE), ..request };
        let needs: Vec<u64> = self.devices.iter().map(|device| device.quota(&each)).collect();
        let all: Vec<Free> = self.devices.iter().map(GpuDevice::all).collect();
        let mut free = self.free();
        let mut leases = Vec::new();
        let mut failed = None;
        while leases.len() < count as usize {
            let Some(device) = place(each.share, &needs, &free, &all) else {
                let memory_bytes = needs.iter().copied().max().unwrap_or(0);
                return Err(failed.unwrap_or_else(|| refused(request.share, memory_bytes, &self.free())));
            };
            match self.devices[device].lease(each).await {
                Ok(lease) => leases.push(lease),
                // Somebody else was faster.
                Err(GpuError::Unplaceable { .. }) => {}
                Err(error) => failed = Some(error),
            }
            // Each device is asked once.
            free[device] = Free { ten_thousandths: 0, memory_bytes: 0 };
        }
        Ok(leases)
    }
}
